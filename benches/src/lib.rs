//! What the benches share: reports in one form, the medians they quote, and a shard
//! fed from memory.

pub mod bare;
pub mod report;
pub mod rig;
pub mod sim;
