//! What the benches share: reports in one form, the medians they quote, a shard fed
//! from memory, and hosts on site folders.

pub mod attacks;
pub mod bare;
pub mod inside;
pub mod mosquitto;
pub mod plain;
pub mod report;
pub mod rig;
pub mod sim;
pub mod site;
