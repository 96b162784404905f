//! Threads that write to the disk for everybody: behind shards and connections wherever
//! both want a core, so that a tenant that has much written does not slow the guests of
//! others. Knows nothing of what they write.

use std::{
    io,
    thread::{Builder, JoinHandle},
};

/// They get about a tenth of a core that a shard wants too.
const NICE: i32 = 10;

/// Starts such a thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        // To Linux a thread is what a process is to others. Without it, only latency suffers.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            tracing::debug!(%error, "a thread in the background runs like any other");
        }
        run()
    })
}
