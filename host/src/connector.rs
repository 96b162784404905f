//! Connectors: the transports at both ends of the path. Each turns what comes in
//! into deliveries at the source's door and carries writes from the sink's door to
//! the far side; none knows dataflows, guests or shards.

mod backoff;
pub mod broker;
pub mod buffer;
mod carried;
pub mod client_id;
mod far_side;
pub mod file;
pub mod http;
pub mod kafka;
pub mod memory;
pub mod mqtt;
pub mod otlp;
mod route;
pub mod status;
pub mod stop;
mod tls;
mod waiter;

use self::{
    file::{FileError, FileSink, FileSource},
    http::{HttpSink, HttpSource, Webhook},
    kafka::{KafkaSink, KafkaSource},
    memory::{MemorySink, MemorySource},
    mqtt::{Remote, SinkSession, SourceSession},
    otlp::OtlpSink,
};
use crate::clock::Clock;

/// The source's end of a connector, ready to run.
pub enum Source {
    /// And where its broker is.
    Mqtt(Remote, Box<SourceSession>),
    Kafka(Box<KafkaSource>),
    Http(Box<HttpSource>),
    Memory(MemorySource),
    File(Box<FileSource>),
}

/// The sink's end of a connector, ready to run.
pub enum Sink {
    /// And where its broker is.
    Mqtt(Remote, Box<SinkSession>),
    Kafka(Box<KafkaSink>),
    Http(Box<HttpSink>),
    Webhook(Box<Webhook>),
    Otlp(Box<OtlpSink>),
    Memory(MemorySink),
    File(FileSink),
}

impl Source {
    /// Delivers until it is stopped and all is settled, or its dataflow is gone.
    pub async fn run(self, clock: Clock) -> Result<(), FileError> {
        match self {
            // Apart, or the others would take as much memory.
            Source::Mqtt(remote, session) => Box::pin(mqtt::run(remote, session, clock)).await,
            Source::Http(source) => Box::pin(source.run()).await,
            Source::Memory(source) => source.run().await,
            Source::Kafka(source) => on_a_thread(move || source.run()).await,
            Source::File(source) => return on_a_thread(move || source.run()).await,
        }
        Ok(())
    }
}

impl Sink {
    /// Writes until its queue is closed and empty.
    pub async fn run(self, clock: Clock) -> Result<(), FileError> {
        match self {
            // As above.
            Sink::Mqtt(remote, session) => Box::pin(mqtt::run(remote, session, clock)).await,
            Sink::Http(sink) => Box::pin(sink.run()).await,
            Sink::Webhook(sink) => Box::pin(sink.run()).await,
            Sink::Otlp(sink) => Box::pin(sink.run()).await,
            Sink::Memory(sink) => sink.run().await,
            Sink::Kafka(sink) => on_a_thread(move || sink.run()).await,
            Sink::File(sink) => return on_a_thread(move || sink.run()).await,
        }
        Ok(())
    }
}

async fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
