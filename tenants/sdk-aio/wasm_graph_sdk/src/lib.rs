//! `wasm_graph_sdk`: what operators for Azure IoT Operations are written with, for
//! `wasm-graph:processor@1.1.0`. AIO's own crate of this name is not public; this one
//! has the paths and signatures that its public samples use, so that an operator
//! written for AIO builds here as it is.
//!
//! ```text
//! use wasm_graph_sdk::logger::{self, Level};
//! use wasm_graph_sdk::macros::map_operator;
//!
//! fn start(configuration: ModuleConfiguration) -> bool {
//!     logger::log(Level::Info, "shout", &format!("{} parameters", configuration.properties.len()));
//!     true
//! }
//!
//! #[map_operator(init = "start")]
//! fn shout(input: DataModel) -> Result<DataModel, Error> {
//!     let DataModel::Message(mut message) = input else {
//!         return Err(Error { message: "expected a message".to_string() });
//!     };
//!     message.payload = BufferOrBytes::Bytes(message.payload.read().to_ascii_uppercase());
//!     Ok(DataModel::Message(message))
//! }
//! ```
//!
//! A macro brings the contract's types into the module in which it stands: `DataModel`,
//! `Message`, `Snapshot`, `BufferOrBytes` and the rest. They are that module's own, so
//! each operator of a crate stands in a module by itself; all become one component.

/// One attribute for each kind of operator.
pub mod macros {
    pub use wasm_graph_sdk_macros::{
        accumulate_operator, branch_operator, delay_operator, filter_operator, map_operator,
    };
}

mod bindings {
    wasm_graph_sdk_macros::host_bindings!();
}

/// Lines of the tenant's log.
pub mod logger {
    pub use crate::bindings::wasm_graph::processor::logger::{Level, log};
}

/// Counters and histograms of the dataflow.
pub mod metrics {
    pub use crate::bindings::wasm_graph::processor::metrics::{
        CounterValue, HistogramValue, Label, MetricsError, add_to_counter, record_to_histogram,
    };
}

/// The tenant's keys and values.
pub mod state_store {
    pub use crate::bindings::wasm_graph::processor::{
        hybrid_logical_clock::{HybridLogicalClock, Timespec},
        state_store::{del, get, set, vdel},
        state_store_types::{
            Duration, SetConditions, SetOptions, StateStoreDelResponse, StateStoreError,
            StateStoreGetResponse, StateStoreSetResponse,
        },
    };

    /// Whatever was there before, and for ever.
    impl Default for SetOptions {
        fn default() -> Self {
            SetOptions { conditions: SetConditions::Unconditional, expires: None }
        }
    }
}

#[doc(hidden)]
pub use wit_bindgen;
