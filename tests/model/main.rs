//! A checked model of Longshore: every interleaving of a small world, with faults, held against
//! the promises.
//!
//! **What is real.** Each transaction of the ledger goes through the real [`Book`], with the real
//! commands, from facts that are loaded as the ledgers load them ([`ledger`]); what follows a failure
//! says the real `job::retry`. **What is modelled** is everything around it, as small as it can be:
//! a worker is the list of steps of `src/worker` and `src/pipeline`, in their order ([`hand`] names
//! the function that each step stands for); broker, dispatchers, sweeper, clock, operators and faults
//! are in [`around`]; runs that several workers read, and who keeps a snapshot for them, in [`splits`];
//! the folder or table that is delivered to in [`target`]. What must hold is in
//! [`rules`], which worlds are looked at in [`cases`], and [`explore`] goes through all their states.
//!
//! Why no library for this: that an end *stays reachable*, whatever has happened, is no property that
//! the ones that we know can be asked for (they know "always", "sometimes" and "on every path"), and
//! without it a forgotten wake-up is no error. It is a search backwards over the same states.
//!
//! # How to read a counterexample
//!
//! It tells the promise that is broken, and the fewest steps from the beginning that break it.
//! `Step(1)` is the next step of worker 1: which one, the list in [`hand`] tells, from the `Take`
//! that put a message into its hand on. `StepUnanswered` is that step, done and not heard of. Runs
//! have numbers: four for each key, one for each edition (run 4 is edition 1 of key 1). `Silent`,
//! `Lapse`, `Due` and `Untake` are time that passes, for one thing alone. "No end can be reached any
//! more" is said of the first state from which no sequence of steps without faults, cancels or the
//! like leads to where nothing is left to do: look for a run that is open and that nothing wakes.
//! To see what the ledger has after each step, print `world.ledger.runs` in [`explore`], along the
//! steps.
//!
//! [`Book`]: longshore::job::book::Book

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "how a test fails")]
#![allow(clippy::print_stdout, reason = "the table is what `make model` is run for")]

mod around;
mod cases;
mod explore;
mod hand;
mod ledger;
mod rules;
mod splits;
mod target;
mod trouble;
mod worker;
mod world;

use explore::explore;
use world::{Config, Way};

fn check(way: Way, cases: &[Config]) {
    println!(
        "{:<6} {:<34} {:>10} {:>11} {:>6} {:>9}",
        "of", "configuration", "states", "steps", "depth", "took"
    );
    for config in cases {
        match explore(config) {
            Ok(report) => println!(
                "{:<6} {:<34} {:>10} {:>11} {:>6} {:>7.1} s",
                format!("{way:?}").to_lowercase(),
                config.name,
                report.states,
                report.steps,
                report.depth,
                report.took.as_secs_f64()
            ),
            Err(counterexample) => panic!("{}: {counterexample}", config.name),
        }
    }
}

#[test]
fn the_promises_hold_in_small_worlds_of_files() {
    check(Way::Files, &cases::small(Way::Files));
}

#[test]
fn the_promises_hold_in_small_worlds_of_tables() {
    check(Way::Table, &cases::small(Way::Table));
}

#[test]
fn the_promises_hold_in_small_worlds_of_splits() {
    check(Way::Files, &cases::small_of_splits());
}

#[test]
#[ignore = "takes minutes: make model"]
fn the_promises_hold_in_larger_worlds_of_splits() {
    check(Way::Files, &cases::large_of_splits());
}

#[test]
#[ignore = "takes minutes: make model"]
fn the_promises_hold_in_larger_worlds_of_files() {
    check(Way::Files, &cases::large(Way::Files));
}

#[test]
#[ignore = "takes minutes: make model"]
fn the_promises_hold_in_larger_worlds_of_tables() {
    check(Way::Table, &cases::large(Way::Table));
}
