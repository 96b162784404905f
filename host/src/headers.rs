//! `Headers`: what a destination does to the user properties of every message that is
//! written there, after AIO's `headers`. Serves writes; knows nothing of transports.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::{
    batch::{Batch, Entry, Kind, Properties, Span, push_property},
    cloud_events::Maker,
    topic::TopicTemplate,
};

/// One action, as AIO names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderAction {
    /// Adds the header to a message that has none of this key.
    AddIfNotPresent { key: String, value: String },
    /// The message has this value and no other of this key.
    AddOrReplace { key: String, value: String },
    /// Takes away all of this key.
    Remove { key: String },
}

/// The actions of one destination, in the order in which they are done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Headers {
    actions: Vec<HeaderAction>,
    /// Makes CloudEvents of the messages, once the actions are done.
    events: Option<Maker>,
}

impl Headers {
    pub fn new(actions: Vec<HeaderAction>) -> Self {
        Headers { actions, events: None }
    }

    /// The same, and makes CloudEvents of the messages.
    pub fn with_events(self, events: Maker) -> Self {
        Headers { events: Some(events), ..self }
    }

    pub fn actions(&self) -> &[HeaderAction] {
        &self.actions
    }

    /// The messages as they are to be written to a destination. Without actions they are not
    /// touched; images and bytes have no headers.
    pub fn apply(&self, batch: Batch, destination: &TopicTemplate) -> Batch {
        if self.actions.is_empty() && self.events.is_none() {
            return batch;
        }
        let Batch { mut entries, arena: old } = batch;
        let mut arena = BytesMut::from(&old[..]);
        for entry in entries.iter_mut().filter(|entry| entry.kind == Kind::MESSAGE) {
            let properties = self.changed(entry, &old, destination);
            let start = arena.len();
            properties.iter().for_each(|(key, value)| push_property(&mut arena, key, value));
            entry.properties = match arena.len() - start {
                0 => Span::ABSENT,
                len => Span { offset: start as u32, len: len as u32 },
            };
        }
        Batch { entries, arena: arena.freeze() }
    }

    fn changed<'a>(
        &'a self,
        entry: &Entry,
        arena: &'a [u8],
        destination: &TopicTemplate,
    ) -> Vec<(&'a [u8], Cow<'a, [u8]>)> {
        let encoded = Properties::of(entry.properties.bytes(arena));
        let mut properties: Vec<_> = encoded.map(|(key, value)| (key, Cow::Borrowed(value))).collect();
        for action in &self.actions {
            match action {
                HeaderAction::AddIfNotPresent { key, value } => {
                    if !properties.iter().any(|(name, _)| *name == key.as_bytes()) {
                        properties.push((key.as_bytes(), Cow::Borrowed(value.as_bytes())));
                    }
                }
                HeaderAction::AddOrReplace { key, value } => {
                    properties.retain(|(name, _)| *name != key.as_bytes());
                    properties.push((key.as_bytes(), Cow::Borrowed(value.as_bytes())));
                }
                HeaderAction::Remove { key } => properties.retain(|(name, _)| *name != key.as_bytes()),
            }
        }
        if let Some(events) = &self.events {
            events.fill(entry, arena, destination, &mut properties);
        }
        properties
    }
}

#[cfg(test)]
mod tests;
