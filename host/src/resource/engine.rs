//! The engines that a policy may choose for its tenants' guests, a value for each, and how
//! their pools are laid out.

/// What bounds and times a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Metered by fuel, in slots of 4 MiB: thousands side by side.
    #[default]
    Fuel,
    /// Timed by epochs, in slots of 4 MiB: less overhead, and no count of what was done.
    Epoch,
    /// Metered by fuel, in a few slots that hold a language's whole runtime.
    Large,
}

impl EngineKind {
    pub const ALL: [EngineKind; 3] = [EngineKind::Fuel, EngineKind::Epoch, EngineKind::Large];

    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Fuel => "fuel",
            EngineKind::Epoch => "epoch",
            EngineKind::Large => "large",
        }
    }

    /// What a slot of its pool holds: the engine cannot give an instance more, whatever
    /// a policy says.
    pub fn memory_bytes_max(self) -> u64 {
        match self {
            EngineKind::Fuel | EngineKind::Epoch => 4 << 20,
            EngineKind::Large => 512 << 20,
        }
    }

    /// Whether it counts what a guest does; time is counted in any case.
    pub fn counts_fuel(self) -> bool {
        self != EngineKind::Epoch
    }
}

/// How the slots of a host's pools lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PoolLayout {
    /// Copy-on-write images and guard pages: calls are fastest, and each slot takes six
    /// mappings of the kernel's.
    #[default]
    Guarded,
    /// Neither, and slots of [`EngineKind::Fuel`] and [`EngineKind::Epoch`] side by side,
    /// so that only fiber stacks take mappings: two a slot. Every access is checked by
    /// the guest's own code instead.
    Dense,
}

impl PoolLayout {
    pub const ALL: [PoolLayout; 2] = [PoolLayout::Guarded, PoolLayout::Dense];

    pub fn name(self) -> &'static str {
        match self {
            PoolLayout::Guarded => "guarded",
            PoolLayout::Dense => "dense",
        }
    }
}

/// A value for each engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerEngine<T> {
    pub fuel: T,
    pub epoch: T,
    pub large: T,
}

impl<T> PerEngine<T> {
    pub fn of(&self, kind: EngineKind) -> &T {
        match kind {
            EngineKind::Fuel => &self.fuel,
            EngineKind::Epoch => &self.epoch,
            EngineKind::Large => &self.large,
        }
    }

    pub fn of_mut(&mut self, kind: EngineKind) -> &mut T {
        match kind {
            EngineKind::Fuel => &mut self.fuel,
            EngineKind::Epoch => &mut self.epoch,
            EngineKind::Large => &mut self.large,
        }
    }

    /// What `of` gives for each.
    pub fn by(of: impl Fn(EngineKind) -> T) -> Self {
        PerEngine { fuel: of(EngineKind::Fuel), epoch: of(EngineKind::Epoch), large: of(EngineKind::Large) }
    }

    pub fn map<U>(self, to: impl Fn(T) -> U) -> PerEngine<U> {
        PerEngine { fuel: to(self.fuel), epoch: to(self.epoch), large: to(self.large) }
    }
}
