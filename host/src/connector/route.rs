//! `Route`: the topic of a message and whether policy lets the tenant write there.
//! A destination with a fixed topic is checked once; knows nothing of packets.

use std::sync::Arc;

use bytes::BytesMut;

use crate::{topic::TopicTemplate, write::Destination};

/// What was found out for the destination and topic before.
#[derive(Debug, Default)]
pub(super) struct Route {
    destination: Option<Arc<Destination>>,
    /// The last topic, and why it is refused if it is.
    topic: BytesMut,
    refusal: Option<String>,
    /// The topic of the message that it was made for.
    message_topic: BytesMut,
}

impl Route {
    /// The topic to publish to.
    pub(super) fn topic(
        &mut self,
        destination: &Arc<Destination>,
        message_topic: &[u8],
    ) -> Result<&[u8], String> {
        if !self.is_known(destination, message_topic) {
            self.refusal = self.find(destination, message_topic).err();
            self.message_topic.clear();
            self.message_topic.extend_from_slice(message_topic);
            self.destination = Some(destination.clone());
        }
        match &self.refusal {
            None => Ok(&self.topic),
            Some(reason) => Err(reason.clone()),
        }
    }

    fn is_known(&self, destination: &Arc<Destination>, message_topic: &[u8]) -> bool {
        let is_same = self.destination.as_ref().is_some_and(|known| Arc::ptr_eq(known, destination));
        is_same && (is_fixed(&destination.topic) || self.message_topic == message_topic)
    }

    fn find(&mut self, destination: &Destination, message_topic: &[u8]) -> Result<(), String> {
        self.topic.clear();
        destination.topic.render(message_topic, &mut self.topic).map_err(|error| error.to_string())?;
        // Rendering has checked it; a fixed topic is text from the start.
        let topic = std::str::from_utf8(&self.topic).map_err(|error| error.to_string())?;
        if destination.write_grants.iter().any(|grant| grant.matches(topic)) {
            return Ok(());
        }
        Err(format!("policy does not let the tenant write to `{topic}`"))
    }
}

fn is_fixed(template: &TopicTemplate) -> bool {
    template.fixed().is_some()
}

#[cfg(test)]
mod tests;
