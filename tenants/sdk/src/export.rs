//! The canonical ABI of the operator exports, written by hand: lists of the packed
//! layout are taken over where the host put them and results are returned where they
//! were made, so that a message crosses the boundary without a single field of it
//! being moved. Bindings generated from the WIT would lift and lower every record.
//! All that is unsafe in the SDK is here and in the macros that name these functions.

use std::fmt::Display;
use std::{mem, ptr};

use serde::de::DeserializeOwned;

use crate::batch::{Delayed, Judged, Mapped};
use crate::configuration;
use crate::layout::{Entry, Fault, LogicalTime, words};
use crate::message::{Message, Messages, Time};
use crate::output::Output;

/// The sections that tell the linker which world a component implements.
pub mod world {
    macro_rules! section {
        ($name:ident, $file:literal) => {
            pub const $name: &[u8; include_bytes!(concat!(env!("OUT_DIR"), "/", $file)).len()] =
                include_bytes!(concat!(env!("OUT_DIR"), "/", $file));
        };
    }
    section!(MAP, "map-operator");
    section!(FILTER, "filter-operator");
    section!(BRANCH, "branch-operator");
    section!(ACCUMULATE, "accumulate-operator");
    section!(DELAY, "delay-operator");
}

/// An operator between calls: its configuration, and the last result, to which the
/// host reads until the next call begins.
#[derive(Debug)]
pub struct State<C> {
    config: Option<C>,
    refusal: String,
    init: InitReturn,
    mapped: Mapped,
    mapped_return: MappedReturn,
    judged: Judged,
    judged_return: JudgedReturn,
    delayed: Delayed,
    delayed_return: DelayedReturn,
}

impl<C> State<C> {
    pub const fn new() -> Self {
        State {
            config: None,
            refusal: String::new(),
            init: InitReturn { is_err: 0, text: List::EMPTY },
            mapped: Mapped::new(),
            mapped_return: MappedReturn { entries: Words::EMPTY, faults: Words::EMPTY, arena: List::EMPTY },
            judged: Judged::new(),
            judged_return: JudgedReturn { verdicts: List::EMPTY, faults: Words::EMPTY, arena: List::EMPTY },
            delayed: Delayed::new(),
            delayed_return: DelayedReturn { times: Words::EMPTY, faults: Words::EMPTY, arena: List::EMPTY },
        }
    }
}

impl<C> Default for State<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: DeserializeOwned> State<C> {
    /// Reads the configuration.
    pub fn init(&mut self, properties: &[(String, String)]) -> *const InitReturn {
        run_constructors();
        self.init = match configuration::read(properties) {
            Ok(config) => {
                self.config = Some(config);
                InitReturn { is_err: 0, text: List::EMPTY }
            }
            Err(error) => {
                self.refusal = error.to_string();
                InitReturn { is_err: 1, text: List::of(self.refusal.as_bytes()) }
            }
        };
        &self.init
    }

    pub fn map<E: Display>(
        &mut self,
        entries: Vec<Entry>,
        arena: Vec<u8>,
        mut process: impl FnMut(&C, &Message, &mut Output) -> Result<(), E>,
    ) -> *const MappedReturn {
        let config = self.config.as_ref().expect(NOT_INITIALISED);
        self.mapped.run(entries, arena, |message, output| process(config, message, output));
        self.mapped_return()
    }

    pub fn accumulate<E: Display>(
        &mut self,
        entries: Vec<Entry>,
        arena: Vec<u8>,
        mut process: impl FnMut(&C, &Message, Messages, &mut Output) -> Result<(), E>,
    ) -> *const MappedReturn {
        let config = self.config.as_ref().expect(NOT_INITIALISED);
        self.mapped
            .run_window(entries, arena, |staged, messages, output| process(config, staged, messages, output));
        self.mapped_return()
    }

    fn mapped_return(&mut self) -> *const MappedReturn {
        self.mapped_return = MappedReturn {
            entries: Words::of(&self.mapped.output.entries),
            faults: Words::of(&self.mapped.output.faults),
            arena: List::of(&self.mapped.arena),
        };
        &self.mapped_return
    }

    pub fn delay<E: Display>(
        &mut self,
        entries: &[Entry],
        times: &[LogicalTime],
        arena: Vec<u8>,
        mut process: impl for<'m> FnMut(&C, &Message<'m>, &Time<'m>) -> Result<Time<'m>, E>,
    ) -> *const DelayedReturn {
        let config = self.config.as_ref().expect(NOT_INITIALISED);
        self.delayed.run(entries, times, arena, |message, time| process(config, message, time));
        self.delayed_return = DelayedReturn {
            times: Words::of(&self.delayed.times),
            faults: Words::of(&self.delayed.faults),
            arena: List::of(&self.delayed.arena),
        };
        &self.delayed_return
    }

    pub fn filter<E: Display>(
        &mut self,
        entries: &[Entry],
        arena: &[u8],
        mut process: impl FnMut(&C, &Message) -> Result<bool, E>,
    ) -> *const JudgedReturn {
        let config = self.config.as_ref().expect(NOT_INITIALISED);
        self.judged.run_filter(entries, arena, |message| process(config, message));
        self.judged_return()
    }

    pub fn branch<E: Display>(
        &mut self,
        entries: &[Entry],
        times: &[LogicalTime],
        arena: &[u8],
        mut process: impl FnMut(&C, &Message, &Time) -> Result<bool, E>,
    ) -> *const JudgedReturn {
        let config = self.config.as_ref().expect(NOT_INITIALISED);
        self.judged.run_branch(entries, times, arena, |message, time| process(config, message, time));
        self.judged_return()
    }

    fn judged_return(&mut self) -> *const JudgedReturn {
        self.judged_return = JudgedReturn {
            verdicts: List::of(&self.judged.verdicts),
            faults: Words::of(&self.judged.faults),
            arena: List::of(&self.judged.arena),
        };
        &self.judged_return
    }
}

/// What stands in place of a `main`: a module that never names the constructors has
/// them run by the linker, before every call of every export.
#[cfg(target_family = "wasm")]
fn run_constructors() {
    use std::sync::Once;

    static ONCE: Once = Once::new();
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // Safe: the linker makes this function, to be called once.
    ONCE.call_once(|| unsafe { __wasm_call_ctors() });
}

/// Elsewhere the loader runs them.
#[cfg(not(target_family = "wasm"))]
fn run_constructors() {}

const NOT_INITIALISED: &str = "the host calls `init` first";

/// A list in memory as the canonical ABI returns it.
#[derive(Debug)]
#[repr(C)]
pub struct List<T> {
    start: *const T,
    len: usize,
}

impl<T> List<T> {
    const EMPTY: Self = List { start: ptr::dangling(), len: 0 };

    fn of(slice: &[T]) -> Self {
        List { start: slice.as_ptr(), len: slice.len() }
    }
}

/// Records as the list of numbers that they are to the contract.
#[derive(Debug)]
#[repr(C)]
pub struct Words<T> {
    start: *const T,
    words: usize,
}

impl<T> Words<T> {
    const EMPTY: Self = Words { start: ptr::dangling(), words: 0 };

    fn of(records: &[T]) -> Self {
        Words { start: records.as_ptr(), words: records.len() * words::<T>() }
    }
}

/// `result<_, string>`.
#[derive(Debug)]
#[repr(C)]
pub struct InitReturn {
    is_err: u8,
    text: List<u8>,
}

/// The record `mapped`.
#[derive(Debug)]
#[repr(C)]
pub struct MappedReturn {
    entries: Words<Entry>,
    faults: Words<Fault>,
    arena: List<u8>,
}

/// The record `judged`.
#[derive(Debug)]
#[repr(C)]
pub struct JudgedReturn {
    verdicts: List<u8>,
    faults: Words<Fault>,
    arena: List<u8>,
}

/// The record `delayed`.
#[derive(Debug)]
#[repr(C)]
pub struct DelayedReturn {
    times: Words<LogicalTime>,
    faults: Words<Fault>,
    arena: List<u8>,
}

/// A `string` argument.
#[derive(Debug)]
#[repr(C)]
pub struct RawText {
    start: *mut u8,
    len: usize,
}

/// A `tuple<string, string>`.
#[derive(Debug)]
#[repr(C)]
pub struct RawProperty(RawText, RawText);

/// A `tuple<string, string, string>`.
#[derive(Debug)]
#[repr(C)]
pub struct RawSchema(RawText, RawText, RawText);

/// Takes over a list that the host wrote.
///
/// # Safety
/// `start` and `len` are a list argument of an export, taken over once.
pub unsafe fn owned_list<T>(start: *mut T, len: usize) -> Vec<T> {
    if len == 0 {
        return Vec::new();
    }
    // Safe by the contract above: `cabi_realloc` allocated exactly `len` items.
    unsafe { Vec::from_raw_parts(start, len, len) }
}

/// Takes over a list of numbers that the host wrote, as the records that it holds.
///
/// # Safety
/// `start` and `len` are a list argument of an export, taken over once.
pub unsafe fn owned_records<T>(start: *mut T, len: usize) -> Vec<T> {
    assert!(len.is_multiple_of(words::<T>()), "whole records");
    // Safe by the contract above: `cabi_realloc` allocated exactly as many numbers,
    // which are aligned as the records are.
    unsafe { owned_list(start, len / words::<T>()) }
}

/// Takes over a configuration that the host wrote; its schemas are not used.
///
/// # Safety
/// The arguments are those of an `init` export, taken over once.
pub unsafe fn owned_configuration(
    properties: *mut RawProperty,
    properties_len: usize,
    schemas: *mut RawSchema,
    schemas_len: usize,
) -> Vec<(String, String)> {
    // Safe by the contract above.
    let (properties, schemas) =
        unsafe { (owned_list(properties, properties_len), owned_list(schemas, schemas_len)) };
    for RawSchema(name, content_type, content) in schemas {
        for text in [name, content_type, content] {
            // Safe by the contract above.
            drop(unsafe { owned_text(text) });
        }
    }
    // Safe by the contract above.
    properties
        .into_iter()
        .map(|RawProperty(key, value)| unsafe { (owned_text(key), owned_text(value)) })
        .collect()
}

unsafe fn owned_text(text: RawText) -> String {
    // Safe by the caller's contract; the canonical ABI guarantees UTF-8.
    unsafe { String::from_utf8_unchecked(owned_list(text.start, text.len)) }
}

/// What the host calls to make room for arguments.
///
/// # Safety
/// Called by the canonical ABI: `old_start` is null or was returned by this function
/// for a block of `old_len` bytes of the same alignment.
#[cfg_attr(target_family = "wasm", unsafe(export_name = "cabi_realloc"))]
pub unsafe extern "C" fn cabi_realloc(
    old_start: *mut u8,
    old_len: usize,
    align: usize,
    new_len: usize,
) -> *mut u8 {
    use std::alloc::{Layout, alloc, handle_alloc_error, realloc};

    if new_len == 0 {
        return ptr::without_provenance_mut(align);
    }
    // Safe by the contract above: sizes are not zero, and the canonical ABI asks for
    // alignments that are powers of two.
    let start = unsafe {
        if old_len == 0 {
            alloc(Layout::from_size_align_unchecked(new_len, align))
        } else {
            realloc(old_start, Layout::from_size_align_unchecked(old_len, align), new_len)
        }
    };
    if start.is_null() {
        // Safe as above.
        handle_alloc_error(unsafe { Layout::from_size_align_unchecked(new_len, align) });
    }
    start
}

// `len` is a `u32` in the guest: the returned records have the contract's sizes there.
const _: () = assert!(
    mem::size_of::<usize>() != 4
        || (mem::size_of::<MappedReturn>() == 24 && mem::size_of::<InitReturn>() == 12)
);
