//! Jobs that do nothing, through RabbitMQ, Redis and PostgreSQL: how many a second the fleet
//! dispatches.
//!
//! All jobs are published first, with confirms; then two worker processes drain the queue. Each
//! job goes the whole way: claimed, accepted, opened, decided, recorded, marked done, announced,
//! acked. Only its source has no rows and its sink keeps none.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use longshore::claims::redis::RedisClaims;
use longshore::config::{Backing, Config, Server};
use longshore::job::message::{JOB_TYPE, JobMessage};
use longshore::limits::redis::RedisLimits;
use longshore::queue::rabbitmq::{RabbitMq, Settings};
use longshore::queue::{Destination, Outgoing, Properties, Queue};
use longshore::telemetry::{self, LogFormat};
use longshore::wiring::{self, Parts};
use support::{Address, Done, Options, Role, grouped};

const DATABASE: &str = "longshore_bench_ledger";
const POOL: &str = "default";
const WORKERS: usize = 2;
/// Jobs that one call publishes, and how many calls are under way.
const BATCH: u64 = 1000;
const AT_ONCE: usize = 4;
/// After this long the benchmark gives up, and tells what was done by then.
const PATIENCE: Duration = Duration::from_secs(1800);

const NOOP: &str = r#"
source = { connection = "nowhere" }
sink   = { connection = "nowhere", path = "{run}" }
# Of a worker's memory, so that it does not bound how many are worked on at once.
limits = { memory = "4MiB" }
"#;

fn main() -> Done {
    let runtime = tokio::runtime::Runtime::new()?;
    match Role::of_this_process() {
        Role::Bench(options) => runtime.block_on(Box::pin(bench(&options))),
        Role::Child(args) => match args.as_slice() {
            [folder, prefix] => runtime.block_on(Box::pin(child(Path::new(folder), prefix))),
            _ => Err("the child is told no folder and prefix".into()),
        },
    }
}

/// The servers of the tests.
struct Servers {
    amqp: Address,
    postgres: Address,
    redis: Address,
}

async fn bench(options: &Options) -> Done {
    let servers = Servers {
        amqp: support::server("AMQP", "amqp://guest:guest@127.0.0.1:5672/%2f")?,
        postgres: support::postgres()?,
        redis: support::server("REDIS", "redis://127.0.0.1:6379")?,
    };
    let prefix = format!("longshore-bench-{}", std::process::id());
    let result = Box::pin(measure(options, &servers, &prefix)).await;
    let cleaned = Box::pin(clean(&servers, &prefix)).await;
    support::publish("dispatch", &result?)?;
    cleaned
}

async fn measure(options: &Options, servers: &Servers, prefix: &str) -> Done<String> {
    let admin = support::connect(&servers.postgres).await?;
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")).await?;
    admin.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
    let folder = tempfile::tempdir()?;
    configure(folder.path(), servers, options.concurrency)?;
    let config = support::load(folder.path())?;
    wiring::migrate(&config.settings, true).await?;
    let parts = parts(&config, prefix)?;
    support::activate(&*parts.ledger, &config).await?;

    parts.queue.declare(&[POOL.to_owned()]).await?;
    let published = Instant::now();
    enqueue(&*parts.queue, options.jobs).await?;
    let enqueued = options.jobs as f64 / published.elapsed().as_secs_f64();
    println!("{} jobs enqueued, {} a second", options.jobs, grouped(enqueued));

    let client = support::connect(&servers.postgres.database(DATABASE)).await?;
    let commits = commits(&admin).await?;
    let cpu = support::cpu_of_children()?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(worker(folder.path(), prefix)?);
    }
    let until = Instant::now() + PATIENCE;
    let done = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let counted = "SELECT count(*) FROM runs WHERE state = 'done'";
        let done: i64 = client.query_one(counted, &[]).await?.get(0);
        if done.unsigned_abs() >= options.jobs || Instant::now() > until {
            break done.unsigned_abs();
        }
        for worker in &mut workers {
            if let Some(status) = worker.try_wait()? {
                return Err(format!("a worker ended with {status}").into());
            }
        }
    };
    let mut peak: f64 = 0.0;
    for worker in workers {
        peak = peak.max(end(worker)?);
    }
    let cpu = support::cpu_of_children()? - cpu;
    let span = "SELECT extract(epoch FROM max(ended_at) - min(ended_at))::float8, count(*), \
                percentile_cont(0.5) WITHIN GROUP (ORDER BY \
                    extract(epoch FROM ended_at - accepted_at)::float8), \
                percentile_cont(0.99) WITHIN GROUP (ORDER BY \
                    extract(epoch FROM ended_at - accepted_at)::float8) \
                FROM runs WHERE state = 'done'";
    let row = client.query_one(span, &[]).await?;
    let (seconds, count): (f64, i64) = (row.get(0), row.get(1));
    let (median, slow): (f64, f64) = (row.get(2), row.get(3));
    let commits = (self::commits(&admin).await? - commits) as f64 / count.max(1) as f64;
    let setting = async |name: &str| -> Done<String> {
        Ok(client.query_one(&format!("SHOW {name}"), &[]).await?.get(0))
    };

    let mut text = format!(
        "{}, PostgreSQL {} (fsync {}), RabbitMQ {}, Redis {}, all on this machine, without TLS. {} \
         jobs, {WORKERS} workers of {} slots each; from the first job done to the last, by the \
         ledger's clock.\n\n\
         | | |\n|---|---|\n\
         | jobs/s, queued and drained by {WORKERS} workers | {} |\n\
         | jobs/s enqueued with confirms | {} |\n\
         | from accepted to done, median and 99th of 100 | {:.1} ms, {:.1} ms |\n\
         | transactions of the ledger a job | {commits:.2} |\n\
         | cpu of the workers a job | {:.2} ms |\n",
        support::circumstances(),
        setting("server_version").await?,
        setting("fsync").await?,
        rabbitmq_version(&servers.amqp)?,
        redis_version(&servers.redis).await?,
        grouped(count as f64),
        options.concurrency,
        grouped((count - 1) as f64 / seconds),
        grouped(enqueued),
        median * 1000.0,
        slow * 1000.0,
        cpu * 1000.0 / count.max(1) as f64,
    );
    text += &format!("| peak resident of a worker | {:.0} MiB |\n", peak / f64::from(1 << 20));
    if done < options.jobs {
        text += &format!("\nGiven up after {} s.\n", PATIENCE.as_secs());
    }
    Ok(text)
}

fn configure(folder: &Path, servers: &Servers, concurrency: u16) -> Done {
    let settings = format!(
        "[queue]\n{}[ledger]\n{}[claims]\n{}[worker]\nconcurrency = {concurrency}\n",
        servers.amqp.toml(folder)?,
        servers.postgres.database(DATABASE).toml(folder)?,
        servers.redis.toml(folder)?
    );
    let connections = "[nowhere]\ntype = \"discard\"\nurl = \"discard:\"\n";
    std::fs::create_dir_all(folder.join("exports"))?;
    std::fs::write(folder.join("longshore.toml"), settings)?;
    std::fs::write(folder.join("connections.toml"), connections)?;
    std::fs::write(folder.join("exports/noop.toml"), NOOP)?;
    Ok(())
}

/// The parts of an installation whose names begin with `prefix`, so that a real one on the same
/// servers is left alone.
fn parts(config: &Config, prefix: &str) -> Done<Parts> {
    let Backing::Servers { amqp, redis, .. } = &config.settings.backing else {
        return Err("the benchmark wants servers".into());
    };
    let Server { url, password } = redis;
    Ok(Parts {
        queue: RabbitMq::connect(Settings {
            url: amqp.url.clone(),
            password: amqp.password.clone(),
            prefix: prefix.to_owned(),
            max_length: config.settings.max_length,
        })?,
        ledger: wiring::ledger(&config.settings)?,
        claims: Arc::new(RedisClaims::connect(url, password.clone(), prefix.to_owned())?),
        limits: Arc::new(RedisLimits::connect(url, password.clone(), prefix.to_owned())?),
    })
}

async fn enqueue(queue: &dyn Queue, jobs: u64) -> Done {
    let batches = (0..jobs.div_ceil(BATCH)).map(|batch| async move {
        let numbers = batch * BATCH..jobs.min((batch + 1) * BATCH);
        let messages = numbers.map(message).collect::<Result<Vec<_>, _>>()?;
        for answer in queue.publish(messages).await {
            answer?;
        }
        Done::Ok(())
    });
    futures::stream::iter(batches).buffer_unordered(AT_ONCE).try_collect().await
}

fn message(number: u64) -> serde_json::Result<Outgoing> {
    let job = JobMessage {
        export: "noop".to_owned(),
        key: Some(format!("bench-{number}")),
        ..JobMessage::default()
    };
    Ok(Outgoing {
        to: Destination::Jobs(POOL.to_owned()),
        body: Bytes::from(serde_json::to_vec(&job)?),
        properties: Properties { kind: Some(JOB_TYPE.to_owned()), ..Properties::default() },
    })
}

/// A worker process. It works until its standard input ends, as it does when this process dies.
fn worker(folder: &Path, prefix: &str) -> Done<Child> {
    let mut process = Command::new(std::env::current_exe()?);
    process.arg("child").arg(folder).arg(prefix);
    Ok(process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// Lets a worker drain. Answers the most memory that it had.
fn end(mut worker: Child) -> Done<f64> {
    drop(worker.stdin.take());
    let output = worker.wait_with_output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?.trim().parse()?),
        false => Err(format!("a worker ended with {}", output.status).into()),
    }
}

async fn child(folder: &Path, prefix: &str) -> Done {
    telemetry::start(LogFormat::Json, "warn", false)?;
    let config = support::load(folder)?;
    let parts = parts(&config, prefix)?;
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let worker = wiring::worker(&config, &parts, &wiring::health());
    Box::pin(worker.run(async { end.await.unwrap_or_default() })).await?;
    println!("{}", support::peak_memory()?);
    Ok(())
}

/// Transactions that the ledger's database has committed.
async fn commits(admin: &tokio_postgres::Client) -> Done<i64> {
    let counted = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1";
    Ok(admin.query_one(counted, &[&DATABASE]).await?.get(0))
}

async fn redis_version(address: &Address) -> Done<String> {
    let mut link = redis::Client::open(address.whole())?.get_multiplexed_async_connection().await?;
    let told: String = redis::cmd("INFO").arg("server").query_async(&mut link).await?;
    let version = told.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(version.unwrap_or("unknown").to_owned())
}

/// The broker tells its version in the first frame of a connection, which the client library
/// keeps to itself (AMQP 0-9-1, `connection.start`, `server-properties`).
fn rabbitmq_version(address: &Address) -> Done<String> {
    use std::io::Write as _;
    let (host, port) = (address.url.host_str().unwrap_or("127.0.0.1"), address.url.port());
    let mut link = std::net::TcpStream::connect((host, port.unwrap_or(5672)))?;
    link.set_read_timeout(Some(Duration::from_secs(5)))?;
    link.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut frame = [0; 4096];
    let mut length = link.read(&mut frame)?;
    while length < 7 {
        length += link.read(&mut frame[length..])?;
    }
    let name = b"\x07versionS";
    let found = frame.windows(name.len()).position(|window| window == name);
    let value = found.and_then(|at| frame.get(at + name.len()..)).and_then(|rest| {
        let (length, text) = rest.split_first_chunk::<4>()?;
        text.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
    });
    Ok(value.map_or("unknown".into(), String::from_utf8_lossy).into_owned())
}

/// Removes what the benchmark made on the servers.
async fn clean(servers: &Servers, prefix: &str) -> Done {
    let amqp = servers.amqp.whole();
    let link = lapin::Connection::connect(&amqp, lapin::ConnectionProperties::default()).await?;
    let channel = link.create_channel().await?;
    for kind in ["jobs", "dead"] {
        let queue = format!("{prefix}.{kind}.{POOL}");
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    for rest in ["", ".dead", ".events"] {
        let exchange = format!("{prefix}{rest}");
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
    }
    link.close(200, "OK".into()).await?;

    let client = redis::Client::open(servers.redis.whole())?;
    let mut link = client.get_multiplexed_async_connection().await?;
    let mut cursor: u64 = 0;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}:*"))
            .arg("COUNT")
            .arg(1000)
            .query_async(&mut link)
            .await?;
        if !keys.is_empty() {
            let _: u64 = redis::cmd("UNLINK").arg(keys).query_async(&mut link).await?;
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let admin = support::connect(&servers.postgres).await?;
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")).await?;
    Ok(())
}
