use std::{pin::pin, task::Context};

use super::{pattern::Patterns, *};

fn filters(texts: &[&str]) -> Vec<TopicFilter> {
    texts.iter().map(|text| TopicFilter::parse(text).expect("a filter")).collect()
}

fn door(calls: &Arc<Calls>, read: &[&str], write: &[&str]) -> Arc<Commands> {
    let grants = Grants {
        endpoint: "local".into(),
        read: filters(read),
        write: filters(write),
        rates: Default::default(),
    };
    Commands::new("id".into(), grants, calls.clone())
}

fn request(patterns: &Patterns<'_>, tokens: &[(&str, &str)]) -> Request {
    let tokens: Vec<_> = tokens.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let (request, response) = patterns.read("id").expect("patterns");
    Request {
        topic: request.topic(&tokens).expect("a topic"),
        response: response.topic(&tokens).expect("a topic"),
        payload: Bytes::from_static(b"ask"),
        user_data: Arc::default(),
        until: Instant(1),
    }
}

fn simple() -> Request {
    request(&Patterns { request: "a/ask", command: "c", ..Patterns::default() }, &[])
}

fn ctx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn permit(calls: &Arc<Calls>) -> Permit {
    match calls.poll_permit(&mut ctx()) {
        Poll::Ready(permit) => permit,
        Poll::Pending => panic!("all permits are taken"),
    }
}

fn next(door: &Commands) -> Submitted {
    match door.poll_next(&mut ctx()) {
        Poll::Ready(Some(submitted)) => submitted,
        other => panic!("{other:?}"),
    }
}

fn answer(payload: &str) -> Answer {
    Answer { payload: payload.into(), user_data: Vec::new(), time: None }
}

fn poll(call: &mut Call) -> Poll<Result<Answer, CommandError>> {
    pin!(call).poll(&mut ctx())
}

fn value(calls: &Calls, name: &str) -> u64 {
    calls.values().into_iter().find(|(key, _)| *key == name).expect("a counter").1
}

#[test]
fn each_call_gets_its_own_answer() {
    let calls = Calls::new(2);
    let door = door(&calls, &[], &["a/#"]);
    let mut one = door.begin(permit(&calls), simple()).expect("granted");
    let mut two = door.begin(permit(&calls), simple()).expect("granted");
    let (first, second) = (next(&door), next(&door));
    assert!(poll(&mut one).is_pending());
    second.answering.answer(Ok(answer("2")));
    first.answering.answer(Ok(answer("1")));
    assert_eq!(poll(&mut one), Poll::Ready(Ok(answer("1"))));
    assert_eq!(poll(&mut two), Poll::Ready(Ok(answer("2"))));
    assert_eq!((value(&calls, "asked"), value(&calls, "answered"), value(&calls, "open")), (2, 2, 2));
    drop((one, two));
    assert_eq!(value(&calls, "open"), 0);
    assert!(door.take_given_up().is_empty(), "they were answered");
}

#[test]
fn as_many_calls_are_open_as_are_allowed() {
    let calls = Calls::new(1);
    let first = permit(&calls);
    assert!(calls.poll_permit(&mut ctx()).is_pending());
    drop(first);
    drop(permit(&calls));
    let raised = Calls::new(2);
    let both = (permit(&raised), permit(&raised));
    assert!(raised.poll_permit(&mut ctx()).is_pending());
    drop(both);
}

#[test]
fn topics_are_held_against_what_policy_grants() {
    let with = |response| Patterns { request: "a/{x}", command: "c", response, ..Patterns::default() };
    for (read, write, response, expected) in [
        (&[][..], &["a/#"][..], None, Ok("clients/id/a/+")),
        (&[], &["a/1"], None, Ok("clients/id/a/+")),
        (&[], &["b/#"], None, Err("policy does not let the tenant write to `a/1`")),
        (&["a/#"], &[], None, Err("policy does not let the tenant write to `a/1`")),
        (&["back/#"], &["a/#"], Some("back/{x}"), Ok("back/+")),
        // Only the topic at hand is granted, and no other is subscribed to.
        (&["back/1"], &["a/#"], Some("back/{x}"), Ok("back/1")),
        (&["back/2"], &["a/#"], Some("back/{x}"), Err("policy does not let the tenant read `back/1`")),
        (&[], &["a/#", "back/#"], Some("back/{x}"), Err("policy does not let the tenant read `back/1`")),
        // The default is the client's own place; named by hand, it is anybody's.
        (&[], &["a/#"], Some("clients/id/{x}"), Err("policy does not let the tenant read `clients/id/1`")),
    ] {
        let calls = Calls::new(1);
        let door = door(&calls, read, write);
        let call = door.begin(permit(&calls), request(&with(response), &[("x", "1")]));
        let found = call.as_ref().map(|_| next(&door).filter.as_str().to_owned());
        let found = found.as_deref().map_err(|error| error.text.as_str());
        assert_eq!(found, expected, "{read:?} {write:?} {response:?}");
        assert_eq!(value(&calls, "refused"), u64::from(expected.is_err()));
        if let Err(error) = call {
            assert_eq!(error.kind, CommandErrorKind::ConfigurationInvalid);
            assert!(door.poll_next(&mut ctx()).is_pending(), "nothing was handed on");
        }
    }
}

#[test]
fn what_nobody_waits_for_is_given_up() {
    let calls = Calls::new(2);
    let door = door(&calls, &[], &["a/#"]);
    let waiting = door.begin(permit(&calls), simple()).expect("granted");
    drop(waiting);
    assert!(door.poll_next(&mut ctx()).is_pending(), "the session never hears of it");
    let taken = door.begin(permit(&calls), simple()).expect("granted");
    let submitted = next(&door);
    drop(taken);
    assert_eq!(door.take_given_up(), [submitted.number]);
    assert_eq!(value(&calls, "open"), 0);
    submitted.answering.answer(Ok(answer("late")));
    assert_eq!(value(&calls, "answered"), 0);
}

#[test]
fn a_closed_door_cancels_what_is_open_and_what_comes() {
    let calls = Calls::new(3);
    let door = door(&calls, &[], &["a/#"]);
    let mut taken = door.begin(permit(&calls), simple()).expect("granted");
    let submitted = next(&door);
    let mut waiting = door.begin(permit(&calls), simple()).expect("granted");
    door.close();
    drop(submitted);
    let cancelled = |result: Poll<Result<Answer, CommandError>>| match result {
        Poll::Ready(Err(error)) => error.kind == CommandErrorKind::Cancellation,
        _ => false,
    };
    assert!(cancelled(poll(&mut taken)) && cancelled(poll(&mut waiting)));
    let late = door.begin(permit(&calls), simple());
    assert_eq!(late.map(drop).unwrap_err().kind, CommandErrorKind::Cancellation);
    assert!(matches!(door.poll_next(&mut ctx()), Poll::Ready(None)));
}
