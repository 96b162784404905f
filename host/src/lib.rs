//! Tidegate hosts other people's sealed WebAssembly operators: every tenant's
//! dataflows side by side, on a shared pool of Timely workers.
//!
//! The modules stand in the order of a message's path, then the control side, then
//! what is around it; `ARCHITECTURE.md` is the map.

// They panic once nobody reads; `cli/print` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod batch;
pub mod bucket;
pub mod leb128;
pub mod ledger;
pub mod settle;
pub mod queue;
pub mod headers;
pub mod hlc;
pub mod dataflow;
pub mod guest;
pub mod write;
pub mod command;
pub mod inference;
pub mod topic;
pub mod connector;
pub mod dead_letter;
pub mod schema;

pub mod store;

pub mod rate;
pub mod resource;
pub mod deploy;
pub mod capacity;
pub mod host;
pub mod control;
pub mod cli;

mod background;
pub mod clock;
pub mod cloud_events;
pub mod fuzz;
pub mod latency;
pub mod planted;
pub mod stats;
pub mod tenant;
pub mod usage;
pub mod wake;
