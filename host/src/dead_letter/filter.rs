//! `Filter`: which dead letters are meant. Serves the commands and the control socket,
//! over which it goes as it is; knows nothing of files.

use std::{collections::BTreeSet, time::Duration};

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::{Reason, Record};

/// All that is said must hold; what is not said always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Filter {
    pub tenant: Option<String>,
    pub dataflow: Option<String>,
    pub operation: Option<String>,
    pub reason: Option<Reason>,
    /// From here on, in ms since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Up to here, without it.
    pub until_ms: Option<u64>,
    /// These alone; any if there are none.
    pub ids: BTreeSet<u64>,
    /// None that is newer.
    pub id_max: Option<u64>,
}

impl Filter {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Filter { id_max: self.id_max, ..Filter::default() }
    }

    pub fn takes(&self, record: &Record) -> bool {
        let Filter { tenant, dataflow, operation, reason, since_ms, until_ms, ids, id_max } = self;
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|it| it == value);
        let at_ms = record.at_ms();
        is(tenant, &record.tenant)
            && is(dataflow, &record.dataflow)
            && operation.as_ref().is_none_or(|it| Some(it) == record.operation.as_ref())
            && reason.is_none_or(|it| it == record.reason)
            && since_ms.is_none_or(|it| it <= at_ms)
            && until_ms.is_none_or(|it| at_ms < it)
            && (ids.is_empty() || ids.contains(&record.id))
            && id_max.is_none_or(|it| record.id <= it)
    }
}

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither RFC 3339, such as `2026-01-31T12:00:00Z`, nor a time ago, such as `10m`")]
pub struct NoMoment;

/// RFC 3339, or so long before `now`; in ms since the Unix epoch.
pub fn moment_ms(text: &str, now: Duration) -> Result<u64, NoMoment> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return u64::try_from(at.timestamp_millis()).map_err(|_| NoMoment);
    }
    let ago = humantime::parse_duration(text).map_err(|_| NoMoment)?;
    Ok(now.saturating_sub(ago).as_millis() as u64)
}

/// A reason as it is shown, in any case and with or without hyphens.
pub fn reason(text: &str) -> Result<Reason, String> {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let found = Reason::ALL.into_iter().find(|reason| plain(reason.name()) == plain(text));
    found.ok_or_else(|| {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        format!("the reasons are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests;
