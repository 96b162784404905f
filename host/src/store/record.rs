//! `Record`: one key of a tenant's state as it is kept, and what a request makes of
//! it. Decisions only: facts in, verdict out. The rules are those of the state store
//! of Azure IoT Operations; this knows neither guests nor the disk.

use std::{sync::Arc, time::Duration};

use crate::leb128;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;

/// Furthest that a fencing token may be ahead of the host's clock.
const DRIFT_MAX: Duration = Duration::from_secs(60);

/// A point of a hybrid logical clock with its node. Compared in the order of fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Since the Unix epoch.
    pub seconds: u64,
    pub nanos: u32,
    pub counter: u64,
    pub node: Arc<str>,
}

/// A key's value with all that guards it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub value: Arc<[u8]>,
    /// When it was written.
    pub version: Version,
    /// No older one may change the key.
    pub token: Option<Version>,
    /// Time since the Unix epoch at which it is gone.
    pub expires: Option<Duration>,
}

/// When a value may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    OnlyIfAbsent,
    OnlyIfEqualOrAbsent,
    Unconditional,
}

/// Why a request is refused. None of them changed anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the key length is zero")]
    KeyEmpty,
    #[error("the key has {bytes} bytes, {KEY_BYTES_MAX} are allowed")]
    KeyTooLong { bytes: usize },
    #[error("the value has {bytes} bytes, {bytes_max} are allowed")]
    ValueTooLarge { bytes: usize, bytes_max: u64 },
    #[error("the quota has been exceeded: {keys_max} keys are allowed")]
    TooManyKeys { keys_max: u64 },
    #[error("the quota has been exceeded: {bytes_max} bytes of state are allowed")]
    TooManyBytes { bytes_max: u64 },
    #[error("an expiry of zero")]
    ExpiryZero,
    #[error("a fencing token is required for this request")]
    TokenMissing,
    #[error("the request fencing token is a lower version than the fencing token protecting the resource")]
    TokenStale,
    #[error("the request fencing token timestamp is too far in the future")]
    TokenAhead,
    /// The store itself fails; its cause is in the host's log.
    #[error("the state store cannot be read")]
    Unreadable,
}

impl StateError {
    /// Whether a limit of the tenant's refused it.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            StateError::KeyTooLong { .. }
                | StateError::ValueTooLarge { .. }
                | StateError::TooManyKeys { .. }
                | StateError::TooManyBytes { .. }
        )
    }
}

/// Whether a key can be one.
pub fn check_key(key: &[u8]) -> Result<(), StateError> {
    match key.len() {
        0 => Err(StateError::KeyEmpty),
        bytes if bytes > KEY_BYTES_MAX => Err(StateError::KeyTooLong { bytes }),
        _ => Ok(()),
    }
}

/// Whether a request with `token` may change what is there now. `wall` is the time
/// since the Unix epoch. A key that was written with a token asks for one from then
/// on, until it is deleted or expires.
pub fn check_token(
    current: Option<&Record>,
    token: Option<&Version>,
    wall: Duration,
) -> Result<(), StateError> {
    if token.is_some_and(|token| token.time() > wall + DRIFT_MAX) {
        return Err(StateError::TokenAhead);
    }
    match (current.and_then(|record| record.token.as_ref()), token) {
        (Some(_), None) => Err(StateError::TokenMissing),
        (Some(held), Some(token)) if token < held => Err(StateError::TokenStale),
        _ => Ok(()),
    }
}

impl Condition {
    /// Whether `value` may be written over what is there now.
    pub fn holds(self, current: Option<&Record>, value: &[u8]) -> bool {
        match (self, current) {
            (Condition::Unconditional, _) | (_, None) => true,
            (Condition::OnlyIfAbsent, Some(_)) => false,
            (Condition::OnlyIfEqualOrAbsent, Some(record)) => *record.value == *value,
        }
    }
}

impl Version {
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds).saturating_add(Duration::from_nanos(u64::from(self.nanos)))
    }

    /// Seconds; milliseconds of the last one, or from 1,000 on all its nanoseconds; counter;
    /// one more than the length of the node's name, and the name, or 0 for the host's own,
    /// whatever that is called by then.
    fn write(&self, bytes: &mut Vec<u8>, host: &str) {
        const MS: u32 = 1_000_000;
        leb128::push(bytes, self.seconds);
        let in_ms = self.nanos.is_multiple_of(MS);
        leb128::push(bytes, u64::from(if in_ms { self.nanos / MS } else { 1_000 + self.nanos }));
        leb128::push(bytes, self.counter);
        if *self.node == *host {
            return leb128::push(bytes, 0);
        }
        leb128::push(bytes, 1 + self.node.len() as u64);
        bytes.extend_from_slice(self.node.as_bytes());
    }

    fn read(bytes: &mut &[u8], host: &Arc<str>) -> Option<Self> {
        let seconds = leb128::take(bytes)?;
        let nanos = match u32::try_from(leb128::take(bytes)?).ok()? {
            ms @ ..1_000 => ms * 1_000_000,
            more => more - 1_000,
        };
        let counter = leb128::take(bytes)?;
        let node = match usize::try_from(leb128::take(bytes)?).ok()?.checked_sub(1) {
            None => host.clone(),
            Some(len) => {
                let (node, rest) = bytes.split_at_checked(len)?;
                *bytes = rest;
                std::str::from_utf8(node).ok()?.into()
            }
        };
        Some(Version { seconds, nanos, counter, node })
    }
}

impl Record {
    /// Whether it is still there at `wall`, the time since the Unix epoch.
    pub fn is_live(&self, wall: Duration) -> bool {
        self.expires.is_none_or(|expires| wall < expires)
    }

    /// As it lies on the disk: version, flags, token, expiry, value. Most are small, and how
    /// many of them fit in memory is what reading them costs. `host` is the name of the
    /// host's node.
    pub(super) fn to_bytes(&self, host: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.value.len());
        self.version.write(&mut bytes, host);
        bytes.push(u8::from(self.token.is_some()) | u8::from(self.expires.is_some()) << 1);
        if let Some(token) = &self.token {
            token.write(&mut bytes, host);
        }
        if let Some(expires) = self.expires {
            leb128::push(&mut bytes, expires.as_secs());
            leb128::push(&mut bytes, expires.subsec_nanos().into());
        }
        bytes.extend_from_slice(&self.value);
        bytes
    }

    /// `None` if these bytes are no record. `host` is the name of the host's node.
    pub(super) fn from_bytes(mut bytes: &[u8], host: &Arc<str>) -> Option<Self> {
        let bytes = &mut bytes;
        let version = Version::read(bytes, host)?;
        let (&flags, rest) = bytes.split_first()?;
        *bytes = rest;
        let token = if flags & 1 == 1 { Some(Version::read(bytes, host)?) } else { None };
        let expires = if flags & 2 == 2 {
            let (seconds, nanos) = (leb128::take(bytes)?, leb128::take(bytes)?);
            Some(Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos))?)
        } else {
            None
        };
        Some(Record { value: (*bytes).into(), version, token, expires })
    }
}

#[cfg(test)]
mod tests;
