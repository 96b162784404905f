//! Calls of guests into the host, by interface: what each costs in fuel, and how many
//! there were. Serves whoever charges for them; knows no interface's functions.

/// Interfaces of the host that guests call; of the state store, by what a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interface {
    /// Buffers of AIO's data model.
    Buffers,
    Log,
    Metrics,
    StateReads,
    StateWrites,
    Schemas,
    /// Requests to other programs.
    Commands,
    /// `wasi:nn`.
    Models,
    /// What a language's standard library asks for: clocks, random numbers, streams.
    Wasi,
}

impl Interface {
    pub const ALL: [Interface; 9] = [
        Interface::Buffers,
        Interface::Log,
        Interface::Metrics,
        Interface::StateReads,
        Interface::StateWrites,
        Interface::Schemas,
        Interface::Commands,
        Interface::Models,
        Interface::Wasi,
    ];

    /// Those whose calls a second a policy can limit: the log and models have limits of
    /// their own, and messages come as bytes, so that there are no buffers to read.
    pub fn limited() -> impl Iterator<Item = Interface> {
        let own = [Interface::Buffers, Interface::Log, Interface::Models];
        Interface::ALL.into_iter().filter(move |interface| !own.contains(interface))
    }

    /// The key of its limit in a policy.
    pub fn name(self) -> &'static str {
        match self {
            Interface::Buffers => "buffers",
            Interface::Log => "log",
            Interface::Metrics => "metrics",
            Interface::StateReads => "stateReads",
            Interface::StateWrites => "stateWrites",
            Interface::Schemas => "schemas",
            Interface::Commands => "commands",
            Interface::Models => "models",
            Interface::Wasi => "wasi",
        }
    }

    /// What a call costs beside its bytes, in units of fuel: about ten for each ns that
    /// it takes, as guests execute them.
    pub fn call_fuel(self) -> u64 {
        match self {
            Interface::Buffers | Interface::Wasi => 500,
            Interface::Metrics => 2_000,
            Interface::StateReads | Interface::StateWrites => 4_000,
            Interface::Log | Interface::Schemas => 5_000,
            Interface::Commands | Interface::Models => 20_000,
        }
    }
}

/// How many host calls, by interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCalls([u32; Interface::ALL.len()]);

impl HostCalls {
    pub fn count(&mut self, interface: Interface) {
        let calls = &mut self.0[interface as usize];
        *calls = calls.saturating_add(1);
    }

    pub fn of(&self, interface: Interface) -> u32 {
        self.0[interface as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|calls| u64::from(*calls)).sum()
    }

    pub fn add(&mut self, other: HostCalls) {
        self.0.iter_mut().zip(other.0).for_each(|(calls, more)| *calls = calls.saturating_add(more));
    }
}
