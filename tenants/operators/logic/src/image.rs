//! Images without their pixels: format and size from the file's head, and a class that
//! follows from the size alone.

/// What the head of an image file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// A media type.
    pub format: &'static str,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Reads the head of a PNG, JPEG or GIF; `None` if it is none, or cut short.
pub fn head(file: &[u8]) -> Option<Head> {
    if file.starts_with(b"\x89PNG\r\n\x1a\n") {
        // A PNG opens with the chunk IHDR: length, name, width, height.
        let (width, height) = (be(file.get(16..20)?), be(file.get(20..24)?));
        return (file.get(12..16)? == b"IHDR").then_some(Head { format: "image/png", width, height });
    }
    if file.starts_with(b"GIF87a") || file.starts_with(b"GIF89a") {
        let le = |at: usize| Some(u32::from(u16::from_le_bytes([*file.get(at)?, *file.get(at + 1)?])));
        return Some(Head { format: "image/gif", width: le(6)?, height: le(8)? });
    }
    if file.starts_with(&[0xff, 0xd8]) { jpeg(file) } else { None }
}

/// Steps over the segments of a JPEG to its start of frame.
fn jpeg(file: &[u8]) -> Option<Head> {
    let mut at = 2;
    loop {
        if *file.get(at)? != 0xff {
            return None;
        }
        match *file.get(at + 1)? {
            // Fill bytes may stand before a marker.
            0xff => at += 1,
            // Restart marks and the mark TEM have no length.
            0x01 | 0xd0..=0xd7 => at += 2,
            // Starts of frame: height, then width, after length and precision. Three
            // numbers of this range are tables.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let (height, width) = (be(file.get(at + 5..at + 7)?), be(file.get(at + 7..at + 9)?));
                return Some(Head { format: "image/jpeg", width, height });
            }
            // The image's data, or its end, without a frame.
            0xd9 | 0xda => return None,
            _ => {
                let length = be(file.get(at + 2..at + 4)?) as usize;
                if length < 2 {
                    return None;
                }
                at += 2 + length;
            }
        }
    }
}

fn be(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// The class of an image: `wide`, `tall` or `square`, and `empty` without a pixel.
pub fn class(width: u32, height: u32) -> &'static str {
    match width.cmp(&height) {
        _ if width == 0 || height == 0 => "empty",
        std::cmp::Ordering::Greater => "wide",
        std::cmp::Ordering::Less => "tall",
        std::cmp::Ordering::Equal => "square",
    }
}

/// How often a window saw each class: `{"object":[{"label":"wide","count":2},…]}`.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Objects {
    object: Vec<Object>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Object {
    label: String,
    count: u64,
}

impl Objects {
    /// What an earlier call staged, or nothing yet if the payload is empty.
    pub fn staged(payload: &[u8]) -> Result<Self, serde_json::Error> {
        if payload.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(payload) }
    }

    pub fn add(&mut self, label: &str, count: u64) {
        match self.object.iter_mut().find(|it| it.label == label) {
            Some(object) => object.count += count,
            None => self.object.push(Object { label: label.to_owned(), count }),
        }
    }

    /// Adds what another payload of this form holds.
    pub fn merge(&mut self, payload: &[u8]) -> Result<(), serde_json::Error> {
        let other: Objects = serde_json::from_slice(payload)?;
        for Object { label, count } in other.object {
            self.add(&label, count);
        }
        Ok(())
    }

    pub fn payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests;
