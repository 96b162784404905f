//! The packed contract, `tidegate:operator@0.1.0`: a batch goes in as records over
//! one arena and comes back the same way, two guest allocations a call. Knows
//! wasmtime's typed functions and nothing of instances or scheduling.

use bytemuck::{
    Pod, Zeroable,
    allocation::{cast_vec, pod_collect_to_vec, try_cast_vec},
};
use bytes::{Bytes, BytesMut};
use wasmtime::{
    Store,
    component::{Component, ComponentExportIndex, ComponentType, Instance, Lift, Lower, TypedFunc},
};

use crate::{
    batch::{Batch, Entry, Kind, Properties, Span, Stamped, Time},
    guest::{InvokeError, OperatorError, OperatorKind, Output, Schema, Verdict},
};

/// A fault as it lies in a list of numbers.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct WireFault {
    origin: u32,
    zero: u32,
    text: Span,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct WireMapped {
    entries: Vec<u64>,
    faults: Vec<u64>,
    arena: Vec<u8>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct WireJudged {
    verdicts: Vec<u8>,
    faults: Vec<u64>,
    arena: Vec<u8>,
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
struct WireConfiguration<'a> {
    properties: &'a [(String, String)],
    schemas: &'a [(String, String, String)],
}

/// The most a call may give back.
#[derive(Clone, Copy, Debug)]
pub struct OutputMax {
    pub messages: u64,
    pub bytes: u64,
}

type Process<'a, R> = TypedFunc<(&'a [u64], &'a [u8]), (R,)>;
type ProcessTimed<'a, R> = TypedFunc<(&'a [u64], &'a [u64], &'a [u8]), (R,)>;
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
    Accumulate(Process<'static, WireMapped>),
    Delay(ProcessTimed<'static, WireDelayed>),
}

#[derive(Default)]
struct Scratch {
    entries: Vec<Entry>,
    times: Vec<Time>,
    arena: BytesMut,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct WireDelayed {
    times: Vec<u64>,
    faults: Vec<u64>,
    arena: Vec<u8>,
}

/// What a guest is called with.
struct Arguments<'a> {
    entries: &'a [u64],
    times: &'a [u64],
    arena: &'a [u8],
}

impl Packed {
    /// Takes the exports for `kind`. An error means that they do not have exactly the
    /// contract's types.
    pub fn new<T: 'static>(
        store: &mut Store<T>,
        instance: &Instance,
        kind: OperatorKind,
        Exported { init, process }: Exported,
    ) -> wasmtime::Result<Self> {
        let process = match kind {
            OperatorKind::Map => ProcessExport::Map(instance.get_typed_func(&mut *store, process)?),
            OperatorKind::Filter => ProcessExport::Filter(instance.get_typed_func(&mut *store, process)?),
            OperatorKind::Branch => ProcessExport::Branch(instance.get_typed_func(&mut *store, process)?),
            OperatorKind::Accumulate => {
                ProcessExport::Accumulate(instance.get_typed_func(&mut *store, process)?)
            }
            OperatorKind::Delay => ProcessExport::Delay(instance.get_typed_func(&mut *store, process)?),
        };
        let init = instance.get_typed_func(&mut *store, init)?;
        Ok(Packed { init, process, scratch: Scratch::default() })
    }

    /// Calls `init`; the inner error is the operator's own text.
    pub async fn init<T: Send>(
        &self,
        store: &mut Store<T>,
        properties: &[(String, String)],
        schemas: &[Schema],
    ) -> wasmtime::Result<Result<(), String>> {
        let owned = |it: &Schema| (it.name.clone(), it.content_type.clone(), it.content.clone());
        let schemas: Vec<_> = schemas.iter().map(owned).collect();
        let init: Init<'_> = self.init;
        let (result,) =
            init.call_async(store, (WireConfiguration { properties, schemas: &schemas },)).await?;
        Ok(result)
    }

    /// Calls `process` on a batch. The logical time of an entry is that of its origin
    /// in `delivery`; an accumulate's first entry is the staged value.
    pub async fn process<T: Send>(
        &mut self,
        store: &mut Store<T>,
        input: &Batch,
        delivery: &Stamped,
        output_max: OutputMax,
    ) -> Result<Output, CallError> {
        let Packed { process, scratch, .. } = self;
        let timed = matches!(process, ProcessExport::Branch(_) | ProcessExport::Delay(_));
        let Arguments { entries, times, arena } = scratch.load(input, timed.then_some(delivery));
        match process {
            ProcessExport::Map(process) => {
                let process: Process<'_, _> = *process;
                let (mapped,) = process.call_async(store, (entries, arena)).await?;
                Ok(check_mapped(mapped, input.len(), output_max)?)
            }
            ProcessExport::Filter(process) => {
                let process: Process<'_, _> = *process;
                let (judged,) = process.call_async(store, (entries, arena)).await?;
                Ok(check_judged(judged, input.len())?)
            }
            ProcessExport::Branch(process) => {
                let process: ProcessTimed<'_, _> = *process;
                let (judged,) = process.call_async(store, (entries, times, arena)).await?;
                Ok(check_judged(judged, input.len())?)
            }
            ProcessExport::Accumulate(process) => {
                let process: Process<'_, _> = *process;
                let (mapped,) = process.call_async(store, (entries, arena)).await?;
                Ok(check_staged(mapped, input.len(), output_max)?)
            }
            ProcessExport::Delay(process) => {
                let process: ProcessTimed<'_, _> = *process;
                let (delayed,) = process.call_async(store, (entries, times, arena)).await?;
                Ok(check_delayed(delayed, input.len())?)
            }
        }
    }
}

/// Where a component has the functions of one of its operators: looked up by name once,
/// not for each instance.
#[derive(Clone, Copy, Debug)]
pub struct Exported {
    pub init: ComponentExportIndex,
    pub process: ComponentExportIndex,
}

impl Exported {
    pub fn find(component: &Component, interface: &str) -> wasmtime::Result<Self> {
        let parent = component
            .get_export_index(None, interface)
            .ok_or_else(|| wasmtime::Error::msg(format!("no export `{interface}`")))?;
        let index = |name: &str| {
            component
                .get_export_index(Some(&parent), name)
                .ok_or_else(|| wasmtime::Error::msg(format!("no function `{name}` in `{interface}`")))
        };
        Ok(Exported { init: index("init")?, process: index("process")? })
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
    /// What to call a guest with for `input`, with logical times if there is a
    /// delivery to take them from. Nothing is copied where the entries stand at their
    /// places; the arena is if most of it belongs to messages that are no longer
    /// there, or because the logical times' nodes lie in another one.
    fn load<'a>(&'a mut self, input: &'a Batch, delivery: Option<&Stamped>) -> Arguments<'a> {
        self.entries.clear();
        self.times.clear();
        self.arena.clear();
        let whole =
            !Self::is_sparse(input) && delivery.is_none_or(|delivery| delivery.batch.shares_arena(input));
        let in_place =
            whole && input.entries.iter().enumerate().all(|(place, entry)| entry.origin == place as u32);
        if !in_place {
            let entries = input.entries.iter().enumerate();
            self.entries.extend(entries.map(|(place, entry)| Entry { origin: place as u32, ..*entry }));
        }
        if !whole {
            for span in self.entries.iter_mut().flat_map(Entry::spans_mut) {
                *span = append(&mut self.arena, &input.arena, *span);
            }
        }
        if let Some(delivery) = delivery {
            self.load_times(input, delivery, whole);
        }
        Arguments {
            entries: bytemuck::cast_slice(if in_place { &input.entries } else { &self.entries }),
            times: bytemuck::cast_slice(&self.times),
            arena: if whole { &input.arena } else { &self.arena },
        }
    }

    /// Whether most of the arena belongs to messages that are no longer there.
    fn is_sparse(input: &Batch) -> bool {
        let used = || input.entries.iter().map(Entry::bytes_len).sum::<usize>();
        input.arena.len() > Self::SPARSE_BYTES_MIN && used() * 2 < input.arena.len()
    }

    /// Below this, copying the whole arena costs less than finding out.
    const SPARSE_BYTES_MIN: usize = 4096;

    fn load_times(&mut self, input: &Batch, delivery: &Stamped, whole: bool) {
        for entry in &input.entries {
            let mut time = delivery.time(entry.origin);
            if !whole {
                time.node = append(&mut self.arena, &delivery.batch.arena, time.node);
            }
            self.times.push(time);
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

/// The records in a list of numbers that a guest gave.
fn records<T: Pod>(numbers: Vec<u64>, of: &str) -> Result<Vec<T>, String> {
    if !numbers.len().is_multiple_of(size_of::<T>() / size_of::<u64>()) {
        return Err(format!("{} numbers are no whole {of}", numbers.len()));
    }
    Ok(try_cast_vec(numbers).unwrap_or_else(|(_, numbers)| pod_collect_to_vec(&numbers)))
}

/// Checks all that a map gave: nothing in it is trusted.
fn check_mapped(mapped: WireMapped, taken: usize, max: OutputMax) -> Result<Output, String> {
    let WireMapped { entries, faults, arena } = mapped;
    let entries: Vec<Entry> = records(entries, "entries")?;
    if entries.len() as u64 > max.messages {
        return Err(format!("{} messages for {taken}, {} are allowed", entries.len(), max.messages));
    }
    if arena.len() as u64 > max.bytes {
        return Err(format!("{} bytes for {taken} messages, {} are allowed", arena.len(), max.bytes));
    }
    let errors = check_faults(faults, &arena, taken)?;
    let mut failed = vec![false; if errors.is_empty() { 0 } else { taken }];
    errors.iter().for_each(|error| failed[error.index as usize] = true);
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
        text.check(entry)?;
        bytes += entry.bytes_len() as u64;
    }
    // Entries may share spans, so the arena alone does not bound what sinks write.
    if bytes > max.bytes.saturating_mul(2) {
        return Err(format!("messages of {bytes} bytes in all, {} are allowed", max.bytes.saturating_mul(2)));
    }
    Ok(Output::Mapped { batch: Batch { entries, arena: Bytes::from(arena) }, errors })
}

/// Verdicts are numbers up to this one, which is [`Verdict::ERROR`].
const VERDICT_MAX: u8 = 2;

fn check_judged(judged: WireJudged, taken: usize) -> Result<Output, String> {
    let WireJudged { verdicts, faults, arena } = judged;
    if verdicts.len() != taken {
        return Err(format!("{} verdicts for {taken} messages", verdicts.len()));
    }
    // Over all of them at once, since nearly all are sound.
    let largest = verdicts.iter().fold(0, |largest, verdict| largest.max(*verdict));
    if largest > VERDICT_MAX {
        return Err(format!("verdict {largest}"));
    }
    let verdicts: Vec<Verdict> = cast_vec(verdicts);
    let mut errors = check_faults(faults, &arena, taken)?;
    errors.retain(|error| verdicts[error.index as usize] == Verdict::ERROR);
    if largest == VERDICT_MAX {
        for (index, _) in verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == Verdict::ERROR) {
            if !errors.iter().any(|error| error.index == index as u32) {
                errors.push(OperatorError { index: index as u32, text: "no reason given".into() });
            }
        }
    }
    Ok(Output::Judged { verdicts, errors })
}

/// An accumulate's result: one message, or one fault of the call.
fn check_staged(mapped: WireMapped, taken: usize, max: OutputMax) -> Result<Output, String> {
    let Output::Mapped { batch, mut errors } = check_mapped(mapped, taken, max)? else {
        unreachable!("what is checked as a map's result is one")
    };
    match (batch.len(), errors.len()) {
        (1, 0) => Ok(Output::Staged(Ok(batch))),
        (0, 1) => Ok(Output::Staged(Err(errors.remove(0)))),
        (messages, faults) => Err(format!("{messages} messages and {faults} faults for a window")),
    }
}

fn check_delayed(delayed: WireDelayed, taken: usize) -> Result<Output, String> {
    let WireDelayed { times, faults, arena } = delayed;
    let times: Vec<Time> = records(times, "times")?;
    if times.len() != taken {
        return Err(format!("{} times for {taken} messages", times.len()));
    }
    let errors = check_faults(faults, &arena, taken)?;
    for Time { nanos, zero, node, .. } in &times {
        if *nanos >= NANOS || *zero != 0 {
            return Err(format!("a time with {nanos} nanoseconds and {zero} where 0 belongs"));
        }
        if !node.fits(arena.len()) {
            let Span { offset, len } = node;
            return Err(format!("node of a time at {offset} + {len} in {} bytes", arena.len()));
        }
        if std::str::from_utf8(node.bytes(&arena)).is_err() {
            return Err("node of a time is not UTF-8".into());
        }
    }
    Ok(Output::Delayed { times, arena: Bytes::from(arena), errors })
}

/// Longest text of an operator's error that is kept, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 4096;

fn check_faults(faults: Vec<u64>, arena: &[u8], taken: usize) -> Result<Vec<OperatorError>, String> {
    let faults: Vec<WireFault> = records(faults, "faults")?;
    if faults.len() > taken {
        return Err(format!("{} faults for {taken} messages", faults.len()));
    }
    let mut errors: Vec<OperatorError> = Vec::with_capacity(faults.len());
    for WireFault { origin, zero, text: span } in faults {
        if zero != 0 {
            return Err(format!("fault for message {origin} with {zero} where 0 belongs"));
        }
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

    fn check(&mut self, entry: &Entry) -> Result<(), String> {
        // All at once, since nearly all are sound: one branch a message.
        let arena_bytes = self.arena.len();
        let spans = entry.spans();
        let fit = spans.into_iter().fold(true, |fit, span| fit & span.fits(arena_bytes));
        if !(fit & entry.kind.is_known() & (entry.nanos < NANOS) & (entry.zero == 0)) {
            return Err(misfit(entry, arena_bytes));
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
        self.check_encoded(entry)
    }

    fn check_encoded(&self, entry: &Entry) -> Result<(), String> {
        let properties = entry.properties;
        let sound = match entry.kind {
            Kind::SNAPSHOT => properties.len == 8,
            _ => properties.len == 0 || Properties::is_valid(properties.bytes(self.arena)),
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

const NANOS: u32 = 1_000_000_000;

/// Says what is wrong with an entry that cannot be one.
fn misfit(entry: &Entry, arena_bytes: usize) -> String {
    let names = ["node", "topic", "content type", "payload", "properties", "schema"];
    let misfit = entry.spans().into_iter().zip(names).find(|(span, _)| !span.fits(arena_bytes));
    match misfit {
        Some((Span { offset, len }, name)) => {
            format!("{name} at {offset} + {len} in an arena of {arena_bytes} bytes")
        }
        None if !entry.kind.is_known() => format!("an entry of {:?}", entry.kind),
        None if entry.nanos >= NANOS => format!("{} nanoseconds in a timestamp", entry.nanos),
        None => format!("an entry with {} where 0 belongs", entry.zero),
    }
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
/// if it is sound. The first two say how many numbers of entries and of faults follow;
/// numbers have four bytes, so that offsets are small,
/// or absent, now and then.
pub fn read_any(data: &[u8]) -> Option<Batch> {
    const TAKEN: usize = 8;
    let ([entries, faults], mut rest) = data.split_first_chunk()?;
    let mut numbers = |count: usize| -> Option<Vec<u64>> {
        let half = |bytes: &[u8]| u64::from(i32::from(i16::from_le_bytes([bytes[0], bytes[1]])) as u32);
        let (bytes, others) = rest.split_at_checked(count * 4)?;
        rest = others;
        Some(bytes.chunks_exact(4).map(|bytes| half(&bytes[..2]) | half(&bytes[2..]) << 32).collect())
    };
    let (entries, faults) = (numbers((*entries).into())?, numbers((*faults % 32).into())?);
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
