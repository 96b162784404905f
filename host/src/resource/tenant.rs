//! Tenants: who has which policy, and what they lower for themselves.

use crate::resource::{
    Limits,
    diagnostic::Diagnostics,
    policy::{LimitsOf, explain::Record},
    yaml::{Object, Text},
};

/// A Tenant resource; its limits wait for the policy that they lower.
#[derive(Clone, Debug)]
pub struct TenantResource {
    pub name: Text,
    pub policy: Text,
    limits: Option<super::yaml::Node>,
}

impl TenantResource {
    /// Reads a Tenant's `spec`.
    pub fn read(name: Text, mut spec: Object<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let policy = spec.need_text("policy", diagnostics);
        let limits = spec.get("limits").cloned();
        spec.finish(diagnostics);
        Some(TenantResource { name, policy: policy?, limits })
    }

    /// The policy's limits, lowered by the tenant's own.
    pub fn limits_under(&self, policy: &Limits, diagnostics: &mut Diagnostics) -> Limits {
        self.limits_noting(policy, diagnostics, None)
    }

    /// The same, and where each value was said, if by the tenant.
    pub fn limits_noting(
        &self,
        policy: &Limits,
        diagnostics: &mut Diagnostics,
        record: Option<&mut Record>,
    ) -> Limits {
        let Some(node) = &self.limits else { return policy.clone() };
        let mut object = Object::of(node, "`limits`", super::yaml::Unknown::Error, diagnostics);
        let of = LimitsOf::Tenant(&self.name.text);
        let limits = policy.read_noting(&mut object, of, diagnostics, record);
        object.finish(diagnostics);
        limits
    }
}
