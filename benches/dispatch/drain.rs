//! Queues that workers drain, timed by the ledger: from the first job that ended to the last.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::house::{Crew, House, NOOP, WORKERS};
use crate::support::Done;
use crate::support::processes::cpu_of_children;

/// After this long the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How often the ledger is asked how far they are.
const LOOK: Duration = Duration::from_millis(500);

/// What came of a drain.
pub struct Drain {
    /// Jobs a second.
    pub rate: f64,
    /// Jobs a second that were enqueued before.
    pub enqueued: f64,
    /// Transactions of the ledger a job.
    pub commits: f64,
    /// Seconds of the workers' processor a job.
    pub cpu: f64,
    /// The most memory that a worker had, in bytes.
    pub peak: f64,
}

/// One job that does nothing.
pub async fn one(house: &House<'_>) -> Done {
    let since = house.now().await?;
    house.enqueue(NOOP, 1).await?;
    let mut crew = house.crew(&WORKERS)?;
    ended(house, &mut crew, since, 1).await?;
    crew.end()?;
    Ok(())
}

/// Puts jobs on the queue, then lets workers drain it.
pub async fn all(house: &House<'_>, export: &str, jobs: u64) -> Done<Drain> {
    let since = house.now().await?;
    let enqueued = house.enqueue(export, jobs).await?;
    let (commits, cpu) = (house.commits().await?, cpu_of_children()?);
    let mut crew = house.crew(&WORKERS)?;
    ended(house, &mut crew, since, jobs).await?;
    let peak = crew.end()?;
    let (commits, cpu) = (house.commits().await? - commits, cpu_of_children()? - cpu);
    let rate = rate(house, since, 0, jobs).await?;
    let each = |whole: f64| whole / jobs as f64;
    Ok(Drain { rate, enqueued, commits: each(commits), cpu: each(cpu), peak })
}

/// Lets workers drain a queue while jobs are put on it. Answers the jobs a second.
pub async fn beside(house: &House<'_>, jobs: u64) -> Done<f64> {
    let mut crew = house.ready_crew(&WORKERS).await?;
    let since = house.now().await?;
    house.enqueue(NOOP, jobs).await?;
    ended(house, &mut crew, since, jobs).await?;
    crew.end()?;
    rate(house, since, 0, jobs).await
}

/// Puts jobs on the queue, and lets workers drain the first of them; the others are taken off again.
/// Answers the jobs a second of those, without the first tenth, in which the workers are starting.
pub async fn first(house: &House<'_>, waiting: u64, jobs: u64) -> Done<f64> {
    let since = house.now().await?;
    house.enqueue(NOOP, waiting).await?;
    let mut crew = house.crew(&WORKERS)?;
    ended(house, &mut crew, since, jobs).await?;
    crew.end()?;
    house.empty().await?;
    rate(house, since, jobs / 10, jobs - jobs / 10).await
}

/// Waits until so many jobs have ended since then.
async fn ended(house: &House<'_>, crew: &mut Crew, since: Timestamp, jobs: u64) -> Done {
    let until = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(LOOK).await;
        let counting = "SELECT count(*) FROM runs WHERE ended_at >= $1";
        let count: i64 = house.client.query_one(counting, &[&since]).await?.get(0);
        if count.unsigned_abs() >= jobs {
            return Ok(());
        }
        crew.alive()?;
        if Instant::now() > until {
            return Err(format!("{count} of {jobs} jobs ended in time").into());
        }
    }
}

/// Jobs a second of `take` that ended since then, after the first `skip`.
async fn rate(house: &House<'_>, since: Timestamp, skip: u64, take: u64) -> Done<f64> {
    let asking = "SELECT count(*), count(*) FILTER (WHERE state <> 'done'), \
                  extract(epoch FROM max(ended_at) - min(ended_at))::float8 \
                  FROM (SELECT state, ended_at FROM runs WHERE ended_at >= $1 \
                        ORDER BY ended_at OFFSET $2 LIMIT $3) AS part";
    let (skip, take) = (i64::try_from(skip)?, i64::try_from(take)?);
    let row = house.client.query_one(asking, &[&since, &skip, &take]).await?;
    let (count, other, seconds): (i64, i64, Option<f64>) = (row.get(0), row.get(1), row.get(2));
    if other > 0 {
        return Err(format!("{other} of {count} jobs ended otherwise than done").into());
    }
    match seconds {
        Some(seconds) if seconds > 0.0 => Ok((count - 1) as f64 / seconds),
        _ => Err(format!("{count} jobs are too few to be timed").into()),
    }
}
