//! Counters of the path, by dataflow, by operator and of components: written by shards and
//! connectors once a batch, read by `status`, the plain lines of `up` and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, by: u64) {
        if by > 0 {
            self.0.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// For what is a maximum.
    pub fn raise(&self, to: u64) {
        if to > self.get() {
            self.0.fetch_max(to, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[$field_doc])* pub $field: Counter,)* }

        impl $name {
            /// Every counter with its name, in the order of declaration.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.get())),*]
            }
        }
    };
}

counters! {
    /// Messages of one dataflow. What came in is `filtered`, `errors`, `late` or `dead`,
    /// or went on as at least one message of `written` or `absorbed`.
    DataflowStats {
        /// Messages taken from sources.
        received,
        /// Messages handed to sinks.
        written,
        /// Messages confirmed by sinks.
        delivered,
        /// Messages dropped by a filter, or mapped to nothing.
        filtered,
        /// Messages dropped because an operator returned an error.
        errors,
        /// Messages that an accumulate or delay took in.
        absorbed,
        /// Messages delivered again that an accumulate or delay had taken in before.
        recognised,
        /// Messages dropped because they came after their time was complete.
        late,
        /// Messages that a delay wanted to send back in time: they kept theirs.
        clamped,
        /// Messages whose own time was further ahead than clocks may drift: held back.
        ahead,
        /// Messages whose own time could not be read: given the host's.
        unreadable,
        /// Messages that did not fit the schema of a connection; they are among `dead`.
        unfit,
        /// Messages that a sink refused for good; they are among `dead`.
        rejected,
        /// Messages written to the dead letters.
        dead,
        /// Times that it was paused because its guests failed, and put in quarantine.
        pauses,
        quarantines,
        /// Deliveries taken, and deliveries settled.
        deliveries,
        settled,
        /// Bytes of topic, payload and properties taken.
        received_bytes,
        /// The same of messages confirmed by sinks; a write of which a sink refused some
        /// counts whole.
        delivered_bytes,
    }
}

counters! {
    /// What one tenant has used on its shard, over all its dataflows and host calls.
    TenantStats {
        /// CPU time of its guests and of what they call, in ns.
        cpu_ns,
        /// The longest slice, in ns.
        longest_slice_ns,
        /// CPU time of the processes that run its models, in ns.
        models_cpu_ns,
        /// Fuel of its guests and of what they call.
        fuel,
        /// Calls into the host.
        host_calls,
        /// Times that it had to wait because its CPU time was used up, its fuel, or its
        /// host calls.
        throttled_cpu,
        throttled_fuel,
        throttled_calls,
        /// Times that it had to wait for any of them, and times that it went on again.
        throttled,
        unthrottled,
        /// How long it has waited for any of them, in ns.
        throttled_ns,
    }
}

counters! {
    /// Components of the whole host.
    ComponentStats {
        /// Runs of the compile process; what was compiled before needs none.
        compiles,
        /// Compiled components mapped into memory.
        loads,
        /// Components that a shard let go of, least recently used first.
        evictions,
        /// Compiled components removed from the disk, least recently used first.
        removals,
    }
}

counters! {
    /// One operator of a dataflow.
    OperatorStats {
        /// Messages given to the guest, retries not counted.
        taken,
        /// Messages that it gave or passed on.
        given,
        /// Messages that it answered with an error.
        errors,
        /// Calls that ended in a fault.
        faults,
        /// Calls repeated for a single message after a fault.
        retries,
        /// Fuel used by finished calls.
        fuel,
        /// Instances created.
        instances,
        /// Instances retired while idle, with what they kept in their statics.
        retired,
    }
}

counters! {
    /// Models of one tenant.
    InferenceStats {
        /// Models that guests asked to load.
        loads,
        /// Times that guests asked to run one.
        computes,
        /// Either of them that took longer than it may.
        timed_out,
        /// Those that ended in another error.
        failed,
        /// Processes started, and of these ended by what they ran.
        processes,
        ended,
        /// CPU time of these processes, in ms.
        cpu_ms,
    }
}
