//! The HTTP connector, on hyper: a server that all tenants' sources and destinations of an
//! endpoint share, with replies and server-sent events, and a sink that calls webhooks. A
//! request is answered once its message is settled.

mod answer;
mod connection;
mod directory;
mod events;
mod reply;
mod server;
mod service;
mod share;
mod sink;
mod source;
mod request_target;
mod tokens;
mod webhook;

pub use self::{
    server::{ServerStatus, Servers},
    sink::HttpSink,
    source::{HttpOptions, HttpSource},
    webhook::Webhook,
};

/// The user property that says which request a message came from. Only dataflows that
/// answer requests have it, and it never leaves through this connector.
pub const REQUEST: &str = "__request";
