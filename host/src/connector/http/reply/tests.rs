use super::*;
use crate::batch::BatchBuilder;

fn reply(payload: &str) -> Reply {
    Reply { headers: HeaderMap::new(), body: Bytes::from(payload.to_owned()) }
}

#[test]
fn the_first_message_of_the_same_tenant_is_the_reply_while_it_is_waited_for() {
    let replies = Arc::<Replies>::default();
    let awaited = replies.expect("a");
    let id = awaited.id.clone().into_bytes();
    for (id, tenant, payload) in [
        (&id, "b", "somebody else's"),
        (&b"other".to_vec(), "a", "no request"),
        (&id, "a", "1"),
        (&id, "a", "2"),
    ] {
        replies.give(id, tenant, || reply(payload));
    }
    assert_eq!(awaited.take().expect("there is one").body, "1");
    assert!(awaited.take().is_none());
    drop(awaited);
    replies.give(&id, "a", || panic!("nobody waits"));
    assert!(replies.lock().is_empty());
}

#[test]
fn a_message_becomes_an_answer_with_its_content_type_and_extensions_alone() {
    let mut builder = BatchBuilder::new("edge-1");
    let properties: [(&[u8], &[u8]); 6] = [
        (b"x-trace", b"7"),
        (b"X-Trace", b"8"),
        (b"set-cookie", b"a=b"),
        (b"__request", b"id"),
        (b"x-bad", b"a\r\nset-cookie: c"),
        (b"x-no name", b"1"),
    ];
    builder.push(b"t", Some("text/plain"), b"body", properties);
    let batch = builder.finish();
    let (reply, removed) = Reply::of(&batch.entries[0], &batch);
    assert_eq!(removed, 2);
    let headers: Vec<_> =
        reply.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("content-type", "text/plain"), ("x-trace", "7"), ("x-trace", "8")]);
    assert_eq!(reply.body, "body");
}
