use super::*;

fn machine() -> Machine {
    Machine {
        cores: 4,
        memory_bytes: 8 << 30,
        maps_max: 65_530,
        files_max: 1_024,
        address_space_bytes_max: 1 << 47,
    }
}

/// Of ten tenants with a dataflow each, all of one component.
fn asked() -> Asked {
    let demand = Demand {
        dataflows: 1,
        slots: PerEngine { fuel: 2, ..PerEngine::default() },
        slots_pinned: PerEngine::default(),
        instances_bytes: 2 << 20,
        components: Box::new([(Digest::of(b"one"), 1 << 20)]),
        connections: 2,
        files: 0,
        servers: Box::new([("0.0.0.0:8080".to_owned(), 100)]),
        memory_bytes: 64 << 20,
        cpu_milli: 100,
    };
    let config = HostConfig { shards: 2, ..HostConfig::default() };
    Asked::of(&config, std::iter::repeat_n(&demand, 10))
}

#[test]
fn demands_add_up_and_a_component_counts_once() {
    let all = asked().all;
    assert_eq!((all.dataflows, all.slots.fuel, all.connections), (10, 20, 20));
    assert_eq!((all.memory_bytes, all.instances_bytes, all.cpu_milli), (640 << 20, 20 << 20, 1_000));
    assert_eq!(&*all.components, &[(Digest::of(b"one"), 1 << 20)]);
    assert_eq!(all.files, 100 + SERVER_FILES, "and so does a server");
}

#[test]
fn what_does_not_fit_is_refused_or_warned_of_and_nothing_else() {
    use Verdict::{Refused, Warned};
    type Change = fn(&mut Asked, &mut Machine);
    /// Of the host, of its shards, of connections to brokers, and of the server.
    const FILES: u64 = 64 + 2 * 8 + 20 + 100 + SERVER_FILES;
    type Case<'a> = (&'a str, Change, &'a [(&'a str, Verdict)]);
    let cases: [Case<'_>; 13] = [
        ("all fits", |_, _| {}, &[]),
        ("few maps", |_, machine| machine.maps_max = 40_000, &[("plan/maps", Refused)]),
        ("few files", |_, machine| machine.files_max = 99, &[("plan/files", Refused)]),
        ("just enough files", |_, machine| machine.files_max = FILES, &[]),
        (
            "a broker of its own",
            |asked, machine| {
                asked.has_broker = true;
                machine.files_max = FILES;
            },
            &[("plan/files", Refused)],
        ),
        (
            "a limit on address space",
            |_, machine| machine.address_space_bytes_max = 1 << 40,
            &[("plan/address-space", Refused)],
        ),
        (
            "more slots than there are addresses",
            |asked, machine| {
                asked.pool.slots.fuel = 40_000;
                machine.maps_max = 1 << 20;
            },
            &[("plan/address-space", Refused)],
        ),
        (
            "memory promised twice",
            |_, machine| machine.memory_bytes = 512 << 20,
            &[("plan/memory-promised", Warned)],
        ),
        (
            "memory that all use",
            |_, machine| machine.memory_bytes = 80 << 20,
            &[("plan/memory-expected", Warned), ("plan/memory-promised", Warned)],
        ),
        ("CPU promised twice", |asked, _| asked.all.cpu_milli = 2_001, &[("plan/cpu-promised", Warned)]),
        ("more shards than cores", |asked, _| asked.shards = 5, &[("plan/shards", Warned)]),
        (
            "pinned without a slot",
            |asked, _| {
                asked.pool.slots.fuel = 8;
                asked.all.slots_pinned.fuel = 9;
            },
            &[("plan/pinned-fuel", Warned)],
        ),
        ("few components at once", |asked, _| asked.pool.components = 0, &[("plan/components", Warned)]),
    ];
    for (what, change, expected) in cases {
        let (mut asked, mut machine) = (asked(), machine());
        change(&mut asked, &mut machine);
        let capacity = judge(&asked, &machine);
        let found = capacity.lines.iter().filter(|line| line.verdict != Verdict::Fits);
        assert_eq!(found.map(|line| (line.rule, line.verdict)).collect::<Vec<_>>(), expected, "{what}");
        let is_refused = expected.iter().any(|(_, verdict)| *verdict == Refused);
        let mut said = Diagnostics::default();
        capacity.say(&mut said);
        assert_eq!((said.has_errors(), said.count()), (is_refused, expected.len()), "{what}");
        assert!(said.iter().all(|it| !it.label.is_empty()), "{what}");
        assert!(capacity.to_text().lines().all(|line| line.chars().count() <= 100), "{what}");
    }
}

#[test]
fn one_core_less_than_shards_promises_less() {
    let mut asked = asked();
    asked.shards = 8;
    let capacity = judge(&asked, &machine());
    let cpu =
        capacity.lines.iter().find(|line| line.rule == "plan/cpu-promised").and_then(|line| line.available);
    assert_eq!(cpu, Some(4_000));
}

#[test]
fn amounts_are_rounded_up_to_what_a_person_reads() {
    for (bytes, expected) in
        [(0, "0B"), (10_239, "10239B"), (10 << 10, "10Ki"), ((64 << 20) + 1, "65Mi"), (24 << 40, "24Ti")]
    {
        assert_eq!(shown_bytes(bytes), expected);
    }
}
