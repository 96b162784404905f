use std::{sync::Arc, task::Waker};

use super::*;
use crate::{
    batch::BatchBuilder,
    topic::TopicTemplate,
    write::{Confirmed, Confirms, Destination},
};

struct Writes {
    confirms: Arc<Confirms>,
    destination: Arc<Destination>,
    made: u64,
}

impl Writes {
    fn new() -> Self {
        let destination = Destination {
            name: "a/flow/out".to_owned(),
            topic: TopicTemplate::parse("t").unwrap(),
            write_grants: Vec::new(),
            headers: Default::default(),
        };
        Writes { confirms: Confirms::new(Waker::noop().clone()), destination: Arc::new(destination), made: 0 }
    }

    /// A write with a message for each topic.
    fn add(&mut self, topics: &[&str], backlog: &mut Backlog) {
        let mut builder = BatchBuilder::new("edge-1");
        topics.iter().for_each(|topic| builder.push(topic.as_bytes(), None, b"1", []));
        let batch = builder.finish();
        let message =
            |(entry, topic): (_, &&str)| Message::of(entry, &batch, topic.as_bytes(), "k").unwrap().0;
        let messages = (0..).zip(batch.entries.iter().zip(topics).map(message)).collect();
        let write = Write::new(self.made, batch, self.destination.clone(), self.confirms.clone());
        self.made += 1;
        backlog.add(write, messages, Vec::new());
    }

    fn confirmed(&self) -> Vec<(u64, Vec<(u32, String)>)> {
        let mut confirmed = Vec::new();
        self.confirms.take(&mut confirmed);
        confirmed.into_iter().map(|Confirmed { id, rejected }| (id, rejected)).collect()
    }
}

fn all(backlog: &mut Backlog) -> Vec<Job> {
    std::iter::from_fn(|| backlog.next().map(|(job, _)| job)).collect()
}

fn topics(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| std::str::from_utf8(&job.topic).unwrap()).collect()
}

#[test]
fn one_message_of_a_topic_is_under_way_and_topics_take_turns() {
    let (mut writes, mut backlog) = (Writes::new(), Backlog::default());
    writes.add(&["a", "a", "b"], &mut backlog);
    writes.add(&["a", "c"], &mut backlog);
    let jobs = all(&mut backlog);
    assert_eq!(topics(&jobs), ["a", "b", "c"]);
    assert_eq!(jobs[0].place, Place { write: 0, index: 0 });
    for job in jobs {
        backlog.done(job, None);
    }
    assert!(writes.confirmed().is_empty(), "of each write one is left");
    for expected in [Place { write: 0, index: 1 }, Place { write: 1, index: 0 }] {
        let mut jobs = all(&mut backlog);
        assert_eq!(jobs.len(), 1);
        let job = jobs.remove(0);
        assert_eq!(job.place, expected, "in order");
        backlog.done(job, None);
        assert_eq!(writes.confirmed(), [(expected.write, Vec::new())]);
    }
    assert!(backlog.is_empty() && backlog.topics.is_empty() && backlog.bytes() == 0);
}

#[test]
fn a_write_is_confirmed_with_what_was_refused_of_it() {
    let (mut writes, mut backlog) = (Writes::new(), Backlog::default());
    writes.add(&["a", "b"], &mut backlog);
    writes.add(&[], &mut backlog);
    assert_eq!(writes.confirmed(), [(1, Vec::new())], "there is nothing to send");
    let mut jobs = all(&mut backlog);
    backlog.done(jobs.remove(1), Some("404".to_owned()));
    assert!(writes.confirmed().is_empty());
    backlog.done(jobs.remove(0), None);
    assert_eq!(writes.confirmed(), [(0, vec![(1, "404".to_owned())])]);
}
