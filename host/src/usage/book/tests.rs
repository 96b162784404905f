use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Use { tenant: usize, cpu_ns: u64, memory: u64 },
    Wait { seconds: u64 },
    SetClock { hour: u32 },
    Write,
    Stop,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let used = (0_usize..4, prop_oneof![Just(0), 0_u64..100], 0_u64..100);
    prop_oneof![
        10 => used.prop_map(|(tenant, cpu_ns, memory)| Step::Use { tenant, cpu_ns, memory }),
        4 => (0_u64..200).prop_map(|seconds| Step::Wait { seconds }),
        1 => (490_000_u32..490_004).prop_map(|hour| Step::SetClock { hour }),
        4 => Just(Step::Write),
        1 => Just(Step::Stop),
        1 => Just(Step::Kill),
    ]
}

const TENANTS: [&str; 4] = ["a", "b", "c", "d"];

/// A book, what it had written, and the simple truth of it: how much each tenant used.
struct World {
    book: Book,
    disk: BTreeMap<(Hour, String), Row>,
    counts: BTreeMap<Hour, u32>,
    now: Instant,
    hour: Hour,
    used: [Row; 4],
    /// As of the last write.
    safe: [Row; 4],
    /// Memory used up to each moment.
    memory: Vec<(Instant, [u64; 4])>,
}

impl World {
    fn new() -> Self {
        World {
            book: Book::new(BTreeMap::new(), Retention::default()),
            disk: BTreeMap::new(),
            counts: BTreeMap::new(),
            now: Instant(0),
            hour: Hour(490_000),
            used: Default::default(),
            safe: Default::default(),
            memory: Vec::new(),
        }
    }

    fn on_disk(&self, tenant: usize) -> Row {
        let mut sum = Row::default();
        let of = self.disk.iter().filter(|((_, name), _)| name == TENANTS[tenant]);
        of.for_each(|(_, row)| sum.add(row));
        sum
    }

    fn add(&mut self, tenant: usize, used: Row) {
        if !self.book.is_open(self.hour) {
            let rows = self.disk.iter().filter(|((hour, _), _)| *hour == self.hour);
            let rows = rows.map(|((_, name), row)| (name.clone(), *row)).collect();
            self.book.open(self.hour, rows, self.now);
        }
        self.book.add(self.hour, &TENANTS[tenant].into(), &used, self.now);
        self.used[tenant].add(&used);
        self.memory.push((self.now, self.used.map(|row| row.memory_byte_seconds)));
    }

    fn write(&mut self, changes: Changes) -> Result<(), TestCaseError> {
        prop_assert!(changes.gone.is_empty());
        for (hour, tenant, row) in changes.rows {
            let before = self.disk.insert((hour, tenant.to_string()), row).unwrap_or_default();
            let grew = before.values().iter().zip(row.values()).all(|(before, now)| *before <= now);
            prop_assert!(grew, "{before:?} became {row:?}");
        }
        self.counts.extend(changes.counts);
        for (hour, count) in &self.counts {
            let rows = self.disk.keys().filter(|(of, _)| of == hour).count();
            prop_assert_eq!(rows as u32 <= *count, true, "{:?}", hour);
        }
        Ok(())
    }

    /// What is due is on disk: all that a tenant worked for, and memory of a while ago.
    fn write_due(&mut self) -> Result<(), TestCaseError> {
        let changes = self.book.due(self.hour, self.now);
        self.write(changes)?;
        let ago = self.memory.iter().rev().find(|(at, _)| at.plus(HELD_WRITTEN_EVERY) <= self.now);
        for tenant in 0..TENANTS.len() {
            let (disk, used) = (self.on_disk(tenant), self.used[tenant]);
            prop_assert_eq!(disk.cpu_ns, used.cpu_ns);
            prop_assert!(disk.memory_byte_seconds <= used.memory_byte_seconds);
            let least = ago.map_or(0, |(_, memory)| memory[tenant]);
            prop_assert!(disk.memory_byte_seconds >= least, "{disk:?} of {used:?}, {least}");
            self.safe[tenant] = disk;
        }
        Ok(())
    }

    /// Another process goes on with what is on disk.
    fn begin_again(&mut self) -> Result<(), TestCaseError> {
        for tenant in 0..TENANTS.len() {
            let disk = self.on_disk(tenant);
            prop_assert_eq!(disk, self.safe[tenant], "what was written is there, and no more");
            self.used[tenant] = disk;
        }
        self.memory.clear();
        self.book = Book::new(self.counts.clone(), Retention::default());
        Ok(())
    }
}

proptest! {
    // About a million steps.
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]
    #[test]
    fn rows_only_grow_and_their_sum_is_what_was_used(steps in prop::collection::vec(step(), 1..500)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Use { tenant, cpu_ns, memory } => {
                    world.add(tenant, Row { cpu_ns, memory_byte_seconds: memory, ..Row::default() });
                }
                Step::Wait { seconds } => world.now = world.now.plus(Duration::from_secs(seconds)),
                Step::SetClock { hour } => world.hour = Hour(hour),
                Step::Write => world.write_due()?,
                Step::Stop => {
                    let changes = world.book.all(world.hour, world.now);
                    world.write(changes)?;
                    for tenant in 0..TENANTS.len() {
                        prop_assert_eq!(world.on_disk(tenant), world.used[tenant]);
                    }
                    world.safe = world.used;
                    world.begin_again()?;
                }
                Step::Kill => world.begin_again()?,
            }
        }
    }
}

fn used(cpu_ns: u64) -> Row {
    Row { cpu_ns, ..Row::default() }
}

#[test]
fn the_oldest_hours_go_once_there_are_too_many_and_never_the_one_that_grows() {
    for (retention, kept) in [
        (Retention { hours_max: 3, rows_max: 100 }, &[5, 6, 7][..]),
        (Retention { hours_max: 100, rows_max: 4 }, &[6, 7]),
        (Retention { hours_max: 0, rows_max: 0 }, &[7]),
    ] {
        let mut book = Book::new(BTreeMap::new(), retention);
        let mut gone = Vec::new();
        for hour in 1..=7 {
            book.open(Hour(hour), Vec::new(), Instant(0));
            for tenant in ["a", "b"] {
                book.add(Hour(hour), &tenant.into(), &used(1), Instant(0));
            }
            // The hour before is closed by then.
            gone.extend(book.due(Hour(hour), Instant(0)).gone);
            gone.extend(book.due(Hour(hour), Instant(0)).gone);
        }
        let left: Vec<_> = book.counts.keys().map(|hour| hour.0).collect();
        assert_eq!(left, kept, "{retention:?}");
        assert_eq!(gone.len() + kept.len(), 7);
        assert!(gone.is_sorted());
    }
}

#[test]
fn a_clock_that_jumps_ahead_takes_no_more_of_the_past_than_it_brings() {
    let days = |day: u32| Hour(490_000 + 24 * day);
    let counts = (0..400).map(|day| (days(day), 1)).collect();
    let mut book = Book::new(counts, Retention { hours_max: 400, rows_max: 1_000 });
    let far = days(50_000);
    book.open(far, Vec::new(), Instant(0));
    book.add(far, &"a".into(), &used(1), Instant(0));
    assert_eq!(book.due(far, Instant(0)).gone, [days(0)]);
}

#[test]
fn tenants_that_only_have_memory_are_written_seldom_and_a_few_at_once() {
    let mut book = Book::new(BTreeMap::new(), Retention::default());
    let (hour, memory) = (Hour(490_000), Row { memory_byte_seconds: 7, ..Row::default() });
    book.open(hour, Vec::new(), Instant(0));
    let names: Vec<Arc<str>> = (0..1_200).map(|tenant| format!("t{tenant}").into()).collect();
    let mut written = Vec::new();
    for second in 0..=310 {
        let now = Instant(0).plus(Duration::from_secs(second));
        names.iter().for_each(|name| book.add(hour, name, &memory, now));
        if second == 0 {
            book.add(hour, &"busy".into(), &used(1), now);
        }
        written.push(book.due(hour, now).rows.len());
    }
    let at: Vec<_> = written.iter().enumerate().filter(|(_, rows)| **rows > 0).collect();
    assert_eq!(at, [(0, &1), (300, &500), (301, &500), (302, &200)]);
    // Its last rows, when the hour is over, a few at once as well.
    let next = hour.plus(1);
    let now = Instant(0).plus(Duration::from_secs(311));
    let rows: Vec<_> = (0..4).map(|_| book.due(next, now).rows.len()).collect();
    assert_eq!(rows, [500, 500, 200, 0]);
    assert!(!book.is_open(hour));
}
