use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;

/// Within its rate, whatever it uses.
fn share(weight: u32) -> Share {
    Share {
        weight,
        cpu: Bucket::new(u64::MAX, u64::MAX, Instant(0)),
        cpu_cap: false,
        fuel: None,
        calls: Vec::new(),
        stats: Arc::default(),
        models_charged_ns: 0,
    }
}

fn cpu(cpu_ns: u64) -> Used {
    Used { cpu_ns, ..Used::default() }
}

/// Runs busy tenants for `total_ns`, each slice `slice_ns[tenant]` long, and gives
/// each one's CPU time.
fn run_busy(weights: &[u32], slice_ns: &[u64], total_ns: u64) -> Vec<u64> {
    let mut queue = RunQueue::default();
    let mut spent = vec![0; weights.len()];
    for (task, weight) in weights.iter().enumerate() {
        let tenant = queue.add_tenant(share(*weight));
        queue.enqueue(tenant, task as TaskId);
    }
    while spent.iter().sum::<u64>() < total_ns {
        queue.begin_turn(Instant(0));
        let (tenant, task) = queue.pick().expect("all are busy");
        let cpu_ns = slice_ns[tenant as usize];
        queue.charge(tenant, cpu(cpu_ns), false);
        spent[tenant as usize] += cpu_ns;
        queue.enqueue(tenant, task);
    }
    spent
}

#[test]
fn busy_tenants_share_by_weight_whatever_their_slices() {
    for slices in [[150_000, 150_000, 150_000], [8 * MS, 50_000, 150_000], [10_000, 2 * MS, 700_000]] {
        let spent = run_busy(&[1, 2, 4], &slices, 20_000 * MS);
        let total = spent.iter().sum::<u64>() as f64;
        for (spent, share) in spent.iter().zip([1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0]) {
            let got = *spent as f64 / total;
            assert!((got / share - 1.0).abs() < 0.02, "{got} instead of {share} with {slices:?}");
        }
    }
}

#[test]
fn a_quiet_tenant_goes_before_ten_busy_ones() {
    let mut queue = RunQueue::default();
    let quiet = queue.add_tenant(share(1));
    for task in 1..=10 {
        let tenant = queue.add_tenant(share(1));
        queue.enqueue(tenant, task);
    }
    for turn in 0..1_000 {
        queue.begin_turn(Instant(0));
        // At first everybody is new, and new work goes in order of arrival.
        if turn > 20 && turn % 10 == 3 {
            assert!(queue.may_run_inline(quiet), "turn {turn}");
            queue.enqueue(quiet, 0);
            assert_eq!(queue.pick(), Some((quiet, 0)), "turn {turn}");
            queue.charge(quiet, cpu(10_000), false);
        }
        let (tenant, task) = queue.pick().expect("ten are busy");
        queue.charge(tenant, cpu(200_000), false);
        queue.enqueue(tenant, task);
    }
}

#[test]
fn many_short_calls_do_not_escape_the_queue() {
    let mut queue = RunQueue::default();
    let flood = queue.add_tenant(share(1));
    let other = queue.add_tenant(share(1));
    queue.enqueue(other, 9);
    queue.begin_turn(Instant(0));
    let mut inline = 0;
    while queue.may_run_inline(flood) {
        queue.charge(flood, cpu(50_000), true);
        inline += 1;
    }
    assert_eq!(inline, 4, "one quantum of 50 µs calls");
    queue.enqueue(flood, 1);
    assert_eq!(queue.pick(), Some((other, 9)), "the flood waits its turn");
}

#[test]
fn work_after_a_slice_runs_inline_again_while_the_deficit_lasts() {
    let mut queue = RunQueue::default();
    let tenant = queue.add_tenant(share(1));
    queue.enqueue(tenant, 0);
    queue.begin_turn(Instant(0));
    assert_eq!(queue.pick(), Some((tenant, 0)));
    queue.charge(tenant, cpu(50_000), false);
    let mut inline = 0;
    while queue.may_run_inline(tenant) {
        queue.charge(tenant, cpu(50_000), true);
        inline += 1;
    }
    assert_eq!(inline, 3, "what the slice left of the quantum");
    queue.enqueue(tenant, 0);
    assert!(!queue.may_run_inline(tenant), "what waits goes first");
}

#[test]
fn inline_work_is_bounded_over_all_tenants_of_a_turn() {
    let mut queue = RunQueue::default();
    let tenants: Vec<_> = (0..10).map(|_| queue.add_tenant(share(1))).collect();
    queue.begin_turn(Instant(0));
    let mut inline = 0;
    for tenant in &tenants {
        while queue.may_run_inline(*tenant) {
            queue.charge(*tenant, cpu(50_000), true);
            inline += 1;
        }
    }
    assert_eq!(inline, 4);
    queue.begin_turn(Instant(0));
    assert!(queue.may_run_inline(tenants[9]));
}

proptest! {
    /// Nobody starves: every enqueued task is granted a slice within two rounds of
    /// everyone's longest slice.
    #[test]
    fn every_task_gets_its_turn(weights in prop::collection::vec(1_u32..8, 1..12), slices in prop::collection::vec(1_000_u64..3 * MS, 12)) {
        let spent = run_busy(&weights, &slices, 200 * MS * weights.len() as u64);
        prop_assert!(spent.iter().all(|spent| *spent > 0), "{spent:?}");
    }
}

#[test]
fn a_tenant_that_is_gone_leaves_its_place_to_the_next() {
    let mut queue = RunQueue::default();
    let tenants: Vec<_> = (0..3).map(|_| queue.add_tenant(share(1))).collect();
    for (task, tenant) in tenants.iter().enumerate() {
        queue.enqueue(*tenant, task as TaskId);
    }
    queue.charge(tenants[1], cpu(10 * MS), false);
    // It waits for another round, without a task.
    assert_eq!(queue.pick(), Some((tenants[0], 0)));
    queue.enqueue(tenants[0], 0);
    queue.forget(tenants[1], 1);
    queue.remove_tenant(tenants[1]);
    let next = queue.add_tenant(share(1));
    assert_eq!(next, tenants[1]);
    queue.enqueue(next, 7);
    let picked: Vec<_> = (0..3).filter_map(|_| queue.pick()).collect();
    assert_eq!(picked.len(), 3, "{picked:?}");
    assert!(picked.contains(&(next, 7)), "{picked:?}");
    assert_eq!(queue.pick(), None);
}

/// A shard that runs nothing but what the queue picks: slices take as long as they are
/// long, and where nobody may run, time goes on to when somebody may.
struct Mill {
    queue: RunQueue,
    now_ns: u64,
    tenants: Vec<TenantIndex>,
    /// CPU time of each tenant.
    spent: Vec<u64>,
}

impl Mill {
    fn new(shares: Vec<Share>) -> Self {
        let mut queue = RunQueue::default();
        let tenants: Vec<_> = shares.into_iter().map(|share| queue.add_tenant(share)).collect();
        Mill { queue, now_ns: 0, spent: vec![0; tenants.len()], tenants }
    }

    fn wants(&mut self, place: usize) {
        self.queue.enqueue(self.tenants[place], place as TaskId);
    }

    /// Grants slices of this length each, all of `busy` always wanting more.
    fn run(&mut self, busy: &[usize], slice_ns: impl Fn(usize) -> u64, until_ns: u64) {
        while self.now_ns < until_ns {
            self.queue.begin_turn(Instant(self.now_ns));
            busy.iter().for_each(|place| self.wants(*place));
            match self.queue.pick() {
                Some((tenant, task)) => {
                    let cpu_ns = slice_ns(task as usize);
                    self.queue.charge(tenant, cpu(cpu_ns), false);
                    self.spent[task as usize] += cpu_ns;
                    self.now_ns += cpu_ns;
                }
                None => {
                    let next = self.queue.next_opening().map_or(until_ns, |at| at.0);
                    assert!(next > self.now_ns, "it says when somebody may run");
                    self.now_ns = next.min(until_ns);
                }
            }
        }
    }
}

/// `rate` in thousandths of a core, without burst.
fn rated(weight: u32, rate: u64, cap: bool) -> Share {
    let bucket = Bucket::new(rate * MS, MS, Instant(0));
    Share { cpu: if cap { bucket } else { bucket.forgiving() }, cpu_cap: cap, ..share(weight) }
}

#[test]
fn a_capped_tenant_has_its_rate_in_every_second_and_leaves_the_rest() {
    for slice_ns in [30_000, 200_000, 8 * MS] {
        let mut mill = Mill::new(vec![rated(1, 50, true)]);
        for second in 1..=10 {
            let before = mill.spent[0];
            mill.run(&[0], |_| slice_ns, second * 1_000 * MS);
            let got = (mill.spent[0] - before) as f64 / (50 * MS) as f64;
            assert!((got - 1.0).abs() < 0.2, "{got} of its rate with slices of {slice_ns} ns");
        }
        let got = mill.spent[0] as f64 / (500 * MS) as f64;
        assert!((got - 1.0).abs() < 0.03, "{got} of its rate with slices of {slice_ns} ns");
    }
}

#[test]
fn what_its_models_use_elsewhere_counts_against_its_cap() {
    let share = rated(1, 50, true);
    let stats = share.stats.clone();
    let mut mill = Mill::new(vec![share]);
    let slice = |_| {
        stats.models_cpu_ns.add(900_000);
        100_000
    };
    mill.run(&[0], slice, 10_000 * MS);
    // A tenth of what it may use is its own.
    let got = mill.spent[0] as f64 / (50 * MS) as f64;
    assert!((got - 1.0).abs() < 0.05, "{got}");
}

#[test]
fn what_a_capped_tenant_leaves_goes_to_others_by_weight() {
    let mut mill = Mill::new(vec![rated(4, 50, true), rated(1, 1, false), rated(2, 1, false)]);
    mill.run(&[0, 1, 2], |_| 150_000, 10_000 * MS);
    for (place, share) in [(0, 0.05), (1, 0.95 / 3.0), (2, 0.95 * 2.0 / 3.0)] {
        let got = mill.spent[place] as f64 / (10_000 * MS) as f64;
        assert!((got / share - 1.0).abs() < 0.03, "{got} instead of {share} for {place}");
    }
}

#[test]
fn who_is_past_the_rate_loses_to_those_within_theirs_and_to_nobody_else() {
    // 300 thousandths of a core are promised to the first, and far less to the others.
    let mut mill = Mill::new(vec![rated(1, 300, false), rated(8, 10, false), rated(8, 10, false)]);
    mill.run(&[0, 1, 2], |_| 150_000, 10_000 * MS);
    let part = |place: usize| mill.spent[place] as f64 / (10_000 * MS) as f64;
    assert!((part(0) - 0.3).abs() < 0.02, "{} of the core", part(0));
    assert!((part(1) / part(2) - 1.0).abs() < 0.02, "{} and {}", part(1), part(2));
    // Past everybody's rate, weights divide, whatever each was promised.
    let mut mill = Mill::new(vec![rated(1, 100, false), rated(2, 100, false), rated(4, 100, false)]);
    mill.run(&[0, 1, 2], |_| 150_000, 10_000 * MS);
    for (place, share) in [(0, 1.0), (1, 2.0), (2, 4.0)] {
        let got = mill.spent[place] as f64 / (10_000 * MS) as f64 * 7.0;
        assert!((got / share - 1.0).abs() < 0.05, "{got} instead of {share}");
    }
}

#[test]
fn who_is_out_of_fuel_or_host_calls_waits_for_them() {
    let fuel = Share { fuel: Some(Bucket::new(1_000_000, 1_000, Instant(0))), ..share(1) };
    let mut calls = HostCalls::default();
    (0..1_000).for_each(|_| calls.count(Interface::StateReads));
    let called =
        Share { calls: vec![(Interface::StateReads, Bucket::new(1_000_000, 1_000, Instant(0)))], ..share(1) };
    for (share, used) in [(fuel, Used { fuel: 1_000, ..cpu(10) }), (called, Used { calls, ..cpu(10) })] {
        let stats = share.stats.clone();
        let mut queue = RunQueue::default();
        let tenant = queue.add_tenant(share);
        queue.enqueue(tenant, 0);
        assert_eq!(queue.pick(), Some((tenant, 0)));
        queue.charge(tenant, used, false);
        assert!(!queue.may_run_inline(tenant));
        queue.enqueue(tenant, 0);
        assert_eq!(queue.pick(), None);
        assert!(queue.is_empty(), "nobody could be given a slice");
        // A unit every microsecond.
        assert_eq!(queue.next_opening(), Some(Instant(1_000)));
        queue.begin_turn(Instant(999));
        assert_eq!(queue.pick(), None);
        queue.begin_turn(Instant(1_000));
        assert_eq!(queue.pick(), Some((tenant, 0)));
        let times = stats.throttled_fuel.get() + stats.throttled_calls.get();
        assert_eq!((times, stats.throttled_ns.get()), (1, 1_000));
    }
}

#[derive(Clone, Debug)]
enum Move {
    Want(usize),
    Forget(usize),
    Inline(usize, u64),
    Grant(u64),
    Pass(u64),
}

fn a_move(tenants: usize) -> impl Strategy<Value = Move> {
    let slice = 1_000..2 * MS;
    prop_oneof![
        6 => (0..tenants).prop_map(Move::Want),
        1 => (0..tenants).prop_map(Move::Forget),
        3 => (0..tenants, slice.clone()).prop_map(|(place, ns)| Move::Inline(place, ns)),
        6 => slice.prop_map(Move::Grant),
        2 => (0..20 * MS).prop_map(Move::Pass),
    ]
}

const TENANTS: usize = 6;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// A million moves against what anybody would expect: a task that was wanted is granted
    /// or waits, a tenant that may not run does not, nobody waits without somebody knowing
    /// until when, and charges are the work that was done.
    #[test]
    fn every_move_is_as_a_simple_model_has_it(
        rates in prop::collection::vec((1_u64..400, any::<bool>(), 1_u32..5), TENANTS),
        moves in prop::collection::vec(a_move(TENANTS), 1_000),
    ) {
        let shares: Vec<_> = rates.iter().map(|(rate, cap, weight)| rated(*weight, *rate, *cap)).collect();
        let stats: Vec<_> = shares.iter().map(|share| share.stats.clone()).collect();
        let mut models: Vec<_> = shares.iter().map(|share| (share.cpu.clone(), share.cpu_cap)).collect();
        let mut mill = Mill::new(shares);
        let (mut wanted, mut work) = ([false; TENANTS], [0; TENANTS]);
        for a_move in moves {
            mill.queue.begin_turn(Instant(mill.now_ns));
            models.iter_mut().for_each(|(bucket, _)| bucket.fill(Instant(mill.now_ns)));
            let may_run = |place: usize| !models[place].1 || models[place].0.is_open();
            match a_move {
                Move::Want(place) => {
                    mill.wants(place);
                    wanted[place] = true;
                }
                Move::Forget(place) => {
                    mill.queue.forget(mill.tenants[place], place as TaskId);
                    wanted[place] = false;
                }
                Move::Inline(place, ns) => {
                    if mill.queue.may_run_inline(mill.tenants[place]) {
                        prop_assert!(may_run(place) && !wanted[place]);
                        mill.queue.charge(mill.tenants[place], cpu(ns), true);
                        models[place].0.spend(ns);
                        work[place] += ns;
                    }
                }
                Move::Grant(ns) => match mill.queue.pick() {
                    Some((tenant, task)) => {
                        let place = task as usize;
                        prop_assert!(wanted[place] && may_run(place), "{place} was picked");
                        wanted[place] = false;
                        mill.queue.charge(tenant, cpu(ns), false);
                        models[place].0.spend(ns);
                        work[place] += ns;
                        mill.now_ns += ns;
                    }
                    None => {
                        let all_wait = (0..TENANTS).all(|place| !wanted[place] || !may_run(place));
                        // Those that moved to a line before where it looked are picked next.
                        prop_assert!(all_wait || !mill.queue.is_empty());
                        if wanted.iter().any(|wanted| *wanted) && mill.queue.is_empty() {
                            prop_assert!(mill.queue.next_opening().is_some(), "somebody waits for ever");
                        }
                    }
                },
                Move::Pass(ns) => mill.now_ns += ns,
            }
        }
        for place in 0..TENANTS {
            prop_assert_eq!(stats[place].cpu_ns.get(), work[place], "what was charged is the work that was done");
        }
    }
}
