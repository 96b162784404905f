//! `Aliases`: numbers that stand for topics on one connection, where the broker keeps some.
//! The first topics have one; knows nothing else of messages.

use std::ops::RangeInclusive;

/// Most that are used: the search for one is a walk over them.
const COUNT_MAX: u16 = 16;
/// An alias costs three bytes, and once as many besides the topic; and what is longer would
/// be much to remember.
const TOPIC_BYTES: RangeInclusive<usize> = 8..=512;

/// How a topic is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    AsItIs,
    /// With a number that stands for it from now on.
    WithAlias(u16),
    ByAlias(u16),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// Their aliases count from 1.
    topics: Vec<Box<[u8]>>,
    max: u16,
}

impl Aliases {
    /// For a broker that keeps as many.
    pub(super) fn new(max: u16) -> Self {
        Aliases { topics: Vec::new(), max: max.min(COUNT_MAX) }
    }

    pub(super) fn say(&self, topic: &[u8]) -> Said {
        if self.max == 0 || !TOPIC_BYTES.contains(&topic.len()) {
            return Said::AsItIs;
        }
        match self.topics.iter().position(|known| **known == *topic) {
            Some(place) => Said::ByAlias(place as u16 + 1),
            None if self.topics.len() < usize::from(self.max) => {
                Said::WithAlias(self.topics.len() as u16 + 1)
            }
            None => Said::AsItIs,
        }
    }

    /// A topic was sent, and said so.
    pub(super) fn said(&mut self, topic: &[u8], said: Said) {
        if let Said::WithAlias(_) = said {
            self.topics.push(topic.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_that_are_long_enough_have_a_number() {
        let mut aliases = Aliases::new(2);
        let mut say = |topic: &str| {
            let said = aliases.say(topic.as_bytes());
            aliases.said(topic.as_bytes(), said);
            said
        };
        assert_eq!(say("short"), Said::AsItIs);
        assert_eq!(say("a/long/topic"), Said::WithAlias(1));
        assert_eq!(say("a/long/topic"), Said::ByAlias(1));
        assert_eq!(say(&"x".repeat(513)), Said::AsItIs);
        assert_eq!(say("another/topic"), Said::WithAlias(2));
        assert_eq!(say("a/third/topic"), Said::AsItIs);
        assert_eq!(say("another/topic"), Said::ByAlias(2));
        assert_eq!(Aliases::new(0).say(b"a/long/topic"), Said::AsItIs);
    }
}
