//! `inflate`: what a body holds that is compressed with gzip, up to a limit that holds while
//! it is inflated: however small a body is, no more comes of it.

use std::io::{self, Read as _};

use flate2::bufread::MultiGzDecoder;

/// Why there is nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    #[error("it is no gzip: {0}")]
    Broken(#[from] io::Error),
    #[error("it is larger than {0} bytes when inflated")]
    TooLarge(usize),
}

pub fn inflate(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let mut inflated = Vec::new();
    let limit = bytes_max as u64 + 1;
    MultiGzDecoder::new(compressed).take(limit).read_to_end(&mut inflated)?;
    if inflated.len() > bytes_max { Err(InflateError::TooLarge(bytes_max)) } else { Ok(inflated) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[test]
    fn what_was_compressed_comes_back_up_to_the_limit() {
        let bytes = vec![7; 1000];
        assert_eq!(inflate(&deflate(&bytes), 1000).expect("it fits"), bytes);
        assert!(matches!(inflate(&deflate(&bytes), 999), Err(InflateError::TooLarge(999))));
        assert!(inflate(&deflate(&[]), 0).expect("it fits").is_empty());
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_the_limit() {
        let bomb = deflate(&vec![0; 64 << 20]);
        assert!(bomb.len() < 70_000);
        assert!(matches!(inflate(&bomb, 1 << 20), Err(InflateError::TooLarge(_))));
    }

    #[test]
    fn what_is_cut_short_or_no_gzip_is_refused() {
        let whole = deflate(&[1, 2, 3]);
        for broken in [&whole[..whole.len() - 1], &whole[..5], &b"nothing"[..]] {
            assert!(matches!(inflate(broken, 1000), Err(InflateError::Broken(_))), "{broken:?}");
        }
    }
}
