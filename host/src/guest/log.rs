//! `GuestLog`: what one operator's guest says, as tracing events that name tenant,
//! dataflow and operator. Serves standard output and error and AIO's logger; it
//! knows neither where events go nor what a policy says of them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use wasmtime::component::{ComponentType, Lift};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::{
    bucket::Bucket,
    clock::{Clock, Instant},
    stats::Counter,
};

/// Longest line that is kept, in bytes; what is beyond it is cut.
pub const LINE_BYTES_MAX: usize = 4 << 10;

/// Bytes of lines that one call may log; lines beyond it are left out and counted.
pub const CALL_BYTES_MAX: u32 = 64 << 10;

/// What a line costs beside its text, so that empty lines are bounded too.
const LINE_OVERHEAD_BYTES: u32 = 64;

/// How grave a line is, after AIO's `logger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Severity {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

/// Lines and bytes a second that one tenant may log, over all its operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogLimits {
    pub lines_max: u64,
    pub bytes_max: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { lines_max: 1_000, bytes_max: 256 << 10 }
    }
}

/// What of that is left. Nobody waits because of a log: what is beyond it is left out.
#[derive(Debug)]
pub struct LogAllowance {
    limits: LogLimits,
    /// Lines and bytes; made when somebody logs.
    buckets: Mutex<Option<(Bucket, Bucket)>>,
    /// Lines left out because of it.
    pub left_out: Counter,
}

impl LogAllowance {
    pub fn new(limits: LogLimits) -> Self {
        LogAllowance { limits, buckets: Mutex::default(), left_out: Counter::default() }
    }

    /// Whether a line of so many bytes may be logged now.
    fn admits(&self, bytes: u64, now: Instant) -> bool {
        let LogLimits { lines_max, bytes_max } = self.limits;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, all_bytes) = buckets.get_or_insert_with(|| {
            (Bucket::new(lines_max, lines_max, now), Bucket::new(bytes_max, bytes_max, now))
        });
        lines.fill(now);
        all_bytes.fill(now);
        let admits = lines.is_open() && all_bytes.is_open();
        if admits {
            lines.spend(1);
            all_bytes.spend(bytes);
        } else {
            self.left_out.add(1);
        }
        admits
    }
}

/// The log of one instance.
#[derive(Debug)]
pub struct GuestLog {
    /// `tenant/dataflow/operation`
    name: String,
    allowance: Arc<LogAllowance>,
    clock: Clock,
    left_bytes: AtomicU32,
    left_out: AtomicU32,
}

impl GuestLog {
    pub fn new(name: &str, allowance: Arc<LogAllowance>, clock: Clock) -> Arc<Self> {
        let (left_bytes, left_out) = (AtomicU32::new(CALL_BYTES_MAX), AtomicU32::new(0));
        Arc::new(GuestLog { name: name.to_owned(), allowance, clock, left_bytes, left_out })
    }

    /// Allows a call's worth of lines again, and tells how many the last one lost.
    pub fn begin_call(&self) {
        self.left_bytes.store(CALL_BYTES_MAX, Ordering::Relaxed);
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let LogLimits { lines_max, bytes_max } = self.allowance.limits;
            let text = format!(
                "{left_out} lines left out: one call may log {CALL_BYTES_MAX} bytes, \
                 and its tenant {lines_max} lines and {bytes_max} bytes a second"
            );
            self.emit(Severity::Warn, "tidegate", &text);
        }
    }

    /// Writes one line, unless this call has said enough.
    pub fn line(&self, severity: Severity, context: &str, text: &str) {
        let (context, text) = (cut(context), cut(text.trim_end_matches(['\r', '\n'])));
        let cost = LINE_OVERHEAD_BYTES + (context.len() + text.len()) as u32;
        let left = self.left_bytes.load(Ordering::Relaxed);
        if left < cost || !self.allowance.admits(cost.into(), self.clock.now()) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.left_bytes.store(left - cost, Ordering::Relaxed);
        self.emit(severity, context, text);
    }

    fn emit(&self, severity: Severity, context: &str, text: &str) {
        let mut parts = self.name.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default();
        let (tenant, dataflow, operator) = (part(), part(), part());
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    target: "guest", tracing::Level::$level,
                    tenant, dataflow, operator, context, "{text}"
                )
            };
        }
        match severity {
            Severity::Trace => event!(TRACE),
            Severity::Debug => event!(DEBUG),
            Severity::Info => event!(INFO),
            Severity::Warn => event!(WARN),
            Severity::Error | Severity::Critical => event!(ERROR),
        }
    }
}

/// The start of a text, at most a line long.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LINE_BYTES_MAX)]
}

/// Standard output or error: bytes become lines of the log. Clones write to one
/// line, so that two handles of the guest do not tear it.
#[derive(Clone, Debug)]
pub struct LineStream {
    log: Arc<GuestLog>,
    severity: Severity,
    context: &'static str,
    unfinished: Arc<Mutex<Vec<u8>>>,
}

impl LineStream {
    pub fn new(log: Arc<GuestLog>, severity: Severity, context: &'static str) -> Self {
        LineStream { log, severity, context, unfinished: Arc::default() }
    }

    fn push(&self, mut bytes: &[u8]) {
        let mut line = self.unfinished.lock().expect("no panic under this lock");
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            extend(&mut line, &bytes[..end]);
            self.log.line(self.severity, self.context, &String::from_utf8_lossy(&line));
            line.clear();
            bytes = &bytes[end + 1..];
        }
        extend(&mut line, bytes);
    }

    /// Writes what has no line end yet, such as the last words before a trap.
    pub fn finish(&self) {
        let mut line = self.unfinished.lock().expect("no panic under this lock");
        if !line.is_empty() {
            self.log.line(self.severity, self.context, &String::from_utf8_lossy(&line));
            line.clear();
        }
    }
}

/// Appends what still fits a line.
fn extend(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = LINE_BYTES_MAX.saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl OutputStream for LineStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests;
