//! `Subscriptions`: where a command session lets answers come. Those that were not used
//! for longest make room for others; knows neither requests nor sockets.

use std::collections::BTreeSet;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Filter, RetainForwardRule, Subscribe, Unsubscribe},
};

use crate::connector::mqtt::{SessionError, packets::codec};

/// As many are kept though no answer is awaited.
const KEPT_MAX: usize = 64;

/// What the broker said to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing yet.
    Asked(u16),
    Granted,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    list: Vec<Subscription>,
    /// How often any of them was used.
    uses: u64,
    /// Packet ids of what is to be ended, until the broker answers.
    leaving: BTreeSet<u16>,
}

#[derive(Debug)]
struct Subscription {
    filter: String,
    state: State,
    /// Number of its last use.
    used: u64,
}

impl Subscriptions {
    /// `None` if there is none for this filter.
    pub(super) fn state(&self, filter: &str) -> Option<State> {
        self.list.iter().find(|it| it.filter == filter).map(|it| it.state)
    }

    /// The broker was asked for one.
    pub(super) fn asked(&mut self, filter: &str, packet_id: u16) {
        let state = State::Asked(packet_id);
        match self.list.iter_mut().find(|it| it.filter == filter) {
            Some(subscription) => subscription.state = state,
            None => self.list.push(Subscription { filter: filter.to_owned(), state, used: self.uses }),
        }
    }

    /// The broker's answer to a packet; gives its filter.
    pub(super) fn answered(&mut self, packet_id: u16, granted: bool) -> Option<String> {
        let place = self.list.iter().position(|it| it.state == State::Asked(packet_id))?;
        if !granted {
            return Some(self.list.remove(place).filter);
        }
        self.list[place].state = State::Granted;
        Some(self.list[place].filter.clone())
    }

    /// A new connection: all of them are to be asked for again.
    pub(super) fn begin_anew(&mut self) -> Vec<String> {
        self.leaving.clear();
        self.list.iter().map(|it| it.filter.clone()).collect()
    }

    /// Takes out one that was not used for longest, if there are too many.
    pub(super) fn make_room(&mut self, is_in_use: impl Fn(&str) -> bool) -> Option<String> {
        if self.list.len() < KEPT_MAX {
            return None;
        }
        let may_go = |it: &&Subscription| it.state == State::Granted && !is_in_use(&it.filter);
        let oldest = self.list.iter().filter(may_go).min_by_key(|it| it.used)?.used;
        let place = self.list.iter().position(|it| it.used == oldest && may_go(&it))?;
        Some(self.list.swap_remove(place).filter)
    }

    pub(super) fn used(&mut self, filter: &str) {
        self.uses += 1;
        if let Some(subscription) = self.list.iter_mut().find(|it| it.filter == filter) {
            subscription.used = self.uses;
        }
    }

    /// One was ended with this packet.
    pub(super) fn left(&mut self, packet_id: u16) {
        self.leaving.insert(packet_id);
    }

    /// The broker has ended it; `false` if it was not asked to.
    pub(super) fn is_left(&mut self, packet_id: u16) -> bool {
        self.leaving.remove(&packet_id)
    }

    /// Whether a packet of this id waits for its answer.
    pub(super) fn has_asked(&self, packet_id: u16) -> bool {
        self.leaving.contains(&packet_id) || self.list.iter().any(|it| it.state == State::Asked(packet_id))
    }
}

/// Appends a SUBSCRIBE. What is retained there answers no request of ours.
pub(super) fn subscribe(
    filter: &str,
    qos: u8,
    packet_id: u16,
    out: &mut BytesMut,
) -> Result<(), SessionError> {
    let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    let filter = Filter { retain_forward_rule: RetainForwardRule::Never, ..Filter::new(filter, qos) };
    let mut subscribe = Subscribe::new(filter, None);
    subscribe.pkid = packet_id;
    subscribe.write(out).map(drop).map_err(|error| codec("SUBSCRIBE", error))
}

/// Appends an UNSUBSCRIBE.
pub(super) fn unsubscribe(filter: &str, packet_id: u16, out: &mut BytesMut) -> Result<(), SessionError> {
    let mut unsubscribe = Unsubscribe::new(filter, None);
    unsubscribe.pkid = packet_id;
    unsubscribe.write(out).map(drop).map_err(|error| codec("UNSUBSCRIBE", error))
}

#[cfg(test)]
mod tests;
