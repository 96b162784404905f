//! Connectors: the transports at both ends of the path. Each turns what comes in
//! into deliveries at the source's door and carries writes from the sink's door to
//! the far side; none knows dataflows, guests or shards.

pub mod status;
pub mod stop;
pub mod mqtt;
pub mod memory;
pub mod broker;
