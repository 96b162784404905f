//! Numbers in as few bytes as they need: WebAssembly's LEB128. Serves whoever writes bytes
//! that are read again; checks nothing but that they are numbers.

/// Appends a number.
pub fn push(bytes: &mut Vec<u8>, number: u64) {
    let (encoded, len) = leb128fmt::encode_u64(number).expect("64 bits have an encoding");
    bytes.extend_from_slice(&encoded[..len]);
}

/// Takes a number off the front; `None` if these bytes begin with none.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut len = 0;
    let number = leb128fmt::decode_uint_slice::<u64, 64>(bytes, &mut len).ok()?;
    *bytes = &bytes[len..];
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_taken_as_they_were_pushed(
            numbers in prop::collection::vec(any::<u64>(), 0..8),
            rest in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|number| super::push(&mut bytes, *number));
            bytes.extend_from_slice(&rest);
            let mut left = bytes.as_slice();
            for number in numbers {
                prop_assert_eq!(super::take(&mut left), Some(number));
            }
            prop_assert_eq!(left, rest.as_slice());
            // Whatever it is, it never panics.
            let _ = super::take(&mut left);
        }
    }
}
