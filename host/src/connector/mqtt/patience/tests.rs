use super::*;

const WITHIN: Duration = Duration::from_millis(2);

fn patience() -> Patience {
    Patience::new(WITHIN, 8)
}

#[test]
fn with_nothing_to_wait_for_there_is_no_wait() {
    let mut patience = patience();
    assert!(patience.is_over(0, 100, Instant(0)));
    assert_eq!(patience.deadline(), None);
}

#[test]
fn a_few_wait_and_many_do_not() {
    let mut patience = patience();
    assert!(!patience.is_over(1, 100, Instant(0)));
    assert!(!patience.is_over(7, 100, Instant(1)));
    assert!(patience.is_over(8, 100, Instant(2)));
    assert!(patience.is_over(3, 3, Instant(3)), "half a window is many");
    assert_eq!(patience.deadline(), Some(Instant(0).plus(WITHIN)));
}

#[test]
fn a_wait_during_which_work_came_teaches_nothing() {
    let mut patience = patience();
    let mut now = Instant(0);
    for _ in 0..10 {
        assert!(!patience.is_over(3, 100, now));
        patience.moved();
        now = now.plus(WITHIN);
        assert!(patience.is_over(3, 100, now));
        assert!(patience.is_over(3, 100, now.plus(WITHIN)), "until something is answered");
        assert_eq!(patience.deadline(), None);
        patience.answered();
    }
}

#[test]
fn a_stall_is_waited_for_once_a_second() {
    let mut patience = patience();
    let mut now = Instant(0);
    assert!(!patience.is_over(3, 100, now));
    now = now.plus(WITHIN);
    assert!(patience.is_over(3, 100, now));
    let forget_at = now.plus(REMEMBERED);
    while now < forget_at {
        patience.answered();
        assert!(!patience.is_over(2, 100, now));
        assert!(patience.is_over(3, 100, now), "as many as had stalled it");
        patience.moved();
        now = now.plus(Duration::from_millis(100));
    }
    patience.answered();
    assert!(!patience.is_over(3, 100, now), "it is tried again");
}
