use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::resource::{
    Severity,
    diagnostic::SourceFile,
    yaml::{self, Unknown},
};

/// What a build without models says beside all else: tested on its own.
const NOT_BUILT: &str = "policy/not-built";

/// The limits that `text` makes of `base`, and the rules that it breaks.
fn read(base: &Limits, text: &str, lowering: bool) -> (Limits, Vec<(Severity, &'static str, String)>) {
    let file = Arc::new(SourceFile { path: "limits.yaml".into(), text: text.into() });
    let mut diagnostics = Diagnostics::default();
    let nodes = yaml::parse(&file, &mut diagnostics);
    let mut object = Object::of(&nodes[0], "limits", Unknown::Error, &mut diagnostics);
    let of = if lowering { LimitsOf::Tenant("t") } else { LimitsOf::Policy("p") };
    let limits = base.read(&mut object, of, &mut diagnostics);
    object.finish(&mut diagnostics);
    let found = diagnostics.iter().map(|it| (it.severity, it.rule, it.message.clone()));
    (limits, found.filter(|it| it.1 != NOT_BUILT).collect())
}

/// Every key, each below its default.
const LOWER: &str = "
cpu: { rate: 50m, burst: 100ms, cap: true }
fuel: { rate: 1M, burst: 2M }
message: { fuel: 10M, time: 10ms }
memory: { total: 32Mi, instance: 2Mi }
instances: 8
output: { messages: 32, bytes: 256Ki }
payload: 128Ki
inflight: 512Ki
buffer: 8Mi
component: { size: 4Mi, compileTime: 10s, compileMemory: 1Gi }
state: { keys: 100, bytes: 1Mi, value: 64Ki, windows: 2Mi }
deadLetters: { count: 100, bytes: 1Mi, age: 1d }
inference: { memory: 128Mi, time: 1s, model: 10Mi }
faults: { retries: 1, coolDown: 5s, quarantineAfter: 10, within: 30s }
onError: deadLetter
late: nextWindow
time: { lateness: 30m, idle: 30s, tick: 50ms }
connections: 2
commands: 8
dataflows: 50
log: { lines: 500, bytes: 64Ki }
metrics: { series: 100 }
calls: { stateReads: 1000, wasi: 10 }
weight: 1
";

fn lower() -> Limits {
    Limits {
        engine: EngineKind::Fuel,
        weight: 1,
        cpu_rate_milli: 50,
        cpu_burst: Duration::from_millis(100),
        cpu_cap: true,
        fuel_rate: 1_000_000,
        fuel_burst: 2_000_000,
        message_fuel_max: 10_000_000,
        message_time_max: Duration::from_millis(10),
        memory_total_bytes_max: 32 << 20,
        memory_instance_bytes_max: 2 << 20,
        instances_max: 8,
        output_messages_max: 32,
        output_bytes_max: 256 << 10,
        payload_bytes_max: 128 << 10,
        inflight_bytes_max: 512 << 10,
        buffer_bytes_max: 8 << 20,
        component_bytes_max: 4 << 20,
        compile: CompileLimits { time_max: Duration::from_secs(10), memory_bytes_max: 1 << 30 },
        fault_retries_max: 1,
        fault_cool_down: Duration::from_secs(5),
        quarantine_after: 10,
        quarantine_within: Duration::from_secs(30),
        on_error: OnError::DeadLetter,
        late: Late::NextWindow,
        lateness_max: Duration::from_secs(1_800),
        idle_max: Duration::from_secs(30),
        tick_max: Duration::from_millis(50),
        connections_max: 2,
        commands_max: 8,
        state: StateLimits { keys_max: 100, bytes_max: 1 << 20, value_bytes_max: 64 << 10 },
        window_bytes_max: 2 << 20,
        dead_letters: DeadLetterLimits {
            count_max: 100,
            bytes_max: 1 << 20,
            age_max: Duration::from_secs(86_400),
        },
        inference: InferenceLimits {
            memory_bytes_max: 128 << 20,
            time_max: Duration::from_secs(1),
            model_bytes_max: 10 << 20,
        },
        log: LogLimits { lines_max: 500, bytes_max: 64 << 10 },
        series_max: 100,
        dataflows_max: 50,
        calls: {
            let mut calls = CallLimits::default();
            calls.set(Interface::StateReads, 1_000);
            calls.set(Interface::Wasi, 10);
            calls
        },
    }
}

#[test]
fn every_key_is_read() {
    for lowering in [false, true] {
        let (limits, found) = read(&Limits::default(), LOWER, lowering);
        assert_eq!(limits, lower());
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn memory_that_no_slot_has_is_said_to_be_not_there() {
    for (engine, memory, said) in [
        (EngineKind::Fuel, "4Mi", 0),
        (EngineKind::Fuel, "5Mi", 1),
        (EngineKind::Epoch, "4Mi", 0),
        (EngineKind::Epoch, "5Mi", 1),
        (EngineKind::Large, "512Mi", 0),
        (EngineKind::Large, "513Mi", 1),
    ] {
        let text = format!("memory: {{ instance: {memory} }}");
        let (_, found) = read(&Limits::of_engine(engine), &text, false);
        assert_eq!(found.len(), said, "{engine:?} {text}: {found:?}");
        assert!(found.iter().all(|it| (it.0, it.1) == (Severity::Warning, "policy/engine-memory")));
    }
}

#[test]
fn a_limit_in_fuel_is_refused_where_nothing_counts_it() {
    for (text, key) in [
        ("message: { fuel: 1M }", "message.fuel"),
        ("fuel: { rate: 1M }", "fuel.rate"),
        ("fuel: { burst: 1M }", "fuel.burst"),
        ("message: { time: 5ms }", ""),
        ("cpu: { rate: 50m }", ""),
    ] {
        for (engine, lowering) in EngineKind::ALL.into_iter().flat_map(|it| [(it, false), (it, true)]) {
            let (_, found) = read(&Limits::of_engine(engine), text, lowering);
            let errors: Vec<_> = found.iter().filter(|it| it.0 == Severity::Error).collect();
            let refused = engine == EngineKind::Epoch && !key.is_empty();
            assert_eq!(errors.len(), usize::from(refused), "{engine:?} {text}: {found:?}");
            assert!(errors.iter().all(|it| it.1 == "policy/engine-fuel" && it.2.contains(key)), "{errors:?}");
        }
    }
}

#[test]
fn a_tenant_may_lower_each_limit_and_raise_none() {
    let policy = Limits { cpu_cap: true, ..lower() };
    for (text, raised) in [
        ("weight: 2", true),
        ("weight: 1", false),
        ("cpu: { rate: 51m }", true),
        ("cpu: { burst: 101ms }", true),
        ("cpu: { cap: false }", true),
        ("cpu: { cap: true }", false),
        ("fuel: { rate: 2M }", true),
        ("fuel: { burst: 3M }", true),
        ("message: { fuel: 10001K }", true),
        ("message: { fuel: 10000K }", false),
        ("message: { time: 11ms }", true),
        ("memory: { total: 33Mi }", true),
        ("memory: { instance: 3Mi }", true),
        ("instances: 9", true),
        ("output: { messages: 33 }", true),
        ("output: { bytes: 257Ki }", true),
        ("payload: 129Ki", true),
        ("payload: 1B", false),
        ("inflight: 513Ki", true),
        ("buffer: 9Mi", true),
        ("state: { keys: 101 }", true),
        ("state: { bytes: 2Mi }", true),
        ("state: { value: 65Ki }", true),
        ("state: { windows: 3Mi }", true),
        ("state: { keys: 99, bytes: 1Mi, value: 1Ki }", false),
        ("deadLetters: { count: 101 }", true),
        ("deadLetters: { bytes: 1025Ki }", true),
        ("deadLetters: { age: 25h }", true),
        ("deadLetters: { count: 0, bytes: 0B, age: 1ms }", false),
        ("inference: { memory: 129Mi }", true),
        ("inference: { time: 1001ms }", true),
        ("inference: { model: 11Mi }", true),
        ("inference: { memory: 64Mi, model: 1Mi }", false),
        ("component: { size: 5Mi }", true),
        ("component: { compileTime: 11s }", true),
        ("component: { compileMemory: 1025Mi }", true),
        ("faults: { retries: 2 }", true),
        ("faults: { retries: 0 }", false),
        ("faults: { coolDown: 6s }", true),
        ("faults: { quarantineAfter: 11 }", true),
        ("faults: { within: 31s }", true),
        ("time: { lateness: 1h }", true),
        ("time: { idle: 31s }", true),
        ("time: { tick: 51ms }", true),
        ("connections: 3", true),
        ("connections: 0", false),
    ] {
        let (limits, found) = read(&policy, text, true);
        let errors: Vec<_> = found.iter().filter(|it| it.0 == Severity::Error).map(|it| it.1).collect();
        assert_eq!(errors, if raised { vec!["policy/above-ceiling"] } else { vec![] }, "{text}: {found:?}");
        // What is refused changes nothing; what is lowered does.
        assert_eq!(
            limits == policy,
            raised || matches!(text, "weight: 1" | "cpu: { cap: true }" | "message: { fuel: 10000K }"),
            "{text}"
        );
        // The twin: a policy may set the same.
        let (_, found) = read(&Limits { inflight_bytes_max: 1 << 20, ..policy.clone() }, text, false);
        assert!(found.iter().all(|it| it.0 == Severity::Warning), "{text}: {found:?}");
    }
}

#[test]
fn limits_that_would_ban_everything_are_refused() {
    for text in [
        "weight: 0",
        "instances: 0",
        "payload: 0B",
        "inflight: 0Ki",
        "deadLetters: { age: 0s }",
        "message: { fuel: 0 }",
        "message: { time: 0ms }",
        "memory: { instance: 0Mi }",
        "output: { messages: 0 }",
        "inference: { memory: 0Mi }",
        "inference: { time: 0s }",
        "inference: { model: 0Mi }",
        // A frame says its length in 32 bits.
        "inference: { model: 2Gi }",
        "component: { size: 0B }",
        "component: { compileTime: 0s }",
        "component: { compileMemory: 0Mi }",
    ] {
        let (limits, found) = read(&Limits::default(), text, false);
        assert_eq!(found.iter().map(|it| it.1).collect::<Vec<_>>(), ["policy/quantity"], "{text}");
        assert_eq!(limits, Limits::default(), "{text}");
    }
}

#[test]
fn grants_name_the_tenant_and_nobody_else() {
    let text = policy_text(r#"[ "{tenant}/#", "site/+/{tenant}" ]"#, r#"[ "{tenant}/out/#" ]"#);
    let mut diagnostics = Diagnostics::default();
    let policy = crate::resource::site::policy_of("p.yaml", &text, &mut diagnostics).expect("it can be read");
    let [grants] = policy.grants_for("weather").try_into().expect("one endpoint");
    assert_eq!(grants.endpoint, "local");
    let texts = |filters: &[TopicFilter]| filters.iter().map(|it| it.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(texts(&grants.read), ["weather/#", "site/+/weather"]);
    assert_eq!(texts(&grants.write), ["weather/out/#"]);
}

fn policy_text(read: &str, write: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  world: w\n  endpoints:\n    \
         - {{ name: local, read: {read}, write: {write} }}\n"
    )
}

proptest! {
    /// Whatever two tenants write, no limit of theirs is above the policy's.
    #[test]
    fn lowering_never_raises(
        instances in 0_u32..40, payload in 0_u64..600, inflight in 0_u64..2_000, fuel in 0_u64..40, retries in 0_u32..5,
    ) {
        let text = format!(
            "instances: {instances}\npayload: {payload}Ki\ninflight: {inflight}Ki\nmessage: {{ fuel: {fuel}M }}\n\
             faults: {{ retries: {retries} }}\n"
        );
        let policy = Limits::default();
        let (limits, found) = read(&policy, &text, true);
        prop_assert!(limits.instances_max <= policy.instances_max && limits.instances_max > 0);
        prop_assert!(limits.payload_bytes_max <= policy.payload_bytes_max);
        prop_assert!(limits.inflight_bytes_max <= policy.inflight_bytes_max);
        prop_assert!(limits.message_fuel_max <= policy.message_fuel_max && limits.message_fuel_max > 0);
        prop_assert!(limits.fault_retries_max <= policy.fault_retries_max);
        let refused = instances > 16 || payload > 256 || inflight > 1_024 || fuel > 20 || retries > 2
            || instances == 0 || payload == 0 || inflight == 0 || fuel == 0
            || limits.payload_bytes_max > limits.inflight_bytes_max;
        prop_assert_eq!(found.iter().any(|it| it.0 == Severity::Error), refused, "{:?}", found);
    }
}

#[test]
fn a_model_that_no_process_has_room_for_is_refused() {
    for (text, expected) in [
        ("inference: { model: 256Mi }", None),
        ("inference: { model: 257Mi }", Some("policy/model-above-memory")),
        ("inference: { memory: 49Mi }", Some("policy/model-above-memory")),
        ("inference: { memory: 49Mi, model: 49Mi }", None),
    ] {
        let (_, found) = read(&Limits::default(), text, false);
        assert_eq!(found.first().map(|it| it.1), expected, "{text}");
    }
}

#[test]
fn a_build_without_models_says_so_where_they_are_bounded() {
    let text = policy_text("[]", "[]") + "  inference: { time: 1s }\n";
    let mut diagnostics = Diagnostics::default();
    crate::resource::site::policy_of("p.yaml", &text, &mut diagnostics).expect("it can be read");
    let found: Vec<_> = diagnostics.iter().map(|it| (it.rule, it.label.as_str())).collect();
    let expected = (NOT_BUILT, "a build with the cargo feature `wasi-nn` does");
    assert_eq!(found, if inference::IS_BUILT { vec![] } else { vec![expected] });
}
