//! `Explanation`: what limits a tenant has and where each comes from: said by the tenant,
//! by its policy, or by nobody. Made of what the reader of limits took note of, so that
//! what is read is in it, and nothing else. Control side.

use serde_json::{Value, json};

use crate::resource::diagnostic::Place;

/// What was read of one mapping of limits, key by key.
#[derive(Clone, Debug, Default)]
pub struct Record(Vec<Said>);

#[derive(Clone, Debug)]
struct Said {
    /// `memory.total`.
    key: String,
    /// After reading, as policies write it.
    value: String,
    /// Where it stands; nowhere if it is as it was before.
    place: Option<Place>,
}

impl Record {
    /// `group` is empty for a key at the top.
    pub fn note(&mut self, group: &str, key: &str, value: String, place: Option<Place>) {
        let key = if group.is_empty() { key.to_owned() } else { format!("{group}.{key}") };
        self.0.push(Said { key, value, place });
    }
}

/// Why the limits of a tenant cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("the site has no tenant `{tenant}`{}", nearest.as_ref().map_or(String::new(), |it| format!("; did you mean `{it}`?")))]
    NoTenant { tenant: String, nearest: Option<String> },
    #[error("the tenant `{tenant}` names the policy `{policy}`, which is not there or cannot be read")]
    NoPolicy { tenant: String, policy: String },
}

/// Who said a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    Policy(Place),
    Tenant(Place),
}

/// One limit that a tenant has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub key: String,
    pub value: String,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub tenant: String,
    pub policy: String,
    /// The policy is none of the site's files.
    pub is_shipped: bool,
    /// In the order in which they are read.
    pub limits: Vec<Limit>,
}

/// Columns of a line.
const COLUMNS: usize = 100;

impl Explanation {
    /// `own` is what was read of the tenant's limits, over those of the policy.
    pub fn of(tenant: &str, (policy, is_shipped): (&str, bool), record: &Record, own: &Record) -> Self {
        let limits = record.0.iter().map(|Said { key, value, place }| {
            let own = own.0.iter().find(|said| said.key == *key);
            let value = own.map_or(value, |said| &said.value).clone();
            let origin = match (own.and_then(|said| said.place.clone()), place) {
                (Some(place), _) => Origin::Tenant(place),
                (None, Some(place)) => Origin::Policy(place.clone()),
                (None, None) => Origin::Default,
            };
            Limit { key: key.clone(), value, origin }
        });
        let limits = limits.collect();
        Explanation { tenant: tenant.to_owned(), policy: policy.to_owned(), is_shipped, limits }
    }

    fn origin(&self, origin: &Origin, columns: usize) -> String {
        let (who, place) = match origin {
            Origin::Default => return "default".to_owned(),
            Origin::Policy(place) if self.is_shipped => (format!("shipped policy `{}`", self.policy), place),
            Origin::Policy(place) => (format!("policy `{}`", self.policy), place),
            Origin::Tenant(place) => ("tenant's own limits".to_owned(), place),
        };
        let at = format!("{}:{}:{}", place.file.path, place.line, place.column);
        format!("{who} ({})", last_of(&at, columns.saturating_sub(who.chars().count() + 3)))
    }

    /// A table for people, within 100 columns.
    pub fn to_text(&self) -> String {
        let width = |of: fn(&Limit) -> &str| {
            self.limits.iter().map(|limit| of(limit).chars().count()).max().unwrap_or(0)
        };
        let (keys, values) = (width(|limit| &limit.key).min(28), width(|limit| &limit.value).min(16));
        let mut text = String::new();
        for Limit { key, value, origin } in &self.limits {
            let origin = self.origin(origin, COLUMNS - keys - values - 4);
            let (key, value) = (last_of(key, keys), last_of(value, values));
            text += &format!("{key:<keys$}  {value:<values$}  {origin}\n");
        }
        text
    }

    pub fn to_json(&self) -> Value {
        let limits = self.limits.iter().map(|Limit { key, value, origin }| {
            let (from, place) = match origin {
                Origin::Default => ("default", None),
                Origin::Policy(place) => ("policy", Some(place)),
                Origin::Tenant(place) => ("tenant", Some(place)),
            };
            let at = place.map(|it| json!({ "file": it.file.path, "line": it.line, "column": it.column }));
            json!({ "key": key, "value": value, "from": from, "at": at })
        });
        json!({
            "tenant": self.tenant, "policy": self.policy, "policyCompiledIn": self.is_shipped,
            "limits": limits.collect::<Vec<_>>(),
        })
    }
}

/// The end of a text that is too long: of a path, and of a world, it says most.
fn last_of(text: &str, columns: usize) -> String {
    let long = text.chars().count();
    if long <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(long - columns.saturating_sub(1)).collect();
    format!("…{kept}")
}
