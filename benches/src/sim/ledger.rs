//! `Ledger`: what became of each message of one dataflow, seen from the far ends. It
//! knows what should become of it, and so when a promise is broken.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use rand::Rng as _;
use tidegate::{dead_letter::Reason, guest::OperatorKind};

use super::stage::Stage;
use crate::rig::Link;

/// How a dataflow of the simulation behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Character {
    Passes,
    Filters,
    /// Traps on some messages.
    Traps,
    /// Loops on some messages, until the fuel is used up.
    Spins,
}

impl Character {
    pub const ALL: [Character; 4] =
        [Character::Passes, Character::Filters, Character::Traps, Character::Spins];

    pub fn links(self) -> &'static [Link<'static>] {
        match self {
            Character::Passes => {
                &[("pass_through", OperatorKind::Map, &[]), ("pass_through", OperatorKind::Map, &[])]
            }
            Character::Filters => &[
                ("json_filter", OperatorKind::Filter, &[("field", "t"), ("op", "gt"), ("value", "50")]),
                ("pass_through", OperatorKind::Map, &[]),
            ],
            Character::Traps => &[("hostile_attacks", OperatorKind::Map, &[("attack", "trap")])],
            Character::Spins => &[("hostile_attacks", OperatorKind::Map, &[("attack", "spin")])],
        }
    }

    fn fate(self, is_warm: bool, is_attack: bool) -> Fate {
        match self {
            Character::Filters if !is_warm => Fate::Filtered,
            Character::Traps if is_attack => Fate::Dead(Reason::Trap),
            Character::Spins if is_attack => Fate::Dead(Reason::OutOfFuel),
            _ => Fate::Delivered,
        }
    }
}

/// What should become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    Filtered,
    Dead(Reason),
}

/// A message, and what became of it so far.
pub(super) struct Message {
    pub payload: Bytes,
    pub fate: Fate,
    /// Times that it was handed to the host, whole or not.
    sent: u32,
    /// Times that the sink got it as new, and as perhaps had already.
    fresh: u32,
    again: u32,
    /// Times that the sink took it, and refused it for good.
    accepted: u32,
    refused: u32,
    /// Dead letters of the reason that it should have, and of refusal.
    dead: u32,
    dead_refused: u32,
    /// Its broker forgot it, and the host was told to forget it, too.
    is_lost: bool,
}

/// See the module.
pub(super) struct Ledger {
    pub name: String,
    pub messages: Vec<Message>,
    /// Whether they must come out in the order in which they went in.
    pub is_in_order: bool,
    /// Above all that the sink has got so far.
    seen_upto: usize,
}

/// Payloads above are the policy's business.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1_000;
/// One message in as many makes a guest fault.
const ATTACK_EVERY: u32 = 80;
/// One message in as many is over the limit, where a source checks it, and one of as
/// many of those is so large that the host never holds it whole.
const OVERSIZE_EVERY: u32 = 400;
const HUGE_EVERY: u32 = 8;
const HUGE_BYTES: usize = 70_000;

impl Ledger {
    /// `limited` is whether the source keeps messages to the payload limit.
    pub fn new(name: String, character: Character, count: usize, limited: bool, stage: &mut Stage) -> Self {
        let messages = (0..count).map(|id| {
            let (is_warm, is_attack) = (stage.rng.random_bool(0.5), stage.one_in(ATTACK_EVERY));
            let (t, mark) = (if is_warm { 90 } else { 10 }, if is_attack { "attack" } else { "calm" });
            let is_oversize = limited && stage.one_in(OVERSIZE_EVERY);
            let pad_bytes = match is_oversize {
                false => 0,
                true if stage.one_in(HUGE_EVERY) => HUGE_BYTES,
                true => PAYLOAD_BYTES_MAX,
            };
            let pad = "x".repeat(pad_bytes);
            let fate =
                if is_oversize { Fate::Dead(Reason::Oversize) } else { character.fate(is_warm, is_attack) };
            let payload = format!(r#"{{"id":"{name}-{id}","t":{t},"mark":"{mark}","pad":"{pad}"}}"#);
            Message {
                payload: payload.into(),
                fate,
                sent: 0,
                fresh: 0,
                again: 0,
                accepted: 0,
                refused: 0,
                dead: 0,
                dead_refused: 0,
                is_lost: false,
            }
        });
        let messages = messages.collect();
        Ledger { name, messages, is_in_order: true, seen_upto: 0 }
    }

    /// Which message this is; none may come out changed.
    fn find(&self, payload: &[u8]) -> anyhow::Result<usize> {
        let id = self.find_head(payload)?;
        ensure!(self.messages[id].payload == payload, "{}-{id} was changed on its way", self.name);
        Ok(id)
    }

    /// Which message begins like this.
    fn find_head(&self, head: &[u8]) -> anyhow::Result<usize> {
        let text = std::str::from_utf8(head).context("a payload that is not text")?;
        let id = text.split('"').nth(3).and_then(|id| id.strip_prefix(&self.name)?.strip_prefix('-'));
        let id: usize = id.and_then(|id| id.parse().ok()).with_context(|| format!("not ours: {text}"))?;
        let whole = self.messages.get(id).with_context(|| format!("never sent: {text}"))?;
        // Only what follows the head may be missing.
        let len = head.len().min(whole.payload.len());
        ensure!(whole.payload[..len] == head[..len], "{}-{id} was changed on its way", self.name);
        Ok(id)
    }

    /// A source hands it to the host.
    pub fn send(&mut self, id: usize, stage: &mut Stage) {
        let message = &mut self.messages[id];
        message.sent += 1;
        if message.sent > 1 {
            stage.outcome.redelivered += 1;
        }
    }

    /// The sink got it, perhaps not for the first time; tells which it is.
    pub fn receive(&mut self, payload: &[u8], dup: bool) -> anyhow::Result<usize> {
        let id = self.find(payload)?;
        let message = &mut self.messages[id];
        ensure!(message.fate == Fate::Delivered, "{}-{id} came out, which no one let pass", self.name);
        let is_first = message.fresh + message.again == 0;
        *(if dup { &mut message.again } else { &mut message.fresh }) += 1;
        ensure!(message.fresh <= message.sent, "{}-{id} came out more often than it went in", self.name);
        if is_first && self.is_in_order {
            ensure!(self.seen_upto <= id, "{}-{id} came after {}", self.name, self.seen_upto - 1);
            self.seen_upto = id + 1;
        }
        Ok(id)
    }

    /// The sink's answer to a message that it got.
    pub fn answer(&mut self, id: usize, is_refused: bool) {
        let message = &mut self.messages[id];
        *(if is_refused { &mut message.refused } else { &mut message.accepted }) += 1;
    }

    /// The host wrote a dead letter.
    pub fn bury(&mut self, payload: &[u8], reason: Reason) -> anyhow::Result<()> {
        let id = if reason == Reason::Oversize { self.find_head(payload)? } else { self.find(payload)? };
        let message = &mut self.messages[id];
        match message.fate {
            Fate::Delivered if reason == Reason::Rejected => message.dead_refused += 1,
            Fate::Dead(expected) if reason == expected => message.dead += 1,
            fate => bail!("{}-{id} is a dead letter for {reason:?}, not {fate:?}", self.name),
        }
        ensure!(
            message.dead_refused <= message.refused,
            "{}-{id} was refused less often than buried",
            self.name
        );
        Ok(())
    }

    /// The last copy was in a dataflow that was given up.
    pub fn lose(&mut self, id: usize) {
        self.messages[id].is_lost = true;
    }

    /// Whether its source may be answered.
    pub fn is_done(&self, id: usize) -> bool {
        let message = &self.messages[id];
        match message.fate {
            Fate::Delivered => message.accepted + message.dead_refused > 0,
            Fate::Filtered => true,
            Fate::Dead(_) => message.dead > 0,
        }
    }

    /// The source was answered: then all of it must have come to its end.
    pub fn check_done(&self, id: usize) -> anyhow::Result<()> {
        let fate = self.messages[id].fate;
        ensure!(self.is_done(id), "{}-{id} is settled and was not {fate:?}", self.name);
        Ok(())
    }

    /// All is over: every message had its fate, and once if it was sent once.
    pub fn check_end(&self, stage: &mut Stage) -> anyhow::Result<()> {
        for (id, message) in self.messages.iter().enumerate() {
            stage.outcome.dead_letters += u64::from(message.dead + message.dead_refused);
            if message.is_lost {
                stage.outcome.given_up += 1;
                continue;
            }
            stage.outcome.messages += 1;
            self.check_done(id)?;
            let ends = match message.fate {
                Fate::Delivered => message.accepted + message.dead_refused,
                Fate::Filtered => 1,
                Fate::Dead(_) => message.dead,
            };
            let is_once = message.sent == 1 && message.again == 0;
            ensure!(!is_once || ends == 1, "{}-{id} went in once and came out {ends} times", self.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
