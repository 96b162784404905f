//! What the far side's answer means for a message, and how long to wait before it is sent
//! again. Decides from facts alone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hyper::StatusCode;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// However long the far side asks to be left alone.
const ASKED_MAX: Duration = Duration::from_secs(300);

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

/// Waits twice as long each time.
#[derive(Debug, Default)]
pub(in crate::connector) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Between half and all of its turn, as `random` draws it, so that many do not come at
    /// once; no less than the far side asks for.
    pub(in crate::connector) fn next(&mut self, asked: Option<Duration>, random: u32) -> Duration {
        let turn = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts += 1;
        let own = turn / 2 + (turn / 2).mul_f64(f64::from(random) / f64::from(u32::MAX));
        asked.map_or(own, |asked| own.max(asked.min(ASKED_MAX)))
    }
}

/// What `retry-after` asks for: seconds, or a time.
pub(super) fn asked(retry_after: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = retry_after.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(retry_after.trim()).ok()?;
    (until.to_utc() - now).to_std().ok()
}

#[cfg(test)]
mod tests;
