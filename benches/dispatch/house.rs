//! An installation of its own on the servers of the tests: what is there, who works in it, and what
//! is left of it in the end.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use longshore::claims::redis::RedisClaims;
use longshore::config::{Backing, Config, Server};
use longshore::job::message::{JOB_TYPE, JobMessage};
use longshore::limits::redis::RedisLimits;
use longshore::queue::rabbitmq::{RabbitMq, Settings};
use longshore::queue::{Destination, Outgoing, Properties};
use longshore::telemetry::{self, LogFormat};
use longshore::wiring::{self, Parts};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::history;
use crate::support::processes::peak_memory;
use crate::support::{self, Address, Done, Options};

const DATABASE: &str = "longshore_bench_ledger";
const POOL: &str = "default";
/// Who works where nobody needs a scheduler.
pub const WORKERS: [&str; 2] = ["worker", "worker"];
/// Jobs that one call publishes, and how many calls are under way.
const BATCH: u64 = 1000;
const AT_ONCE: usize = 4;
/// Memory of a job here, in mebibytes: the least that one may have. So it does not bound how many are
/// worked on at once.
const MEMORY: u32 = 4;
/// How soon processes that were started take jobs.
const SOON: Duration = Duration::from_secs(30);

/// The export that does nothing.
pub const NOOP: &str = "noop";
/// The export that delivers a small file.
pub const FILE: &str = "file";

/// The servers of the tests.
pub struct Servers {
    pub amqp: Address,
    pub postgres: Address,
    pub redis: Address,
}

impl Servers {
    pub fn of_the_tests() -> Done<Servers> {
        Ok(Servers {
            amqp: support::server("AMQP", "amqp://guest:guest@127.0.0.1:5672/%2f")?,
            postgres: support::postgres()?,
            redis: support::server("REDIS", "redis://127.0.0.1:6379")?,
        })
    }
}

/// The installation.
pub struct House<'a> {
    pub servers: &'a Servers,
    pub parts: Parts,
    /// Of the ledger's database.
    pub client: Client,
    prefix: &'a str,
    folder: TempDir,
}

impl<'a> House<'a> {
    /// A new one, whose ledger has a history.
    pub async fn open(options: &Options, servers: &'a Servers, prefix: &'a str) -> Done<House<'a>> {
        support::remove_database(DATABASE).await?;
        let address = support::database(DATABASE).await?;
        let folder = tempfile::tempdir()?;
        configure(folder.path(), servers, options)?;
        let config = support::load(folder.path())?;
        wiring::migrate(&config.settings, true).await?;
        support::activate(&*wiring::ledger(&config.settings)?, &config).await?;
        let parts = parts(&config, prefix)?;
        parts.queue.declare(&[POOL.to_owned()]).await?;
        let client = support::connect(&address).await?;
        let house = House { servers, parts, client, prefix, folder };
        if options.history > 0 {
            Box::pin(crate::drain::one(&house)).await?;
            println!("making {} runs of history", options.history);
            history::make(&house.client, options.history).await?;
        }
        Ok(house)
    }

    /// Starts processes: workers, or a scheduler.
    pub fn crew(&self, roles: &[&str]) -> Done<Crew> {
        let mut crew = Crew(Vec::new());
        for role in roles {
            let mut process = Command::new(std::env::current_exe()?);
            process.arg("child").arg(role).arg(self.folder.path()).arg(self.prefix);
            crew.0.push(process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        }
        Ok(crew)
    }

    /// As [`House::crew`], once its workers wait for jobs.
    pub async fn ready_crew(&self, roles: &[&str]) -> Done<Crew> {
        let mut crew = self.crew(roles)?;
        let workers = roles.iter().filter(|role| **role == "worker").count();
        let until = Instant::now() + SOON;
        let queue = Destination::Jobs(POOL.to_owned());
        while usize::try_from(self.parts.queue.depth(&queue).await?.consumers)? < workers {
            crew.alive()?;
            if Instant::now() > until {
                return Err("the workers take no jobs".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(crew)
    }

    /// Publishes jobs of an export with random keys. Answers how many a second.
    pub async fn enqueue(&self, export: &str, jobs: u64) -> Done<f64> {
        let start = Instant::now();
        let batches = (0..jobs.div_ceil(BATCH)).map(|batch| async move {
            let size = BATCH.min(jobs - batch * BATCH);
            let messages = (0..size).map(|_| message(export, &random_key()));
            self.publish(messages.collect::<Done<Vec<_>>>()?).await
        });
        futures::stream::iter(batches).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(jobs as f64 / start.elapsed().as_secs_f64())
    }

    pub async fn publish(&self, messages: Vec<Outgoing>) -> Done {
        for answer in self.parts.queue.publish(messages).await {
            answer?;
        }
        Ok(())
    }

    /// Takes everything off the job queue that still waits there.
    pub async fn empty(&self) -> Done {
        // By making it anew, since what a worker has given back may come late.
        let link = connection(self.servers).await?;
        let channel = link.create_channel().await?;
        channel.queue_delete(job_queue(self.prefix).into(), QueueDeleteOptions::default()).await?;
        link.close(200, "OK".into()).await?;
        self.parts.queue.declare(&[POOL.to_owned()]).await?;
        Ok(())
    }

    /// Removes what the export to files has delivered.
    pub fn forget_files(&self) -> Done {
        let out = self.folder.path().join("out");
        std::fs::remove_dir_all(&out)?;
        std::fs::create_dir(&out)?;
        Ok(())
    }

    /// The ledger's clock.
    pub async fn now(&self) -> Done<Timestamp> {
        Ok(self.client.query_one("SELECT clock_timestamp()", &[]).await?.get(0))
    }

    /// Transactions that the ledger's database has committed.
    pub async fn commits(&self) -> Done<f64> {
        let counted = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1";
        let commits: i64 = self.client.query_one(counted, &[&DATABASE]).await?.get(0);
        Ok(commits as f64)
    }

    /// What the servers are.
    pub async fn versions(&self) -> Done<String> {
        Ok(format!(
            "PostgreSQL {} (fsync {}), RabbitMQ {}, Redis {}",
            support::setting(&self.client, "server_version").await?,
            support::setting(&self.client, "fsync").await?,
            rabbitmq_version(&self.servers.amqp)?,
            redis_version(&self.servers.redis).await?,
        ))
    }
}

/// Processes at work. They work until their standard input ends, as it does when this process dies.
pub struct Crew(Vec<Child>);

impl Crew {
    /// Makes sure that none has ended by itself.
    pub fn alive(&mut self) -> Done {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                return Err(format!("a process of Longshore ended with {status}").into());
            }
        }
        Ok(())
    }

    /// Lets them finish what they have begun. Answers the most memory that one of them had.
    pub fn end(mut self) -> Done<f64> {
        for child in &mut self.0 {
            drop(child.stdin.take());
        }
        let mut peak: f64 = 0.0;
        for child in self.0 {
            let output = child.wait_with_output()?;
            if !output.status.success() {
                return Err(format!("a process of Longshore ended with {}", output.status).into());
            }
            peak = peak.max(String::from_utf8(output.stdout)?.trim().parse()?);
        }
        Ok(peak)
    }
}

/// What the processes of a crew do.
pub async fn child(args: &[String]) -> Done {
    let [role, folder, prefix] = args else {
        return Err("the child is told no role, folder and prefix".into());
    };
    telemetry::start(LogFormat::Json, "warn", false)?;
    let config = support::load(Path::new(folder))?;
    let parts = parts(&config, prefix)?;
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let stop = async { end.await.unwrap_or_default() };
    let health = wiring::health();
    match role.as_str() {
        "worker" => Box::pin(wiring::worker(&config, &parts, &health).run(stop)).await?,
        _ => Box::pin(wiring::scheduler(&config, &parts, &health)?.run(stop)).await?,
    }
    println!("{}", peak_memory()?);
    Ok(())
}

fn configure(folder: &Path, servers: &Servers, options: &Options) -> Done {
    let concurrency = options.concurrency;
    let memory = (u32::from(concurrency) * MEMORY).max(1024);
    // More than ever wait.
    let most = options.waiting.max(options.jobs).saturating_mul(2).max(1_000_000);
    let settings = format!(
        "[queue]\n{}max-length = {most}\n[ledger]\n{}[claims]\n{}\
         [worker]\nconcurrency = {concurrency}\nmemory = \"{memory} MiB\"\n",
        servers.amqp.toml(folder)?,
        servers.postgres.database(DATABASE).toml(folder)?,
        servers.redis.toml(folder)?
    );
    let here = folder.display();
    let connections = format!(
        "[nowhere]\ntype = \"discard\"\nurl = \"discard:\"\n\
         [in]\ntype = \"files\"\nurl = \"file://{here}/in\"\n\
         [out]\ntype = \"files\"\nurl = \"file://{here}/out\"\n"
    );
    let noop = format!(
        "source = {{ connection = \"nowhere\" }}\n\
         sink   = {{ connection = \"nowhere\", path = \"{{run}}\" }}\n\
         limits = {{ memory = \"{MEMORY} MiB\" }}\n"
    );
    let file = format!(
        "source = {{ connection = \"in\", path = \"small.csv\" }}\n\
         sink   = {{ connection = \"out\", path = \"{{run}}\", format = \"parquet\" }}\n\
         limits = {{ memory = \"{MEMORY} MiB\" }}\n\
         [contract]\nprimary-key = [\"id\"]\n\
         [contract.fields]\n\
         id   = {{ type = \"int64\", required = true }}\n\
         name = {{ type = \"string\", required = true }}\n"
    );
    for name in ["exports", "in", "out"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    std::fs::write(folder.join("in/small.csv"), "id,name\n1,one\n2,two\n3,three\n")?;
    std::fs::write(folder.join("longshore.toml"), settings)?;
    std::fs::write(folder.join("connections.toml"), connections)?;
    std::fs::write(folder.join(format!("exports/{NOOP}.toml")), noop)?;
    std::fs::write(folder.join(format!("exports/{FILE}.toml")), file)?;
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

/// A job of an export.
pub fn job(export: &str, key: &str) -> JobMessage {
    JobMessage { export: export.to_owned(), key: Some(key.to_owned()), ..JobMessage::default() }
}

/// The message that a producer publishes.
pub fn message(export: &str, key: &str) -> Done<Outgoing> {
    Ok(Outgoing {
        to: Destination::Jobs(POOL.to_owned()),
        body: Bytes::from(serde_json::to_vec(&job(export, key))?),
        properties: Properties { kind: Some(JOB_TYPE.to_owned()), ..Properties::default() },
    })
}

/// A key that stands nowhere near the one before it.
pub fn random_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn job_queue(prefix: &str) -> String {
    format!("{prefix}.jobs.{POOL}")
}

async fn connection(servers: &Servers) -> Done<lapin::Connection> {
    let amqp = servers.amqp.whole();
    Ok(lapin::Connection::connect(&amqp, lapin::ConnectionProperties::default()).await?)
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
pub async fn clean(servers: &Servers, prefix: &str) -> Done {
    let link = connection(servers).await?;
    let channel = link.create_channel().await?;
    for queue in [job_queue(prefix), format!("{prefix}.dead.{POOL}")] {
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
    support::remove_database(DATABASE).await
}
