//! The fuzz targets, for some seconds and without a fuzzer: every file of the corpus, and changes of
//! it, the same each time. `make fuzz` looks for more, guided by coverage, and keeps what it finds in
//! the corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "how a test fails")]
#![allow(clippy::print_stderr, reason = "what a failed test tells")]

mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use targets::{TARGETS, Target};

/// How many inputs are made of the corpus of each target.
const CHANGED: usize = 2_000;
/// By what they are made.
const SEED: u64 = 11;
/// No input is longer, so that all of them take no more than some seconds.
const LONGEST: usize = 64 << 10;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    found.sort();
    let found: Vec<_> =
        found.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert!(!found.is_empty(), "{} is empty", folder.display());
    found
}

#[test]
fn no_file_of_the_corpus_does_harm() {
    for (name, target) in TARGETS {
        for (path, input) in corpus(name) {
            take(target, &input, &path.display().to_string());
        }
    }
}

#[test]
fn no_change_of_the_corpus_does_harm() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let mut random = StdRng::seed_from_u64(SEED);
        for number in 0..CHANGED {
            let input = changed(&corpus, &mut random);
            take(target, &input, &format!("{name}, input {number}"));
        }
    }
}

/// Tells what the input was, where it does harm.
fn take(target: Target, input: &[u8], told: &str) {
    let outcome = std::panic::catch_unwind(|| target(input));
    if outcome.is_err() {
        let shown = String::from_utf8_lossy(input);
        panic!("{told}: {} bytes, {:?}", input.len(), shown.chars().take(2000).collect::<String>());
    }
}

/// One of the corpus, changed in some places.
fn changed(corpus: &[(PathBuf, Vec<u8>)], random: &mut StdRng) -> Vec<u8> {
    let mut input = pick(corpus, random).to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        let to = (at + random.random_range(0..=16)).min(input.len());
        match random.random_range(0..6) {
            0 => drop(input.drain(at..to)),
            1 => input.truncate(at),
            2 => {
                let again = input[at..to].to_vec();
                input.splice(at..at, again);
            }
            3 => input.insert(
                at,
                *b"\0\xff\"'{}[]\n\r,;:./\\-+0123456789eE"
                    .get(random.random_range(0..32))
                    .unwrap_or(&0),
            ),
            4 => {
                let other = pick(corpus, random);
                let from = random.random_range(0..=other.len());
                let until = (from + random.random_range(0..=64)).min(other.len());
                input.splice(at..to, other[from..until].iter().copied());
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
    }
    input.truncate(LONGEST);
    input
}

fn pick<'a>(corpus: &'a [(PathBuf, Vec<u8>)], random: &mut StdRng) -> &'a [u8] {
    &corpus[random.random_range(0..corpus.len())].1
}
