//! Operators: they enqueue, cancel, pause, run again and replay by the command line; and in the end they
//! mend what is broken.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::yard::{GROUPS, MEND, Yard};

/// A run of the ledger, at random.
async fn any_run(yard: &Yard<'_>, which: &str) -> Option<String> {
    let sql = format!(
        "SELECT id::text FROM runs WHERE {which} AND accepted_at > now() - interval '1 minute'
         ORDER BY random() LIMIT 1"
    );
    let rows = yard.installation.database.client.query(&sql, &[]).await.unwrap();
    rows.first().map(|row| row.get(0))
}

/// Jobs by the command line. What was not accepted for certain is asked for again.
pub async fn enqueue(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    while Instant::now() < end {
        let n = yard.number();
        let (key, n_is) = (format!("notes-{n}"), format!("n={n}"));
        let g_is = format!("g={}", rng.random_range(0..GROUPS));
        let job = ["enqueue", "notes", "--key", &key, "--param", &n_is, "--param", &g_is];
        while !yard.command(&job).await.status.success() {
            sleep(Duration::from_millis(300)).await;
        }
        yard.accept(&key, n);
        sleep(Duration::from_millis(rng.random_range(500..2500))).await;
    }
}

/// Everything else that operators do.
pub async fn operate(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    const WHY: [&str; 2] = ["--reason", "soak"];
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.random_range(500..2500))).await;
        match rng.random_range(0..6) {
            0 => {
                let dead = ["dead", "replay", "--export", "flaky", "--stop-after-failures", "3"];
                // It waits for what it replays.
                yard.command(&[&dead[..], &WHY].concat()).await;
            }
            1 | 2 => {
                let open = "ended_at IS NULL AND export IN ('notes', 'pages', 'taken', 'objects')";
                if let Some(run) = any_run(yard, open).await {
                    yard.command(&[&["runs", "cancel", run.as_str()][..], &WHY].concat()).await;
                }
            }
            3 | 4 => {
                let done = "state = 'done' AND export IN ('notes', 'pages', 'fixed', 'strict')";
                if let Some(run) = any_run(yard, done).await {
                    yard.command(&[&["rerun", run.as_str()][..], &WHY].concat()).await;
                }
            }
            _ => {
                let export = ["notes", "book", "feed"][rng.random_range(0..3)];
                yard.command(&[&["pause", "--export", export][..], &WHY].concat()).await;
                sleep(Duration::from_millis(rng.random_range(200..2000))).await;
                resume(yard, export).await;
            }
        }
    }
}

/// Lifts a pause, however often that takes: whether it was made is only certain in the ledger.
async fn resume(yard: &Yard<'_>, export: &str) {
    let paused = format!("SELECT count(*) FROM pauses WHERE name = '{export}'");
    while yard.installation.database.number(&paused).await > 0 {
        yard.command(&["resume", "--export", export, "--reason", "soak"]).await;
    }
}

/// A table is away for a while, now and then.
pub async fn change_weather(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.random_range(3000..12_000))).await;
        if rename(yard, "weather", "storm").await {
            sleep(Duration::from_millis(rng.random_range(500..2000))).await;
            while !rename(yard, "storm", "weather").await {}
        }
    }
}

/// Whoever reads it at the moment holds it by a lock, which is not waited for for long.
async fn rename(yard: &Yard<'_>, from: &str, to: &str) -> bool {
    // One transaction without saying so: where it fails it is over at once, and no other task's statement,
    // which goes by the same connection, comes to stand in it.
    let sql = format!("SET LOCAL lock_timeout = '300ms'; ALTER TABLE soak.{from} RENAME TO {to}");
    yard.installation.database.client.batch_execute(&sql).await.is_ok()
}

/// Waits until no run is open and no message waits. Answers what is still there after that time.
async fn until_quiet(yard: &Yard<'_>, within: Duration) -> Option<String> {
    let started = Instant::now();
    let mut quiet = 0;
    while quiet < 5 {
        yard.supervise().await;
        let sql = "SELECT count(*) FROM runs WHERE ended_at IS NULL";
        let open = yard.installation.database.number(sql).await;
        let (ready, _) = yard.installation.pools.ready().await;
        quiet = if (open, ready) == (0, 0) { quiet + 1 } else { 0 };
        if started.elapsed() > within {
            let states = yard.installation.states().await;
            return Some(format!(
                "after {within:?} {open} runs are open and {ready} messages ready: {states}"
            ));
        }
        sleep(Duration::from_millis(200)).await;
    }
    None
}

/// Runs a command that has to succeed now.
async fn must(yard: &Yard<'_>, arguments: &[&str], wrong: &mut Vec<String>) {
    let output = yard.command(arguments).await;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        wrong.push(format!("longshore {}: {}: {said}", arguments.join(" "), output.status));
    }
}

/// Everything stands again: what is broken is mended, what is dead replayed, and all is worked off.
pub async fn settle(yard: &Yard<'_>, within: Duration) -> Vec<String> {
    let mut wrong = Vec::new();
    let database = &yard.installation.database;
    must(yard, &["pause", "--schedules", "--reason", "soak"], &mut wrong).await;
    database.client.batch_execute(MEND).await.unwrap();
    for turn in 0..4 {
        wrong.extend(until_quiet(yard, within).await);
        let conflicts = ["dead", "drop", "--class", "conflict", "--reason", "meant so"];
        must(yard, &conflicts, &mut wrong).await;
        let dead = "SELECT count(*) FROM runs WHERE state IN ('dead', 'expired')";
        if !wrong.is_empty() || database.number(dead).await == 0 {
            break;
        }
        if turn == 3 {
            wrong.push("runs are dead however often they are replayed".to_owned());
        }
        must(yard, &["dead", "replay", "--all", "--reason", "mended"], &mut wrong).await;
    }
    for export in ["feed", "mirror"] {
        let key = format!("{export}-last");
        must(yard, &["enqueue", export, "--key", &key], &mut wrong).await;
        yard.accept(&key, -1);
    }
    wrong.extend(until_quiet(yard, within).await);
    wrong
}
