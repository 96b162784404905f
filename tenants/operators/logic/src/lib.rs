//! What the shipped operators do, whichever contract they speak: text in, text or a
//! verdict out, configurations as plain structs. Knows no contract.

pub mod json;

mod field;
pub use field::{Field, FieldError};

mod filter;
pub use filter::Filter;
mod threshold;
pub use threshold::Threshold;
mod convert;
pub use convert::Convert;
mod enrich;
pub use enrich::Enrich;
mod summary;
pub use summary::{Summarise, Summary};

pub mod climate;
pub mod window;
pub mod image;
pub mod opc_ua;
pub mod otel;
pub mod schema;
