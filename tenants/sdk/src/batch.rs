//! Runs an operator's function over a batch and gathers what it says in the packed
//! form. Knows the layout, and nothing of exports or configuration. Buffers are kept
//! from call to call: a batch costs no allocation here once they have grown.

use std::fmt::{Display, Write as _};

use crate::layout::{Entry, Fault, LogicalTime, Span, verdict};
use crate::message::{Message, Messages, Time, span_within};
use crate::output::{Output, Writer};

/// The result of a map's call, kept until the next one.
#[derive(Debug, Default)]
pub struct Mapped {
    pub output: Output,
    /// What the spans of `output` point into.
    pub arena: Vec<u8>,
}

impl Mapped {
    pub const fn new() -> Self {
        let output = Output { entries: Vec::new(), faults: Vec::new(), written: Vec::new(), base: 0 };
        Mapped { output, arena: Vec::new() }
    }

    pub fn run<E: Display>(
        &mut self,
        entries: Vec<Entry>,
        arena: Vec<u8>,
        mut process: impl FnMut(&Message, &mut Output) -> Result<(), E>,
    ) {
        let output = &mut self.output;
        output.entries.clear();
        output.faults.clear();
        output.written.clear();
        output.base = arena.len();
        for (origin, entry) in entries.iter().enumerate() {
            let kept = (output.entries.len(), output.written.len());
            if let Err(error) = process(&Message { entry, arena: &arena }, output) {
                output.entries.truncate(kept.0);
                output.written.truncate(kept.1);
                let text = write_fault(&mut output.written, arena.len(), &error);
                output.faults.push(Fault { origin: origin as u32, zero: 0, text });
            }
            for emitted in &mut output.entries[kept.0..] {
                emitted.origin = origin as u32;
            }
        }
        self.close(arena);
    }

    /// One window: the staged value and what arrived. Gives one entry, or one fault.
    pub fn run_window<E: Display>(
        &mut self,
        entries: Vec<Entry>,
        arena: Vec<u8>,
        mut process: impl FnMut(&Message, Messages, &mut Output) -> Result<(), E>,
    ) {
        let output = &mut self.output;
        output.entries.clear();
        output.faults.clear();
        output.written.clear();
        output.base = arena.len();
        let (staged, messages) = entries.split_first().expect("the host gives the staged value first");
        let staged = Message { entry: staged, arena: &arena };
        let error = match process(&staged, Messages { entries: messages, arena: &arena }, output) {
            Err(error) => Some(error.to_string()),
            Ok(()) if output.entries.len() == 1 => None,
            Ok(()) => Some(format!("{} messages were emitted, a window has one", output.entries.len())),
        };
        if let Some(error) = error {
            output.entries.clear();
            output.written.clear();
            let text = write_fault(&mut output.written, arena.len(), &error);
            output.faults.push(Fault { origin: 0, zero: 0, text });
        }
        output.entries.iter_mut().for_each(|entry| entry.origin = 0);
        self.close(arena);
    }

    /// Makes one arena of the input's and what was written.
    fn close(&mut self, input: Vec<u8>) {
        let Output { entries, faults, written, .. } = &mut self.output;
        if written.is_empty() {
            self.arena = input;
            return;
        }
        let meant = entries.iter().map(Entry::bytes_len).sum::<usize>()
            + faults.iter().map(|fault| fault.text.len as usize).sum::<usize>();
        self.arena.clear();
        // Two copies of everything are cheaper than one of every span, until half of
        // it is rubbish that would be carried through every operator to come.
        if input.len() + written.len() <= 2 * meant {
            self.arena.reserve(input.len() + written.len());
            self.arena.extend_from_slice(&input);
            self.arena.extend_from_slice(written);
            return;
        }
        let mut compact = Compact { input: &input, written, arena: &mut self.arena };
        let mut node = (Span::ABSENT, Span::ABSENT);
        for entry in entries {
            // Neighbours mostly share the node of one clock.
            if entry.node != node.0 {
                node = (entry.node, compact.carry(entry.node));
            }
            entry.node = node.1;
            for span in entry.spans_but_node_mut() {
                *span = compact.carry(*span);
            }
        }
        for fault in faults {
            fault.text = compact.carry(fault.text);
        }
    }
}

/// Copies spans one by one into a fresh arena.
struct Compact<'a> {
    input: &'a [u8],
    written: &'a [u8],
    arena: &'a mut Vec<u8>,
}

impl Compact<'_> {
    fn carry(&mut self, span: Span) -> Span {
        if span.is_absent() {
            return span;
        }
        let bytes = match (span.offset as usize).checked_sub(self.input.len()) {
            Some(start) => &self.written[start..][..span.len as usize],
            None => span.bytes(self.input),
        };
        let moved = Span { offset: self.arena.len() as u32, len: span.len };
        self.arena.extend_from_slice(bytes);
        moved
    }
}

/// The result of a filter's or branch's call, kept until the next one.
#[derive(Debug, Default)]
pub struct Judged {
    pub verdicts: Vec<u8>,
    pub faults: Vec<Fault>,
    pub arena: Vec<u8>,
}

impl Judged {
    pub const fn new() -> Self {
        Judged { verdicts: Vec::new(), faults: Vec::new(), arena: Vec::new() }
    }

    pub fn run_filter<E: Display>(
        &mut self,
        entries: &[Entry],
        arena: &[u8],
        mut process: impl FnMut(&Message) -> Result<bool, E>,
    ) {
        self.start(entries.len());
        for entry in entries {
            self.push(process(&Message { entry, arena }));
        }
    }

    pub fn run_branch<E: Display>(
        &mut self,
        entries: &[Entry],
        times: &[LogicalTime],
        arena: &[u8],
        mut process: impl FnMut(&Message, &Time) -> Result<bool, E>,
    ) {
        self.start(entries.len());
        for (entry, time) in entries.iter().zip(times) {
            self.push(process(&Message { entry, arena }, &Time::logical(time, arena)));
        }
    }

    fn start(&mut self, len: usize) {
        self.verdicts.clear();
        self.verdicts.reserve(len);
        self.faults.clear();
        self.arena.clear();
    }

    fn push<E: Display>(&mut self, verdict: Result<bool, E>) {
        match verdict {
            Ok(yes) => self.verdicts.push(yes.into()),
            Err(error) => {
                let origin = self.verdicts.len() as u32;
                let text = write_fault(&mut self.arena, 0, &error);
                self.faults.push(Fault { origin, zero: 0, text });
                self.verdicts.push(verdict::ERROR);
            }
        }
    }
}

/// The result of a delay's call, kept until the next one.
#[derive(Debug, Default)]
pub struct Delayed {
    pub times: Vec<LogicalTime>,
    pub faults: Vec<Fault>,
    /// The call's own, and behind it what was written.
    pub arena: Vec<u8>,
}

impl Delayed {
    pub const fn new() -> Self {
        Delayed { times: Vec::new(), faults: Vec::new(), arena: Vec::new() }
    }

    pub fn run<E: Display>(
        &mut self,
        entries: &[Entry],
        times: &[LogicalTime],
        arena: Vec<u8>,
        mut process: impl for<'m> FnMut(&Message<'m>, &Time<'m>) -> Result<Time<'m>, E>,
    ) {
        self.times.clear();
        self.faults.clear();
        let mut written = Vec::new();
        for (origin, (entry, old)) in entries.iter().zip(times).enumerate() {
            let result = process(&Message { entry, arena: &arena }, &Time::logical(old, &arena));
            let time = match result {
                Ok(Time { seconds, nanos, counter, node }) => {
                    let node = span_within(&arena, node.as_bytes()).unwrap_or_else(|| {
                        let offset = (arena.len() + written.len()) as u32;
                        written.extend_from_slice(node.as_bytes());
                        Span { offset, len: node.len() as u32 }
                    });
                    LogicalTime { seconds, nanos, zero: 0, counter, node }
                }
                Err(error) => {
                    let text = write_fault(&mut written, arena.len(), &error);
                    self.faults.push(Fault { origin: origin as u32, zero: 0, text });
                    *old
                }
            };
            self.times.push(time);
        }
        self.arena = arena;
        self.arena.extend_from_slice(&written);
    }
}

fn write_fault(written: &mut Vec<u8>, base: usize, error: &dyn Display) -> Span {
    let start = written.len();
    // A `Display` that fails has at least written what it could.
    _ = write!(Writer::on(written), "{error}");
    Span { offset: (base + start) as u32, len: (written.len() - start) as u32 }
}

#[cfg(test)]
mod tests;
