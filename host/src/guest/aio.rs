//! AIO's contract, `wasm-graph:processor@1.1.0`: one message a call, every field a
//! value of its own. Its preview, `tinykube-graph:processor@1.0.0`, has other names and
//! no errors. Translates between a batch's records and AIO's data model and
//! keeps all fields; knows nothing of instances or scheduling.

use bytes::{Bytes, BytesMut};
use wasmtime::{
    Store,
    component::{
        ComponentExportIndex, ComponentNamedList, ComponentType, Instance, Lift, Lower, Resource,
        ResourceTable, TypedFunc,
    },
};

use crate::{
    batch::{Batch, Entry, Kind, Properties, Span, Stamped, Time, push_property},
    guest::{
        Contract, OperatorError, OperatorKind, Output, Schema, Verdict,
        packed::{CallError, Exported, OutputMax},
        state::GuestState,
    },
};

/// Longest text of an operator's error that is kept, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 4096;

/// Bytes that stay with the host until the guest reads them: AIO's `buffer`.
#[derive(Clone, Debug)]
pub struct Buffer {
    bytes: Bytes,
}

impl Buffer {
    pub fn new(bytes: Bytes) -> Self {
        Buffer { bytes }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

// AIO's types, in the order of its WIT. `S` and `B` are text and bytes: borrowed
// from a batch on the way in, owned on the way out.

#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct Timespec {
    secs: u64,
    nanos: u32,
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum BufferOrBytes<B> {
    #[component(name = "buffer")]
    Buffer(Resource<Buffer>),
    #[component(name = "bytes")]
    Bytes(B),
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum BufferOrString<S> {
    #[component(name = "buffer")]
    Buffer(Resource<Buffer>),
    #[component(name = "string")]
    String(S),
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct Timestamp<S> {
    timestamp: Timespec,
    counter: u64,
    #[component(name = "node-id")]
    node_id: BufferOrString<S>,
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct MessageProperties<S> {
    #[component(name = "user-properties")]
    user_properties: Vec<(BufferOrString<S>, BufferOrString<S>)>,
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct InlineSchema<S> {
    name: BufferOrString<S>,
    content: BufferOrString<S>,
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum MessageSchema<S> {
    #[component(name = "registry-reference")]
    RegistryReference(BufferOrString<S>),
    #[component(name = "inline")]
    Inline(InlineSchema<S>),
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct Message<S, B> {
    timestamp: Timestamp<S>,
    topic: BufferOrBytes<B>,
    #[component(name = "content-type")]
    content_type: Option<BufferOrString<S>>,
    payload: BufferOrBytes<B>,
    properties: MessageProperties<S>,
    schema: Option<MessageSchema<S>>,
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct Snapshot<S, B> {
    timestamp: Timestamp<S>,
    format: BufferOrString<S>,
    width: u32,
    height: u32,
    frame: BufferOrBytes<B>,
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum DataModel<S, B> {
    #[component(name = "buffer-or-bytes")]
    BufferOrBytes(BufferOrBytes<B>),
    #[component(name = "message")]
    Message(Message<S, B>),
    #[component(name = "snapshot")]
    Snapshot(Snapshot<S, B>),
}

type ModelIn<'a> = DataModel<&'a str, &'a [u8]>;
type ModelOut = DataModel<String, Vec<u8>>;

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct HybridLogicalClock<S> {
    timestamp: Timespec,
    counter: u64,
    #[component(name = "node-id")]
    node_id: S,
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
struct ModuleSchema<'a> {
    name: &'a str,
    #[component(name = "content-type")]
    content_type: &'a str,
    content: &'a str,
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
struct ModuleConfiguration<'a> {
    properties: &'a [(String, String)],
    #[component(name = "module-schemas")]
    module_schemas: &'a [ModuleSchema<'a>],
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct Error {
    message: String,
}

type Process<'a, R> = Answering<(ModelIn<'a>,), R>;
type ProcessTimed<'a, R> = Answering<(HybridLogicalClock<&'a str>, ModelIn<'a>), R>;
type ProcessWindow<'a> = Answering<(ModelIn<'a>, Vec<ModelIn<'a>>), ModelOut>;
/// A delay has its parameters in the other order.
type ProcessDelay<'a> = Answering<(ModelIn<'a>, HybridLogicalClock<&'a str>), HybridLogicalClock<String>>;
type Init<'a> = TypedFunc<(ModuleConfiguration<'a>,), (bool,)>;

/// A function that answers with an `R`, or says why it does not.
enum Answering<P, R> {
    Result(TypedFunc<P, (Result<R, Error>,)>),
    /// As the preview has it: it can only answer.
    Bare(TypedFunc<P, (R,)>),
}

// Derived, both would ask the same of `P` and `R`, which are not there.
impl<P, R> Copy for Answering<P, R> {}

impl<P, R> Clone for Answering<P, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: ComponentNamedList + Lower, R: ComponentType + Lift + 'static> Answering<P, R> {
    fn find(
        store: &mut Store<GuestState>,
        instance: &Instance,
        contract: Contract,
        export: ComponentExportIndex,
    ) -> wasmtime::Result<Self> {
        Ok(match contract {
            Contract::Preview => Answering::Bare(instance.get_typed_func(store, export)?),
            _ => Answering::Result(instance.get_typed_func(store, export)?),
        })
    }

    async fn call(self, store: &mut Store<GuestState>, params: P) -> wasmtime::Result<Result<R, Error>> {
        match self {
            Answering::Result(function) => Ok(function.call_async(store, params).await?.0),
            Answering::Bare(function) => Ok(Ok(function.call_async(store, params).await?.0)),
        }
    }
}

/// The exports of one instance under AIO's contract or its preview.
pub struct Aio {
    init: Init<'static>,
    process: ProcessExport,
}

enum ProcessExport {
    Map(Process<'static, ModelOut>),
    Filter(Process<'static, bool>),
    Branch(ProcessTimed<'static, bool>),
    Accumulate(ProcessWindow<'static>),
    Delay(ProcessDelay<'static>),
}

impl Aio {
    /// Takes the exports for `kind`. An error means that they do not have exactly the
    /// contract's types.
    pub fn new(
        store: &mut Store<GuestState>,
        instance: &Instance,
        contract: Contract,
        kind: OperatorKind,
        Exported { init, process: at }: Exported,
    ) -> wasmtime::Result<Self> {
        let process = match kind {
            OperatorKind::Map => ProcessExport::Map(Answering::find(store, instance, contract, at)?),
            OperatorKind::Filter => ProcessExport::Filter(Answering::find(store, instance, contract, at)?),
            OperatorKind::Branch => ProcessExport::Branch(Answering::find(store, instance, contract, at)?),
            OperatorKind::Accumulate => {
                ProcessExport::Accumulate(Answering::find(store, instance, contract, at)?)
            }
            OperatorKind::Delay => ProcessExport::Delay(Answering::find(store, instance, contract, at)?),
        };
        Ok(Aio { init: instance.get_typed_func(&mut *store, init)?, process })
    }

    /// Calls `init`; false refuses the configuration.
    pub async fn init(
        &mut self,
        store: &mut Store<GuestState>,
        properties: &[(String, String)],
        schemas: &[Schema],
    ) -> wasmtime::Result<bool> {
        let init: Init<'_> = self.init;
        let module_schemas: Vec<ModuleSchema<'_>> = schemas
            .iter()
            .map(|Schema { name, content_type, content }| ModuleSchema { name, content_type, content })
            .collect();
        let configuration = ModuleConfiguration { properties, module_schemas: &module_schemas };
        let (accepted,) = init.call_async(store, (configuration,)).await?;
        Ok(accepted)
    }

    /// Calls `process` on each message in turn, or on a window at once: its first
    /// message is then the staged value. The logical time of a message is that of its
    /// origin in `delivery`.
    pub async fn process(
        &mut self,
        store: &mut Store<GuestState>,
        input: &Batch,
        delivery: &Stamped,
        output_max: OutputMax,
    ) -> Result<Output, CallError> {
        match &self.process {
            ProcessExport::Map(process) => map(*process, store, input, output_max).await,
            ProcessExport::Filter(process) => {
                let mut judged = Judged::with_capacity(input.len());
                for entry in &input.entries {
                    let process: Process<'_, _> = *process;
                    let model = model_of(entry, &input.arena);
                    judged.push(process.call(store, (model,)).await?);
                }
                Ok(judged.finish())
            }
            ProcessExport::Branch(process) => {
                let mut judged = Judged::with_capacity(input.len());
                for entry in &input.entries {
                    let process: ProcessTimed<'_, _> = *process;
                    let time = clock_of(delivery.time(entry.origin), &delivery.batch.arena);
                    let model = model_of(entry, &input.arena);
                    judged.push(process.call(store, (time, model)).await?);
                }
                Ok(judged.finish())
            }
            ProcessExport::Accumulate(process) => accumulate(*process, store, input, output_max).await,
            ProcessExport::Delay(process) => delay(*process, store, input, delivery).await,
        }
    }
}

async fn accumulate(
    process: ProcessWindow<'static>,
    store: &mut Store<GuestState>,
    input: &Batch,
    output_max: OutputMax,
) -> Result<Output, CallError> {
    let process: ProcessWindow<'_> = process;
    let (staged, messages) = input.entries.split_first().expect("the staged value comes first");
    let models = messages.iter().map(|entry| model_of(entry, &input.arena)).collect();
    let result = process.call(store, (model_of(staged, &input.arena), models)).await?;
    Ok(Output::Staged(match result {
        Ok(model) => {
            let mut writer = Writer::new(output_max);
            writer.push(0, model, (staged, &input.arena), &mut store.data_mut().table)?;
            Ok(writer.finish())
        }
        Err(error) => Err(operator_error(0, error)),
    }))
}

async fn delay(
    process: ProcessDelay<'static>,
    store: &mut Store<GuestState>,
    input: &Batch,
    delivery: &Stamped,
) -> Result<Output, CallError> {
    let (mut times, mut errors) = (Vec::with_capacity(input.len()), Vec::new());
    let mut arena = Vec::new();
    for (index, entry) in input.entries.iter().enumerate() {
        let process: ProcessDelay<'_> = process;
        let old = delivery.time(entry.origin);
        let clock = clock_of(old, &delivery.batch.arena);
        match process.call(store, (model_of(entry, &input.arena), clock)).await? {
            Ok(HybridLogicalClock { timestamp: Timespec { secs, nanos }, counter, node_id }) => {
                if nanos >= 1_000_000_000 {
                    return Err(format!("{nanos} nanoseconds in a time").into());
                }
                let node = Span { offset: arena.len() as u32, len: node_id.len() as u32 };
                arena.extend_from_slice(node_id.as_bytes());
                times.push(Time { seconds: secs, nanos, zero: 0, counter, node });
            }
            Err(error) => {
                errors.push(operator_error(index, error));
                times.push(Time { node: Span::EMPTY, ..old });
            }
        }
    }
    Ok(Output::Delayed { times, arena: arena.into(), errors })
}

async fn map(
    process: Process<'static, ModelOut>,
    store: &mut Store<GuestState>,
    input: &Batch,
    output_max: OutputMax,
) -> Result<Output, CallError> {
    let mut writer = Writer::new(output_max);
    let mut errors = Vec::new();
    for (index, entry) in input.entries.iter().enumerate() {
        let process: Process<'_, _> = process;
        match process.call(store, (model_of(entry, &input.arena),)).await? {
            Ok(model) => {
                writer.push(index as u32, model, (entry, &input.arena), &mut store.data_mut().table)?
            }
            Err(error) => errors.push(operator_error(index, error)),
        }
    }
    Ok(Output::Mapped { batch: writer.finish(), errors })
}

struct Judged {
    verdicts: Vec<Verdict>,
    errors: Vec<OperatorError>,
}

impl Judged {
    fn with_capacity(messages: usize) -> Self {
        Judged { verdicts: Vec::with_capacity(messages), errors: Vec::new() }
    }

    fn push(&mut self, result: Result<bool, Error>) {
        let verdict = match result {
            Ok(false) => Verdict::FALSE,
            Ok(true) => Verdict::TRUE,
            Err(error) => {
                self.errors.push(operator_error(self.verdicts.len(), error));
                Verdict::ERROR
            }
        };
        self.verdicts.push(verdict);
    }

    fn finish(self) -> Output {
        Output::Judged { verdicts: self.verdicts, errors: self.errors }
    }
}

fn operator_error(index: usize, error: Error) -> OperatorError {
    let mut text = error.message;
    text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
    OperatorError { index: index as u32, text }
}

/// One message as AIO has it, borrowed from its batch.
fn model_of<'a>(entry: &Entry, arena: &'a [u8]) -> ModelIn<'a> {
    let payload = BufferOrBytes::Bytes(entry.payload.bytes(arena));
    match entry.kind {
        Kind::BYTES => DataModel::BufferOrBytes(payload),
        Kind::SNAPSHOT => {
            let (width, height) = size_of_image(entry.properties.bytes(arena));
            DataModel::Snapshot(Snapshot {
                timestamp: timestamp_of(entry, arena),
                format: string_of(entry.content_type.bytes(arena)),
                width,
                height,
                frame: payload,
            })
        }
        _ => DataModel::Message(Message {
            timestamp: timestamp_of(entry, arena),
            topic: BufferOrBytes::Bytes(entry.topic.bytes(arena)),
            content_type: entry.content_type.get(arena).map(string_of),
            payload,
            properties: MessageProperties {
                user_properties: Properties::of(entry.properties.bytes(arena))
                    .map(|(key, value)| (string_of(key), string_of(value)))
                    .collect(),
            },
            schema: entry.schema.get(arena).and_then(schema_of),
        }),
    }
}

fn timestamp_of<'a>(entry: &Entry, arena: &'a [u8]) -> Timestamp<&'a str> {
    Timestamp {
        timestamp: Timespec { secs: entry.seconds, nanos: entry.nanos },
        counter: entry.counter,
        node_id: string_of(entry.node.bytes(arena)),
    }
}

fn clock_of(time: Time, arena: &[u8]) -> HybridLogicalClock<&str> {
    let Time { seconds, nanos, counter, node, .. } = time;
    HybridLogicalClock {
        timestamp: Timespec { secs: seconds, nanos },
        counter,
        node_id: text_of(node.bytes(arena)),
    }
}

fn string_of(bytes: &[u8]) -> BufferOrString<&str> {
    BufferOrString::String(text_of(bytes))
}

/// Text of a batch. Connectors and checks let only UTF-8 into it; should they fail,
/// it ends where it stops being that.
fn text_of(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid()),
    }
}

/// Reads the encoding of `tidegate:operator/types`.
fn schema_of(bytes: &[u8]) -> Option<MessageSchema<&str>> {
    match bytes.split_first()? {
        (0, reference) => Some(MessageSchema::RegistryReference(string_of(reference))),
        (1, inline) => {
            let (len, rest) = inline.split_first_chunk::<4>()?;
            let (name, content) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            Some(MessageSchema::Inline(InlineSchema { name: string_of(name), content: string_of(content) }))
        }
        _ => None,
    }
}

/// Width and height of a snapshot; 0 if they are not there.
fn size_of_image(encoded: &[u8]) -> (u32, u32) {
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
    (number(encoded), number(encoded.get(4..).unwrap_or_default()))
}

/// Writes what a map returned into one batch, within what it may return.
struct Writer {
    entries: Vec<Entry>,
    arena: BytesMut,
    max: OutputMax,
}

impl Writer {
    fn new(max: OutputMax) -> Self {
        Writer { entries: Vec::new(), arena: BytesMut::new(), max }
    }

    /// Appends one result. `from` is the message that it came from, with its arena;
    /// buffers that the guest gave back are taken out of `table`.
    fn push(
        &mut self,
        index: u32,
        model: ModelOut,
        from: (&Entry, &Bytes),
        table: &mut ResourceTable,
    ) -> Result<(), CallError> {
        let entry = match model {
            DataModel::BufferOrBytes(payload) => self.bytes(payload, from, table)?,
            DataModel::Message(message) => self.message(message, table)?,
            DataModel::Snapshot(snapshot) => self.snapshot(snapshot, table)?,
        };
        let (messages, bytes) = (self.entries.len() as u64 + 1, self.arena.len() as u64);
        if messages > self.max.messages {
            return Err(format!("{messages} messages, {} are allowed", self.max.messages).into());
        }
        if bytes > self.max.bytes {
            return Err(format!("{bytes} bytes of messages, {} are allowed", self.max.bytes).into());
        }
        self.entries.push(Entry { origin: index, ..entry });
        Ok(())
    }

    /// Bytes alone have no time of their own: they keep that of their origin.
    fn bytes(
        &mut self,
        payload: BufferOrBytes<Vec<u8>>,
        (from, arena): (&Entry, &Bytes),
        table: &mut ResourceTable,
    ) -> Result<Entry, CallError> {
        let node = self.append(from.node.bytes(arena));
        let payload = self.binary(payload, table)?;
        let Entry { seconds, nanos, counter, .. } = *from;
        Ok(Entry { seconds, nanos, counter, node, payload, ..EMPTY_ENTRY })
    }

    fn message(
        &mut self,
        message: Message<String, Vec<u8>>,
        table: &mut ResourceTable,
    ) -> Result<Entry, CallError> {
        let Message { timestamp, topic, content_type, payload, properties, schema } = message;
        let timed = self.timestamp(timestamp, table)?;
        Ok(Entry {
            kind: Kind::MESSAGE,
            topic: self.binary(topic, table)?,
            content_type: match content_type {
                Some(text) => self.string(text, table)?,
                None => Span::ABSENT,
            },
            payload: self.binary(payload, table)?,
            properties: self.properties(properties, table)?,
            schema: match schema {
                Some(schema) => self.schema(schema, table)?,
                None => Span::ABSENT,
            },
            ..timed
        })
    }

    fn snapshot(
        &mut self,
        snapshot: Snapshot<String, Vec<u8>>,
        table: &mut ResourceTable,
    ) -> Result<Entry, CallError> {
        let Snapshot { timestamp, format, width, height, frame } = snapshot;
        let timed = self.timestamp(timestamp, table)?;
        let [a, b, c, d] = width.to_le_bytes();
        let [e, f, g, h] = height.to_le_bytes();
        Ok(Entry {
            kind: Kind::SNAPSHOT,
            content_type: self.string(format, table)?,
            properties: self.append(&[a, b, c, d, e, f, g, h]),
            payload: self.binary(frame, table)?,
            ..timed
        })
    }

    fn timestamp(
        &mut self,
        timestamp: Timestamp<String>,
        table: &mut ResourceTable,
    ) -> Result<Entry, CallError> {
        let Timestamp { timestamp: Timespec { secs, nanos }, counter, node_id } = timestamp;
        if nanos >= 1_000_000_000 {
            return Err(format!("{nanos} nanoseconds in a timestamp").into());
        }
        let node = self.string(node_id, table)?;
        Ok(Entry { seconds: secs, nanos, counter, node, ..EMPTY_ENTRY })
    }

    fn properties(
        &mut self,
        properties: MessageProperties<String>,
        table: &mut ResourceTable,
    ) -> Result<Span, CallError> {
        let start = self.arena.len();
        for (key, value) in properties.user_properties {
            let (key, value) = (text(key, table)?, text(value, table)?);
            push_property(&mut self.arena, key.as_bytes(), value.as_bytes());
        }
        Ok(if self.arena.len() == start { Span::ABSENT } else { self.span_from(start) })
    }

    fn schema(
        &mut self,
        schema: MessageSchema<String>,
        table: &mut ResourceTable,
    ) -> Result<Span, CallError> {
        let start = self.arena.len();
        match schema {
            MessageSchema::RegistryReference(reference) => {
                self.append(&[0]);
                self.string(reference, table)?;
            }
            MessageSchema::Inline(InlineSchema { name, content }) => {
                let name = text(name, table)?;
                self.append(&[1]);
                self.append(&(name.len() as u32).to_le_bytes());
                self.append(name.as_bytes());
                self.string(content, table)?;
            }
        }
        Ok(self.span_from(start))
    }

    fn string(
        &mut self,
        string: BufferOrString<String>,
        table: &mut ResourceTable,
    ) -> Result<Span, CallError> {
        Ok(self.append(text(string, table)?.as_bytes()))
    }

    fn binary(
        &mut self,
        binary: BufferOrBytes<Vec<u8>>,
        table: &mut ResourceTable,
    ) -> Result<Span, CallError> {
        match binary {
            BufferOrBytes::Bytes(bytes) => Ok(self.append(&bytes)),
            BufferOrBytes::Buffer(buffer) => {
                let Buffer { bytes } = table.delete(buffer).map_err(wasmtime::Error::from)?;
                Ok(self.append(&bytes))
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.span_from(start)
    }

    fn span_from(&self, start: usize) -> Span {
        Span { offset: start as u32, len: (self.arena.len() - start) as u32 }
    }

    fn finish(self) -> Batch {
        Batch { entries: self.entries, arena: self.arena.freeze() }
    }
}

const EMPTY_ENTRY: Entry = Entry {
    origin: 0,
    kind: Kind::BYTES,
    seconds: 0,
    nanos: 0,
    zero: 0,
    counter: 0,
    node: Span::EMPTY,
    topic: Span::ABSENT,
    content_type: Span::ABSENT,
    payload: Span::EMPTY,
    properties: Span::ABSENT,
    schema: Span::ABSENT,
};

/// Text that a guest gave, plain or in a buffer of the host's.
fn text(string: BufferOrString<String>, table: &mut ResourceTable) -> Result<String, CallError> {
    match string {
        BufferOrString::String(text) => Ok(text),
        BufferOrString::Buffer(buffer) => {
            let Buffer { bytes } = table.delete(buffer).map_err(wasmtime::Error::from)?;
            String::from_utf8(bytes.into())
                .map_err(|_| "a buffer used as text is not UTF-8".to_owned().into())
        }
    }
}

#[cfg(test)]
mod tests;
