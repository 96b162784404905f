use super::*;

#[test]
fn the_least_recently_used_that_nobody_needs_makes_room() {
    let mut subscriptions = Subscriptions::default();
    for number in 0..KEPT_MAX as u16 {
        assert_eq!(subscriptions.make_room(|_| false), None, "there is room for {number}");
        subscriptions.asked(&format!("f/{number}"), number + 1);
        subscriptions.answered(number + 1, true).expect("it was asked for");
    }
    subscriptions.used("f/0");
    assert_eq!(subscriptions.make_room(|filter| filter == "f/1").as_deref(), Some("f/2"));
    assert_eq!(subscriptions.state("f/2"), None);
    subscriptions.asked("f/new", 500);
    assert_eq!(subscriptions.make_room(|_| true), None, "all are in use");
}

#[test]
fn a_refused_one_is_forgotten_and_all_others_are_asked_for_again() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.asked("a", 1);
    subscriptions.asked("b", 2);
    assert!(subscriptions.has_asked(1) && subscriptions.has_asked(2) && !subscriptions.has_asked(3));
    assert_eq!(subscriptions.answered(2, false).as_deref(), Some("b"));
    assert_eq!((subscriptions.state("b"), subscriptions.answered(2, true)), (None, None));
    assert_eq!(subscriptions.answered(1, true).as_deref(), Some("a"));
    assert_eq!(subscriptions.state("a"), Some(State::Granted));
    subscriptions.left(7);
    assert!(subscriptions.has_asked(7));
    assert_eq!(subscriptions.begin_anew(), ["a"]);
    assert!(!subscriptions.has_asked(7) && !subscriptions.is_left(7));
    subscriptions.asked("a", 9);
    assert_eq!(subscriptions.state("a"), Some(State::Asked(9)));
}
