//! The engines that a policy may choose for its tenants' guests, and a value for each.

/// What bounds and times a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Metered by fuel, in slots of 4 MiB: thousands side by side.
    #[default]
    Fuel,
    /// Metered by fuel, in a few slots that hold a language's whole runtime.
    Large,
}

impl EngineKind {
    pub const ALL: [EngineKind; 2] = [EngineKind::Fuel, EngineKind::Large];

    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Fuel => "fuel",
            EngineKind::Large => "large",
        }
    }

    /// What a slot of its pool holds: the engine cannot give an instance more, whatever
    /// a policy says.
    pub fn memory_bytes_max(self) -> u64 {
        match self {
            EngineKind::Fuel => 4 << 20,
            EngineKind::Large => 512 << 20,
        }
    }
}

/// A value for each engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerEngine<T> {
    pub fuel: T,
    pub large: T,
}

impl<T> PerEngine<T> {
    pub fn of(&self, kind: EngineKind) -> &T {
        match kind {
            EngineKind::Fuel => &self.fuel,
            EngineKind::Large => &self.large,
        }
    }

    pub fn of_mut(&mut self, kind: EngineKind) -> &mut T {
        match kind {
            EngineKind::Fuel => &mut self.fuel,
            EngineKind::Large => &mut self.large,
        }
    }

    pub fn map<U>(self, to: impl Fn(T) -> U) -> PerEngine<U> {
        PerEngine { fuel: to(self.fuel), large: to(self.large) }
    }
}
