//! The packed contract, `tidegate:operator@0.1.0`: a batch goes in as records over
//! one arena and comes back the same way, two guest allocations a call. Knows
//! wasmtime's typed functions and nothing of instances or scheduling.

use bytes::{Bytes, BytesMut};
use wasmtime::{
    Store,
    component::{ComponentType, Instance, Lift, Lower, TypedFunc},
};

use crate::{
    batch::{Batch, Entry, Kind, Properties, Span},
    guest::{InvokeError, OperatorError, OperatorKind, Output, Verdict},
};

/// Offset in the low half, length in the high half.
type WireSpan = u64;

#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
enum WireKind {
    #[component(name = "message")]
    Message,
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "snapshot")]
    Snapshot,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct WireEntry {
    origin: u32,
    kind: WireKind,
    seconds: u64,
    nanos: u32,
    counter: u64,
    node: WireSpan,
    topic: WireSpan,
    #[component(name = "content-type")]
    content_type: WireSpan,
    payload: WireSpan,
    properties: WireSpan,
    schema: WireSpan,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct WireTime {
    seconds: u64,
    nanos: u32,
    counter: u64,
    node: WireSpan,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(record)]
struct WireFault {
    origin: u32,
    text: WireSpan,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct WireMapped {
    entries: Vec<WireEntry>,
    faults: Vec<WireFault>,
    arena: Vec<u8>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct WireJudged {
    verdicts: Vec<u8>,
    faults: Vec<WireFault>,
    arena: Vec<u8>,
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
struct WireConfiguration<'a> {
    properties: &'a [(String, String)],
    schemas: &'a [(String, String, String)],
}

fn wire_span(Span { offset, len }: Span) -> WireSpan {
    u64::from(len) << 32 | u64::from(offset)
}

fn span(wire: WireSpan) -> Span {
    Span { offset: wire as u32, len: (wire >> 32) as u32 }
}

/// The most a call may give back.
#[derive(Clone, Copy, Debug)]
pub struct OutputMax {
    pub messages: u64,
    pub bytes: u64,
}

type Process<'a, R> = TypedFunc<(&'a [WireEntry], &'a [u8]), (R,)>;
type ProcessTimed<'a, R> = TypedFunc<(&'a [WireEntry], &'a [WireTime], &'a [u8]), (R,)>;
type Init<'a> = TypedFunc<(WireConfiguration<'a>,), (Result<(), String>,)>;

/// The exports of one instance under the packed contract.
pub struct Packed {
    init: Init<'static>,
    process: ProcessExport,
    /// Kept between calls, so that a call allocates nothing for what goes in.
    scratch: Scratch,
}

enum ProcessExport {
    Map(Process<'static, WireMapped>),
    Filter(Process<'static, WireJudged>),
    Branch(ProcessTimed<'static, WireJudged>),
}

#[derive(Default)]
struct Scratch {
    entries: Vec<WireEntry>,
    times: Vec<WireTime>,
    arena: BytesMut,
}

impl Packed {
    /// Finds the exports for `kind`. An error means that the component does not
    /// export the contract with exactly its types.
    pub fn new<T: 'static>(
        store: &mut Store<T>,
        instance: &Instance,
        kind: OperatorKind,
    ) -> wasmtime::Result<Self> {
        let interface = format!("tidegate:operator/{kind}@0.1.0");
        let parent = instance
            .get_export_index(&mut *store, None, &interface)
            .ok_or_else(|| wasmtime::Error::msg(format!("no export `{interface}`")))?;
        let index = |store: &mut Store<T>, name: &str| {
            instance
                .get_export_index(store, Some(&parent), name)
                .ok_or_else(|| wasmtime::Error::msg(format!("no function `{name}` in `{interface}`")))
        };
        let (init, process) = (index(store, "init")?, index(store, "process")?);
        let process = match kind {
            OperatorKind::Map => ProcessExport::Map(instance.get_typed_func(&mut *store, process)?),
            OperatorKind::Filter => ProcessExport::Filter(instance.get_typed_func(&mut *store, process)?),
            OperatorKind::Branch => ProcessExport::Branch(instance.get_typed_func(&mut *store, process)?),
        };
        let init = instance.get_typed_func(&mut *store, init)?;
        Ok(Packed { init, process, scratch: Scratch::default() })
    }

    /// Calls `init`; the inner error is the operator's own text.
    pub async fn init<T: Send>(
        &self,
        store: &mut Store<T>,
        properties: &[(String, String)],
    ) -> wasmtime::Result<Result<(), String>> {
        let init: Init<'_> = self.init;
        let (result,) = init.call_async(store, (WireConfiguration { properties, schemas: &[] },)).await?;
        Ok(result)
    }

    /// Calls `process` on a batch. `delivery` is the batch as ingest stamped it: the
    /// logical time of an entry is the timestamp of its origin there.
    pub async fn process<T: Send>(
        &mut self,
        store: &mut Store<T>,
        input: &Batch,
        delivery: &Batch,
        output_max: OutputMax,
    ) -> Result<Output, CallError> {
        let Packed { process, scratch, .. } = self;
        let timed = matches!(process, ProcessExport::Branch(_));
        let whole = scratch.load(input, timed.then_some(delivery));
        let arena: &[u8] = if whole { &input.arena } else { &scratch.arena };
        match process {
            ProcessExport::Map(process) => {
                let process: Process<'_, _> = *process;
                let (mapped,) = process.call_async(store, (&scratch.entries, arena)).await?;
                Ok(check_mapped(mapped, input.len(), output_max)?)
            }
            ProcessExport::Filter(process) => {
                let process: Process<'_, _> = *process;
                let (judged,) = process.call_async(store, (&scratch.entries, arena)).await?;
                Ok(check_judged(judged, input.len())?)
            }
            ProcessExport::Branch(process) => {
                let process: ProcessTimed<'_, _> = *process;
                let (judged,) = process.call_async(store, (&scratch.entries, &scratch.times, arena)).await?;
                Ok(check_judged(judged, input.len())?)
            }
        }
    }
}

/// A call that wasmtime ended, or output that cannot be believed.
#[derive(Debug)]
pub enum CallError {
    Wasmtime(wasmtime::Error),
    BadOutput(String),
}

impl From<wasmtime::Error> for CallError {
    fn from(error: wasmtime::Error) -> Self {
        CallError::Wasmtime(error)
    }
}

impl From<String> for CallError {
    fn from(cause: String) -> Self {
        CallError::BadOutput(cause)
    }
}

impl CallError {
    /// The fault that it is, but for what only the caller knows about limits.
    pub fn bad_output(self) -> Result<InvokeError, wasmtime::Error> {
        match self {
            CallError::BadOutput(cause) => Ok(InvokeError::BadOutput { cause }),
            CallError::Wasmtime(error) => Err(error),
        }
    }
}

impl Scratch {
    /// Writes the records of `input`, and logical times if there is a delivery to
    /// take them from. False if the arena was copied into the scratch, because most
    /// of it belongs to messages that are no longer there or because the logical
    /// times' nodes lie in another one.
    fn load(&mut self, input: &Batch, delivery: Option<&Batch>) -> bool {
        self.entries.clear();
        self.times.clear();
        self.arena.clear();
        let whole = !Self::is_sparse(input) && delivery.is_none_or(|delivery| delivery.shares_arena(input));
        let entries = input.entries.iter().enumerate();
        if whole {
            self.entries.extend(entries.map(|(place, entry)| wire_entry(place as u32, entry)));
        } else {
            for (place, entry) in entries {
                let mut entry = *entry;
                entry
                    .spans_mut()
                    .into_iter()
                    .for_each(|span| *span = append(&mut self.arena, &input.arena, *span));
                self.entries.push(wire_entry(place as u32, &entry));
            }
        }
        if let Some(delivery) = delivery {
            self.load_times(input, delivery, whole);
        }
        whole
    }

    /// Whether most of the arena belongs to messages that are no longer there.
    fn is_sparse(input: &Batch) -> bool {
        let used = || input.entries.iter().map(Entry::bytes_len).sum::<usize>();
        input.arena.len() > Self::SPARSE_BYTES_MIN && used() * 2 < input.arena.len()
    }

    /// Below this, copying the whole arena costs less than finding out.
    const SPARSE_BYTES_MIN: usize = 4096;

    fn load_times(&mut self, input: &Batch, delivery: &Batch, whole: bool) {
        for entry in &input.entries {
            let time = &delivery.entries[entry.origin as usize];
            let node = if whole { time.node } else { append(&mut self.arena, &delivery.arena, time.node) };
            self.times.push(WireTime {
                seconds: time.seconds,
                nanos: time.nanos,
                counter: time.counter,
                node: wire_span(node),
            });
        }
    }
}

fn append(arena: &mut BytesMut, from: &[u8], span: Span) -> Span {
    match span.get(from) {
        None => Span::ABSENT,
        Some(bytes) => {
            let offset = arena.len() as u32;
            arena.extend_from_slice(bytes);
            Span { offset, len: span.len }
        }
    }
}

fn wire_entry(origin: u32, entry: &Entry) -> WireEntry {
    WireEntry {
        origin,
        kind: match entry.kind {
            Kind::Message => WireKind::Message,
            Kind::Bytes => WireKind::Bytes,
            Kind::Snapshot => WireKind::Snapshot,
        },
        seconds: entry.seconds,
        nanos: entry.nanos,
        counter: entry.counter,
        node: wire_span(entry.node),
        topic: wire_span(entry.topic),
        content_type: wire_span(entry.content_type),
        payload: wire_span(entry.payload),
        properties: wire_span(entry.properties),
        schema: wire_span(entry.schema),
    }
}

/// Checks all that a map gave: nothing in it is trusted.
fn check_mapped(mapped: WireMapped, taken: usize, max: OutputMax) -> Result<Output, String> {
    let WireMapped { entries, faults, arena } = mapped;
    if entries.len() as u64 > max.messages {
        return Err(format!("{} messages for {taken}, {} are allowed", entries.len(), max.messages));
    }
    if arena.len() as u64 > max.bytes {
        return Err(format!("{} bytes for {taken} messages, {} are allowed", arena.len(), max.bytes));
    }
    let errors = check_faults(&faults, &arena, taken)?;
    let mut failed = vec![false; if errors.is_empty() { 0 } else { taken }];
    errors.iter().for_each(|error| failed[error.index as usize] = true);
    let mut checked = Vec::with_capacity(entries.len());
    let mut last = 0;
    let mut text = TextCheck::new(&arena);
    let mut bytes = 0_u64;
    for entry in &entries {
        let origin = entry.origin;
        if origin < last || origin as usize >= taken {
            return Err(format!("origin {origin} after {last} in a call of {taken} messages"));
        }
        if failed.get(origin as usize) == Some(&true) {
            return Err(format!("message {origin} has both a fault and a result"));
        }
        last = origin;
        let entry = text.check(entry)?;
        bytes += entry.bytes_len() as u64;
        checked.push(entry);
    }
    // Entries may share spans, so the arena alone does not bound what sinks write.
    if bytes > max.bytes.saturating_mul(2) {
        return Err(format!("messages of {bytes} bytes in all, {} are allowed", max.bytes.saturating_mul(2)));
    }
    Ok(Output::Mapped { batch: Batch { entries: checked, arena: Bytes::from(arena) }, errors })
}

fn check_judged(judged: WireJudged, taken: usize) -> Result<Output, String> {
    let WireJudged { verdicts, faults, arena } = judged;
    if verdicts.len() != taken {
        return Err(format!("{} verdicts for {taken} messages", verdicts.len()));
    }
    let verdict = |byte: u8| match byte {
        0 => Ok(Verdict::False),
        1 => Ok(Verdict::True),
        2 => Ok(Verdict::Error),
        other => Err(format!("verdict {other}")),
    };
    let verdicts = verdicts.into_iter().map(verdict).collect::<Result<Vec<_>, _>>()?;
    let mut errors = check_faults(&faults, &arena, taken)?;
    errors.retain(|error| verdicts[error.index as usize] == Verdict::Error);
    for (index, _) in verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == Verdict::Error) {
        if !errors.iter().any(|error| error.index == index as u32) {
            errors.push(OperatorError { index: index as u32, text: "no reason given".into() });
        }
    }
    Ok(Output::Judged { verdicts, errors })
}

/// Longest text of an operator's error that is kept, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 4096;

fn check_faults(faults: &[WireFault], arena: &[u8], taken: usize) -> Result<Vec<OperatorError>, String> {
    if faults.len() > taken {
        return Err(format!("{} faults for {taken} messages", faults.len()));
    }
    let mut errors: Vec<OperatorError> = Vec::with_capacity(faults.len());
    for fault in faults {
        let (origin, span) = (fault.origin, span(fault.text));
        if origin as usize >= taken || errors.last().is_some_and(|last| last.index >= origin) {
            return Err(format!("fault for message {origin} of {taken} out of order"));
        }
        if !span.fits(arena.len()) {
            return Err(format!(
                "text of a fault at {} + {} in {} bytes",
                span.offset,
                span.len,
                arena.len()
            ));
        }
        let text = span.bytes(arena);
        let text = String::from_utf8_lossy(&text[..text.len().min(ERROR_TEXT_BYTES_MAX)]).into_owned();
        errors.push(OperatorError { index: origin, text });
    }
    Ok(errors)
}

/// Checks spans and text of entries over one arena, remembering what it saw last:
/// most messages of a batch share node and content type.
struct TextCheck<'a> {
    arena: &'a [u8],
    node: Span,
    content_type: Span,
}

impl<'a> TextCheck<'a> {
    fn new(arena: &'a [u8]) -> Self {
        TextCheck { arena, node: Span::ABSENT, content_type: Span::ABSENT }
    }

    fn check(&mut self, wire: &WireEntry) -> Result<Entry, String> {
        let entry = Entry {
            origin: wire.origin,
            kind: match wire.kind {
                WireKind::Message => Kind::Message,
                WireKind::Bytes => Kind::Bytes,
                WireKind::Snapshot => Kind::Snapshot,
            },
            seconds: wire.seconds,
            nanos: wire.nanos,
            counter: wire.counter,
            node: span(wire.node),
            topic: span(wire.topic),
            content_type: span(wire.content_type),
            payload: span(wire.payload),
            properties: span(wire.properties),
            schema: span(wire.schema),
        };
        // All spans at once, since nearly all are sound: one branch a message.
        let arena_bytes = self.arena.len();
        if !entry.spans().into_iter().fold(true, |fit, span| fit & span.fits(arena_bytes)) {
            return Err(misfit(&entry, arena_bytes));
        }
        if wire.nanos >= 1_000_000_000 {
            return Err(format!("{} nanoseconds in a timestamp", wire.nanos));
        }
        for (name, span, last) in [
            ("node", entry.node, &mut self.node),
            ("content type", entry.content_type, &mut self.content_type),
        ] {
            if span != *last {
                if std::str::from_utf8(span.bytes(self.arena)).is_err() {
                    return Err(format!("{name} is not UTF-8"));
                }
                *last = span;
            }
        }
        self.check_encoded(&entry)?;
        Ok(entry)
    }

    fn check_encoded(&self, entry: &Entry) -> Result<(), String> {
        let properties = entry.properties;
        let sound = match entry.kind {
            Kind::Snapshot => properties.len == 8,
            Kind::Message | Kind::Bytes => {
                properties.len == 0 || Properties::is_valid(properties.bytes(self.arena))
            }
        };
        if !sound {
            return Err("properties are not whole pairs of UTF-8 text".into());
        }
        match entry.schema.get(self.arena) {
            Some(schema) if !is_schema(schema) => Err("schema is not in its encoding".into()),
            _ => Ok(()),
        }
    }
}

/// Says which span does not fit.
fn misfit(entry: &Entry, arena_bytes: usize) -> String {
    let names = ["node", "topic", "content type", "payload", "properties", "schema"];
    let misfit = entry.spans().into_iter().zip(names).find(|(span, _)| !span.fits(arena_bytes));
    let (Span { offset, len }, name) = misfit.expect("one does not fit");
    format!("{name} at {offset} + {len} in an arena of {arena_bytes} bytes")
}

/// Whether bytes are a schema in the encoding of `tidegate:operator/types`.
fn is_schema(bytes: &[u8]) -> bool {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    match bytes.split_first() {
        Some((0, reference)) => text(reference),
        Some((1, inline)) => inline.split_first_chunk::<4>().is_some_and(|(len, rest)| {
            rest.split_at_checked(u32::from_le_bytes(*len) as usize)
                .is_some_and(|(name, content)| text(name) && text(content))
        }),
        _ => false,
    }
}

/// Takes bytes for what a guest gave in a call of eight messages, and gives the batch
/// if it is sound. The first bytes say how many entries and faults follow.
pub fn read_any(data: &[u8]) -> Option<Batch> {
    const TAKEN: usize = 8;
    let mut rest = data;
    let mut number = || {
        let (bytes, others) = rest.split_first_chunk::<4>()?;
        rest = others;
        Some(u32::from_le_bytes(*bytes))
    };
    let (entries_len, faults_len) = (number()? % 64, number()? % 16);
    let mut entries = Vec::new();
    for _ in 0..entries_len {
        let (origin, kind) = (number()?, number()?);
        let (seconds, nanos, counter) = (number()?.into(), number()?, number()?.into());
        let mut any_span = || Some(wire_span(Span { offset: number()?, len: number()? }));
        let (node, topic, content_type) = (any_span()?, any_span()?, any_span()?);
        let (payload, properties, schema) = (any_span()?, any_span()?, any_span()?);
        let kind = [WireKind::Message, WireKind::Bytes, WireKind::Snapshot][kind as usize % 3];
        entries.push(WireEntry {
            origin,
            kind,
            seconds,
            nanos,
            counter,
            node,
            topic,
            content_type,
            payload,
            properties,
            schema,
        });
    }
    let mut faults = Vec::new();
    for _ in 0..faults_len {
        let (origin, text) = (number()?, Span { offset: number()?, len: number()? });
        faults.push(WireFault { origin, text: wire_span(text) });
    }
    let arena = rest.to_vec();
    let verdicts = arena.iter().take(TAKEN).copied().collect();
    let _ = check_judged(WireJudged { verdicts, faults: faults.clone(), arena: arena.clone() }, TAKEN);
    let max = OutputMax { messages: 32, bytes: 4096 };
    match check_mapped(WireMapped { entries, faults, arena }, TAKEN, max) {
        Ok(Output::Mapped { batch, .. }) => Some(batch),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
