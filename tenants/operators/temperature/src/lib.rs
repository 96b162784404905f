//! Temperatures, as AIO's sample of this name has them; four operators in one component.
//!
//! Readings are `{"temperature":{"value":1209,"unit":"F"}}`.
//!
//! * map: °F becomes °C; a reading in °C stays. The numbers of a window are added, all 0.
//! * filter: passes readings from `temperature_lower_bound` (-40) to
//!   `temperature_upper_bound` (3422), in °C.
//! * branch: `"True"` for readings with `temperature`, `"False"` for all others.
//! * accumulate: count, greatest, least, average and last of a window.

mod accumulate;
mod branch;
mod filter;
mod map;
