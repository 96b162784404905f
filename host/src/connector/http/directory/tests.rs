use std::task::{Context, Poll, Waker};

use super::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect("a filter")
}

/// A source that says how much it takes, by which it is known again.
fn enter(directory: &Directory, tenant: &str, name: &str, filters: &[&str], payload_bytes_max: usize) {
    let (posts, _) = mpsc::channel(1);
    let route = Route { payload_bytes_max, replies: false, status: Status::new(), posts };
    directory.enter_source(tenant, name, filters.iter().map(|it| filter(it)).collect(), route);
}

#[test]
fn a_topic_leads_to_every_source_of_its_tenant_that_takes_it() {
    let directory = Directory::default();
    enter(&directory, "a", "a/f/in", &["in/#", "in/1"], 1);
    enter(&directory, "a", "a/g/in", &["+/1"], 2);
    enter(&directory, "b", "b/f/in", &["#"], 3);
    let routes = |tenant: &str, topic: &str| -> Vec<usize> {
        directory.routes(tenant, topic).iter().map(|route| route.payload_bytes_max).collect()
    };
    assert_eq!(routes("a", "in/1"), [1, 2]);
    assert_eq!(routes("a", "in/2"), [1]);
    assert_eq!(routes("a", "out/1"), [2]);
    assert_eq!(routes("b", "in/1"), [3]);
    assert!(routes("a", "out/2").is_empty() && routes("c", "in/1").is_empty());
    directory.leave_source("a", "a/f/in");
    assert_eq!((routes("a", "in/1"), directory.tenants()), (vec![2], 2));
    directory.leave_source("a", "a/g/in");
    directory.leave_source("a", "a/g/in");
    assert_eq!((routes("a", "in/1"), directory.tenants()), (vec![], 1));
}

/// How many events a listener is given, and whether more may come.
fn take(listener: &Listener) -> (usize, bool) {
    let mut count = 0;
    loop {
        match listener.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(_)) => count += 1,
            Poll::Ready(None) => return (count, false),
            Poll::Pending => return (count, true),
        }
    }
}

#[test]
fn events_are_for_listeners_of_the_same_tenant_as_long_as_it_writes() {
    let directory = Directory::default();
    assert!(directory.enter_listener("a", filter("#")).is_none(), "nothing is written");
    ["a", "a", "b"].iter().for_each(|tenant| directory.enter_sink(tenant));
    let all = directory.enter_listener("a", filter("#")).expect("something is written");
    let some = directory.enter_listener("a", filter("out/+")).expect("something is written");
    let other = directory.enter_listener("b", filter("#")).expect("something is written");
    for topic in ["out/1", "out/1/2"] {
        directory.publish("a", topic, || Bytes::from(topic.to_owned()));
    }
    directory.publish("c", "out/1", || panic!("nobody listens"));
    assert_eq!([&all, &some, &other].map(|it| take(it)), [(2, true), (1, true), (0, true)]);
    directory.leave_listener("a", &some);
    directory.publish("a", "out/1", || Bytes::from_static(b"3"));
    directory.leave_sink("a");
    assert_eq!([&all, &some].map(|it| take(it)), [(1, true), (0, true)]);
    directory.leave_sink("a");
    assert_eq!([&all, &other].map(|it| take(it)), [(0, false), (0, true)]);
    assert_eq!(directory.tenants(), 1);
}
