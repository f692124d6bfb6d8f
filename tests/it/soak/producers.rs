//! Producers: they publish until it is confirmed, some things twice, and some with other content.

use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::time::sleep;

use super::yard::{GROUPS, Yard};
use crate::support::servers::amqp;

/// No more are published while so many jobs have not ended.
const BACKLOG: u64 = 300;
/// Messages that are confirmed together.
const BATCH: usize = 20;
/// How long a confirm may take.
const CONFIRM: Duration = Duration::from_secs(10);

struct Job {
    export: &'static str,
    key: String,
    n: i64,
    g: i64,
}

impl Job {
    /// A job as they come: most are small files.
    fn any(yard: &Yard<'_>, rng: &mut StdRng) -> Job {
        let export = match rng.random_range(0..1000) {
            0..250 => "notes",
            250..700 => "pages",
            700..800 => "fixed",
            800..840 => "shaky",
            840..890 => "strict",
            890..915 => "flaky",
            915..918 => "broken",
            918..935 => "objects",
            935..955 => "taken",
            955..975 => "book",
            975..988 => "feed",
            _ => "mirror",
        };
        let n = yard.number();
        Job { export, key: format!("{export}-{n}"), n, g: rng.random_range(0..GROUPS) }
    }

    fn body(&self) -> String {
        let (export, key) = (self.export, &self.key);
        match export {
            "feed" | "mirror" => json!({"export": export, "key": key}).to_string(),
            _ => {
                let params = json!({"n": self.n, "g": self.g});
                json!({"export": export, "key": key, "params": params}).to_string()
            }
        }
    }

    fn is_bulk(&self) -> bool {
        matches!(self.export, "broken" | "objects" | "book" | "mirror")
    }
}

/// The broker by its proxy.
async fn connect(yard: &Yard<'_>) -> Result<(Connection, Channel), lapin::Error> {
    let (mut url, to) = (amqp(), yard.proxies[0].1.address());
    url.set_host(Some(&to.ip().to_string())).unwrap();
    url.set_port(Some(to.port())).unwrap();
    let connection = Connection::connect(url.as_str(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Publishes jobs, and takes note of each that is confirmed. Answers those that are not.
async fn send(yard: &Yard<'_>, channel: &Channel, jobs: Vec<Job>) -> Vec<Job> {
    let mut confirms = Vec::new();
    let mut open = Vec::new();
    for job in jobs {
        let pool = match job.is_bulk() {
            true => &yard.installation.bulk,
            false => &yard.installation.pool,
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into());
        let body = job.body();
        let sent = channel.basic_publish(
            "longshore".into(),
            pool.as_str().into(),
            BasicPublishOptions { mandatory: true, ..Default::default() },
            body.as_bytes(),
            properties,
        );
        match sent.await {
            Ok(confirm) => confirms.push((job, confirm)),
            Err(_) => open.push(job),
        }
    }
    for (job, confirm) in confirms {
        match tokio::time::timeout(CONFIRM, confirm).await {
            Ok(Ok(Confirmation::Ack(None))) => yard.accept(&job.key, job.n),
            _ => open.push(job),
        }
    }
    open
}

/// Publishes as much as is worked off.
pub async fn publish(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    let mut open: Vec<Job> = Vec::new();
    loop {
        let Ok((connection, channel)) = connect(yard).await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        while channel.status().connected() {
            if open.is_empty() && Instant::now() >= end {
                // It may be closing already.
                let _ = connection.close(200, "OK".into()).await;
                return;
            }
            if open.is_empty() && yard.backlog() > BACKLOG {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let mut jobs = std::mem::take(&mut open);
            while jobs.len() < BATCH && Instant::now() < end {
                let job = Job::any(yard, &mut rng);
                if rng.random_ratio(1, 12) {
                    jobs.push(Job { key: job.key.clone(), ..job });
                }
                // The same key with other content, at about the same time.
                if rng.random_ratio(1, 60) && job.export == "notes" {
                    yard.accepted.lock().unwrap().conflicts += 1;
                    jobs.push(Job { key: job.key.clone(), n: yard.number(), ..job });
                }
                jobs.push(job);
            }
            open = send(yard, &channel, jobs).await;
            if !open.is_empty() {
                break;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Sources that go by a cursor grow and change all the time. One statement follows the other, so that no
/// value of a cursor becomes visible after a greater one.
pub async fn grow(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    let client = &yard.installation.database.client;
    while Instant::now() < end {
        let id: i64 = rng.random_range(1..400);
        let sql = format!(
            "INSERT INTO soak.feed (note) SELECT md5(random()::text) FROM generate_series(1, 3);
             INSERT INTO soak.changing (id, note) VALUES ({id}, md5(random()::text))
             ON CONFLICT (id) DO UPDATE SET note = excluded.note, seq = nextval('soak.step')"
        );
        client.batch_execute(&sql).await.unwrap();
        sleep(Duration::from_millis(60)).await;
    }
}
