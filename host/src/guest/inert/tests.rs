use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use wasmtime_wasi::{
    WasiView as _,
    filesystem::WasiFilesystemView as _,
    p2::bindings::{
        filesystem::preopens,
        sockets::{network::IpAddressFamily, tcp_create_socket, udp_create_socket},
    },
    sockets::WasiSocketsView as _,
};

use super::*;
use crate::{
    batch::{BatchBuilder, Stamped},
    clock::{Clock, VirtualClock},
    dataflow::timers::Timers,
    guest::{
        Contract, OperatorKind, Output, Verdict,
        aio::Aio,
        packed::{CallError, OutputMax},
        state::{Bounds, HOST_CALLS_MAX, WAIT_MAX},
        tests::{BOUNDS, Rig, STANDARD, aio_wat, component, ready},
    },
};

fn state(seed: u64) -> GuestState {
    let clock = Clock::Virtual(Arc::new(VirtualClock::default()));
    GuestState::new(
        "acme/flow/op",
        BOUNDS,
        clock,
        Timers::default(),
        seed,
        crate::tenant::Tenant::new("acme", Default::default()),
        Arc::default(),
    )
}

/// A filter whose `process` runs `body` and then passes the message on.
struct Guest {
    rig: Rig,
    aio: Aio,
    input: Stamped,
}

impl Guest {
    fn new(imports: &[(&str, &str)], body: &str) -> Self {
        Self::bounded(imports, body, BOUNDS)
    }

    fn bounded(imports: &[(&str, &str)], body: &str, bounds: Bounds) -> Self {
        let core: String = imports
            .iter()
            .map(|(name, signature)| {
                let (interface, function) = name.split_once('#').unwrap();
                format!(
                    r#"(import "{interface}" "{function}" (func $f{} {signature}))"#,
                    position(imports, name)
                )
            })
            .collect();
        let wit: String =
            imports.iter().map(|(name, _)| format!("import {};", name.split_once('#').unwrap().0)).collect();
        let process = format!(
            "(param i32) (result i32) (local $i i32)
                {body}
                (i32.store8 (i32.const 1024) (i32.const 0))
                (i32.store8 (i32.const 1028) (i32.const 1))
                (i32.const 1024)"
        );
        let text = aio_wat(
            &Contract::Aio.interface(OperatorKind::Filter),
            &format!(r#"{core} (data (i32.const 4096) "one\ntwo\nthr")"#),
            &process,
        );
        let bytes = component(&format!("{wit} export wasm-graph:processor/filter@1.1.0;"), &text);
        let mut rig = Rig::bounded(&bytes, STANDARD, 1, bounds).unwrap();
        let (contract, kind) = (Contract::Aio, OperatorKind::Filter);
        let exported = rig.exported(contract, kind);
        let aio = Aio::new(&mut rig.store, &rig.instance, contract, kind, exported).unwrap();
        let mut builder = BatchBuilder::new("n");
        builder.push(b"t", None, b"p", []);
        Guest { rig, aio, input: builder.finish().into() }
    }

    fn call(&mut self) -> impl Future<Output = Result<Output, CallError>> {
        let Guest { rig, aio, input } = self;
        rig.store.data_mut().begin_call(1, u64::MAX);
        aio.process(&mut rig.store, &input.batch, input, OutputMax { messages: 1, bytes: 1000 })
    }

    fn trap(&mut self) -> String {
        match ready(self.call()) {
            Err(CallError::Wasmtime(error)) => format!("{error:#}"),
            other => panic!("{other:?}"),
        }
    }
}

fn position(imports: &[(&str, &str)], name: &str) -> usize {
    imports.iter().position(|(other, _)| *other == name).unwrap()
}

fn passed(output: Output) -> bool {
    matches!(output, Output::Judged { verdicts, .. } if verdicts == [Verdict::TRUE])
}

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

const SUBSCRIBE: (&str, &str) =
    ("wasi:clocks/monotonic-clock@0.2.12#subscribe-duration", "(param i64) (result i32)");
const BLOCK: (&str, &str) = ("wasi:io/poll@0.2.12#[method]pollable.block", "(param i32)");
const POLL: (&str, &str) = ("wasi:io/poll@0.2.12#poll", "(param i32 i32 i32)");

#[test]
fn a_sleeping_guest_is_suspended_on_the_shards_timers() {
    let mut guest = Guest::new(&[SUBSCRIBE, BLOCK], "(call $f1 (call $f0 (i64.const 1500000000)))");
    let (clock, timers) = (guest.rig.clock.clone(), guest.rig.timers.clone());
    let now = || Clock::Virtual(clock.clone()).now();
    let woken = Arc::new(Count::default());
    let waker = Waker::from(woken.clone());
    let mut ctx = Context::from_waker(&waker);
    let mut call = std::pin::pin!(guest.call());
    // Other slices may come first; none is left once a timer is armed.
    while timers.next().is_none() {
        assert!(call.as_mut().poll(&mut ctx).is_pending());
    }
    assert_eq!(timers.next(), Some(Instant(1_500_000_000)));
    woken.0.store(0, Ordering::SeqCst);
    for (ms, wakes) in [(1499, 0), (1, 1)] {
        clock.advance(Duration::from_millis(ms));
        timers.fire(now());
        assert_eq!(woken.0.load(Ordering::SeqCst), wakes);
    }
    let output = loop {
        if let Poll::Ready(output) = call.as_mut().poll(&mut ctx) {
            break output.unwrap();
        }
        assert_eq!(timers.next(), None, "it waits again");
    };
    assert!(passed(output));
}

/// Polls a call to its end, moving the clock to the next timer whenever it waits.
/// Gives the result, the time that passed and how often a timer was waited for.
fn run_on_timers(guest: &mut Guest) -> (Result<Output, CallError>, Duration, u32) {
    let (clock, timers) = (guest.rig.clock.clone(), guest.rig.timers.clone());
    let read = || Clock::Virtual(clock.clone()).now();
    let start = read();
    let mut waits = 0;
    let mut ctx = Context::from_waker(Waker::noop());
    let mut call = std::pin::pin!(guest.call());
    loop {
        if let Poll::Ready(output) = call.as_mut().poll(&mut ctx) {
            return (output, read().since(start), waits);
        }
        if let Some(at) = timers.next() {
            waits += 1;
            clock.advance(at.since(read()));
            timers.fire(read());
        }
    }
}

#[test]
fn polling_several_wakes_at_the_first() {
    // The list holds both handles; what is ready is written at 3072.
    let mut guest = Guest::new(
        &[SUBSCRIBE, POLL],
        "(i32.store (i32.const 3000) (call $f0 (i64.const 4000000000)))
         (i32.store (i32.const 3004) (call $f0 (i64.const 20000000)))
         (call $f1 (i32.const 3000) (i32.const 2) (i32.const 3072))
         (if (i32.ne (i32.load (i32.const 3076)) (i32.const 1)) (then unreachable))
         (if (i32.ne (i32.load (i32.load (i32.const 3072))) (i32.const 1)) (then unreachable))",
    );
    let (output, passed_time, waits) = run_on_timers(&mut guest);
    assert!(passed(output.unwrap()));
    assert_eq!((passed_time, waits), (Duration::from_millis(20), 1));
}

#[test]
fn waiting_has_an_end_over_all_waits_of_a_call() {
    let mut guest = Guest::new(
        &[SUBSCRIBE, BLOCK],
        "(loop $again (call $f1 (call $f0 (i64.const 2000000000))) (br $again))",
    );
    let (output, passed_time, waits) = run_on_timers(&mut guest);
    let Err(CallError::Wasmtime(error)) = output else { panic!("{output:?}") };
    assert!(format!("{error:#}").contains("waited longer than 5s in one call"), "{error:#}");
    assert_eq!((passed_time, waits), (WAIT_MAX, 3));
}

#[test]
fn floods_of_host_calls_end_as_traps() {
    let wall = ("wasi:clocks/wall-clock@0.2.12#now", "(param i32)");
    let random = ("wasi:random/random@0.2.12#get-random-bytes", "(param i64 i32)");
    let ready = ("wasi:io/poll@0.2.12#[method]pollable.ready", "(param i32) (result i32)");
    for (imports, body, expected) in [
        (
            vec![wall],
            "(loop $l (call $f0 (i32.const 2048)) (br $l))",
            format!("more than {HOST_CALLS_MAX} host calls"),
        ),
        (
            vec![SUBSCRIBE, ready],
            "(local.set $i (call $f0 (i64.const 0))) (loop $l (drop (call $f1 (local.get $i))) (br $l))",
            format!("more than {HOST_CALLS_MAX} host calls"),
        ),
        (vec![random], "(call $f0 (i64.const 65537) (i32.const 2048))", "65537 random bytes at once".into()),
        (
            vec![random],
            "(loop $l (global.set $top (i32.const 65536)) (call $f0 (i64.const 65536) (i32.const 2048)) (br $l))",
            "host calls of more than 4194304 bytes".into(),
        ),
        // Handles that are never dropped.
        (vec![SUBSCRIBE], "(loop $l (drop (call $f0 (i64.const 1))) (br $l))", "".into()),
    ] {
        let mut guest = Guest::new(&imports, body);
        let text = guest.trap();
        assert!(text.contains(&expected), "{body}: {text}");
    }
}

#[test]
fn each_call_has_its_own_share_of_host_calls() {
    let wall = ("wasi:clocks/wall-clock@0.2.12#now", "(param i32)");
    let mut guest = Guest::new(
        &[wall],
        "(loop $l
            (call $f0 (i32.const 2048))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 10000))))",
    );
    for _ in 0..3 {
        assert!(passed(ready(guest.call()).unwrap()));
    }
}

#[test]
fn memory_past_the_bound_is_refused_and_remembered() {
    let grow = "(if (i32.eq (memory.grow (i32.const 32)) (i32.const -1)) (then unreachable))";
    for (memory_bytes_max, refused) in [(5 << 20, true), (6 << 20, false)] {
        let mut guest = Guest::bounded(&[], grow, Bounds { memory_bytes_max, ..BOUNDS });
        let output = ready(guest.call());
        assert_eq!(output.is_err(), refused);
        assert_eq!(guest.rig.store.data().memory_refused().is_some(), refused);
        guest.rig.store.data_mut().begin_call(1, u64::MAX);
        assert!(guest.rig.store.data().memory_refused().is_none());
    }
}

#[test]
fn exit_is_a_trap() {
    let exit = ("wasi:cli/exit@0.2.12#exit", "(param i32)");
    let text = Guest::new(&[exit], "(call $f0 (i32.const 1))").trap();
    assert!(text.contains("the guest called `exit` with status 1"), "{text}");
}

#[test]
fn standard_output_becomes_lines_of_the_log() {
    let get = ("wasi:cli/stdout@0.2.12#get-stdout", "(result i32)");
    let write =
        ("wasi:io/streams@0.2.12#[method]output-stream.blocking-write-and-flush", "(param i32 i32 i32 i32)");
    let log = crate::guest::tests::logged(|| {
        let body = "(call $f1 (call $f0) (i32.const 4096) (i32.const 11) (i32.const 3072))";
        let mut guest = Guest::new(&[get, write], body);
        assert!(passed(ready(guest.call()).unwrap()));
    });
    let lines: Vec<_> = log.lines().collect();
    let fields = r#"tenant="acme" dataflow="flow" operator="op" context="stdout""#;
    assert_eq!(
        lines,
        ["one", "two", "thr"].map(|text| format!(" INFO guest: {text} {fields}")),
        "the last is written when the instance goes"
    );
}

#[test]
fn random_numbers_follow_from_the_seed() {
    let draw = |seed| {
        let mut state = state(seed);
        let seed = insecure_seed::Host::insecure_seed(&mut state).unwrap();
        (random::Host::get_random_bytes(&mut state, 16).unwrap(), seed)
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn clocks_are_the_shards_in_steps_of_a_microsecond() {
    let clock = Arc::new(VirtualClock::default());
    let timers = Timers::default();
    let mut state = GuestState::new(
        "a/b/c",
        BOUNDS,
        Clock::Virtual(clock.clone()),
        timers,
        1,
        crate::tenant::Tenant::new("acme", Default::default()),
        Arc::default(),
    );
    clock.advance(Duration::from_nanos(1_234_567));
    assert_eq!(monotonic_clock::Host::now(&mut state).unwrap(), 1_234_000);
    let wall = wall_clock::Host::now(&mut state).unwrap();
    assert_eq!((wall.seconds, wall.nanoseconds), (1_767_225_600, 1_234_000));
}

#[test]
fn environment_folders_and_sockets_are_not_there() {
    let mut state = state(1);
    assert!(environment::Host::get_environment(&mut state).unwrap().is_empty());
    assert!(environment::Host::get_arguments(&mut state).unwrap().is_empty());
    assert_eq!(environment::Host::initial_cwd(&mut state).unwrap(), None);
    assert!(terminal_stdin::Host::get_terminal_stdin(&mut state).unwrap().is_none());
    assert!(preopens::Host::get_directories(&mut state.filesystem()).unwrap().is_empty());
    let network = Resource::new_own(0);
    let family = IpAddressFamily::Ipv4;
    for denied in [
        ip_name_lookup::Host::resolve_addresses(&mut state, network, "localhost".into()).map(drop),
        tcp_create_socket::Host::create_tcp_socket(&mut state.sockets(), family).map(drop),
        ready(udp_create_socket::Host::create_udp_socket(&mut state.sockets(), family)).map(drop),
    ] {
        assert_eq!(denied.unwrap_err().downcast().unwrap(), ErrorCode::AccessDenied);
    }
    assert!(state.ctx().table.is_empty());
    let stdin = stdin::Host::get_stdin(&mut state).unwrap();
    let read = streams::HostInputStream::read(&mut state, stdin, 10);
    assert!(matches!(read, Err(StreamError::Closed)));
}
