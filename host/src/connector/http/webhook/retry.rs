//! What the far side's answer means for a message, and how long it asks to be left alone.
//! Decides from facts alone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hyper::StatusCode;

use crate::connector::far_side::ASKED_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Again,
    /// For good.
    Refused,
}

pub(super) fn judge(status: StatusCode) -> Verdict {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Verdict::Again,
        status if status.is_success() => Verdict::Done,
        status if status.is_server_error() => Verdict::Again,
        // It would say the same to the same message. A redirect is not followed.
        _ => Verdict::Refused,
    }
}

/// What `retry-after` asks for: seconds, or a time. No more than [`ASKED_MAX`].
pub(super) fn asked(retry_after: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = retry_after.trim().parse() {
        return Some(Duration::from_secs(seconds).min(ASKED_MAX));
    }
    let until = DateTime::parse_from_rfc2822(retry_after.trim()).ok()?;
    (until.to_utc() - now).to_std().ok().map(|asked| asked.min(ASKED_MAX))
}

#[cfg(test)]
mod tests;
