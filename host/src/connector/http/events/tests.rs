use super::*;

fn check(topic: &str, payload: &[u8], expected: &str) {
    assert_eq!(event(7, topic, payload), expected.as_bytes());
}

#[test]
fn an_event_has_a_line_for_each_of_its_payload_and_base64_for_bytes() {
    check("a/b", b"one", "id: 7\nevent: message\ntopic: a/b\ndata: one\n\n");
    check(
        "a",
        b"1\n\r\n2\r3\n",
        "id: 7\nevent: message\ntopic: a\ndata: 1\ndata: \ndata: 2\ndata: 3\ndata: \n\n",
    );
    check("a", b"", "id: 7\nevent: message\ntopic: a\ndata: \n\n");
    check("a", b"\xff\x00", "id: 7\nevent: binary\ntopic: a\ndata: /wA=\n\n");
    // Nobody writes lines of their own through a topic.
    check("a\ndata: x", b"1", "id: 7\nevent: message\ndata: 1\n\n");
}

fn all(listener: &Listener) -> Vec<String> {
    let mut ctx = Context::from_waker(Waker::noop());
    let next = || match listener.poll_next(&mut ctx) {
        Poll::Ready(Some(event)) => Some(String::from_utf8_lossy(&event).into_owned()),
        _ => None,
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn a_slow_listener_loses_the_oldest_and_is_told() {
    let listener = Listener::new(TopicFilter::parse("#").unwrap());
    let pushed = HELD_MAX + 3;
    let lost: u64 = (0..pushed).map(|number| listener.push(Bytes::from(number.to_string()))).sum();
    assert_eq!(lost, 3);
    let seen = all(&listener);
    assert_eq!(seen[..2], ["event: lost\ndata: 3\n\n", "3"]);
    assert_eq!(seen.len(), HELD_MAX + 1);
    listener.push(Bytes::from_static(b"next"));
    assert_eq!(all(&listener), ["next"], "it is told once");
}

#[test]
fn bytes_that_wait_are_bounded_and_one_event_may_pass_the_bound() {
    let listener = Listener::new(TopicFilter::parse("#").unwrap());
    let large = Bytes::from(vec![b'x'; HELD_BYTES_MAX / 2 + 1]);
    assert_eq!((listener.push(large.clone()), listener.push(large)), (0, 1));
    assert_eq!(listener.push(Bytes::from(vec![b'y'; HELD_BYTES_MAX * 2])), 1);
    assert_eq!(all(&listener).len(), 2, "that one, and that two are lost");
    assert_eq!(listener.lock().bytes, 0);
}

#[test]
fn a_listener_is_given_what_waits_before_it_ends() {
    let listener = Listener::new(TopicFilter::parse("#").unwrap());
    listener.push(Bytes::from_static(b"last"));
    listener.end();
    assert_eq!(all(&listener), ["last"]);
    assert_eq!(listener.poll_next(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
}
