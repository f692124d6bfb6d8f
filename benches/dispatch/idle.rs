//! How soon a job is started on a pool that has nothing else to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use longshore::intake::{self, Definitions};
use tokio::time::MissedTickBehavior;

use crate::house::{House, NOOP, WORKERS, job, message, random_key};
use crate::support::Done;

/// How long after each other jobs are asked for.
const APART: Duration = Duration::from_millis(20);
/// So many before the others are not counted: processes that have just started are not idle.
const WARM: u64 = 20;
/// By then the last of them has started.
const SOON: Duration = Duration::from_secs(60);
/// How often is looked whether all have.
const LOOK: Duration = Duration::from_millis(200);

/// Milliseconds until jobs were started.
pub struct Waits {
    /// Of the median.
    pub middle: f64,
    /// Of the 99th of 100.
    pub late: f64,
}

/// Jobs that are published, then jobs that come by the ledger's outbox.
pub async fn both(house: &House<'_>, jobs: u64) -> Done<(Waits, Waits)> {
    tidy(house).await?;
    let crew = house.ready_crew(&[WORKERS.as_slice(), &["scheduler"]].concat()).await?;
    let publish = async |key: &str| -> Done { house.publish(vec![message(NOOP, key)?]).await };
    let published = Box::pin(one_by_one(house, jobs, publish)).await?;

    let ledger = &house.parts.ledger;
    let bound = Definitions::new(Arc::clone(ledger)).active(NOOP).await?;
    let now = ledger.now().await?;
    let post = async |key: &str| -> Done {
        let order = intake::own(&job(NOOP, key), &bound, now)?;
        let placed = intake::place(&**ledger, [order], true).await?;
        placed.map(drop).ok_or_else(|| "another definition is active".into())
    };
    let posted = Box::pin(one_by_one(house, jobs, post)).await?;
    crew.end()?;
    Ok((published, posted))
}

/// Removes the resources that nobody needs any more. The scheduler does so when it starts and once an
/// hour; after the drains they are many, and a pool whose ledger is being tidied up is not idle.
async fn tidy(house: &House<'_>) -> Done {
    let removing = "DELETE FROM resources r \
                    WHERE NOT EXISTS (SELECT FROM holdings h WHERE h.resource = r.name) \
                      AND NOT EXISTS (SELECT FROM waiters w WHERE w.resource = r.name)";
    house.client.batch_execute(removing).await?;
    house.client.batch_execute("VACUUM (ANALYZE) resources").await?;
    Ok(())
}

/// Asks for one job after the other. Each is timed from just before that until it is opened, by the
/// clock of this machine.
async fn one_by_one(house: &House<'_>, jobs: u64, ask: impl AsyncFn(&str) -> Done) -> Done<Waits> {
    let mut asked: Vec<(String, Timestamp)> = Vec::new();
    let mut tick = tokio::time::interval(APART);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..WARM + jobs {
        tick.tick().await;
        let (key, now) = (random_key(), Timestamp::now());
        ask(key.as_str()).await?;
        if number >= WARM {
            asked.push((key, now));
        }
    }
    let opened = opened(house, &asked).await?;
    let wait = |(key, at): &(String, Timestamp)| {
        let opened: &Timestamp = opened.get(key)?;
        Some(opened.duration_since(*at).as_secs_f64() * 1000.0)
    };
    let mut waits: Vec<f64> = asked.iter().filter_map(wait).collect();
    waits.sort_by(f64::total_cmp);
    // Of so many of 100, the one that as many or fewer exceed.
    let of = |share: usize| {
        let place = (waits.len() * share).div_ceil(100).saturating_sub(1);
        waits.get(place).copied().ok_or("no job was started")
    };
    Ok(Waits { middle: of(50)?, late: of(99)? })
}

/// When each was opened, once all were.
async fn opened(
    house: &House<'_>,
    asked: &[(String, Timestamp)],
) -> Done<HashMap<String, Timestamp>> {
    let keys: Vec<&str> = asked.iter().map(|(key, _)| key.as_str()).collect();
    let asking = "SELECT key, opened_at FROM runs WHERE key = ANY ($1) AND opened_at IS NOT NULL";
    let until = Instant::now() + SOON;
    loop {
        let rows = house.client.query(asking, &[&keys]).await?;
        if rows.len() == asked.len() {
            return Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect());
        }
        if Instant::now() > until {
            return Err(format!("{} of {} jobs were started", rows.len(), asked.len()).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}
