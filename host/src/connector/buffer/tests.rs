use std::{collections::BTreeSet, path::Path, sync::Mutex};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tokio::task::JoinHandle;

use super::*;
use crate::{batch::BatchBuilder, headers::Headers, topic::TopicTemplate};

const WITHIN: Duration = Duration::from_secs(30);

/// A dataflow before a buffer, and a far side behind it.
struct Rig {
    folder: tempfile::TempDir,
    far: Arc<Status>,
    bytes_max: u64,
    letters: Arc<Mutex<Vec<crate::dead_letter::Record>>>,
    used: Arc<AtomicU64>,
    confirms: Arc<Confirms>,
    /// Numbers that were written, and those that the dataflow was told are done.
    written: u64,
    confirmed: BTreeSet<u64>,
    refused: Vec<(u64, String)>,
    /// Numbers as they came out, and what is not confirmed of them.
    came: Vec<u64>,
    open: VecDeque<Write>,
    run: Option<Run>,
}

struct Run {
    front: Arc<SinkQueue>,
    back: Arc<SinkQueue>,
    status: Arc<BufferStatus>,
    task: JoinHandle<()>,
}

impl Rig {
    fn new(bytes_max: u64) -> Self {
        let far = Status::new();
        far.set_connected();
        let mut rig = Rig {
            folder: tempfile::tempdir().expect("a folder"),
            far,
            bytes_max,
            letters: Arc::default(),
            used: Arc::default(),
            confirms: Confirms::new(Waker::noop().clone()),
            written: 0,
            confirmed: BTreeSet::new(),
            refused: Vec::new(),
            came: Vec::new(),
            open: VecDeque::new(),
            run: None,
        };
        rig.start();
        rig
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("buffer")
    }

    fn start(&mut self) {
        let options = BufferOptions {
            tenant: "a".to_owned(),
            dataflow: "flow".to_owned(),
            dir: self.dir(),
            used: self.used.clone(),
            bytes_max: self.bytes_max,
            write_grants: Vec::new(),
            far: self.far.clone(),
            patience: Patience { missing: Duration::from_millis(5), silent: Duration::from_millis(400) },
            letters: DeadLetters::Memory(self.letters.clone()),
            clock: Clock::System,
        };
        let (front, back) = (SinkQueue::new(1 << 16), SinkQueue::new(4_000));
        let buffer = Buffer::new(options, front.clone(), back.clone());
        let status = buffer.status().clone();
        self.run = Some(Run { front, back, status, task: tokio::spawn(buffer.run()) });
    }

    fn run(&self) -> &Run {
        self.run.as_ref().expect("it runs")
    }

    /// As a process that is killed.
    async fn kill(&mut self) {
        let run = self.run.take().expect("it runs");
        run.task.abort();
        let _ = run.task.await;
        self.open.clear();
        // What is done on the thread that waits for the disk ends before the next run.
        while std::fs::File::open(self.dir().join("lock")).is_ok_and(|lock| lock.try_lock().is_err()) {
            tokio::task::yield_now().await;
        }
    }

    /// The dataflow writes numbers that it has not written, and those that it was not told of
    /// when the last run ended.
    fn write(&mut self, number: u64) {
        let mut builder = BatchBuilder::new("host");
        builder.push(b"t", None, format!("{number:0100}").as_bytes(), []);
        let destination = Destination {
            name: "a/flow/out".to_owned(),
            topic: TopicTemplate::parse("t").expect("a topic"),
            write_grants: Vec::new(),
            headers: Headers::default(),
        };
        let write = Write::new(number, builder.finish(), Arc::new(destination), self.confirms.clone());
        self.run().front.push(write);
        self.written = self.written.max(number + 1);
    }

    fn write_all(&mut self, count: u64) {
        (self.written..self.written + count).for_each(|number| self.write(number));
    }

    /// What came to the far side and to the dataflow.
    fn look(&mut self) {
        let back = self.run().back.clone();
        while let Poll::Ready(Some(write)) = back.poll_next(&mut Context::from_waker(Waker::noop())) {
            let payload = write.batch.entries[0].payload.bytes(&write.batch.arena);
            self.came.push(std::str::from_utf8(payload).expect("text").parse().expect("a number"));
            self.open.push_back(write);
        }
        self.hear();
    }

    /// What came to the dataflow.
    fn hear(&mut self) {
        let mut confirmed = Vec::new();
        self.confirms.take(&mut confirmed);
        for Confirmed { id, rejected } in confirmed {
            self.refused.extend(rejected.into_iter().map(|(_, reason)| (id, reason)));
            assert!(self.confirmed.insert(id), "{id} is confirmed twice");
        }
    }

    fn confirm(&mut self, refuse: impl Fn(u64) -> bool) {
        self.look();
        let first = self.came.len() - self.open.len();
        let open: Vec<(u64, Write)> = self.came[first..].iter().copied().zip(self.open.drain(..)).collect();
        for (number, write) in open {
            let rejected = refuse(number).then(|| Rejected { index: 0, reason: "not this".to_owned() });
            write.confirm(rejected.into_iter().collect());
        }
    }

    fn lose(&self) {
        self.far.set_degraded(Clock::System.now(), "gone".to_owned());
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + WITHIN;
        while !holds(self) {
            assert!(Instant::now() < until, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn close(&mut self) {
        let run = self.run.take().expect("it runs");
        run.front.close();
        run.task.await.expect("no panic");
    }
}

fn is_empty(dir: &Path) -> bool {
    !dir.exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_pass_and_are_answered_by_the_far_side_alone() {
    let mut rig = Rig::new(1 << 20);
    rig.write_all(20);
    rig.until("they came", |rig| {
        rig.look();
        rig.came.len() == 20
    })
    .await;
    assert!(rig.confirmed.is_empty(), "nothing is confirmed before");
    rig.confirm(|number| number == 7);
    rig.until("all are confirmed", |rig| {
        rig.look();
        rig.confirmed.len() == 20
    })
    .await;
    assert_eq!(rig.came, (0..20).collect::<Vec<_>>());
    assert_eq!(rig.refused, [(7, "not this".to_owned())]);
    assert_eq!(rig.run().status.writes.load(Ordering::Relaxed), 0);
    rig.close().await;
    assert!(is_empty(&rig.dir()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_far_side_is_away_the_dataflow_goes_on_and_a_kill_loses_nothing() {
    let mut rig = Rig::new(1 << 20);
    // Some are with the far side, which goes without a word.
    rig.write_all(5);
    rig.until("they came", |rig| {
        rig.look();
        rig.came.len() == 5
    })
    .await;
    rig.lose();
    rig.write_all(95);
    rig.until("all are on disk", |rig| {
        rig.hear();
        rig.confirmed.len() == 100
    })
    .await;
    rig.kill().await;
    rig.far.set_connected();
    rig.came.clear();
    rig.start();
    rig.write_all(10);
    rig.until("all came", |rig| {
        // One is refused, which nobody can tell the dataflow any more.
        rig.confirm(|number| number == 50);
        rig.came.len() == 110
    })
    .await;
    assert_eq!(rig.came, (0..110).collect::<Vec<_>>());
    rig.until("all is done", |rig| {
        rig.confirm(|_| false);
        rig.confirmed.len() == 110 && rig.run().status.writes.load(Ordering::Relaxed) == 0
    })
    .await;
    let letters = std::mem::take(&mut *rig.letters.lock().expect("no panic"));
    let [letter] = letters.as_slice() else { panic!("one: {letters:?}") };
    assert_eq!((letter.reason, letter.detail.as_str()), (Reason::Rejected, "a/flow/out: not this"));
    assert_eq!(letter.source, "", "it has no way in");
    rig.close().await;
    assert!(is_empty(&rig.dir()));
    assert_eq!(rig.used.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_connected_and_silent_is_away_too() {
    let mut rig = Rig::new(1 << 20);
    rig.write_all(50);
    rig.until("all are on disk", |rig| {
        rig.look();
        rig.confirmed.len() == 50
    })
    .await;
    rig.until("it goes on", |rig| {
        rig.confirm(|_| false);
        rig.came.len() == 50
    })
    .await;
    assert_eq!(rig.came, (0..50).collect::<Vec<_>>());
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_kept_than_policy_allows_and_then_the_dataflow_waits() {
    let mut rig = Rig::new(5_000);
    rig.lose();
    rig.write_all(40);
    rig.until("it is full", |rig| {
        rig.look();
        rig.run().status.is_full.load(Ordering::Relaxed)
    })
    .await;
    let kept = rig.confirmed.len();
    assert!((10..25).contains(&kept), "{kept}");
    assert!(rig.used.load(Ordering::SeqCst) <= 5_000);
    rig.far.set_connected();
    rig.until("all came", |rig| {
        rig.confirm(|_| false);
        rig.came.len() == 40 && rig.confirmed.len() == 40
    })
    .await;
    assert_eq!(rig.came, (0..40).collect::<Vec<_>>());
    rig.close().await;
}

/// Outages, silence, kills and full buffers at any moment: whatever the dataflow was told is
/// done comes out, and all comes in order but for what comes again after a kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_overtaken_whatever_happens() {
    for seed in 0..12 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut rig = Rig::new(rng.random_range(3_000..60_000));
        // Numbers looked at, and the first that has not come.
        let (mut seen, mut due) = (0, 0);
        let check = |rig: &Rig, seen: &mut usize, due: &mut u64| {
            for &number in &rig.came[*seen..] {
                assert!(number <= *due, "seed {seed}: {number} came where {due} was due");
                *due = (number + 1).max(*due);
            }
            *seen = rig.came.len();
        };
        for _ in 0..40 {
            match rng.random_range(0..10) {
                0..=3 => rig.write_all(rng.random_range(1..30)),
                4 => rig.lose(),
                5 | 6 => rig.far.set_connected(),
                7 => {
                    rig.look();
                    check(&rig, &mut seen, &mut due);
                    rig.kill().await;
                    rig.start();
                    // What the dataflow was not told of, its source delivers again.
                    rig.confirms = Confirms::new(Waker::noop().clone());
                    let again: Vec<u64> = (0..rig.written).filter(|it| !rig.confirmed.contains(it)).collect();
                    again.into_iter().for_each(|number| rig.write(number));
                }
                _ => rig.confirm(|_| false),
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..12))).await;
            rig.look();
            check(&rig, &mut seen, &mut due);
        }
        rig.far.set_connected();
        rig.until("all is done", |rig| {
            rig.confirm(|_| false);
            rig.confirmed.len() as u64 == rig.written && rig.run().status.writes.load(Ordering::Relaxed) == 0
        })
        .await;
        let came: BTreeSet<u64> = rig.came.iter().copied().collect();
        assert_eq!(came.len() as u64, rig.written, "seed {seed}: some are lost");
        rig.close().await;
        assert!(is_empty(&rig.dir()), "seed {seed}");
    }
}
