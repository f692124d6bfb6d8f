//! Takes the guards of the promises away, one after the other, and looks whether a test notices.
//!
//! Each mutant of [`guards`] is a small change of the source that leaves out one guard, and the test
//! that is to fail for it. `make mutants` makes each change in a copy of this checkout, builds, runs
//! that test, and prints a table; it ends with an error where a mutant lives. It takes the better part
//! of an hour, since every mutant is a build.
//!
//! `cargo test` only makes sure that every mutant can still be made: that the text that it replaces
//! stands in its file, once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "how a test fails")]
#![allow(clippy::print_stdout, reason = "the table is what `make mutants` is run for")]

mod guards;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use guards::{MUTANTS, Mutant};

#[test]
fn every_mutant_can_be_made() {
    for mutant in MUTANTS {
        let text = fs::read_to_string(here().join(mutant.file)).unwrap();
        let found = text.matches(mutant.find).count();
        assert_eq!(found, 1, "without {}: {:?} in {}", mutant.guard, mutant.find, mutant.file);
    }
}

#[test]
#[ignore = "builds once for each guard: make mutants"]
fn every_guard_is_missed_by_a_test() {
    let copy = Copy::make();
    let mut tests: Vec<&[&str]> = MUTANTS.iter().map(|mutant| mutant.test).collect();
    tests.sort_unstable();
    tests.dedup();
    for test in tests {
        copy.build(test, "the source as it is");
        let output = copy.test(test);
        assert!(output.status.success(), "fails without any change:\n{}", tail(&output));
    }
    println!("{:<58} {:>7}  missed by", "without", "took");
    let mut living = Vec::new();
    for mutant in MUTANTS {
        let started = Instant::now();
        let failed = copy.with(mutant, || {
            copy.build(mutant.test, mutant.guard);
            failed(&copy.test(mutant.test))
        });
        let told = match failed.as_slice() {
            [] => "NOTHING".to_owned(),
            [one] => one.clone(),
            [one, others @ ..] => format!("{one} and {} more", others.len()),
        };
        println!("{:<58} {:>5} s  {told}", mutant.guard, started.elapsed().as_secs());
        if failed.is_empty() {
            living.push(mutant.guard);
        }
    }
    assert!(living.is_empty(), "nothing misses: {}", living.join("; "));
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of the checkout, in which mutants are made. It shares the build folder.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Copy {
        // The test's own program lies in the build folder.
        let own = std::env::current_exe().unwrap();
        let copy = own.ancestors().nth(3).unwrap().join("mutants");
        let _ = fs::remove_dir_all(&copy);
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = git.current_dir(here()).output().expect("git is there");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
            let (from, to) = (here().join(name), copy.join(name));
            // One that was removed, and not committed so.
            if from.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(from, to).unwrap();
            }
        }
        Copy(copy)
    }

    fn cargo(&self, test: &[&str], more: &[&str]) -> Output {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--locked"]).args(test).args(more).current_dir(&self.0);
        cargo.env("CARGO_TARGET_DIR", self.0.parent().unwrap());
        cargo.output().expect("cargo is there")
    }

    /// Builds what a test needs.
    fn build(&self, test: &[&str], without: &str) {
        let output = self.cargo(test, &["--no-run"]);
        assert!(output.status.success(), "{without}: does not build:\n{}", tail(&output));
    }

    fn test(&self, test: &[&str]) -> Output {
        self.cargo(test, &[])
    }

    /// Does something with the mutant made.
    fn with<T>(&self, mutant: &Mutant, work: impl FnOnce() -> T) -> T {
        let file = self.0.join(mutant.file);
        let sound = fs::read_to_string(&file).unwrap();
        fs::write(&file, sound.replacen(mutant.find, mutant.replace, 1)).unwrap();
        let answer = work();
        fs::write(&file, sound).unwrap();
        answer
    }
}

/// The tests that failed.
fn failed(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let failed =
        text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let failed: Vec<String> = failed.map(str::to_owned).collect();
    assert_eq!(failed.is_empty(), output.status.success(), "{}", tail(output));
    failed
}

/// The end of what a command printed.
fn tail(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
