//! temp
use std::time::Duration;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError { Drop, DeadLetter }
#[derive(Clone, Debug)]
pub struct Limits { pub weight: u32, pub message_fuel_max: u64, pub message_time_max: Duration, pub memory_instance_bytes_max: u64, pub output_messages_max: u32, pub output_bytes_max: u64, pub payload_bytes_max: u64, pub inflight_bytes_max: u64, pub instances_max: u32, pub fault_retries_max: u32, pub on_error: OnError }
impl Default for Limits { fn default() -> Self { Limits { weight: 1, message_fuel_max: 20_000_000, message_time_max: Duration::from_millis(20), memory_instance_bytes_max: 4<<20, output_messages_max: 64, output_bytes_max: 512<<10, payload_bytes_max: 256<<10, inflight_bytes_max: 1<<20, instances_max: 16, fault_retries_max: 2, on_error: OnError::Drop } } }
