//! As much of MQTT v5 as load needs: packets into bytes and back. A codec of its own,
//! so that it costs less than what it measures. Knows no socket.

/// First bytes of the packets that are sent or looked at, without flags.
pub const CONNACK: u8 = 0x20;
pub const PUBLISH: u8 = 0x30;
pub const PUBACK: u8 = 0x40;
pub const SUBACK: u8 = 0x90;
pub const DISCONNECT: u8 = 0xe0;
pub const PINGRESP: u8 = 0xd0;

/// From here on a reason code is an error.
pub const FAILURE: u8 = 0x80;

/// How long a session outlasts its connection, in seconds.
const SESSION_EXPIRY: u32 = 3_600;

pub fn connect(client_id: &str, clean_start: bool) -> Vec<u8> {
    let mut body = Vec::new();
    push_text(&mut body, "MQTT");
    // Version 5, no keep-alive; a session that waits, and up to 65,535 messages at once.
    body.extend_from_slice(&[5, u8::from(clean_start) << 1, 0, 0, 5, 17]);
    body.extend_from_slice(&SESSION_EXPIRY.to_be_bytes());
    push_text(&mut body, client_id);
    packet(0x10, &body)
}

pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    push_text(&mut body, filter);
    body.push(1);
    packet(0x82, &body)
}

/// With QoS 1 and user properties.
pub fn publish(topic: &str, packet_id: u16, users: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut properties = Vec::new();
    for (key, value) in users {
        properties.push(38);
        push_text(&mut properties, key);
        push_text(&mut properties, value);
    }
    let mut body = Vec::with_capacity(topic.len() + properties.len() + payload.len() + 8);
    push_text(&mut body, topic);
    body.extend_from_slice(&packet_id.to_be_bytes());
    push_length(&mut body, properties.len());
    body.extend_from_slice(&properties);
    body.extend_from_slice(payload);
    packet(PUBLISH | 0b10, &body)
}

pub fn disconnect() -> [u8; 2] {
    [DISCONNECT, 0]
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.push(first);
    push_length(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

fn push_length(bytes: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// A packet at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    pub first: u8,
    pub body: &'b [u8],
    /// Of the whole packet.
    pub len: usize,
}

/// The peer does not speak MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent what is no MQTT packet")]
pub struct Malformed;

/// None until the packet is there as a whole.
pub fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let mut len = 0;
    for at in 1..5 {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let body = bytes.get(at + 1..at + 1 + len);
            return Ok(body.map(|body| Frame { first, body, len: at + 1 + len }));
        }
    }
    Err(Malformed)
}

/// What was published to this client.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrival<'b> {
    pub topic: &'b [u8],
    /// Of QoS 1, to be acknowledged.
    pub packet_id: Option<u16>,
    /// Properties and payload.
    pub rest: &'b [u8],
}

pub fn arrival<'b>(frame: &Frame<'b>) -> Result<Arrival<'b>, Malformed> {
    let (len, rest) = number(frame.body)?;
    let (topic, rest) = rest.split_at_checked(usize::from(len)).ok_or(Malformed)?;
    if frame.first & 0b110 == 0 {
        return Ok(Arrival { topic, packet_id: None, rest });
    }
    let (packet_id, rest) = number(rest)?;
    Ok(Arrival { topic, packet_id: Some(packet_id), rest })
}

fn number(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    Ok((u16::from_be_bytes(*number), rest))
}

pub fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [PUBACK, 2, high, low]
}

/// The packet id that a PUBACK is for, and its reason.
pub fn acknowledged(body: &[u8]) -> Result<(u16, u8), Malformed> {
    let (packet_id, rest) = number(body)?;
    Ok((packet_id, rest.first().copied().unwrap_or(0)))
}

/// What a CONNACK grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The broker knew the client and kept what is for it.
    pub has_session: bool,
    /// How many messages may be under way to the broker.
    pub under_way_max: u16,
}

pub fn granted(body: &[u8]) -> Result<Granted, ConnectError> {
    match body {
        [flags, 0, rest @ ..] => {
            Ok(Granted { has_session: flags & 1 == 1, under_way_max: receive_max(rest) })
        }
        [_, reason, ..] => Err(ConnectError::Refused(*reason)),
        _ => Err(ConnectError::Malformed),
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("the broker refused the connection with reason {0:#04x}")]
    Refused(u8),
    #[error("the broker sent what is no MQTT packet")]
    Malformed,
}

/// Out of the properties of a CONNACK, of which only those before it are passed over.
fn receive_max(bytes: &[u8]) -> u16 {
    // Brokers send less than 128 bytes of properties, so that their length is one byte.
    let mut rest = bytes.get(1..).unwrap_or_default();
    while let [id, after @ ..] = rest {
        let len = match id {
            33 if after.len() >= 2 => return u16::from_be_bytes([after[0], after[1]]),
            36 | 37 | 40 | 41 | 42 => 1,
            19 | 34 => 2,
            17 | 39 => 4,
            18 | 31 if after.len() >= 2 => 2 + usize::from(u16::from_be_bytes([after[0], after[1]])),
            _ => break,
        };
        rest = after.get(len..).unwrap_or_default();
    }
    u16::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_again() {
        let payload = vec![b'x'; 300];
        let bytes = publish("quiet-0/in", 513, &[("loadtest-id", "lt1-2")], &payload);
        let frame = frame(&bytes).expect("a packet").expect("all of it");
        assert_eq!((frame.first, frame.len), (0x32, bytes.len()));
        let arrival = arrival(&frame).expect("a publish");
        assert_eq!((arrival.topic, arrival.packet_id), (&b"quiet-0/in"[..], Some(513)));
        assert!(arrival.rest.ends_with(&payload));
        assert!(arrival.rest.windows(5).any(|bytes| bytes == b"lt1-2"));
        // Property length, identifier, and two texts with their lengths.
        assert_eq!(arrival.rest.len() - payload.len(), 1 + 1 + 2 + 11 + 2 + 5);
    }

    #[test]
    fn half_a_packet_is_waited_for_and_nonsense_is_refused() {
        let bytes = publish("t", 1, &[], b"payload");
        for len in 0..bytes.len() {
            assert_eq!(frame(&bytes[..len]), Ok(None), "{len}");
        }
        assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]), Err(Malformed));
        let short = Frame { first: 0x32, body: &[0, 9, b'x'], len: 5 };
        assert_eq!(arrival(&short), Err(Malformed));
    }

    #[test]
    fn a_broker_says_how_much_it_takes() {
        let of = |has_session, under_way_max| Ok(Granted { has_session, under_way_max });
        assert_eq!(granted(&[0, 0, 3, 33, 0, 20]), of(false, 20));
        assert_eq!(granted(&[1, 0, 8, 34, 0, 10, 36, 1, 33, 1, 0]), of(true, 256));
        assert_eq!(granted(&[0, 0, 0]), of(false, u16::MAX));
        assert_eq!(granted(&[0, 0x87, 0]), Err(ConnectError::Refused(0x87)));
        assert_eq!(granted(&[]), Err(ConnectError::Malformed));
    }

    #[test]
    fn an_acknowledgement_names_its_message() {
        assert_eq!(acknowledged(&puback(0x1234)[2..]), Ok((0x1234, 0)));
        assert_eq!(acknowledged(&[0, 1, 0x97, 0]), Ok((1, 0x97)));
        assert_eq!(acknowledged(&[0]), Err(Malformed));
    }
}
