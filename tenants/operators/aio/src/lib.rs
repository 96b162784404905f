//! Exports the shipped operators in AIO's contract `wasm-graph:processor@1.1.0`, from
//! the same functions over payloads that the packed operators call. Not an SDK: it
//! knows only what operators on JSON payloads need.
//!
//! Each macro expands to the bindings of one world, read from `wit/`; so it serves
//! crates of `tenants/operators`, and several worlds may meet in one component.

#[doc(hidden)]
pub use tidegate_sdk::configuration;
#[doc(hidden)]
pub use wit_bindgen;

/// A map whose `process` writes a new payload as text:
/// `fn(&Config, &[u8], &mut String) -> Result<(), impl Display>`.
#[macro_export]
macro_rules! map {
    ($config:ty, $process:path) => {
        // Bindings name their own module, so that it must be one.
        mod map_operator {
            use super::*;

            $crate::__world!("map-impl", $config);
            use exports::wasm_graph::processor::map::Guest;

            impl Guest for Operator {
                fn process(mut message: DataModel) -> Result<DataModel, Error> {
                    let payload = read(payload_of(&mut message));
                    let mut text = String::with_capacity(2 * payload.len());
                    run(|config| $process(config, &payload, &mut text))?;
                    *payload_of(&mut message) = BufferOrBytes::Bytes(text.into_bytes());
                    Ok(message)
                }

                fn init(configuration: ModuleConfiguration) -> bool {
                    init(&configuration)
                }
            }

            export!(Operator);
        }
    };
}

/// A filter whose `process` judges a payload:
/// `fn(&Config, &[u8]) -> Result<bool, impl Display>`.
#[macro_export]
macro_rules! filter {
    ($config:ty, $process:path) => {
        // Bindings name their own module, so that it must be one.
        mod filter_operator {
            use super::*;

            $crate::__world!("filter-impl", $config);
            use exports::wasm_graph::processor::filter::Guest;

            impl Guest for Operator {
                fn process(mut message: DataModel) -> Result<bool, Error> {
                    let payload = read(payload_of(&mut message));
                    run(|config| $process(config, &payload))
                }

                fn init(configuration: ModuleConfiguration) -> bool {
                    init(&configuration)
                }
            }

            export!(Operator);
        }
    };
}

/// A branch whose `process` judges a payload, whatever its logical time:
/// `fn(&Config, &[u8]) -> Result<bool, impl Display>`.
#[macro_export]
macro_rules! branch {
    ($config:ty, $process:path) => {
        // Bindings name their own module, so that it must be one.
        mod branch_operator {
            use super::*;

            $crate::__world!("branch-impl", $config);
            use exports::wasm_graph::processor::branch::{Guest, HybridLogicalClock};

            impl Guest for Operator {
                fn process(_time: HybridLogicalClock, mut message: DataModel) -> Result<bool, Error> {
                    let payload = read(payload_of(&mut message));
                    run(|config| $process(config, &payload))
                }

                fn init(configuration: ModuleConfiguration) -> bool {
                    init(&configuration)
                }
            }

            export!(Operator);
        }
    };
}

/// The bindings of a world and what its operator needs of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __world {
    ($world:literal, $config:ty) => {
        $crate::wit_bindgen::generate!({
            path: "../../../wit/wasm-graph-processor",
            world: $world,
            runtime_path: "operator_aio::wit_bindgen::rt",
        });
        use wasm_graph::processor::logger::{Level, log};
        use wasm_graph::processor::types::{BufferOrBytes, DataModel, Error, ModuleConfiguration};

        struct Operator;

        ::std::thread_local! {
            static CONFIG: ::std::cell::RefCell<Option<$config>> = const { ::std::cell::RefCell::new(None) };
        }

        fn init(configuration: &ModuleConfiguration) -> bool {
            let read = $crate::configuration::read(&configuration.properties);
            match read {
                Ok(config) => CONFIG.set(Some(config)),
                Err(error) => {
                    // The contract has no other way to say why.
                    log(Level::Error, env!("CARGO_PKG_NAME"), &error.to_string());
                    return false;
                }
            }
            true
        }

        fn run<T, E: ::std::fmt::Display>(process: impl FnOnce(&$config) -> Result<T, E>) -> Result<T, Error> {
            CONFIG.with_borrow(|config| {
                let config = config.as_ref().expect("the host calls `init` first");
                process(config).map_err(|error| Error { message: error.to_string() })
            })
        }

        fn payload_of(message: &mut DataModel) -> &mut BufferOrBytes {
            match message {
                DataModel::Message(message) => &mut message.payload,
                DataModel::BufferOrBytes(payload) => payload,
                DataModel::Snapshot(snapshot) => &mut snapshot.frame,
            }
        }

        fn read(payload: &mut BufferOrBytes) -> Vec<u8> {
            match payload {
                BufferOrBytes::Buffer(buffer) => buffer.read(),
                BufferOrBytes::Bytes(bytes) => ::std::mem::take(bytes),
            }
        }
    };
}
