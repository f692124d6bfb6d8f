//! Takes the guards of the promises away, one after the other, and looks whether a test notices.
//!
//! Each mutant of [`guards`] is a small change of the source that leaves out one guard, and the tests
//! that are to fail for it. `make mutants` makes the changes in a copy of this checkout and prints a
//! table; it ends with an error where a mutant lives.
//!
//! A build takes longer than most tests. So all guards in Rust are built at once, each behind a switch
//! that is looked at when the tests run ("mutant schemata": Untch, Offutt and Harrold, 1993), and the
//! tests run once with no guard left out, then with one at a time. A guard in SQL is a build of its own.
//!
//! `cargo test` only makes sure that every mutant can still be made: that the text that it replaces
//! stands in its file, once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "how a test fails")]
#![allow(clippy::print_stdout, reason = "the table is what `make mutants` is run for")]

mod guards;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use guards::{MUTANTS, Mutant};

/// What the crate of the copy has besides: whether a guard is left out.
const SWITCH: &str = r#"
pub(crate) fn left_out(guard: usize) -> bool {
    static LEFT_OUT: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *LEFT_OUT.get_or_init(|| std::env::var("MUTANT").ok()?.parse().ok()) == Some(guard)
}
"#;

/// Tests that have not ended by then have noticed too: they wait for what never comes.
const SECONDS: &str = "900";

impl Mutant {
    /// A guard in Rust is left out by a switch.
    fn has_switch(&self) -> bool {
        self.file.ends_with(".rs")
    }

    /// The text of the file, with this mutant in it.
    fn make(&self, number: usize, text: &str) -> String {
        let found = text.matches(self.find).count();
        assert_eq!(found, 1, "without {}: {:?} in {}", self.guard, self.find, self.file);
        let switch = format!("crate::left_out({number})");
        text.replacen(self.find, &self.replace.replace("LEFT_OUT", &switch), 1)
    }
}

#[test]
fn every_mutant_can_be_made() {
    let files: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.file).collect();
    for file in files {
        let mut text = fs::read_to_string(here().join(file)).unwrap();
        for (number, mutant) in MUTANTS.iter().enumerate().filter(|(_, one)| one.file == file) {
            assert_eq!(
                mutant.replace.contains("LEFT_OUT"),
                mutant.has_switch(),
                "{}",
                mutant.guard
            );
            text = mutant.make(number, &text);
        }
    }
}

#[test]
#[ignore = "builds, and runs tests once for each guard: make mutants"]
fn every_guard_is_missed_by_a_test() {
    let copy = Copy::make();
    copy.change("src/lib.rs", |text| text + SWITCH);
    for (number, mutant) in MUTANTS.iter().enumerate().filter(|(_, one)| one.has_switch()) {
        copy.change(mutant.file, |text| mutant.make(number, &text));
    }
    let tests: BTreeSet<_> = MUTANTS.iter().flat_map(|mutant| mutant.tests).collect();
    println!(
        "building {} guards in Rust, each behind a switch",
        MUTANTS.iter().filter(|one| one.has_switch()).count()
    );
    for test in &tests {
        copy.build(test);
    }
    for test in &tests {
        let output = copy.test(test, "");
        assert!(output.status.success(), "fails without any change:\n{}", tail(&output));
        println!("{}: pass while every guard is there", test.join(" "));
    }
    println!("{:<52} {:>7}  missed by", "without", "took");
    let mut living = Vec::new();
    for (number, mutant) in MUTANTS.iter().enumerate() {
        let sound = fs::read_to_string(copy.0.join(mutant.file)).unwrap();
        if !mutant.has_switch() {
            copy.change(mutant.file, |text| mutant.make(number, &text));
        }
        for test in mutant.tests {
            let started = Instant::now();
            copy.build(test);
            let told = match failed(&copy.test(test, &number.to_string())).as_slice() {
                [] => {
                    living.push(format!("{} ({})", mutant.guard, test.join(" ")));
                    "NOTHING".to_owned()
                }
                [one] => one.clone(),
                [one, others @ ..] => format!("{one} and {} more", others.len()),
            };
            println!("{:<52} {:>5} s  {told}", mutant.guard, started.elapsed().as_secs());
        }
        copy.change(mutant.file, |_| sound);
    }
    assert!(living.is_empty(), "nothing misses: {}", living.join("; "));
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of the checkout, in which mutants are made.
///
/// Its build folder is its own: in one that is shared with the checkout, cargo would take a mutated
/// crate for the checkout's, whose files are older.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Copy {
        // The test's own program lies in the build folder.
        let own = std::env::current_exe().unwrap();
        let copy = own.ancestors().nth(3).unwrap().join("mutants/checkout");
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

    fn change(&self, file: &str, change: impl FnOnce(String) -> String) {
        let file = self.0.join(file);
        let text = fs::read_to_string(&file).unwrap();
        let changed = change(text.clone());
        // What is as it was is not built again.
        if changed != text {
            fs::write(&file, changed).unwrap();
        }
    }

    fn cargo(&self, test: &[&str], more: &[&str], mutant: &str) -> Output {
        let mut cargo = Command::new("timeout");
        cargo.args([SECONDS, env!("CARGO"), "test", "--locked"]).args(test).args(more);
        cargo.current_dir(&self.0).env("MUTANT", mutant);
        cargo.env("CARGO_TARGET_DIR", self.0.with_file_name("target"));
        cargo.output().expect("timeout and cargo are there")
    }

    /// Builds what a test needs.
    fn build(&self, test: &[&str]) {
        let output = self.cargo(test, &["--no-run"], "");
        assert!(output.status.success(), "does not build:\n{}", tail(&output));
    }

    fn test(&self, test: &[&str], mutant: &str) -> Output {
        self.cargo(test, &[], mutant)
    }
}

/// The tests that failed.
fn failed(output: &Output) -> Vec<String> {
    if output.status.code() == Some(124) {
        return vec!["tests that did not end".to_owned()];
    }
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
