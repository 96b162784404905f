use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::dead_letter::{Reason, removals::BYTES_MAX};

const TENANTS: [&str; 2] = ["a", "b"];
const FLOWS: [&str; 2] = ["one", "two"];

fn record(id: u64, at_ms: u64, (tenant, dataflow): (&str, &str), payload: usize) -> Record {
    let at = chrono::DateTime::from_timestamp_millis(at_ms as i64).expect("a moment");
    Record {
        id,
        at: at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        tenant: tenant.into(),
        dataflow: dataflow.into(),
        operation: Some("step-0".into()),
        source: "in".into(),
        sequence: 0,
        reason: Reason::Trap,
        detail: "it trapped".into(),
        fuel: 0,
        component: None,
        topic: "t".into(),
        payload: Some("x".repeat(payload)),
        payload_base64: None,
        content_type: None,
        properties: Vec::new(),
        timestamp: None,
        attempts: 1,
        replaces: None,
    }
}

fn letter(record: &Record) -> Letter {
    let mut line = serde_json::to_vec(record).expect("JSON");
    line.push(b'\n');
    let (tenant, dataflow) = (record.tenant.clone(), record.dataflow.clone());
    Letter { id: record.id, at_ms: record.at_ms(), tenant, dataflow, line }
}

fn open(dir: &Path) -> Archive {
    Archive::open(dir).expect("nobody else has it")
}

fn keep(archive: &mut Archive, records: &[Record]) {
    let mut letters = records.iter().map(letter).collect();
    archive.append(&mut letters).expect("it can be written");
    assert_eq!(letters, []);
}

/// Ids that a reader sees, by tenant and dataflow.
fn seen(dir: &Path) -> Vec<u64> {
    reader::ids(dir, &Filter::default()).expect("it can be read")
}

fn segment_count(dir: &Path, tenant: &str, dataflow: &str) -> usize {
    segments(&dir.join(tenant).join(dataflow)).expect("it can be read").len()
}

const UNLIMITED: DeadLetterLimits =
    DeadLetterLimits { count_max: u64::MAX, bytes_max: u64::MAX, age_max: Duration::MAX };

#[derive(Clone, Debug)]
enum Step {
    /// So many letters for a tenant's dataflow, each with so large a payload.
    Append {
        tenant: usize,
        flow: usize,
        count: usize,
        payload: usize,
    },
    /// Each letter with a number that this divides.
    Remove {
        divisor: u64,
    },
    /// All of a tenant's letters.
    Clear {
        tenant: usize,
    },
    Count {
        tenant: usize,
        count_max: u64,
    },
    Bytes {
        tenant: usize,
        bytes_max: u64,
    },
    Age {
        tenant: usize,
        age_ms: u64,
    },
    /// The host is killed: in the middle of a letter and of a removal, if so it is.
    Kill {
        in_the_middle: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..2_usize, 0..2_usize, 1..8_usize, prop_oneof![Just(10), Just(1000), Just(150_000)])
            .prop_map(|(tenant, flow, count, payload)| Step::Append { tenant, flow, count, payload }),
        2 => (1..8_u64).prop_map(|divisor| Step::Remove { divisor }),
        1 => (0..2_usize).prop_map(|tenant| Step::Clear { tenant }),
        2 => (0..2_usize, 0..40_u64).prop_map(|(tenant, count_max)| Step::Count { tenant, count_max }),
        2 => (0..2_usize, 0..3_000_000_u64)
            .prop_map(|(tenant, bytes_max)| Step::Bytes { tenant, bytes_max }),
        2 => (0..2_usize, 0..30_000_u64).prop_map(|(tenant, age_ms)| Step::Age { tenant, age_ms }),
        2 => any::<bool>().prop_map(|in_the_middle| Step::Kill { in_the_middle }),
    ];
    prop::collection::vec(step, 1..60)
}

/// All letters that are kept, by id.
#[derive(Default)]
struct Model {
    letters: BTreeMap<u64, Letter>,
}

impl Model {
    fn of(&self, tenant: &str) -> Vec<u64> {
        self.letters.values().filter(|it| it.tenant == tenant).map(|it| it.id).collect()
    }

    fn bytes(&self, tenant: &str) -> u64 {
        let of = self.letters.values().filter(|it| it.tenant == tenant);
        of.map(|it| it.line.len() as u64).sum()
    }

    fn displace(&mut self, tenant: &str, limits: DeadLetterLimits) -> u64 {
        let mut displaced = 0;
        while self.of(tenant).len() as u64 > limits.count_max || self.bytes(tenant) > limits.bytes_max {
            let oldest = self.of(tenant)[0];
            self.letters.remove(&oldest);
            displaced += 1;
        }
        displaced
    }

    fn seen(&self) -> Vec<u64> {
        let mut letters: Vec<_> = self.letters.values().collect();
        letters.sort_by_key(|it| (&it.tenant, &it.dataflow, it.id));
        letters.into_iter().map(|it| it.id).collect()
    }
}

fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = open(dir.path());
    let (mut model, mut clock_ms) = (Model::default(), 1_000_000);
    for step in steps {
        match step.clone() {
            Step::Append { tenant, flow, count, payload } => {
                let mut records = Vec::new();
                for _ in 0..count {
                    clock_ms += 1000;
                    let place = (TENANTS[tenant], FLOWS[flow]);
                    records.push(record(archive.next_id(), clock_ms, place, payload));
                }
                keep(&mut archive, &records);
                model.letters.extend(records.iter().map(letter).map(|it| (it.id, it)));
            }
            Step::Remove { divisor } => {
                let ids: Vec<_> = (0..archive.newest() + 2).filter(|id| id % divisor == 0).collect();
                let before = model.letters.len();
                model.letters.retain(|id, _| id % divisor != 0);
                let removed = archive.remove(&ids).expect("it can be written");
                assert_eq!(removed, (before - model.letters.len()) as u64);
            }
            Step::Clear { tenant } => {
                let tenant = TENANTS[tenant].to_owned();
                let gone = model.of(&tenant).len() as u64;
                model.letters.retain(|_, it| it.tenant != tenant);
                let filter = Filter { tenant: Some(tenant), ..Filter::default() };
                assert_eq!(archive.discard(&filter).expect("it can be written"), gone);
            }
            Step::Count { tenant, count_max } => {
                let limits = DeadLetterLimits { count_max, ..UNLIMITED };
                let displaced = model.displace(TENANTS[tenant], limits);
                let trimmed = archive.trim(TENANTS[tenant], limits, clock_ms).expect("it can be read");
                assert_eq!(trimmed, Trimmed { expired: 0, displaced });
            }
            Step::Bytes { tenant, bytes_max } => {
                let limits = DeadLetterLimits { bytes_max, ..UNLIMITED };
                let displaced = model.displace(TENANTS[tenant], limits);
                let trimmed = archive.trim(TENANTS[tenant], limits, clock_ms).expect("it can be read");
                assert_eq!(trimmed, Trimmed { expired: 0, displaced });
            }
            Step::Age { tenant, age_ms } => {
                let limits = DeadLetterLimits { age_max: Duration::from_millis(age_ms), ..UNLIMITED };
                let before = model.letters.len();
                model.letters.retain(|_, it| it.tenant != TENANTS[tenant] || it.at_ms > clock_ms - age_ms);
                let trimmed = archive.trim(TENANTS[tenant], limits, clock_ms).expect("it can be read");
                let expired = (before - model.letters.len()) as u64;
                assert_eq!(trimmed, Trimmed { expired, displaced: 0 });
            }
            Step::Kill { in_the_middle } => {
                let newest = archive.newest();
                drop(archive);
                if in_the_middle {
                    leave_half(dir.path());
                }
                archive = open(dir.path());
                // Neither is an id given twice, whatever is left of them.
                assert!(archive.newest() >= model.letters.keys().max().copied().unwrap_or_default());
                assert!(archive.newest() <= newest);
            }
        }
        assert_eq!(seen(dir.path()), model.seen(), "after {step:?}");
        for tenant in TENANTS {
            let expected = (model.of(tenant).len() as u64, model.bytes(tenant));
            assert_eq!(archive.kept(tenant), expected, "{tenant} after {step:?}");
        }
    }
}

/// What a kill leaves: half a line at the end of each file that is appended to, and half
/// a segment that was to take the place of another.
fn leave_half(dir: &Path) {
    let half = |path: &Path, text: &str| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("it can be written");
    };
    half(&dir.join("removed.log"), r#"{"next":9999,"ids":[1,2,3"#);
    for (_, tenant) in folders(dir, None).expect("it can be read") {
        for (_, flow) in folders(&tenant, None).expect("it can be read") {
            if let Some((_, path)) = segments(&flow).expect("it can be read").last() {
                half(path, r#"{"id":9999,"at":"2026-01-31T12:00:00Z","tenant":"a""#);
                half(&path.with_extension("new"), "{\"id\":9999}\n");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn an_archive_keeps_what_a_simple_model_keeps(steps in steps()) {
        run(steps);
    }
}

#[test]
fn a_segment_goes_once_all_in_it_is_gone_and_takes_no_more_once_it_is_full() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = open(dir.path());
    let count = || segment_count(dir.path(), "a", "one");
    for _ in 0..30 {
        let id = archive.next_id();
        keep(&mut archive, &[record(id, 1_000, ("a", "one"), 100 << 10)]);
    }
    assert_eq!(count(), 3);
    let limits = DeadLetterLimits { count_max: 12, ..UNLIMITED };
    assert_eq!(archive.trim("a", limits, 0).expect("it can be read").displaced, 18);
    assert_eq!(count(), 2);
    // Those of the middle go with half of their segment, which is written anew.
    let size = || fs::metadata(dir.path().join("a/one/000003.jsonl")).expect("it is there").len();
    let before = size();
    assert_eq!(archive.remove(&(23..29).collect::<Vec<_>>()).expect("it can be written"), 6);
    assert!(size() < before / 2, "{} of {before}", size());
    assert_eq!(seen(dir.path()), [19, 20, 21, 22, 29, 30]);
    assert_eq!(archive.remove(&[19, 20, 21, 22, 29, 30]).expect("it can be written"), 6);
    assert!(!dir.path().join("a/one").exists());
    // None of these numbers is given again, though nothing is left of them.
    drop(archive);
    assert_eq!(open(dir.path()).next_id(), 31);
}

#[test]
fn a_letter_that_took_the_place_of_another_is_one_whatever_a_kill_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = open(dir.path());
    let first = record(archive.next_id(), 1, ("a", "one"), 1);
    let other = record(archive.next_id(), 2, ("a", "one"), 1);
    let again = Record { replaces: Some(first.id), attempts: 2, ..record(3, 3, ("a", "one"), 1) };
    keep(&mut archive, &[first, other, again]);
    // Killed before the removal of the first was written.
    drop(archive);
    let mut archive = open(dir.path());
    assert_eq!((seen(dir.path()), archive.kept("a").0), (vec![2, 3], 2));
    assert_eq!(archive.remove(&[3]).expect("it can be written"), 1);
    drop(archive);
    let archive = open(dir.path());
    assert_eq!((seen(dir.path()), archive.kept("a").0), (vec![2], 1));
}

#[test]
fn files_of_earlier_hosts_are_taken_over_once() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(dir.path().join("a")).expect("a folder");
    let old = dir.path().join("a/one.jsonl");
    let mut text = String::new();
    for at_ms in [1_000, 2_000] {
        let mut line = serde_json::to_value(record(0, at_ms, ("a", "one"), 1)).expect("JSON");
        line.as_object_mut().expect("an object").remove("id");
        text += &format!("{line}\n");
    }
    fs::write(&old, text.clone() + r#"{"at":"cut"#).expect("it can be written");
    let mut archive = open(dir.path());
    assert!(!old.exists());
    assert_eq!((seen(dir.path()), archive.kept("a").0), (vec![1, 2], 2));
    let next = record(archive.next_id(), 3_000, ("a", "one"), 1);
    keep(&mut archive, &[next]);
    drop(archive);
    // An earlier host ran once more.
    fs::write(&old, text).expect("it can be written");
    let archive = open(dir.path());
    assert_eq!((seen(dir.path()), archive.kept("a").0), (vec![1, 2, 3, 4, 5], 5));
}

#[test]
fn the_letters_of_a_folder_have_one_owner() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    assert!(matches!(Archive::open(dir.path()), Err(ArchiveError::Taken { .. })));
    drop(archive);
    open(dir.path());
}

#[test]
fn what_is_said_to_be_gone_stays_short() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = open(dir.path());
    let (kept, gone) = (archive.next_id(), archive.next_id());
    keep(&mut archive, &[record(kept, 1, ("a", "one"), 1), record(gone, 1, ("a", "one"), 1)]);
    archive.remove(&[gone]).expect("it can be written");
    let log = || fs::metadata(dir.path().join("removed.log")).expect("it is there").len();
    let (mut longest, mut times) = (0, 0);
    while times < 2 {
        let before = log();
        archive.removals.add_upto(3, vec![("a".into(), "two".into(), 0)]).expect("it can be written");
        longest = longest.max(log());
        archive.shorten_removals().expect("it can be written");
        times += usize::from(log() < before);
    }
    assert!((BYTES_MAX..BYTES_MAX + 1000).contains(&longest), "{longest}");
    drop(archive);
    // What it still has to say, it says.
    assert_eq!((open(dir.path()).next_id(), seen(dir.path())), (3, vec![kept]));
}
