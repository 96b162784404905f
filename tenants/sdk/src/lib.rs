//! The guest SDK: an operator is a plain function over one message, and a typed
//! configuration. A component built with it exports `tidegate:operator@0.1.0`; how a
//! batch is laid out in memory is the SDK's business and nobody else's.
//!
//! ```
//! use serde::Deserialize;
//! use tidegate_sdk::{Message, filter};
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     longest: usize,
//! }
//!
//! fn is_short(config: &Config, message: &Message) -> Result<bool, String> {
//!     Ok(message.payload().len() <= config.longest)
//! }
//!
//! filter!(is_short, Config);
//! # fn main() {}
//! ```
//!
//! [`map!`] yields any number of messages for each one, [`filter!`] says which pass,
//! [`branch!`] which arm they take, [`delay!`] what time they wait for, [`accumulate!`]
//! makes one message of all that share a time. An error is anything with `Display`; the host
//! reports its text and drops or dead-letters that message alone. `println!` and
//! `eprintln!` write to the tenant's log.

mod message;
pub use message::{Kind, Message, Messages, Properties, Schema, Time};
mod output;
pub use output::{Draft, Output, Writer};

pub mod configuration;

mod batch;
mod export;
mod layout;
pub mod testing;

/// Exports a function as the component's map operator:
/// `fn(&Config, &Message, &mut Output) -> Result<(), impl Display>`, or without the
/// first parameter if it takes no configuration.
///
/// ```
/// use tidegate_sdk::{Message, Output, map};
///
/// fn twice(message: &Message, output: &mut Output) -> Result<(), String> {
///     output.emit(message);
///     output.emit(message).topic(b"copies");
///     Ok(())
/// }
///
/// map!(twice);
/// # fn main() {}
/// ```
///
/// What a failed call emitted is taken back.
#[macro_export]
macro_rules! map {
    ($process:path) => {
        $crate::map!(@ (), |(), message, output| $process(message, output));
    };
    ($process:path, $config:ty) => {
        $crate::map!(@ $config, |config, message, output| $process(config, message, output));
    };
    (@ $config:ty, $process:expr) => {
        const _: () = {
            use $crate::__private as sdk;

            $crate::__operator!("map", $config, MAP);

            #[cfg_attr(target_family = "wasm", unsafe(export_name = "tidegate:operator/map@0.1.0#process"))]
            #[allow(dead_code)]
            unsafe extern "C" fn process(
                entries: *mut sdk::Entry,
                entries_len: usize,
                arena: *mut u8,
                arena_len: usize,
            ) -> *const sdk::MappedReturn {
                // Safe by the canonical ABI: both lists were allocated by this guest's
                // `cabi_realloc` for this call, which owns them.
                let (entries, arena) = unsafe {
                    (sdk::owned_records(entries, entries_len), sdk::owned_list(arena, arena_len))
                };
                STATE.with_borrow_mut(|state| state.map(entries, arena, $process))
            }
        };
    };
}

/// Exports a function as the component's filter operator:
/// `fn(&Config, &Message) -> Result<bool, impl Display>`, or without the first
/// parameter if it takes no configuration. `true` passes the message on.
#[macro_export]
macro_rules! filter {
    ($process:path) => {
        $crate::filter!(@ (), |(), message| $process(message));
    };
    ($process:path, $config:ty) => {
        $crate::filter!(@ $config, |config, message| $process(config, message));
    };
    (@ $config:ty, $process:expr) => {
        const _: () = {
            use $crate::__private as sdk;

            $crate::__operator!("filter", $config, FILTER);

            #[cfg_attr(target_family = "wasm", unsafe(export_name = "tidegate:operator/filter@0.1.0#process"))]
            #[allow(dead_code)]
            unsafe extern "C" fn process(
                entries: *mut sdk::Entry,
                entries_len: usize,
                arena: *mut u8,
                arena_len: usize,
            ) -> *const sdk::JudgedReturn {
                // Safe by the canonical ABI: both lists were allocated by this guest's
                // `cabi_realloc` for this call, which owns them.
                let (entries, arena) = unsafe {
                    (sdk::owned_records(entries, entries_len), sdk::owned_list(arena, arena_len))
                };
                STATE.with_borrow_mut(|state| state.filter(&entries, &arena, $process))
            }
        };
    };
}

/// Exports a function as the component's branch operator:
/// `fn(&Config, &Message, &Time) -> Result<bool, impl Display>`, or without the first
/// parameter if it takes no configuration. The time is the message's logical time, by
/// which windows are made; `false` takes the arm "False", `true` the arm "True".
///
/// ```
/// use tidegate_sdk::{Message, Time, branch};
///
/// fn is_odd(_message: &Message, time: &Time) -> Result<bool, String> {
///     Ok(time.seconds % 2 == 1)
/// }
///
/// branch!(is_odd);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! branch {
    ($process:path) => {
        $crate::branch!(@ (), |(), message, time| $process(message, time));
    };
    ($process:path, $config:ty) => {
        $crate::branch!(@ $config, |config, message, time| $process(config, message, time));
    };
    (@ $config:ty, $process:expr) => {
        const _: () = {
            use $crate::__private as sdk;

            $crate::__operator!("branch", $config, BRANCH);

            #[cfg_attr(target_family = "wasm", unsafe(export_name = "tidegate:operator/branch@0.1.0#process"))]
            #[allow(dead_code)]
            unsafe extern "C" fn process(
                entries: *mut sdk::Entry,
                entries_len: usize,
                times: *mut sdk::LogicalTime,
                times_len: usize,
                arena: *mut u8,
                arena_len: usize,
            ) -> *const sdk::JudgedReturn {
                // Safe by the canonical ABI: the lists were allocated by this guest's
                // `cabi_realloc` for this call, which owns them.
                let (entries, times, arena) = unsafe {
                    (
                        sdk::owned_records(entries, entries_len),
                        sdk::owned_records(times, times_len),
                        sdk::owned_list(arena, arena_len),
                    )
                };
                STATE.with_borrow_mut(|state| state.branch(&entries, &times, &arena, $process))
            }
        };
    };
}

/// Exports a function as the component's accumulate operator:
/// `fn(&Config, &Message, Messages, &mut Output) -> Result<(), impl Display>`, or
/// without the first parameter if it takes no configuration. It is given the staged
/// value of one window and messages that arrived at its time, and emits the new staged
/// value: one message. At first the staged value has an empty payload; what is staged
/// when the window closes is its result.
///
/// ```
/// use tidegate_sdk::{Message, Messages, Output, accumulate};
///
/// fn count(staged: &Message, messages: Messages, output: &mut Output) -> Result<(), String> {
///     let before: usize = staged.text().ok().and_then(|text| text.parse().ok()).unwrap_or(0);
///     output.emit(staged).payload((before + messages.len()).to_string());
///     Ok(())
/// }
///
/// accumulate!(count);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! accumulate {
    ($process:path) => {
        $crate::accumulate!(@ (), |(), staged, messages, output| $process(staged, messages, output));
    };
    ($process:path, $config:ty) => {
        $crate::accumulate!(@ $config, |config, staged, messages, output| {
            $process(config, staged, messages, output)
        });
    };
    (@ $config:ty, $process:expr) => {
        const _: () = {
            use $crate::__private as sdk;

            $crate::__operator!("accumulate", $config, ACCUMULATE);

            #[cfg_attr(target_family = "wasm", unsafe(export_name = "tidegate:operator/accumulate@0.1.0#process"))]
            #[allow(dead_code)]
            unsafe extern "C" fn process(
                entries: *mut sdk::Entry,
                entries_len: usize,
                arena: *mut u8,
                arena_len: usize,
            ) -> *const sdk::MappedReturn {
                // Safe by the canonical ABI: both lists were allocated by this guest's
                // `cabi_realloc` for this call, which owns them.
                let (entries, arena) = unsafe {
                    (sdk::owned_records(entries, entries_len), sdk::owned_list(arena, arena_len))
                };
                STATE.with_borrow_mut(|state| state.accumulate(entries, arena, $process))
            }
        };
    };
}

/// Exports a function as the component's delay operator:
/// `fn(&Config, &Message<'m>, &Time<'m>) -> Result<Time<'m>, impl Display>`, or without
/// the first parameter if it takes no configuration. It is given a message's logical
/// time and gives the one that the message waits for, not earlier.
///
/// ```
/// use tidegate_sdk::{Message, Time, delay};
///
/// /// To the end of its minute.
/// fn minute<'m>(_message: &Message<'m>, time: &Time<'m>) -> Result<Time<'m>, String> {
///     Ok(Time { seconds: (time.seconds + 1).next_multiple_of(60), nanos: 0, counter: 0, ..*time })
/// }
///
/// delay!(minute);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! delay {
    ($process:path) => {
        $crate::delay!(@ (), |(), message, time| $process(message, time));
    };
    ($process:path, $config:ty) => {
        $crate::delay!(@ $config, |config, message, time| $process(config, message, time));
    };
    (@ $config:ty, $process:expr) => {
        const _: () = {
            use $crate::__private as sdk;

            $crate::__operator!("delay", $config, DELAY);

            #[cfg_attr(target_family = "wasm", unsafe(export_name = "tidegate:operator/delay@0.1.0#process"))]
            #[allow(dead_code)]
            unsafe extern "C" fn process(
                entries: *mut sdk::Entry,
                entries_len: usize,
                times: *mut sdk::LogicalTime,
                times_len: usize,
                arena: *mut u8,
                arena_len: usize,
            ) -> *const sdk::DelayedReturn {
                // Safe by the canonical ABI: the lists were allocated by this guest's
                // `cabi_realloc` for this call, which owns them.
                let (entries, times, arena) = unsafe {
                    (
                        sdk::owned_records(entries, entries_len),
                        sdk::owned_records(times, times_len),
                        sdk::owned_list(arena, arena_len),
                    )
                };
                STATE.with_borrow_mut(|state| state.delay(&entries, &times, arena, $process))
            }
        };
    };
}

/// What every kind of operator exports besides `process`: the section that names its
/// world, its state and `init`.
#[doc(hidden)]
#[macro_export]
macro_rules! __operator {
    ($kind:literal, $config:ty, $world:ident) => {
        #[cfg(target_family = "wasm")]
        #[unsafe(link_section = concat!("component-type:tidegate-sdk:", $kind))]
        static WORLD: [u8; sdk::world::$world.len()] = *sdk::world::$world;

        ::std::thread_local! {
            static STATE: ::std::cell::RefCell<sdk::State<$config>> =
                const { ::std::cell::RefCell::new(sdk::State::new()) };
        }

        #[cfg_attr(
                                    target_family = "wasm",
                                    unsafe(export_name = concat!("tidegate:operator/", $kind, "@0.1.0#init"))
                                )]
        #[allow(dead_code)]
        unsafe extern "C" fn init(
            properties: *mut sdk::RawProperty,
            properties_len: usize,
            schemas: *mut sdk::RawSchema,
            schemas_len: usize,
        ) -> *const sdk::InitReturn {
            // Safe by the canonical ABI: lists and strings were allocated by this
            // guest's `cabi_realloc` for this call, which owns them.
            let properties =
                unsafe { sdk::owned_configuration(properties, properties_len, schemas, schemas_len) };
            STATE.with_borrow_mut(|state| state.init(&properties))
        }
    };
}

/// For the expansion of this crate's macros only.
#[doc(hidden)]
pub mod __private {
    pub use crate::export::{
        DelayedReturn, InitReturn, JudgedReturn, MappedReturn, RawProperty, RawSchema, State, cabi_realloc,
        owned_configuration, owned_list, owned_records, world,
    };
    pub use crate::layout::{Entry, LogicalTime};
}

/// The first operator of the README compiles as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
