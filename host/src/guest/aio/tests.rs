use std::cell::RefCell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::{
    batch::BatchBuilder,
    guest::tests::{Rig, STANDARD, aio_wat, component, ready, size_of_type},
};

const AMPLE: OutputMax = OutputMax { messages: 1000, bytes: 1 << 20 };

struct Operator {
    rig: Rig,
    aio: Aio,
}

impl Operator {
    fn new(kind: OperatorKind, imports: &str, process: &str) -> Self {
        Self::of(Contract::Aio, kind, imports, process)
    }

    fn of(contract: Contract, kind: OperatorKind, imports: &str, process: &str) -> Self {
        let (package, version) = (contract.package(), contract.version());
        let wit = format!("import {package}/types@{version}; export {package}/%{kind}@{version};");
        let bytes = component(&wit, &aio_wat(&contract.interface(kind), imports, process));
        let mut rig = Rig::start(&bytes, STANDARD, 1).unwrap();
        let exported = rig.exported(contract, kind);
        let aio = Aio::new(&mut rig.store, &rig.instance, contract, kind, exported).unwrap();
        Operator { rig, aio }
    }

    fn process(&mut self, input: &Batch, max: OutputMax) -> Result<Output, CallError> {
        self.rig.store.set_fuel(1_000_000_000).unwrap();
        self.rig.store.data_mut().begin_call(1, u64::MAX);
        ready(self.aio.process(&mut self.rig.store, input, &input.clone().into(), max))
    }
}

/// Both generations of the contract.
const BOTH: [Contract; 2] = [Contract::Aio, Contract::Preview];

/// Gives back the model that it is given.
fn echo() -> Operator {
    let copied = size_of_type("data-model");
    let process = format!(
        "(param i32) (result i32)
            (i32.store8 (i32.const 1024) (i32.const 0))
            (memory.copy (i32.const 1032) (local.get 0) (i32.const {copied}))
            (i32.const 1024)"
    );
    Operator::new(OperatorKind::Map, "", &process)
}

/// The same in the preview, where nothing stands around it.
fn echo_of(contract: Contract) -> Operator {
    match contract {
        Contract::Preview => {
            Operator::of(contract, OperatorKind::Map, "", "(param i32) (result i32) (local.get 0)")
        }
        _ => echo(),
    }
}

// Where a message's payload lies in a `data-model` in the guest's memory.
const PAYLOAD_AT: u32 = 80;
const PAYLOAD_LEN: u32 = 84;

fn batch_of(payloads: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new("edge-1");
    payloads.iter().for_each(|payload| builder.push(b"a/b", None, payload.as_bytes(), []));
    builder.finish()
}

/// All that an entry says, with its spans read.
type Said = (Kind, (u64, u32, u64), Vec<u8>, Vec<u8>, Option<Vec<u8>>, Vec<u8>, Vec<u8>, Option<Vec<u8>>);

fn said(batch: &Batch) -> Vec<Said> {
    let of = |span: Span| span.bytes(&batch.arena).to_vec();
    let entry = |entry: &Entry| {
        let time = (entry.seconds, entry.nanos, entry.counter);
        let maybe = |span: Span| span.get(&batch.arena).map(<[u8]>::to_vec);
        let (topic, properties) = (of(entry.topic), of(entry.properties));
        let content_type = match entry.kind {
            // An image always has a format.
            Kind::SNAPSHOT => Some(of(entry.content_type)),
            _ => maybe(entry.content_type),
        };
        (
            entry.kind,
            time,
            of(entry.node),
            topic,
            content_type,
            of(entry.payload),
            properties,
            maybe(entry.schema),
        )
    };
    batch.entries.iter().map(entry).collect()
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let text = || "[a-zé☃]{0,6}";
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let properties = prop::collection::vec((text(), text()), 0..4);
    let schema = prop_oneof![
        Just(None),
        text().prop_map(|reference| Some([&[0], reference.as_bytes()].concat())),
        (text(), text()).prop_map(|(name, content)| {
            Some([&[1], &(name.len() as u32).to_le_bytes()[..], name.as_bytes(), content.as_bytes()].concat())
        }),
    ];
    let time = (any::<u64>(), 0..1_000_000_000_u32, any::<u64>());
    let rest = (bytes(), prop::option::of(text()), bytes(), properties, schema, any::<(u32, u32)>());
    let message = (0..3_u8, time, text(), rest);
    prop::collection::vec(message, 0..6).prop_map(|messages| {
        let mut arena = BytesMut::new();
        let mut put = |bytes: &[u8]| {
            let offset = arena.len() as u32;
            arena.extend_from_slice(bytes);
            Span { offset, len: bytes.len() as u32 }
        };
        let mut entries = Vec::new();
        for (kind, (seconds, nanos, counter), node, rest) in messages {
            let (topic, content_type, payload, properties, schema, (width, height)) = rest;
            let (node, payload) = (put(node.as_bytes()), put(&payload));
            let bytes = Entry { seconds, nanos, counter, node, payload, ..EMPTY_ENTRY };
            let mut optional = |bytes: Option<&[u8]>| bytes.map_or(Span::ABSENT, &mut put);
            let entry = match kind {
                0 => bytes,
                1 => Entry {
                    kind: Kind::SNAPSHOT,
                    content_type: optional(content_type.as_deref().map(str::as_bytes)),
                    properties: put(&[width.to_le_bytes(), height.to_le_bytes()].concat()),
                    ..bytes
                },
                _ => {
                    let mut encoded = BytesMut::new();
                    properties.iter().for_each(|(key, value)| {
                        push_property(&mut encoded, key.as_bytes(), value.as_bytes());
                    });
                    Entry {
                        kind: Kind::MESSAGE,
                        content_type: optional(content_type.as_deref().map(str::as_bytes)),
                        properties: optional((!encoded.is_empty()).then_some(&encoded[..])),
                        schema: optional(schema.as_deref()),
                        topic: put(&topic),
                        ..bytes
                    }
                }
            };
            entries.push(Entry { origin: entries.len() as u32, ..entry });
        }
        Batch { entries, arena: arena.freeze() }
    })
}

#[test]
fn every_field_survives_the_way_through_a_guest_and_back() {
    let echoes = RefCell::new(BOTH.map(echo_of));
    // What fails is printed; there is no file to keep it in.
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&any_batch(), |batch| {
            for echo in echoes.borrow_mut().iter_mut() {
                let output = echo.process(&batch, AMPLE).unwrap();
                let Output::Mapped { batch: back, errors } = output else { panic!("{output:?}") };
                prop_assert_eq!(errors, vec![]);
                prop_assert_eq!(said(&back), said(&batch));
                let origins: Vec<_> = back.entries.iter().map(|entry| entry.origin).collect();
                prop_assert_eq!(origins, (0..batch.len() as u32).collect::<Vec<_>>());
                let fit = |span: Span| span.fits(back.arena.len());
                prop_assert!(back.entries.iter().flat_map(Entry::spans).all(fit));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn origins_are_places_in_the_call_whatever_the_batch_had_before() {
    let batch = batch_of(&["a", "b", "c"]).select(|index, _| index != 1);
    let Output::Mapped { batch, .. } = echo().process(&batch, AMPLE).unwrap() else { panic!() };
    let origins: Vec<_> = batch.entries.iter().map(|entry| entry.origin).collect();
    assert_eq!(origins, [0, 1]);
}

#[test]
fn output_past_its_limits_is_not_taken() {
    // Payload, topic and node of each: 10 + 3 + 6 bytes.
    let batch = batch_of(&["0123456789", "0123456789"]);
    for (messages, bytes, expected) in [
        (2, 38, None),
        (1, 38, Some("2 messages, 1 are allowed")),
        (2, 37, Some("38 bytes of messages, 37 are allowed")),
    ] {
        let error = echo().process(&batch, OutputMax { messages, bytes }).err().map(|error| match error {
            CallError::BadOutput(cause) => cause,
            CallError::Wasmtime(error) => panic!("{error:#}"),
        });
        assert_eq!(error.as_deref(), expected);
    }
}

/// True if the payload starts with a `t`, an error if there is none.
fn starts_with_t(kind: OperatorKind) -> Operator {
    let process = format!(
        "(param $m i32) (result i32)
            (if (i32.eqz (i32.load offset={PAYLOAD_LEN} (local.get $m))) (then
                (i32.store8 (i32.const 1024) (i32.const 1))
                (i32.store (i32.const 1028) (i32.const 2048))
                (i32.store (i32.const 1032) (i32.const 5))
                (return (i32.const 1024))))
            (i32.store8 (i32.const 1024) (i32.const 0))
            (i32.store8 (i32.const 1028)
                (i32.eq (i32.load8_u (i32.load offset={PAYLOAD_AT} (local.get $m))) (i32.const 116)))
            (i32.const 1024)"
    );
    Operator::new(kind, r#"(data (i32.const 2048) "empty")"#, &process)
}

#[test]
fn filters_judge_each_message_and_explain_errors() {
    let output =
        starts_with_t(OperatorKind::Filter).process(&batch_of(&["true", "", "no", "t"]), AMPLE).unwrap();
    let Output::Judged { verdicts, errors } = output else { panic!("{output:?}") };
    assert_eq!(verdicts, [Verdict::TRUE, Verdict::ERROR, Verdict::FALSE, Verdict::TRUE]);
    assert_eq!(errors, [OperatorError { index: 1, text: "empty".into() }]);
}

#[test]
fn branches_are_given_the_logical_time_of_the_delivery() {
    // The logical time stands first among the parameters.
    let process = "(param $p i32) (result i32)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store8 (i32.const 1028) (i64.gt_u (i64.load (local.get $p)) (i64.const 1000)))
        (i32.const 1024)";
    let mut operator = Operator::new(OperatorKind::Branch, "", process);
    let mut delivery = batch_of(&["a", "b", "c"]);
    for (entry, seconds) in delivery.entries.iter_mut().zip([999, 1001, 2000]) {
        entry.seconds = seconds;
    }
    // An operator before it dropped the first and rewrote the timestamps.
    let mut input = delivery.select(|index, _| index > 0);
    input.entries.iter_mut().for_each(|entry| entry.seconds = 0);
    let Operator { rig, aio } = &mut operator;
    let output = ready(aio.process(&mut rig.store, &input, &delivery.clone().into(), AMPLE)).unwrap();
    let Output::Judged { verdicts, .. } = output else { panic!("{output:?}") };
    assert_eq!(verdicts, [Verdict::TRUE, Verdict::TRUE]);
}

#[test]
fn operators_of_the_preview_answer_with_the_bare_value() {
    let preview = |kind, process: &str| {
        let mut operator = Operator::of(Contract::Preview, kind, "", process);
        let mut batch = batch_of(&["true", "no"]);
        batch.entries.iter_mut().for_each(|entry| (entry.seconds, entry.nanos) = (7, 5));
        operator.process(&batch, AMPLE)
    };
    // True if the payload starts with a `t`; a branch has the logical time before it.
    for (kind, params, model) in
        [(OperatorKind::Filter, "(param i32)", 0), (OperatorKind::Branch, "(param i32)", 32)]
    {
        let process = format!(
            "{params} (result i32)
                (i32.eq (i32.load8_u (i32.load offset={} (local.get 0))) (i32.const 116))",
            PAYLOAD_AT + model
        );
        let output = preview(kind, &process).unwrap();
        let Output::Judged { verdicts, errors } = output else { panic!("{output:?}") };
        assert_eq!((verdicts, errors), (vec![Verdict::TRUE, Verdict::FALSE], vec![]), "{kind}");
    }
    // The staged value is the first parameter, and what a window is without a change.
    let output = preview(OperatorKind::Accumulate, "(param i32) (result i32) (local.get 0)");
    let Output::Staged(Ok(staged)) = output.unwrap() else { panic!() };
    assert_eq!(staged.entries[0].payload.bytes(&staged.arena), b"true");
    let Err(CallError::BadOutput(cause)) = preview(
        OperatorKind::Delay,
        "(param i32) (result i32) (i32.store (i32.const 1032) (i32.const -1)) (i32.const 1024)",
    ) else {
        panic!()
    };
    assert_eq!(cause, "4294967295 nanoseconds in a time");
    let delay = "(param i32) (result i32) (i64.store (i32.const 1024) (i64.const 9)) (i32.const 1024)";
    let Output::Delayed { times, errors, .. } = preview(OperatorKind::Delay, delay).unwrap() else {
        panic!()
    };
    assert_eq!(errors, []);
    assert_eq!(times.iter().map(|time| time.seconds).collect::<Vec<_>>(), [9, 9]);
}

#[test]
fn a_trap_is_an_error_of_the_call() {
    for contract in BOTH {
        let mut operator =
            Operator::of(contract, OperatorKind::Filter, "", "(param i32) (result i32) unreachable");
        let Err(CallError::Wasmtime(error)) = operator.process(&batch_of(&["a"]), AMPLE) else { panic!() };
        assert_eq!(error.downcast_ref::<wasmtime::Trap>(), Some(&wasmtime::Trap::UnreachableCodeReached));
    }
}

#[test]
fn init_says_whether_the_configuration_will_do() {
    let mut operator = starts_with_t(OperatorKind::Filter);
    let Operator { rig, aio } = &mut operator;
    let configuration = [("threshold".to_owned(), "7".to_owned())];
    assert!(ready(aio.init(&mut rig.store, &configuration, &[])).unwrap());
}

/// Calls a map with a payload that stays with the host.
fn call_with_buffer(operator: &mut Operator, payload: &'static [u8]) -> ModelOut {
    let Operator { rig, aio } = operator;
    let buffer = rig.store.data_mut().table.push(Buffer::new(Bytes::from_static(payload))).unwrap();
    let batch = batch_of(&[""]);
    let DataModel::Message(message) = model_of(&batch.entries[0], &batch.arena) else { panic!() };
    let model = DataModel::Message(Message { payload: BufferOrBytes::Buffer(buffer), ..message });
    let ProcessExport::Map(process) = &aio.process else { panic!() };
    let process: Process<'_, _> = *process;
    ready(process.call(&mut rig.store, (model,))).unwrap().unwrap()
}

#[test]
fn buffers_of_the_host_can_be_given_back() {
    let mut operator = echo();
    let model = call_with_buffer(&mut operator, b"kept by the host");
    let batch = batch_of(&[""]);
    let mut writer = Writer::new(AMPLE);
    let table = &mut operator.rig.store.data_mut().table;
    writer.push(0, model, (&batch.entries[0], &batch.arena), table).unwrap();
    assert!(table.is_empty());
    let back = writer.finish();
    assert_eq!(back.entries[0].payload.bytes(&back.arena), b"kept by the host");
}

#[test]
fn buffers_of_the_host_can_be_read_and_dropped() {
    for contract in BOTH {
        let (package, version) = (contract.package(), contract.version());
        read_and_drop(contract, &format!("{package}/types@{version}"));
    }
}

/// A map that gives back what it reads from a buffer.
fn read_and_drop(contract: Contract, types: &str) {
    let imports = format!(
        r#"(import "{types}" "[method]buffer.read" (func $read (param i32 i32)))
           (import "{types}" "[resource-drop]buffer" (func $drop (param i32)))"#
    );
    // The model, around which only one of them has a result.
    let at = if contract == Contract::Preview { 1024 } else { 1032 };
    let (case, list) = (at + 8, at + 12);
    let process = format!(
        "(param $m i32) (result i32)
            (call $read (i32.load offset={PAYLOAD_AT} (local.get $m)) (i32.const 512))
            (call $drop (i32.load offset={PAYLOAD_AT} (local.get $m)))
            (i32.store8 (i32.const 1024) (i32.const 0))
            (i32.store8 (i32.const {at}) (i32.const 0))
            (i32.store8 (i32.const {case}) (i32.const 1))
            (i64.store (i32.const {list}) (i64.load (i32.const 512)))
            (i32.const 1024)"
    );
    let mut operator = Operator::of(contract, OperatorKind::Map, &imports, &process);
    let model = call_with_buffer(&mut operator, b"read by the guest");
    let DataModel::BufferOrBytes(BufferOrBytes::Bytes(bytes)) = model else { panic!("{model:?}") };
    assert_eq!(bytes, b"read by the guest");
    assert!(operator.rig.store.data().table.is_empty(), "dropping the handle drops the buffer");
}

#[test]
fn times_and_texts_that_cannot_be_are_refused() {
    let mut table = ResourceTable::new();
    let not_text = table.push(Buffer::new(Bytes::from_static(b"\xff"))).unwrap();
    let timestamp =
        |nanos, node_id| Timestamp { timestamp: Timespec { secs: 1, nanos }, counter: 0, node_id };
    let node = || BufferOrString::String("n".to_owned());
    for (timestamp, expected) in [
        (timestamp(1_000_000_000, node()), "1000000000 nanoseconds in a timestamp"),
        (timestamp(0, BufferOrString::Buffer(not_text)), "a buffer used as text is not UTF-8"),
    ] {
        let Err(CallError::BadOutput(cause)) = Writer::new(AMPLE).timestamp(timestamp, &mut table) else {
            panic!()
        };
        assert_eq!(cause, expected);
    }
}
