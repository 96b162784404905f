//! The end of the window in which an instant lies.

use std::time::Duration;

/// The next multiple of `length` (whole seconds, at least one) since the epoch; an
/// exact multiple is its own. So windows hold their end and not their start. At the
/// end of time the last whole second stands in for the end that there is no number for.
pub fn end(instant: Duration, length: Duration) -> Duration {
    let length = length.as_secs().max(1);
    let seconds = instant.as_secs();
    if instant.subsec_nanos() == 0 && seconds.is_multiple_of(length) {
        return instant;
    }
    Duration::from_secs((seconds / length + 1).saturating_mul(length))
}

#[cfg(test)]
mod tests;
