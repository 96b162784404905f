use super::*;
use crate::{clock::VirtualClock, resource::Limits};

/// A ledger whose thread is the test's, on a clock of its own.
struct Ledger {
    shared: Shared,
    clock: Arc<VirtualClock>,
}

impl Ledger {
    fn open(dir: &std::path::Path, clock: &Arc<VirtualClock>) -> Self {
        let shared = Shared {
            store: Store::open(dir).expect("opens"),
            clock: Clock::Virtual(clock.clone()),
            door: Mutex::default(),
            changed: Condvar::new(),
            work: Mutex::default(),
        };
        Ledger { shared, clock: clock.clone() }
    }

    fn watch(&self, name: &str) -> Arc<Tenant> {
        let tenant = Tenant::new(name, Limits::default());
        self.shared.door().tenants.push(TenantMeter::new(&tenant, self.shared.clock.now()));
        tenant
    }

    fn watch_dataflow(&self, tenant: &str) -> Arc<DataflowStats> {
        let stats = Arc::default();
        self.shared.door().flows.push(FlowMeter::new(tenant, &stats));
        stats
    }

    fn sample(&self) {
        self.sample_of(Which::InTurn);
    }

    fn sample_of(&self, measured: Which) {
        let mut work = self.shared.work.lock().expect("no panic");
        self.shared.sample(&mut work, measured).expect("the store works");
    }

    fn meters(&self) -> (usize, usize) {
        let work = self.shared.work.lock().expect("no panic");
        (work.tenants.len(), work.flows.len())
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn hour(&self) -> Hour {
        Hour::of(self.shared.clock.wall())
    }

    /// All rows, as of now.
    fn rows(&self) -> Vec<(Hour, String, Row)> {
        self.shared.write_now().expect("the store works");
        rows_of(&self.shared.store, None)
    }
}

fn rows_of(store: &Store, tenant: Option<&str>) -> Vec<(Hour, String, Row)> {
    let tenant = tenant.map(str::to_owned);
    let mut query = Query { tenant, from: Hour(0), to: Hour(u32::MAX), after: None };
    let mut rows = Vec::new();
    loop {
        let page = store.usage_page(&query).expect("it can be read");
        rows.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() {
            return rows;
        }
    }
}

fn of(rows: &[(Hour, String, Row)], tenant: &str) -> Row {
    let mut sum = Row::default();
    rows.iter().filter(|(_, name, _)| name == tenant).for_each(|(_, _, row)| sum.add(row));
    sum
}

#[test]
fn tenants_and_dataflows_that_come_and_go_lose_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::default();
    let ledger = Ledger::open(dir.path(), &clock);
    for round in 0..10 {
        let tenant = ledger.watch("a");
        let flow = ledger.watch_dataflow("a");
        tenant.stats.cpu_ns.add(100);
        flow.received.add(10);
        if round % 3 == 0 {
            ledger.sample();
        }
        // What comes after the last sample of its life is taken by the next.
        tenant.stats.cpu_ns.add(1);
        flow.received.add(1);
        if round % 2 == 0 {
            ledger.wait(1_800);
        }
    }
    let rows = ledger.rows();
    assert_eq!(of(&rows, "a"), Row { cpu_ns: 1_010, received: 110, ..Row::default() });
    assert!(rows.len() > 1, "{rows:?}");
    assert_eq!(ledger.meters(), (0, 0), "nothing is kept of what has ended");
}

#[test]
fn rows_go_on_where_the_last_host_left_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::default();
    for life in 1..=3 {
        let ledger = Ledger::open(dir.path(), &clock);
        let tenant = ledger.watch("a");
        tenant.set_component_bytes(1 << 20);
        tenant.stats.fuel.add(5);
        ledger.sample();
        ledger.wait(10);
        let rows = ledger.rows();
        let expected = Row { fuel: 5 * life, memory_byte_seconds: (life * 10) << 20, ..Row::default() };
        assert_eq!(rows, [(ledger.hour(), "a".to_owned(), expected)]);
    }
}

#[test]
fn a_ledger_that_is_closed_has_written_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("opens");
    let mut ledger = UsageLedger::start(store.clone(), Clock::System).expect("starts");
    let tenant = Tenant::new("a", Limits::default());
    ledger.watch(&tenant);
    tenant.stats.fuel.add(5);
    ledger.close();
    drop((ledger, store));
    let store = Store::open(dir.path()).expect("nobody has it any more");
    assert_eq!(of(&rows_of(&store, None), "a").fuel, 5);
}

#[test]
fn rows_are_found_by_hour_and_tenant_a_page_at_a_time() {
    const HOURS: u32 = 30;
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("opens");
    // One's name begins like another's.
    let names: Vec<Arc<str>> = (0..1_000).map(|tenant| format!("t{tenant}").into()).collect();
    for hour in (100..100 + HOURS).map(Hour) {
        let row = |name: &Arc<str>| (hour, name.clone(), Row { fuel: hour.0.into(), ..Row::default() });
        let rows = names.iter().map(row).collect();
        store.keep_usage(Changes { rows, counts: vec![(hour, 1_000)], gone: Vec::new() });
    }
    store.flush().expect("flushes");
    let read = |mut query: Query| {
        let (mut rows, mut pages) = (Vec::new(), 0);
        loop {
            let page = store.usage_page(&query).expect("it can be read");
            rows.extend(page.rows);
            pages += 1;
            query.after = page.next;
            if query.after.is_none() {
                return (rows, pages);
            }
        }
    };
    let query = |tenant: Option<&str>, from: u32, to: u32| Query {
        tenant: tenant.map(str::to_owned),
        from: Hour(from),
        to: Hour(to),
        after: None,
    };
    let (rows, pages) = read(query(None, 0, 1_000));
    assert_eq!((rows.len(), pages > 2), (30_000, true));
    assert!(rows.is_sorted_by(|(hour, name, _), (next, other, _)| (hour, name) < (next, other)));
    for (tenant, from, to, count) in [
        (Some("t1"), 0, 1_000, 30),
        (Some("t1"), 110, 112, 2),
        (Some("t"), 0, 1_000, 0),
        (None, 110, 112, 2_000),
        (None, 130, 1_000, 0),
        (None, 112, 110, 0),
        (Some("t1"), 112, 110, 0),
    ] {
        let (rows, _) = read(query(tenant, from, to));
        assert_eq!(rows.len(), count, "{tenant:?} {from} {to}");
        assert!(rows.iter().all(|(hour, name, row)| {
            (from..to).contains(&hour.0)
                && tenant.is_none_or(|it| it == name)
                && row.fuel == u64::from(hour.0)
        }));
    }
    // Hours that go take their rows with them, and nothing else.
    let again = (Hour(100), Arc::from("back"), Row { fuel: 1, ..Row::default() });
    store.keep_usage(Changes { rows: Vec::new(), counts: Vec::new(), gone: vec![Hour(100), Hour(101)] });
    store.keep_usage(Changes { rows: vec![again], counts: vec![(Hour(100), 1)], gone: Vec::new() });
    store.flush().expect("flushes");
    let (rows, _) = read(query(None, 0, 1_000));
    assert_eq!(rows.len(), 28_001);
    assert_eq!(store.usage_hours().expect("it can be read").len(), 29);
    assert_eq!(read(query(Some("t1"), 0, 1_000)).0.len(), 28);
    assert_eq!(rows_of(&store, Some("back")).len(), 1);
}

#[test]
fn rows_of_hosts_that_counted_less_or_more_are_read() {
    let row = Row { cpu_ns: 1, host_calls: 9, ..Row::default() };
    let bytes = row.to_bytes();
    assert_eq!(Row::from_bytes(&bytes), row);
    assert_eq!(Row::from_bytes(&[&bytes[..], &[7; 8]].concat()), row);
    assert_eq!(Row::from_bytes(&bytes[..8]), Row { cpu_ns: 1, ..Row::default() });
}

#[test]
fn a_page_is_the_same_behind_the_socket() {
    let row = Row { fuel: u64::MAX, dead: 3, ..Row::default() };
    let page = Page { rows: vec![(Hour(7), "a".into(), row)], next: Some((Hour(7), "a".into())) };
    let text = page.to_json().to_string();
    assert_eq!(Page::from_json(serde_json::from_str(&text).expect("JSON")).expect("a page"), page);
}

#[test]
fn ten_thousand_idle_tenants_are_no_writes() {
    let dir = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(dir.path(), &Arc::default());
    let tenants: Vec<_> = (0..10_000).map(|tenant| ledger.watch(&format!("t{tenant}"))).collect();
    tenants.iter().for_each(|tenant| tenant.set_component_bytes(1 << 20));
    let flows: Vec<_> = tenants.iter().map(|tenant| ledger.watch_dataflow(&tenant.name)).collect();
    ledger.sample_of(Which::All);
    let mut rows = 0;
    for second in 0..60 {
        ledger.wait(1);
        ledger.sample();
        if second == 20 {
            flows[7].received.add(1);
        }
        let mut work = ledger.shared.work.lock().expect("no panic");
        let book = work.book.as_mut().expect("it was read");
        rows += book.due(ledger.hour(), ledger.shared.clock.now()).rows.len();
    }
    assert_eq!(rows, 1, "the one that took a message");
    let rows = ledger.rows();
    assert_eq!((rows.len(), of(&rows, "t7").memory_byte_seconds), (10_000, 60 << 20));
}
