use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn push(window: &mut Window, number: u64) -> u16 {
    let id = window.next_packet_id();
    window.push(Slot::new(number, 0));
    id
}

/// All that waits, in the order in which it would be sent again: id and number.
fn resend_all(window: &mut Window) -> Vec<(u16, u64)> {
    window.begin_generation();
    let mut resent = Vec::new();
    while let Some(slot) = window.next_to_resend() {
        resent.push((window.resent(), slot.write));
    }
    resent
}

#[test]
fn packet_ids_wrap_from_65535_to_1_and_the_order_stays() {
    let mut window = Window::default();
    for number in 0..65_533 {
        let id = push(&mut window, number);
        assert_eq!(window.answer(id).map(|slot| slot.write), Some(number));
    }
    let ids: Vec<u16> = (65_533..65_538).map(|number| push(&mut window, number)).collect();
    assert_eq!(ids, [65_534, 65_535, 1, 2, 3]);
    let by_sequence = [(65_534, 65_533), (65_535, 65_534), (1, 65_535), (2, 65_536), (3, 65_537)];
    assert_eq!(resend_all(&mut window), by_sequence, "in order of publication, not of packet ids");
    assert_eq!(window.answer(1).map(|slot| slot.write), Some(65_535));
    assert_eq!(resend_all(&mut window), [by_sequence[0], by_sequence[1], by_sequence[3], by_sequence[4]]);
}

#[test]
fn an_answer_counts_once_and_only_for_what_was_sent_on_this_connection() {
    let mut window = Window::default();
    let (first, second) = (push(&mut window, 0), push(&mut window, 1));
    assert!(window.answer(0).is_none());
    assert!(window.answer(3).is_none(), "never sent");
    assert!(window.answer(second).is_some());
    assert!(window.answer(second).is_none(), "answered already");
    window.begin_generation();
    assert!(window.answer(first).is_none(), "not sent again yet");
    assert_eq!(window.next_to_resend().map(|slot| slot.write), Some(0));
    assert_eq!(window.resent(), first);
    assert!(window.answer(first).is_some());
    assert_eq!((window.unanswered(), window.span()), (0, 0));
    assert_eq!(window.next_packet_id(), 3);
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Answer(prop::sample::Index),
    Reconnect,
    Resend,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        4 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => Just(Step::Reconnect),
        4 => Just(Step::Resend),
    ]
}

proptest! {
    /// Against a plain list of what waits.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in prop::collection::vec(any_step(), 0..200), start in 0..IDS) {
        let mut window = Window { first_id: (start + 1) as u16, ..Window::default() };
        let mut waiting: VecDeque<(u16, u64, bool)> = VecDeque::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Push if window.next_to_resend().is_none() => {
                    waiting.push_back((push(&mut window, number), number, true));
                    number += 1;
                }
                Step::Push => {}
                Step::Answer(index) => {
                    let sent: Vec<_> = waiting.iter().filter(|(_, _, sent)| *sent).collect();
                    let Some(&&(id, expected, _)) = (!sent.is_empty()).then(|| index.get(&sent)) else { continue };
                    prop_assert_eq!(window.answer(id).map(|slot| slot.write), Some(expected));
                    waiting.retain(|(_, number, _)| *number != expected);
                }
                Step::Reconnect => {
                    window.begin_generation();
                    waiting.iter_mut().for_each(|(_, _, sent)| *sent = false);
                }
                Step::Resend => {
                    let expected = waiting.iter_mut().find(|(_, _, sent)| !*sent);
                    prop_assert_eq!(window.next_to_resend().map(|slot| slot.write), expected.as_ref().map(|slot| slot.1));
                    if let Some(slot) = expected {
                        prop_assert_eq!(window.resent(), slot.0);
                        slot.2 = true;
                    }
                }
            }
            prop_assert_eq!(window.unanswered(), waiting.len());
            prop_assert_eq!(window.unanswered_sent(), waiting.iter().filter(|(_, _, sent)| *sent).count());
            prop_assert!(window.span() >= window.unanswered_sent());
        }
    }
}
