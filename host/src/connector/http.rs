//! The HTTP connector, on hyper: a server that all tenants' sources and destinations of an
//! endpoint share, with replies and server-sent events, and a sink that calls webhooks. A
//! request is answered once its message is settled. Endpoints that take OTLP share the server.

pub(super) mod answer;
mod connection;
pub(super) mod directory;
mod events;
mod reply;
pub(super) mod server;
pub(super) mod service;
mod share;
mod sink;
pub(super) mod source;
mod request_target;
pub(super) mod tokens;
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
