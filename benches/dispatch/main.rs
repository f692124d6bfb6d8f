//! Jobs through RabbitMQ, Redis and PostgreSQL: how many a second the fleet dispatches, and how soon
//! it starts one; beside Dramatiq and Celery.
//!
//! Each job goes the whole way: claimed, accepted, opened, decided, recorded, marked done, announced,
//! acked; with a random key, in a ledger with a long history. Of most, only the source has no rows
//! and the sink keeps none. Each round measures everything once, on one ledger, which grows with it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod drain;
mod history;
mod house;
mod idle;
#[allow(dead_code, reason = "each benchmark uses its part of what they share")]
#[path = "../support/mod.rs"]
mod support;

use house::{FILE, House, NOOP, Servers, WORKERS};
use support::figures::{
    self, BARS, Bar, JOBS, MILLISECONDS, Rounds, TIMES, grouped, ratios, shown,
};
use support::processes::{self, Peers, figure, timed};
use support::{Done, Options, Role};

/// How many jobs wait where they are few. So many are timed where they are many, too.
const FEW: u64 = 10_000;

// What is measured, as the page calls it.
const DRAINED: &str = "jobs/s drained, all of them on the queue before";
const ENQUEUED: &str = "jobs/s enqueued with confirms, before that";
const COMMITS: &str = "transactions of the ledger a job";
const CPU: &str = "cpu of the workers a job, ms";
const PEAK: &str = "peak resident of a worker, MiB";
const BESIDE: &str = "jobs/s drained while they are published";
const FILES: &str = "jobs/s drained that deliver a file";
const STARTED: &str = "published to started, median, ms";
const STARTED_LATE: &str = "published to started, 99th of 100, ms";
const POSTED: &str = "put into the outbox to started, median, ms";
const POSTED_LATE: &str = "put into the outbox to started, 99th of 100, ms";
const OF_FEW: &str = "jobs/s drained of a short queue";
const OF_MANY: &str = "jobs/s drained of a long queue";
const DRAMATIQ: &str = "Dramatiq: jobs/s drained, all of them on the queue before";
const DRAMATIQ_ENQUEUED: &str = "Dramatiq: jobs/s enqueued with confirms, before that";
const CELERY: &str = "Celery: jobs/s drained, all of them on the queue before";
const CELERY_ENQUEUED: &str = "Celery: jobs/s enqueued with confirms, before that";

/// In their order on the page, with the digits that each is told with.
const ALL: [(&str, usize); 17] = [
    (DRAINED, 0),
    (ENQUEUED, 0),
    (COMMITS, 2),
    (CPU, 2),
    (PEAK, 0),
    (DRAMATIQ, 0),
    (DRAMATIQ_ENQUEUED, 0),
    (CELERY, 0),
    (CELERY_ENQUEUED, 0),
    (BESIDE, 0),
    (FILES, 0),
    (STARTED, 1),
    (STARTED_LATE, 1),
    (POSTED, 1),
    (POSTED_LATE, 1),
    (OF_FEW, 0),
    (OF_MANY, 0),
];

fn main() -> Done {
    let runtime = tokio::runtime::Runtime::new()?;
    match Role::of_this_process() {
        Role::Bench(options) => runtime.block_on(Box::pin(bench(&options))),
        Role::Child(args) => runtime.block_on(Box::pin(house::child(&args))),
    }
}

async fn bench(options: &Options) -> Done {
    let peers = Peers::find(options)?;
    let servers = Servers::of_the_tests()?;
    let prefix = format!("longshore-bench-{}", std::process::id());
    let result = Box::pin(measure(options, peers.as_ref(), &servers, &prefix)).await;
    let cleaned = Box::pin(house::clean(&servers, &prefix)).await;
    result.and(cleaned)
}

async fn measure(
    options: &Options,
    peers: Option<&Peers>,
    servers: &Servers,
    prefix: &str,
) -> Done {
    let house = Box::pin(House::open(options, servers, prefix)).await?;
    let about = format!(
        "{}, {}, all on this machine, without TLS. {} jobs that do nothing, {} that deliver a file, \
         {} one by one; {} workers of {} slots each; {} runs of history, and those of the rounds \
         before; a long queue is of {} jobs",
        figures::circumstances(),
        Box::pin(house.versions()).await?,
        grouped(options.jobs as f64),
        grouped(options.files as f64),
        options.single,
        WORKERS.len(),
        options.concurrency,
        grouped(options.history as f64),
        grouped(options.waiting as f64),
    );
    let mut found = Rounds::default();
    for round in 1..=options.rounds.max(1) {
        println!("round {round}");
        Box::pin(once(options, peers, &house, &mut found)).await?;
        figures::publish("dispatch", &page(options, &about, round, &found))?;
    }
    println!("\n{}", page(options, &about, options.rounds.max(1), &found));
    Ok(())
}

/// Everything once. What is compared stands together.
async fn once(
    options: &Options,
    peers: Option<&Peers>,
    house: &House<'_>,
    found: &mut Rounds<f64>,
) -> Done {
    let mut note = |name: &'static str, value: f64| {
        println!("  {name}: {value:.2}");
        found.add(name, value);
    };
    if options.jobs > 0 {
        let drain = Box::pin(drain::all(house, NOOP, options.jobs)).await?;
        note(DRAINED, drain.rate);
        note(ENQUEUED, drain.enqueued);
        note(COMMITS, drain.commits);
        note(CPU, drain.cpu * 1000.0);
        note(PEAK, drain.peak / f64::from(1 << 20));
    }
    if let Some(peers) = peers.filter(|_| options.peer_jobs > 0) {
        let (enqueued, drained) = peer(peers, house, "dramatiq", options.peer_jobs)?;
        note(DRAMATIQ_ENQUEUED, enqueued);
        note(DRAMATIQ, drained);
        let (enqueued, drained) = peer(peers, house, "celery", options.peer_jobs)?;
        note(CELERY_ENQUEUED, enqueued);
        note(CELERY, drained);
    }
    if options.jobs > 0 {
        note(BESIDE, Box::pin(drain::beside(house, options.jobs)).await?);
    }
    if options.files > 0 {
        let drain = Box::pin(drain::all(house, FILE, options.files)).await?;
        note(FILES, drain.rate);
        house.forget_files()?;
    }
    if options.single > 0 {
        let (published, posted) = Box::pin(idle::both(house, options.single)).await?;
        note(STARTED, published.middle);
        note(STARTED_LATE, published.late);
        note(POSTED, posted.middle);
        note(POSTED_LATE, posted.late);
    }
    if options.waiting > 0 {
        let few = options.waiting.min(FEW);
        note(OF_FEW, Box::pin(drain::first(house, few, few)).await?);
        note(OF_MANY, Box::pin(drain::first(house, options.waiting, few)).await?);
    }
    Ok(())
}

/// How many jobs a second another system enqueues, and drains.
fn peer(peers: &Peers, house: &House<'_>, name: &str, jobs: u64) -> Done<(f64, f64)> {
    let queue = format!("longshore-peer-{name}-{}", std::process::id());
    let speed = |command: &str| -> Done<f64> {
        let mut process = peers.program(&format!("queue_{name}.py"));
        process.arg(command);
        process.arg(house.servers.amqp.whole()).arg(house.servers.redis.whole());
        process.arg(&queue).arg(jobs.to_string());
        figure(&processes::told(&timed(&mut process)?.1)?, "jobs_per_second")
    };
    Ok((speed("enqueue")?, speed("drain")?))
}

/// What was found, as the page has it.
fn page(options: &Options, about: &str, rounds: usize, found: &Rounds<f64>) -> String {
    let mut text =
        format!("{about}. {rounds} rounds; medians, with the least and the greatest.\n\n{BARS}");
    let against = |one: &str, other: &str| ratios(found.of(one), found.of(other));
    for (bar, measured) in [
        (
            Bar::at_least("jobs that do nothing, drained", 20_000.0, JOBS).beyond(35_000.0),
            found.of(DRAINED).to_vec(),
        ),
        (Bar::at_least("the same / Dramatiq", 4.0, TIMES), against(DRAINED, DRAMATIQ)),
        (Bar::at_least("the same / Celery", 10.0, TIMES), against(DRAINED, CELERY)),
        (
            Bar::at_least("the same, with the publisher at work", 12_000.0, JOBS).beyond(18_000.0),
            found.of(BESIDE).to_vec(),
        ),
        (
            Bar::at_least("jobs that deliver one small Parquet file each", 2_000.0, JOBS),
            found.of(FILES).to_vec(),
        ),
        (
            Bar::at_most("idle pool, published to started, 99th of 100", 5.0, MILLISECONDS)
                .beyond(3.0),
            found.of(STARTED_LATE).to_vec(),
        ),
        (
            Bar::at_most("idle pool, outbox to started, 99th of 100", 15.0, MILLISECONDS)
                .beyond(5.0),
            found.of(POSTED_LATE).to_vec(),
        ),
        (
            Bar::at_least("drained of a long queue / of a short one", 0.9, TIMES),
            against(OF_MANY, OF_FEW),
        ),
    ] {
        text += &bar.row(&measured);
    }
    text += "\nWhat was measured:\n\n| | |\n|---|---|\n";
    for (name, digits) in ALL {
        let values = found.of(name);
        if !values.is_empty() {
            text += &format!("| {name} | {} |\n", shown(values, digits));
        }
    }
    if !found.of(DRAMATIQ).is_empty() {
        let jobs = grouped(options.peer_jobs as f64);
        text += &format!("\nDramatiq and Celery had {jobs} jobs.\n");
    }
    text
}
