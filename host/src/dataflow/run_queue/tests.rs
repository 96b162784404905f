use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;

/// Runs busy tenants for `total_ns`, each slice `slice_ns[tenant]` long, and gives
/// each one's CPU time.
fn run_busy(weights: &[u32], slice_ns: &[u64], total_ns: u64) -> Vec<u64> {
    let mut queue = RunQueue::default();
    let mut spent = vec![0; weights.len()];
    for (task, weight) in weights.iter().enumerate() {
        let tenant = queue.add_tenant(*weight);
        queue.enqueue(tenant, task as TaskId);
    }
    while spent.iter().sum::<u64>() < total_ns {
        queue.begin_turn();
        let (tenant, task) = queue.pick().expect("all are busy");
        let cpu_ns = slice_ns[tenant as usize];
        queue.charge(tenant, cpu_ns, false);
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
    let quiet = queue.add_tenant(1);
    for task in 1..=10 {
        let tenant = queue.add_tenant(1);
        queue.enqueue(tenant, task);
    }
    for turn in 0..1_000 {
        queue.begin_turn();
        // At first everybody is new, and new work goes in order of arrival.
        if turn > 20 && turn % 10 == 3 {
            assert!(queue.may_run_inline(quiet), "turn {turn}");
            queue.enqueue(quiet, 0);
            assert_eq!(queue.pick(), Some((quiet, 0)), "turn {turn}");
            queue.charge(quiet, 10_000, false);
        }
        let (tenant, task) = queue.pick().expect("ten are busy");
        queue.charge(tenant, 200_000, false);
        queue.enqueue(tenant, task);
    }
}

#[test]
fn many_short_calls_do_not_escape_the_queue() {
    let mut queue = RunQueue::default();
    let flood = queue.add_tenant(1);
    let other = queue.add_tenant(1);
    queue.enqueue(other, 9);
    queue.begin_turn();
    let mut inline = 0;
    while queue.may_run_inline(flood) {
        queue.charge(flood, 50_000, true);
        inline += 1;
    }
    assert_eq!(inline, 4, "one quantum of 50 µs calls");
    queue.enqueue(flood, 1);
    assert_eq!(queue.pick(), Some((other, 9)), "the flood waits its turn");
}

#[test]
fn work_after_a_slice_runs_inline_again_while_the_deficit_lasts() {
    let mut queue = RunQueue::default();
    let tenant = queue.add_tenant(1);
    queue.enqueue(tenant, 0);
    queue.begin_turn();
    assert_eq!(queue.pick(), Some((tenant, 0)));
    queue.charge(tenant, 50_000, false);
    let mut inline = 0;
    while queue.may_run_inline(tenant) {
        queue.charge(tenant, 50_000, true);
        inline += 1;
    }
    assert_eq!(inline, 3, "what the slice left of the quantum");
    queue.enqueue(tenant, 0);
    assert!(!queue.may_run_inline(tenant), "what waits goes first");
}

#[test]
fn inline_work_is_bounded_over_all_tenants_of_a_turn() {
    let mut queue = RunQueue::default();
    let tenants: Vec<_> = (0..10).map(|_| queue.add_tenant(1)).collect();
    queue.begin_turn();
    let mut inline = 0;
    for tenant in &tenants {
        while queue.may_run_inline(*tenant) {
            queue.charge(*tenant, 50_000, true);
            inline += 1;
        }
    }
    assert_eq!(inline, 4);
    queue.begin_turn();
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
    let tenants: Vec<_> = (0..3).map(|_| queue.add_tenant(1)).collect();
    for (task, tenant) in tenants.iter().enumerate() {
        queue.enqueue(*tenant, task as TaskId);
    }
    queue.charge(tenants[1], 10 * MS, false);
    // It waits for another round, without a task.
    assert_eq!(queue.pick(), Some((tenants[0], 0)));
    queue.enqueue(tenants[0], 0);
    queue.forget(tenants[1], 1);
    queue.remove_tenant(tenants[1]);
    let next = queue.add_tenant(1);
    assert_eq!(next, tenants[1]);
    queue.enqueue(next, 7);
    let picked: Vec<_> = (0..3).filter_map(|_| queue.pick()).collect();
    assert_eq!(picked.len(), 3, "{picked:?}");
    assert!(picked.contains(&(next, 7)), "{picked:?}");
    assert_eq!(queue.pick(), None);
}
