//! Dataflows on shards: one Timely dataflow per resource, whole on one thread. The
//! middle of the path, from the queue to the sinks' doors; the only module that
//! names timely. It does no I/O and never blocks.

pub mod circuit;
pub mod description;
mod lull;
pub mod operators;
pub mod plan;
pub mod region;
pub mod run_queue;
pub mod shard;
pub mod tasks;
pub mod timers;
pub mod watermark;
pub mod window;
