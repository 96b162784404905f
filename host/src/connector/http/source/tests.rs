use std::task::Waker;

use super::*;
use crate::{ledger::Ledger, queue::Queue};

struct Rig {
    taking: Taking,
    posts: mpsc::Sender<Post>,
    queue: Arc<Queue>,
}

impl Rig {
    /// With credit for so many messages.
    fn new(messages: usize) -> Self {
        let queue = Queue::new(Waker::noop().clone());
        let (post, _) = post(0, Instant::now());
        let ledger = Ledger::new(messages * post.batch("edge-1").bytes_held());
        let (tx, posts) = mpsc::channel(8);
        let door = SourceDoor::new(0, queue.clone(), ledger).in_any_order();
        let taking = Taking::new(posts, door, "edge-1".to_owned(), Status::new());
        Rig { taking, posts: tx, queue }
    }

    fn post(&self, number: u8) -> oneshot::Receiver<Outcome> {
        self.post_until(number, Instant::now() + 60 * CREDIT_WITHIN)
    }

    fn post_until(&self, number: u8, until: Instant) -> oneshot::Receiver<Outcome> {
        let (post, outcome) = post(number, until);
        self.posts.try_send(post).expect("there is room");
        outcome
    }

    fn poll(&mut self) -> bool {
        self.taking.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}

fn post(number: u8, until: Instant) -> (Post, oneshot::Receiver<Outcome>) {
    let (outcome, told) = oneshot::channel();
    let post = Post {
        topic: "t".to_owned(),
        content_type: None,
        properties: Vec::new(),
        bodies: vec![Bytes::from(vec![number])],
        request: None,
        until,
        outcome,
    };
    (post, told)
}

#[tokio::test]
async fn requests_are_answered_when_they_are_settled_and_not_before() {
    let mut rig = Rig::new(4);
    let mut outcomes = [rig.post(1), rig.post(2)];
    assert!(!rig.poll());
    let deliveries = [rig.queue.pop().expect("delivered"), rig.queue.pop().expect("delivered")];
    for (delivery, outcome) in deliveries.into_iter().zip(&mut outcomes) {
        assert!(outcome.try_recv().is_err());
        delivery.settle.ack();
        assert!(!rig.poll());
        assert_eq!(outcome.try_recv(), Ok(Outcome::Settled { given_up: 0 }));
    }
}

#[tokio::test]
async fn whoever_gets_no_credit_in_time_is_sent_away_and_the_next_may_have_it() {
    let mut rig = Rig::new(1);
    let (mut first, mut second) = (rig.post(1), rig.post_until(2, Instant::now()));
    assert!(!rig.poll());
    let delivery = rig.queue.pop().expect("there is credit for one");
    let mut third = rig.post(3);
    while second.is_empty() {
        assert!(!rig.poll());
        tokio::task::yield_now().await;
    }
    assert_eq!(second.try_recv(), Ok(Outcome::NoRoom));
    assert!(third.try_recv().is_err(), "it may wait longer");
    delivery.settle.ack();
    drop((delivery.credit, delivery.batch));
    assert!(!rig.poll());
    assert_eq!(first.try_recv(), Ok(Outcome::Settled { given_up: 0 }));
    rig.queue.pop().expect("the third has the credit").settle.ack();
    assert!(!rig.poll());
    assert_eq!(third.try_recv(), Ok(Outcome::Settled { given_up: 0 }));
}

#[tokio::test]
async fn a_source_that_stops_answers_what_it_took_and_turns_the_others_away() {
    for gone in [false, true] {
        let mut rig = Rig::new(1);
        let (mut taken, mut held) = (rig.post(1), rig.post(2));
        assert!(!rig.poll());
        let mut waiting = rig.post(3);
        let delivery = rig.queue.pop().expect("delivered");
        rig.taking.stop();
        assert_eq!((held.try_recv(), waiting.try_recv()), (Ok(Outcome::Gone), Ok(Outcome::Gone)));
        assert!(rig.posts.is_closed());
        assert!(!rig.poll(), "one is not settled");
        if gone {
            delivery.settle.abandon();
        } else {
            delivery.settle.ack();
        }
        assert!(rig.poll());
        let expected = if gone { Outcome::Gone } else { Outcome::Settled { given_up: 0 } };
        assert_eq!(taken.try_recv(), Ok(expected));
    }
}
