use super::*;
use crate::{
    batch::BatchBuilder,
    connector::stop::Farewell,
    ledger::Ledger,
    queue::Queue,
    topic::TopicTemplate,
    write::{Confirmed, Confirms},
};

fn batch(payload: &str) -> Batch {
    let mut builder = BatchBuilder::new("edge-1");
    builder.push(b"t", None, payload.as_bytes(), []);
    builder.finish()
}

fn poll(source: &mut MemorySource) -> bool {
    source.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_source_delivers_as_far_as_there_is_credit_and_ends_when_all_is_settled() {
    let queue = Queue::new(Waker::noop().clone());
    let ledger = Ledger::new(2 * batch("1").bytes_held());
    let (mut source, feed) = source(SourceDoor::new(0, queue.clone(), ledger), Stop::default());
    assert!(!poll(&mut source));
    for payload in ["1", "2", "3"] {
        feed.push(batch(payload));
    }
    feed.close();
    assert!(!poll(&mut source));
    assert_eq!((queue.len(), feed.waiting()), (2, 1));
    for settled in 1..=3 {
        queue.pop().expect("there is credit for it").settle.ack();
        assert_eq!(poll(&mut source), settled == 3);
        assert_eq!((feed.settled(), feed.waiting()), (settled, 0));
    }
}

#[test]
fn a_source_ends_when_it_is_stopped_or_its_dataflow_is_gone() {
    for gone in [false, true] {
        let queue = Queue::new(Waker::noop().clone());
        let stop = Stop::default();
        let (mut source, feed) = source(SourceDoor::new(0, queue.clone(), Ledger::new(1000)), stop.clone());
        feed.push(batch("1"));
        assert!(!poll(&mut source));
        let delivery = queue.pop().expect("delivered");
        stop.stop(Farewell::UntilLater);
        feed.push(batch("2"));
        assert!(!poll(&mut source), "one is not settled");
        if gone {
            delivery.settle.abandon()
        } else {
            delivery.settle.ack()
        }
        assert!(poll(&mut source));
        assert_eq!(feed.waiting(), 1, "nothing is taken any more");
    }
}

#[test]
fn a_sink_answers_by_its_script() {
    let queue = SinkQueue::new(1000);
    let confirms = Confirms::new(Waker::noop().clone());
    let template = TopicTemplate::parse("t").expect("valid");
    let destination = Arc::new(Destination {
        name: "t/d/out".into(),
        topic: template,
        write_grants: Vec::new(),
        headers: Default::default(),
    });
    let answer = |batch: &Batch| match batch.entries[0].payload.bytes(&batch.arena) {
        b"bad" => Answer::Confirm(vec![Rejected { index: 0, reason: "bad".into() }]),
        b"held" => Answer::Hold,
        b"gone" => Answer::Discard,
        _ => Answer::Confirm(Vec::new()),
    };
    let (mut sink, collected) = sink(queue.clone(), Box::new(answer));
    for (id, payload) in ["good", "held", "bad", "gone"].into_iter().enumerate() {
        queue.push(Write::new(id as u64, batch(payload), destination.clone(), confirms.clone()));
    }
    let mut ctx = Context::from_waker(Waker::noop());
    assert!(sink.poll(&mut ctx).is_pending());
    let confirmed = || {
        let mut confirmed = Vec::new();
        confirms.take(&mut confirmed);
        confirmed.into_iter().map(|Confirmed { id, rejected }| (id, rejected)).collect::<Vec<_>>()
    };
    assert_eq!(confirmed(), [(0, vec![]), (2, vec![(0, "bad".into())]), (3, vec![])]);
    assert_eq!(collected.take_payloads(), [&b"good"[..], b"held", b"bad"]);
    assert_eq!(collected.held(), 1);
    collected.confirm(5);
    assert_eq!(confirmed(), [(1, vec![])]);
    queue.close();
    assert!(sink.poll(&mut ctx).is_ready());
}
