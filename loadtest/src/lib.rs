//! Load and attacks on a Tidegate host from outside. Nothing here knows how the host is
//! made: it writes a site folder, starts the binary, sends and counts messages.

pub mod attack;
pub mod bed;
pub mod broker;
pub mod chaos;
pub mod client;
pub mod connector;
pub mod cores;
pub mod count;
pub mod diagnostic;
pub mod host;
pub mod kafka;
pub mod ledger;
pub mod mqtt;
pub mod otel;
pub mod page;
pub mod payload;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod quantity;
pub mod receiver;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod scorecard;
pub mod sender;
pub mod site;
pub mod soak;
pub mod spread;
pub mod timeline;
pub mod yaml;
