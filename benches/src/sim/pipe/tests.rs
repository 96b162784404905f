use super::*;

#[test]
fn bytes_arrive_late_and_in_order_whatever_the_chunks() {
    let mut stage = Stage::new(1);
    let mut pipe = Pipe::default();
    let sent: Vec<u8> = (0..3_000u16).map(|byte| byte as u8).collect();
    pipe.send(&mut BytesMut::from(&sent[..]), &mut stage);
    assert_eq!(pipe.receive(stage.now), None, "nothing is there at once");
    let (mut received, mut sizes) = (Vec::new(), Vec::new());
    while let Some(at) = pipe.next_at() {
        assert!(stage.now <= at);
        stage.now = at;
        let chunk = pipe.receive(at).expect("it has arrived");
        sizes.push(chunk.len());
        received.extend_from_slice(&chunk);
    }
    assert_eq!(received, sent);
    sizes.dedup();
    assert!(sizes.len() > 5, "{sizes:?}");
}

#[test]
fn a_full_pipe_takes_no_more_until_it_is_read() {
    let mut stage = Stage::new(1);
    let mut pipe = Pipe::default();
    let mut bytes = BytesMut::zeroed(BYTES_MAX + 100);
    pipe.send(&mut bytes, &mut stage);
    assert_eq!(bytes.len(), 100);
    pipe.send(&mut bytes, &mut stage);
    assert_eq!(bytes.len(), 100);
    let chunk = pipe.receive_early().expect("there is much");
    pipe.send(&mut bytes, &mut stage);
    assert_eq!(bytes.len(), 100usize.saturating_sub(chunk.len()));
}
