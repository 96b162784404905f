//! The attributes of a CloudEvent (CloudEvents 1.0), as AIO's `cloudEventAttributes` has them:
//! user properties under their own names, which a destination may fill in where a message has
//! none, and headers that begin with `ce-` in Kafka.

use std::borrow::Cow;

use bytes::BytesMut;
use chrono::{DateTime, SecondsFormat};

use crate::{batch::Entry, topic::TopicTemplate};

/// Without these a message is no CloudEvent.
const REQUIRED: [&str; 4] = ["specversion", "type", "source", "id"];
const OTHERS: [&str; 4] = ["subject", "time", "datacontenttype", "dataschema"];

const VERSION: &str = "1.0";
/// What AIO calls an event that says nothing of its type.
const TYPE: &str = "ms.aio-dataflow.telemetry";
/// What the names of attributes begin with in Kafka: AIO's, and that of the protocol binding.
const PREFIXES: [&str; 2] = ["ce-", "ce_"];

/// What is to become of the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attributes {
    /// Those that are there go on.
    Propagate,
    /// And what is missing is filled in.
    CreateOrRemap,
}

impl Attributes {
    /// By the names of AIO.
    pub const CHOICES: [(&str, Attributes); 2] =
        [("Propagate", Attributes::Propagate), ("CreateOrRemap", Attributes::CreateOrRemap)];
}

/// Makes a CloudEvent of every message that goes to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Maker {
    source: String,
}

impl Maker {
    pub fn new(endpoint: &str) -> Self {
        Maker { source: format!("aio://{endpoint}") }
    }

    /// Adds the attributes that a message of a destination does not have. Its time is that of
    /// the message. A schema is not known here.
    pub fn fill<'a>(
        &'a self,
        entry: &Entry,
        arena: &'a [u8],
        destination: &TopicTemplate,
        properties: &mut Vec<(&'a [u8], Cow<'a, [u8]>)>,
    ) {
        let mut add = |name: &'static str, value: &mut dyn FnMut() -> Option<Cow<'a, [u8]>>| {
            if !properties.iter().any(|(key, _)| *key == name.as_bytes())
                && let Some(value) = value()
            {
                properties.push((name.as_bytes(), value));
            }
        };
        add("specversion", &mut || Some(VERSION.as_bytes().into()));
        add("type", &mut || Some(TYPE.as_bytes().into()));
        add("source", &mut || Some(self.source.as_bytes().into()));
        add("id", &mut || Some(random_uuid().into_bytes().into()));
        add("subject", &mut || {
            let mut topic = BytesMut::new();
            destination.render(entry.topic.bytes(arena), &mut topic).ok()?;
            Some(topic.to_vec().into())
        });
        add("time", &mut || {
            let ms = i64::try_from(entry.ms()).ok().filter(|ms| *ms > 0)?;
            let time = DateTime::from_timestamp_millis(ms)?;
            Some(time.to_rfc3339_opts(SecondsFormat::Millis, true).into_bytes().into())
        });
        add("datacontenttype", &mut || entry.content_type.get(arena).map(Cow::Borrowed));
    }
}

/// Of version 4 (RFC 9562, 5.4).
fn random_uuid() -> String {
    let bits = rand::random::<u128>();
    let bits = bits & !(0xf << 76) | (0x4 << 76);
    let hex = format!("{:032x}", bits & !(0b11 << 62) | (0b10 << 62));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Whether a message with properties of these names is a CloudEvent.
pub fn is_event<'k>(keys: impl Iterator<Item = &'k [u8]> + Clone) -> bool {
    REQUIRED.iter().all(|name| keys.clone().any(|key| key == name.as_bytes()))
}

/// The name in Kafka of an event's property, if it is an attribute.
pub fn header(key: &[u8]) -> Option<String> {
    let name = attribute(key)?;
    Some(format!("{}{name}", PREFIXES[0]))
}

/// The attribute that a header of Kafka is, if it is one.
pub fn of_header(header: &str) -> Option<&'static str> {
    PREFIXES.iter().find_map(|prefix| attribute(header.strip_prefix(prefix)?.as_bytes()))
}

fn attribute(key: &[u8]) -> Option<&'static str> {
    REQUIRED.into_iter().chain(OTHERS).find(|name| name.as_bytes() == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;

    type Pairs<'p> = &'p [(&'p str, &'p str)];

    /// The properties of a message on `t` at half a second past the epoch, made an event.
    fn filled(content_type: Option<&str>, properties: Pairs<'_>) -> Vec<(String, String)> {
        let mut builder = BatchBuilder::new("host");
        let pairs = properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        builder.push(b"t", content_type, b"payload", pairs);
        builder.date_last(500);
        let batch = builder.finish();
        let maker = Maker::new("hub");
        let mut all: Vec<_> = batch.properties(0).map(|(key, value)| (key, Cow::Borrowed(value))).collect();
        let template = TopicTemplate::parse("out/${outputTopic}").expect("a template");
        maker.fill(&batch.entries[0], &batch.arena, &template, &mut all);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        all.iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    #[test]
    fn what_is_missing_is_filled_in_and_what_is_there_stays() {
        let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut made = filled(Some("text/plain"), &[("a", "b")]);
        let id = made.remove(4);
        let expected = [
            ("a", "b"),
            ("specversion", "1.0"),
            ("type", "ms.aio-dataflow.telemetry"),
            ("source", "aio://hub"),
            ("subject", "out/t"),
            ("time", "1970-01-01T00:00:00.500Z"),
            ("datacontenttype", "text/plain"),
        ];
        assert_eq!(made, expected.map(pair));
        assert_eq!(id.0, "id");
        let digits = id.1.as_bytes();
        assert!(digits.len() == 36 && digits[14] == b'4' && b"89ab".contains(&digits[19]), "{}", id.1);
        assert_ne!(filled(None, &[]).iter().find(|(key, _)| key == "id"), Some(&id), "one for each message");
        let own: Pairs<'_> = &[("id", "7"), ("source", "urn:plant"), ("type", "reading"), ("subject", "x")];
        let kept = filled(None, own);
        assert_eq!(kept[..4], own.iter().map(|it| pair(*it)).collect::<Vec<_>>());
        let added: Vec<&str> = kept[4..].iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(added, ["specversion", "time"], "and no content type where there is none");
    }

    #[test]
    fn only_attributes_have_other_names_in_kafka() {
        assert_eq!(header(b"id").as_deref(), Some("ce-id"));
        assert_eq!(header(b"unit"), None);
        for (name, attribute) in
            [("ce-id", Some("id")), ("ce_type", Some("type")), ("ce-unit", None), ("id", None)]
        {
            assert_eq!(of_header(name), attribute, "{name}");
        }
        let keys = |names: &[&'static str]| names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>();
        assert!(is_event(keys(&["id", "a", "source", "type", "specversion"]).into_iter()));
        assert!(!is_event(keys(&["id", "source", "type"]).into_iter()));
    }
}
