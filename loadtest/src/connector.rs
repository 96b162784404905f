//! What is at both ends of a host.

use crate::scenario::Topics;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connector {
    /// One MQTT broker at both ends, QoS 1.
    #[default]
    Mqtt,
    /// One Kafka at both ends.
    Kafka,
    /// The same, in transactions.
    Transactions,
    /// Requests in, webhooks out.
    Http,
}

impl Connector {
    pub const ALL: [Connector; 4] =
        [Connector::Mqtt, Connector::Http, Connector::Kafka, Connector::Transactions];

    pub fn name(self) -> &'static str {
        match self {
            Connector::Mqtt => "mqtt",
            Connector::Kafka => "kafka",
            Connector::Transactions => "kafka-transactions",
            Connector::Http => "http",
        }
    }

    pub fn is_kafka(self) -> bool {
        matches!(self, Connector::Kafka | Connector::Transactions)
    }

    /// Whether what is sent later may come earlier.
    pub fn is_in_order(self) -> bool {
        self != Connector::Http
    }

    /// Where tenants take from and give to unless a scenario says otherwise.
    pub fn topics(self) -> Topics {
        let (input, output) = match self {
            // Kafka's names have no levels.
            Connector::Kafka | Connector::Transactions => ("{tenant}.in", "{tenant}.out.flow"),
            Connector::Mqtt | Connector::Http => ("{tenant}/in", "{tenant}/out/flow"),
        };
        Topics { input: input.into(), output: output.into() }
    }
}
