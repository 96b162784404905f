//! `Target`: whose topic, or filter, the path of a request names. Knows no rights.

use percent_encoding::percent_decode_str;

use crate::topic::{TopicFilter, check_name, is_text};

/// `/TENANT/TOPIC`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<T> {
    pub tenant: String,
    pub topic: T,
}

impl Target<String> {
    /// What a message is sent to.
    pub(super) fn topic(path: &str) -> Option<Self> {
        let (tenant, topic) = split(path)?;
        check_name(&topic).is_ok().then_some(Target { tenant, topic })
    }
}

impl Target<TopicFilter> {
    /// What is listened to.
    pub(super) fn filter(path: &str) -> Option<Self> {
        let (tenant, filter) = split(path)?;
        Some(Target { tenant, topic: TopicFilter::parse(&filter).ok()? })
    }
}

fn split(path: &str) -> Option<(String, String)> {
    let (tenant, rest) = path.strip_prefix('/')?.split_once('/')?;
    let rest = percent_decode_str(rest).decode_utf8().ok()?;
    let is_whole = !tenant.is_empty() && is_text(rest.as_bytes());
    is_whole.then(|| (tenant.to_owned(), rest.into_owned()))
}

#[cfg(test)]
mod tests;
