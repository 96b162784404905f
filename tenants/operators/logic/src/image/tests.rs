//! Tests of `image`, on heads written after the formats' specifications.

use super::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x02\0\0\0";
const GIF: &[u8] = b"GIF89a\x05\x00\x07\x00";
/// An application segment of 4 bytes, a fill byte, a Huffman table, a frame of 3 by 4.
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc4\0\x02\xff\xc2\0\x0b\x08\0\x04\0\x03\x01";

#[test]
fn heads_say_format_and_size() {
    let check = |file: &[u8], format, width, height| {
        assert_eq!(head(file), Some(Head { format, width, height }), "{format}");
    };
    check(PNG, "image/png", 640, 480);
    check(GIF, "image/gif", 5, 7);
    check(JPEG, "image/jpeg", 3, 4);
}

#[test]
fn what_is_cut_short_or_no_image_has_no_head() {
    for (file, needed) in [(PNG, 24), (GIF, 10), (JPEG, 22)] {
        for length in 0..file.len() {
            assert_eq!(head(&file[..length]).is_some(), length >= needed, "{length} of {file:?}");
        }
    }
    for file in [&b"{}"[..], b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\0\x01", b"\xff\xd8ab"] {
        assert_eq!(head(file), None, "{file:?}");
    }
}

#[test]
fn the_class_follows_from_the_size() {
    for (width, height, expected) in
        [(640, 480, "wide"), (1, 2, "tall"), (3, 3, "square"), (0, 5, "empty"), (5, 0, "empty")]
    {
        assert_eq!(class(width, height), expected);
    }
}

#[test]
fn a_window_counts_classes_over_several_calls() {
    let mut objects = Objects::staged(b"").expect("nothing is staged");
    objects.add("wide", 1);
    objects
        .merge(br#"{"object":[{"label":"tall","count":2},{"label":"wide","count":3}]}"#)
        .expect("its form");
    let staged = objects.payload().expect("JSON");
    let mut objects = Objects::staged(&staged).expect("its own");
    objects.add("tall", 1);
    let payload = String::from_utf8(objects.payload().expect("JSON")).expect("UTF-8");
    assert_eq!(payload, r#"{"object":[{"label":"wide","count":4},{"label":"tall","count":3}]}"#);
    assert!(objects.merge(b"{}").is_err());
}
