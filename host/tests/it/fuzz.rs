//! The fuzz targets on stable: each body over its committed corpus, and over some
//! thousand inputs made from it with a printed seed. `cargo fuzz` goes further.

use std::{fs, panic, path::Path};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidegate::fuzz::{Body, TARGETS};

const INPUTS: usize = 10_000;
const INPUT_BYTES_MAX: usize = 16 << 10;

/// What parsers stumble over.
const WORDS: [&[u8]; 16] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80",
    b"{",
    b"}",
    b"[",
    b"\n---\n",
    b": ",
    b"\xc3\x28",
    b"${outputTopic",
    b"#",
    b"+",
    b"&a *a",
    b"18446744073709551616",
    b"\r\n\t",
];

#[test]
fn every_target_survives_its_corpus_and_what_is_made_from_it() {
    for (name, body) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 2, "{name} has a corpus");
        corpus.iter().for_each(|input| run(name, body, input, 0));
        for seed in 0..INPUTS as u64 {
            let mut rng = StdRng::seed_from_u64(seed);
            run(name, body, &mutant(&corpus, &mut rng), seed);
        }
    }
}

#[test]
fn every_target_has_its_binary() {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("it is there");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let text = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).expect("it is there");
        assert!(text.contains(&format!("tidegate::fuzz::{name}(data)")), "{name}");
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder().join("corpus").join(name)).expect("it is there");
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

fn run(name: &str, body: Body, input: &[u8], seed: u64) {
    if panic::catch_unwind(|| body(input)).is_err() {
        panic!("{name}, seed {seed}, fails on {:?}", input.escape_ascii().to_string());
    }
}

/// One input of the corpus after a few changes.
fn mutant(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut input = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..=6) {
        let at = rng.random_range(0..=input.len());
        let end = rng.random_range(at..=input.len().min(at + 32));
        match rng.random_range(0..6) {
            0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            1 if at < input.len() => input[at] = rng.random(),
            2 => drop(input.drain(at..end)),
            3 => {
                let repeated = input[at..end].to_vec();
                input.splice(at..at, repeated);
            }
            4 => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            _ => {
                let other = &corpus[rng.random_range(0..corpus.len())];
                let from = rng.random_range(0..=other.len());
                input.splice(at..end, other[from..].iter().copied());
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}
