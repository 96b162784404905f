//! The Kafka connector, on librdkafka: a member of a consumer group that commits what is
//! settled, and an idempotent producer whose delivery reports confirm. Each blocks a thread
//! of its own, since rebalances are answered while the library waits.

mod record;
mod sink;
mod source;
mod transaction;

use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::resource::{
    endpoint::{Acks, Certificate, KafkaSettings, Mechanism, Reset},
    secret::SecretError,
};

pub use self::{
    record::{KEY, Outgoing, Record},
    sink::KafkaSink,
    source::{KafkaOptions, KafkaSource, Oversize},
    transaction::Transaction,
};

/// Why there is no client. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the password is not known")]
    Secret(#[from] SecretError),
    #[error("no client can be made of the endpoint's settings")]
    Client(#[from] KafkaError),
    #[error("no broker answers at {address}: {reason}")]
    Silent { address: String, reason: String },
    #[error("no broker was there for a while")]
    Missed,
    #[error("the broker does not let the client in: {reason}")]
    Refused { reason: String },
    #[error("a transaction was aborted, and what was in it is done again: {reason}")]
    Aborted { reason: String },
    #[error("the producer cannot go on: {reason}")]
    Fatal { reason: String },
}

/// Whether what was read of secrets and certificates did not do: a client with what they
/// are by now may.
fn is_about_secrets(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::SaslAuthenticationFailed
        )
    )
}

/// The group of one source: no other shares its partitions, whatever else uses the
/// endpoint; the same source of another host does.
pub fn group(settings: &KafkaSettings, tenant: &str, dataflow: &str, source: &str) -> String {
    let group = settings.group.as_deref().unwrap_or("tidegate");
    format!("{group}/{tenant}/{dataflow}/{source}")
}

/// What all clients of an endpoint have in common. Secrets are read now.
fn client(settings: &KafkaSettings, client_id: &str) -> Result<ClientConfig, SecretError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.address)
        .set("client.id", client_id)
        // A message that waits for another one to be acknowledged waits for its delay.
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "5000")
        // What it finds out of sleeping brokers is no news.
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &settings.tls {
        if let Some(trusted) = &tls.trusted {
            config.set("ssl.ca.location", trusted.to_string_lossy());
        }
        if let Some(Certificate { chain, key }) = &tls.certificate {
            config.set("ssl.certificate.location", chain.to_string_lossy());
            config.set("ssl.key.location", key.to_string_lossy());
        }
    }
    if let Some(sasl) = &settings.sasl {
        config.set("sasl.mechanism", Mechanism::name(sasl.mechanism));
        config.set("sasl.username", &sasl.login.user);
        config.set("sasl.password", sasl.login.password.reveal()?);
    }
    Ok(config)
}

/// Bytes that a consumer may hold that were fetched and not asked for yet.
const FETCHED_KIB_MAX: u32 = 8 << 10;

fn consumer(settings: &KafkaSettings, client_id: &str, group: &str) -> Result<ClientConfig, SecretError> {
    let mut config = client(settings, client_id)?;
    let reset = match settings.reset {
        Reset::Earliest => "earliest",
        Reset::Latest => "latest",
    };
    config
        .set("group.id", group)
        .set("auto.offset.reset", reset)
        .set("partition.assignment.strategy", "cooperative-sticky")
        // What is settled is stored, and what is stored is committed.
        .set("enable.auto.offset.store", "false")
        // With transactions it is in them.
        .set("enable.auto.commit", (!settings.transactions).to_string())
        .set("auto.commit.interval.ms", "1000")
        // Whoever was killed is missed after so long.
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "2000")
        // With the library's 1,000, whoever reads fast waits a second for each fetch.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", FETCHED_KIB_MAX.to_string())
        .set("enable.partition.eof", "false")
        .set("statistics.interval.ms", "5000");
    Ok(config)
}

/// Bytes and records that a producer may hold.
const BUFFERED_KIB_MAX: u32 = 16 << 10;
const BUFFERED_MAX: u32 = 100_000;

fn producer(settings: &KafkaSettings, client_id: &str) -> Result<ClientConfig, SecretError> {
    let mut config = client(settings, client_id)?;
    let (acks, is_idempotent) = match settings.acks {
        Acks::All => ("all", "true"),
        Acks::One => ("1", "false"),
        Acks::Zero => ("0", "false"),
    };
    config
        .set("acks", acks)
        .set("enable.idempotence", is_idempotent)
        // A message is the sink's until it is delivered or refused, however long that takes.
        .set("message.timeout.ms", "0")
        // What is sent to a topic that is not there is refused after so long.
        .set("topic.metadata.propagation.max.ms", "5000")
        .set("compression.type", settings.compression.name())
        .set("queue.buffering.max.ms", settings.batching.latency.as_millis().to_string())
        .set("batch.size", settings.batching.bytes_max.to_string())
        .set("batch.num.messages", settings.batching.messages_max.to_string())
        .set("queue.buffering.max.kbytes", BUFFERED_KIB_MAX.to_string())
        .set("queue.buffering.max.messages", BUFFERED_MAX.to_string())
        // What Java's clients do: one key lies in one partition, whoever writes it.
        .set("partitioner", "murmur2_random");
    if settings.acks != Acks::All {
        // What is sent again does not come behind what was sent later.
        config.set("max.in.flight.requests.per.connection", "1");
    }
    if settings.transactions {
        config
            .set("transactional.id", client_id)
            // A transaction is not open for ever; what is in it is sent again in another.
            .set("message.timeout.ms", "30000");
    }
    Ok(config)
}
