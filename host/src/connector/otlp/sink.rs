//! `OtlpSink`: one tenant's messages to one Collector, in order. What has come is sent as
//! one request for each signal, the next when that is answered; a request that may do later
//! is sent again, with growing waits, and what follows waits behind it.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    exporter::{Answer, Exporter, Why},
    form::Signal,
    json,
    merged::Merged,
    telemetry::Telemetry,
    wire,
};
use crate::{
    batch::{Batch, Entry},
    clock::Clock,
    connector::{
        far_side::{self, ASKED_MAX, backoff},
        route::Route,
        status::Status,
    },
    deploy::chain,
    resource::endpoint::{ExportSettings, Payload},
    write::{Rejected, SinkQueue, Write},
};

/// Of one request, so that it is far below what servers of gRPC take, which is 4 MiB, and
/// half of a tenant's usual credit: nobody waits for more to come that cannot.
const REQUEST_BYTES_MAX: usize = 512 << 10;

/// See the module.
pub struct OtlpSink {
    settings: ExportSettings,
    tenant: String,
    queue: Arc<SinkQueue>,
    status: Arc<Status>,
    route: Route,
    /// The last attempt failed.
    is_failing: bool,
}

/// Writes that are sent together.
#[derive(Default)]
struct Pending {
    writes: Vec<(Write, Vec<Rejected>)>,
    /// Payloads of each signal, in order.
    signals: BTreeMap<Signal, Vec<Part>>,
    messages: usize,
    bytes: usize,
}

/// What one message says of one signal.
struct Part {
    /// Of the writes, and of the messages of that.
    place: (usize, u32),
    request: Bytes,
}

impl Pending {
    fn is_full(&self, settings: &ExportSettings) -> bool {
        self.messages >= settings.messages_max as usize || self.bytes >= REQUEST_BYTES_MAX
    }

    fn add(&mut self, signal: Signal, place: (usize, u32), request: Bytes) {
        self.bytes += request.len();
        self.signals.entry(signal).or_default().push(Part { place, request });
    }

    fn reject(&mut self, (write, index): (usize, u32), reason: String) {
        let rejected = &mut self.writes[write].1;
        // One message may be refused for each of its signals.
        if !rejected.iter().any(|it| it.index == index) {
            rejected.push(Rejected { index, reason });
        }
    }

    fn confirm(self) {
        for (write, mut rejected) in self.writes {
            rejected.sort_by_key(|rejected| rejected.index);
            write.confirm(rejected);
        }
    }
}

impl OtlpSink {
    pub fn new(settings: ExportSettings, tenant: String, queue: Arc<SinkQueue>) -> Self {
        let (status, route) = (Status::new(), Route::default());
        OtlpSink { settings, tenant, queue, status, route, is_failing: false }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Sends until its queue is closed and empty and all is answered.
    pub async fn run(mut self) {
        // Nothing if the queue is closed before its files can be read.
        let made = far_side::made(&self.queue, &self.status, || self.make_exporter()).await;
        let Some(mut exporter) = made else { return self.status.set_closed() };
        far_side::reach("the Collector", &self.settings.address, &self.status).await;
        while let Some(mut pending) = self.gather().await {
            let signals = std::mem::take(&mut pending.signals);
            for (signal, parts) in signals {
                self.send(&mut exporter, signal, parts, &mut pending).await;
            }
            pending.confirm();
        }
        self.status.set_closed();
    }

    fn make_exporter(&self) -> impl Future<Output = Result<Exporter, String>> + use<> {
        let settings = self.settings.clone();
        let made = tokio::task::spawn_blocking(move || Exporter::new(&settings));
        async { made.await.expect("reading files does not panic").map_err(|error| chain(&error)) }
    }

    /// What is sent together: what has come by now, or as long as the endpoint says.
    async fn gather(&mut self) -> Option<Pending> {
        let first = poll_fn(|ctx| self.queue.poll_next(ctx)).await?;
        let until = Instant::now() + self.settings.latency.unwrap_or_default();
        let mut pending = Pending::default();
        self.take(first, &mut pending);
        while !pending.is_full(&self.settings) {
            match timeout_at(until, poll_fn(|ctx| self.queue.poll_next(ctx))).await {
                Ok(Some(write)) => self.take(write, &mut pending),
                Ok(None) | Err(_) => break,
            }
        }
        Some(pending)
    }

    fn take(&mut self, write: Write, pending: &mut Pending) {
        let (number, batch, destination) =
            (pending.writes.len(), write.batch.clone(), write.destination.clone());
        pending.writes.push((write, Vec::new()));
        pending.messages += batch.len();
        for (entry, index) in batch.entries.iter().zip(0..) {
            let place = (number, index);
            let topic = self.route.topic(&destination, entry.topic.bytes(&batch.arena));
            let read = match (topic, self.settings.payload) {
                (Err(reason), _) => Err(reason),
                (Ok(_), Payload::Telemetry) => self.read_telemetry(entry, &batch),
                (Ok(topic), Payload::Otlp) => read_otlp(topic, entry, &batch),
            };
            match read {
                Ok(requests) => {
                    for (signal, request) in requests.into_iter().flatten() {
                        pending.add(signal, place, request);
                    }
                    self.status.messages_out.add(1);
                    self.status.bytes_out.add(u64::from(entry.payload.len));
                }
                Err(reason) => {
                    self.status.rejected.add(1);
                    pending.reject(place, reason);
                }
            }
        }
    }

    fn read_telemetry(&self, entry: &Entry, batch: &Batch) -> Result<Requests, String> {
        let nanos = entry.seconds.saturating_mul(1_000_000_000).saturating_add(entry.nanos.into());
        let read = Telemetry::parse(entry.payload.bytes(&batch.arena), &self.tenant, nanos);
        let Telemetry { metrics, logs } = read.map_err(|error| error.to_string())?;
        let of = |signal, request: Option<Vec<u8>>| request.map(|it| (signal, Bytes::from(it)));
        Ok([of(Signal::Metrics, metrics), of(Signal::Logs, logs)])
    }

    /// Until the Collector has it all but for what it refuses, which is rejected.
    async fn send(
        &mut self,
        exporter: &mut Exporter,
        signal: Signal,
        parts: Vec<Part>,
        pending: &mut Pending,
    ) {
        // What is refused for something in it is sent again in halves, so that the rest goes through.
        let mut left = vec![parts];
        while let Some(mut parts) = left.pop() {
            let cut = parts.len().min(fitting(&parts));
            if cut < parts.len() {
                left.push(parts.split_off(cut));
            }
            match self.deliver(exporter, signal, merge(&parts)).await {
                Ok(()) => {}
                Err((_, Why::Content)) if parts.len() > 1 => {
                    let second = parts.split_off(parts.len() / 2);
                    left.push(second);
                    left.push(parts);
                }
                Err((error, _)) => {
                    self.status.rejected.add(parts.len() as u64);
                    parts.iter().for_each(|part| pending.reject(part.place, error.clone()));
                }
            }
        }
    }

    /// Until the Collector has one request, or refuses it.
    async fn deliver(
        &mut self,
        exporter: &mut Exporter,
        signal: Signal,
        request: Bytes,
    ) -> Result<(), (String, Why)> {
        let mut backoff = backoff();
        loop {
            let (error, after) = match exporter.send(signal, request.clone()).await {
                Answer::Done => {
                    self.note_success();
                    return Ok(());
                }
                Answer::Partly(rejected, message) => {
                    self.note_success();
                    self.note_partial(signal, rejected, &message);
                    return Ok(());
                }
                Answer::Refused { error, why } => {
                    self.note_success();
                    return Err((error, why));
                }
                Answer::Again { error, after } => (error, after),
            };
            self.is_failing = true;
            self.status.set_degraded(Clock::System.now(), error);
            sleep(backoff.next().max(after.unwrap_or_default().min(ASKED_MAX))).await;
            self.status.redelivered.add(1);
            // Certificates may have been replaced.
            if self.settings.tls.is_some()
                && let Ok(made) = self.make_exporter().await
            {
                *exporter = made;
            }
        }
    }

    fn note_success(&mut self) {
        if std::mem::take(&mut self.is_failing) || self.status.is_missing() {
            self.status.set_connected();
        }
    }

    /// The Collector does not say which items it has not taken, and wants none of them again.
    fn note_partial(&self, signal: Signal, rejected: i64, message: &str) {
        let rejected = u64::try_from(rejected).unwrap_or(0);
        self.status.items_refused.add(rejected);
        let (tenant, address, signal) = (&self.tenant, &self.settings.address, signal.name());
        tracing::warn!(
            tenant,
            address,
            signal,
            rejected,
            message,
            "the Collector took a request in part; which items it refused it does not say"
        );
    }
}

/// Of one message.
type Requests = [Option<(Signal, Bytes)>; 2];

/// A payload that is a request itself, of the signal that its topic names.
fn read_otlp(topic: &[u8], entry: &Entry, batch: &Batch) -> Result<Requests, String> {
    let name = String::from_utf8_lossy(topic);
    let signal = Signal::of_name(&name).ok_or_else(|| format!("no signal of OTLP is named `{name}`"))?;
    let payload = match entry.payload.len {
        0 => Bytes::new(),
        len => batch.arena.slice(entry.payload.offset as usize..(entry.payload.offset + len) as usize),
    };
    // No field of a request has the number that `{` is, so that this tells more than a content
    // type, which an operator may have lost.
    let request = if payload.trim_ascii_start().starts_with(b"{") {
        json::to_protobuf(signal, &payload).map_err(|error| error.to_string())?.into()
    } else {
        payload
    };
    wire::check(signal, &request).map_err(|error| format!("the payload is no request of OTLP: {error}"))?;
    Ok([Some((signal, request)), None])
}

/// How many of the first fit in one request; one always does.
fn fitting(parts: &[Part]) -> usize {
    let mut bytes = 0;
    let fits = |part: &&Part| {
        bytes += part.request.len();
        bytes <= REQUEST_BYTES_MAX
    };
    parts.iter().take_while(fits).count().max(1)
}

fn merge(parts: &[Part]) -> Bytes {
    if let [part] = parts {
        return part.request.clone();
    }
    let mut merged = Merged::default();
    parts.iter().for_each(|part| merged.add(&part.request));
    merged.finish().into()
}
