//! The soak: producers, schedulers, workers and operators at work on real servers, while processes are
//! killed, frozen and drained, connections are cut and delayed, sessions ended and Redis is flushed.
//! Afterwards every accepted key is held against its delivery, and every row against its source.
//!
//! `make soak MINUTES=10` runs it on the servers that `LONGSHORE_TEST_AMQP`, `LONGSHORE_TEST_POSTGRES` and
//! `LONGSHORE_TEST_REDIS` name, with names of its own there. `SEED`, which is printed, repeats the same
//! choices; what comes of them depends on timing.

mod account;
mod faults;
mod operators;
mod producers;
mod yard;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::installation;
use yard::Yard;

/// How long the rest may take to be worked off once everything stands again.
const REST: Duration = Duration::from_secs(240);
/// How often is told how far it is.
const TOLD: Duration = Duration::from_secs(30);

#[ignore = "long: make soak"]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_whatever_fails() {
    let minutes: f64 = variable("MINUTES").map_or(10.0, |text| text.parse().unwrap());
    let seed: u64 = variable("SEED").map_or_else(rand::random, |text| text.parse().unwrap());
    say(&format!("soaking for {minutes} minutes; SEED={seed} makes the same choices again"));
    Box::pin(installation::with(yard::WORKER, async |installation| {
        let yard = Yard::build(installation).await;
        let begun = Instant::now();
        let end = begun + Duration::from_secs_f64(minutes * 60.0);
        let rng = |lane: u64| StdRng::seed_from_u64(seed.wrapping_add(lane));
        let soaking = async {
            tokio::join!(
                faults::of_wires(&yard, rng(1), end),
                faults::of_processes(&yard, rng(2), end),
                faults::of_servers(&yard, rng(3), end),
                producers::publish(&yard, rng(4), end),
                producers::publish(&yard, rng(5), end),
                producers::grow(&yard, rng(6), end),
                operators::enqueue(&yard, rng(7), end),
                operators::operate(&yard, rng(8), end),
                operators::change_weather(&yard, rng(9), end),
                yard.watch(end),
            );
            let (produced, stall) = (begun.elapsed(), account::stall(&yard).await);
            let mut wrong = operators::settle(&yard, REST).await;
            wrong.extend(account::audit(&yard).await);
            (account::table(&yard, stall, produced, begun.elapsed()).await, wrong)
        };
        let (table, mut wrong) = tokio::select! {
            found = soaking => found,
            never = tell(&yard, minutes, begun) => match never {},
        };
        wrong.extend(yard.end().await);
        say(&table);
        if !wrong.is_empty() {
            let kept = yard.keep(&wrong).await;
            panic!(
                "SEED={seed}: {} discrepancies, of which the first are\n{}\nall of them, with logs, files \
                 and the ledger, are in {}",
                wrong.len(),
                wrong[..wrong.len().min(20)].join("\n"),
                kept.display()
            );
        }
    }))
    .await;
}

/// Tells now and then how far it is.
async fn tell(yard: &Yard<'_>, minutes: f64, begun: Instant) -> Infallible {
    loop {
        tokio::time::sleep(TOLD).await;
        yard.look().await;
        let passed = begun.elapsed().as_secs_f64() / 60.0;
        let settles = if passed > minutes { ", working off the rest" } else { "" };
        let (accepted, ended, faults) = yard.counts();
        say(&format!(
            "{passed:.1} of {minutes} min{settles}: accepted {accepted}, ended {ended}, faults {faults}"
        ));
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs it says how long")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[expect(clippy::print_stdout, reason = "what it is run for")]
fn say(text: &str) {
    println!("{text}");
}
