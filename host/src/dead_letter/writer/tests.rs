use std::{
    fs,
    sync::mpsc,
    task::{Wake, Waker},
};

use super::*;
use crate::{
    batch::BatchBuilder,
    dead_letter::{DeadLetters, Door, Reason, Replayed, filter::Filter, reader},
    write::Confirms,
};

/// How long anything here may take.
const WITHIN: Duration = Duration::from_secs(30);

struct Told(mpsc::Sender<()>);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// A writer on a folder of its own.
struct Bench {
    dir: tempfile::TempDir,
    letters: DeadLetters,
    confirms: Arc<Confirms>,
    told: mpsc::Receiver<()>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let letters = DeadLetters::disk(dir.path().join("letters")).expect("it can be written");
        let (tx, told) = mpsc::channel();
        Bench { dir, letters, confirms: Confirms::new(Waker::from(Arc::new(Told(tx)))), told }
    }

    fn door(&self) -> &Door {
        self.letters.door().expect("on disk")
    }

    fn submit(&self, number: u64, replayed: Option<Replayed>) {
        let mut builder = BatchBuilder::new("test");
        let mark = replayed.map(|it| ("tidegate-replay", it.id.to_string()));
        let own = ("tidegate-replay", "of another host".to_owned());
        let properties = [Some(own), mark];
        let properties = properties.iter().flatten().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        builder.push(b"t", None, number.to_string().as_bytes(), properties);
        let letter = DeadLetter {
            tenant: "a".into(),
            dataflow: "flow".into(),
            operation: None,
            source: "in".into(),
            sequence: number,
            reason: Reason::Trap,
            detail: String::new(),
            fuel: 0,
            component: None,
            message: builder.finish(),
            at: Duration::from_millis(now_ms()),
            replayed,
        };
        self.letters.submit(vec![letter], number, &self.confirms);
    }

    /// Waits for as many confirmations.
    fn confirmed(&self, count: usize) {
        let mut confirmed = Vec::new();
        while confirmed.len() < count {
            self.told.recv_timeout(WITHIN).expect("it is confirmed");
            self.confirms.take(&mut confirmed);
        }
    }

    fn kept(&self) -> Vec<Record> {
        let mut kept = Vec::new();
        let each = |record| {
            kept.push(record);
            std::ops::ControlFlow::Continue(())
        };
        reader::read(self.door().dir(), &Filter::default(), each).expect("it can be read");
        kept
    }
}

#[test]
fn a_letter_that_is_given_up_again_is_one_letter_however_often_that_is_said() {
    let bench = Bench::new();
    [1, 2].into_iter().for_each(|number| bench.submit(number, None));
    bench.confirmed(2);
    let ids: Vec<_> = bench.kept().iter().map(|it| it.id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(bench.door().begin_replay(ids.clone()), Some(vec![]));
    assert_eq!(bench.door().begin_replay(vec![2, 3]), Some(vec![2]), "it is under way");
    // Two parts of the first message fail; the second goes through.
    let before = Replayed { id: 1, attempts: 4 };
    bench.submit(1, Some(before));
    bench.submit(1, Some(before));
    bench.confirmed(2);
    assert_eq!(bench.door().end_replay(ids, true), Some(1));
    let kept = bench.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let Record { payload, attempts, replaces, properties, .. } = &kept[0];
    assert_eq!((payload.as_deref(), *attempts, *replaces), (Some("1"), 5, Some(1)));
    // The mark of this host is the delivery's, not the message's.
    assert_eq!(*properties, [("tidegate-replay".to_owned(), "of another host".to_owned())]);
}

#[test]
fn letters_of_a_replay_that_was_not_settled_stay() {
    let bench = Bench::new();
    [1, 2].into_iter().for_each(|number| bench.submit(number, None));
    bench.confirmed(2);
    assert_eq!(bench.door().begin_replay(vec![1, 2]), Some(vec![]));
    assert_eq!(bench.door().end_replay(vec![1, 2], false), Some(0));
    assert_eq!(bench.kept().len(), 2);
    // One of them was given up after all, before its dataflow ended.
    bench.submit(1, Some(Replayed { id: 1, attempts: 1 }));
    bench.confirmed(1);
    assert_eq!(bench.kept().iter().map(|it| it.id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(bench.door().begin_replay(vec![1, 2, 3]), Some(vec![]));
}

#[test]
fn what_cannot_be_written_waits_and_commands_come_through_meanwhile() {
    let bench = Bench::new();
    bench.submit(1, None);
    bench.confirmed(1);
    // A file where the folder of its dataflow was to be.
    let (flow, away) = (bench.door().dir().join("a/flow"), bench.dir.path().join("away"));
    assert_eq!(bench.door().remove(vec![1]).expect("it can be written"), 1);
    assert!(!flow.exists());
    fs::write(&flow, "in the way").expect("it can be written");
    bench.submit(2, None);
    assert_eq!(bench.door().remove(vec![7]).expect("it answers"), 0);
    let kept = Arc::<Kept>::default();
    bench.door().govern("a", DeadLetterLimits::default(), &kept);
    assert_eq!(bench.door().remove(vec![7]).expect("it answers"), 0);
    assert_eq!(kept.values()[0], ("count", 0));
    fs::rename(&flow, away).expect("it is there");
    bench.confirmed(1);
    assert_eq!(bench.kept().len(), 1);
    assert_eq!(kept.values()[0], ("count", 1));
}

#[test]
fn the_newest_are_kept_and_what_goes_is_counted() {
    let bench = Bench::new();
    let kept = Arc::<Kept>::default();
    let limits = DeadLetterLimits { count_max: 3, ..DeadLetterLimits::default() };
    bench.door().govern("a", limits, &kept);
    (1..=10).for_each(|number| bench.submit(number, None));
    bench.confirmed(10);
    assert_eq!(bench.kept().iter().map(|it| it.id).collect::<Vec<_>>(), [8, 9, 10]);
    let [count, _, expired, displaced] = kept.values()[..] else { panic!("{kept:?}") };
    assert_eq!((count, expired, displaced), (("count", 3), ("expired", 0), ("displaced", 7)));
    assert_eq!(bench.door().newest(), 10);
}
