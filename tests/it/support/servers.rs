//! The servers that tests use, and a part of each that is one test's alone.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use longshore::queue::rabbitmq::{RabbitMq, Settings};
use longshore::queue::{Destination, Queue};
use serde_json::Value as Json;
use tokio_postgres::{Client, NoTls, Row};
use url::Url;

/// How long an event may take to come.
const ANSWER: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "tests are told where their servers are")]
fn named(variable: &str, default: &str) -> Url {
    let url = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    Url::parse(&url).unwrap_or_else(|error| panic!("{variable}: {error}"))
}

/// Where a server is, as `host:port`.
pub fn address(url: &Url) -> String {
    let usual = match url.scheme() {
        "amqp" => 5672,
        "redis" => 6379,
        "http" => 80,
        _ => 5432,
    };
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(usual))
}

/// The same server by another way, as a setting has it: without the password.
pub fn by(url: &Url, way: SocketAddr) -> Url {
    let mut url = url.clone();
    url.set_password(None).unwrap();
    url.set_ip_host(way.ip()).unwrap();
    url.set_port(Some(way.port())).unwrap();
    url
}

/// Where RabbitMQ is.
pub fn amqp() -> Url {
    named("LONGSHORE_TEST_AMQP", "amqp://guest:guest@127.0.0.1:5672/%2f")
}

/// The command by which that RabbitMQ is administered, as a shell reads it.
#[expect(clippy::disallowed_methods, reason = "where the servers are, the environment says")]
pub fn rabbitmqctl() -> String {
    std::env::var("LONGSHORE_TEST_RABBITMQCTL").unwrap_or_else(|_| "rabbitmqctl".to_owned())
}

/// A channel to a RabbitMQ, on a connection of its own.
pub async fn channel(server: &Url) -> Channel {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(server.as_str(), properties).await.unwrap();
    connection.create_channel().await.unwrap()
}

/// A database of PostgreSQL.
pub struct Database {
    name: String,
    server: Url,
    /// Where it is.
    pub url: Url,
    /// A connection to it.
    pub client: Client,
}

impl Database {
    /// Makes a database on the server of all tests.
    pub async fn create(name: String) -> Database {
        Database::create_on(postgres(), name).await
    }

    /// Makes a database on a server.
    pub async fn create_on(server: Url, name: String) -> Database {
        let admin = connect(&server).await;
        admin.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await.unwrap();
        let mut url = server.clone();
        url.set_path(&name);
        Database { name, client: connect(&url).await, url, server }
    }

    /// Removes it, whoever still uses it. A server of a test's own goes with the test.
    pub async fn remove(self) {
        if self.server == postgres() {
            let sql = format!("DROP DATABASE \"{}\" WITH (FORCE)", self.name);
            connect(&self.server).await.batch_execute(&sql).await.unwrap();
        }
    }

    /// The number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        self.row(sql).await.get(0)
    }

    /// The text that a query gives.
    pub async fn text(&self, sql: &str) -> String {
        self.row(sql).await.get(0)
    }

    /// The one row of a query, by a new connection where a test has cut the old one.
    pub async fn row(&self, sql: &str) -> Row {
        let asked = match self.client.is_closed() {
            false => self.client.query_one(sql, &[]).await,
            true => connect(&self.url).await.query_one(sql, &[]).await,
        };
        asked.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }
}

/// Where PostgreSQL is.
pub fn postgres() -> Url {
    named("LONGSHORE_TEST_POSTGRES", "postgres://postgres@127.0.0.1:5432/postgres")
}

/// Where Redis is.
pub fn redis() -> Url {
    named("LONGSHORE_TEST_REDIS", "redis://127.0.0.1:6379")
}

/// A connection to a database.
pub async fn connect(url: &Url) -> Client {
    let (client, connection) = tokio_postgres::connect(url.as_str(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Marks a database of Redis as one that tests may empty.
const OURS: &str = "longshore-test:ours";
/// Marks it as used by a test that runs.
const USED: &str = "longshore-test:used";

/// A numbered database of Redis that was empty, or was left behind by a test.
pub struct Redis {
    /// Where it is.
    pub url: Url,
    client: redis::Client,
    server: Url,
}

impl Redis {
    /// Takes a database of the server of all tests that nobody else uses.
    pub async fn take() -> Redis {
        Redis::take_on(redis()).await
    }

    /// Takes a database of a server that nobody else uses.
    pub async fn take_on(server: Url) -> Redis {
        for number in 1..=15 {
            let mut url = server.clone();
            url.set_path(&number.to_string());
            let client = redis::Client::open(url.as_str()).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let ours: bool = run(&mut connection, redis::cmd("EXISTS").arg(OURS)).await;
            let keys: u64 = run(&mut connection, &redis::cmd("DBSIZE")).await;
            let used: Option<String> = match ours || keys == 0 {
                // Only one test gets it. A mark that was left behind is gone after a while.
                true => {
                    let mut set = redis::cmd("SET");
                    set.arg(USED).arg(1).arg("NX").arg("EX").arg(900);
                    run(&mut connection, &set).await
                }
                false => None,
            };
            if used.is_some() {
                let redis = Redis { url, client, server };
                redis.flush().await;
                return redis;
            }
        }
        panic!("no database of Redis from 1 to 15 is free for tests");
    }

    /// What it answers to a command.
    pub async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let mut connection = self.client.get_multiplexed_async_connection().await.unwrap();
        run(&mut connection, command).await
    }

    /// Removes everything in it, as an accident would.
    pub async fn flush(&self) {
        let mut connection = self.client.get_multiplexed_async_connection().await.unwrap();
        let mut all = redis::pipe();
        all.atomic().cmd("FLUSHDB").ignore();
        all.cmd("SET").arg(OURS).arg(1).ignore();
        all.cmd("SET").arg(USED).arg(1).arg("EX").arg(900).ignore();
        all.query_async::<()>(&mut connection).await.unwrap();
    }

    /// Gives it back, empty. A server of a test's own goes with the test.
    pub async fn release(self) {
        if self.server != redis() {
            return;
        }
        let mut connection = self.client.get_multiplexed_async_connection().await.unwrap();
        let () = run(&mut connection, &redis::cmd("FLUSHDB")).await;
    }
}

async fn run<T: redis::FromRedisValue>(
    connection: &mut redis::aio::MultiplexedConnection,
    command: &redis::Cmd,
) -> T {
    command.query_async(connection).await.unwrap()
}

/// What is announced, from when it is made on.
pub struct Events {
    deliveries: lapin::Consumer,
    _channel: Channel,
}

impl Events {
    /// Listens for the events with this routing key, which may have wildcards.
    pub async fn listen(key: &str) -> Events {
        let channel = channel(&amqp()).await;
        let options = lapin::options::QueueDeclareOptions::exclusive();
        let none = FieldTable::default;
        let queue = channel.queue_declare("".into(), options, none()).await.unwrap();
        let name = queue.name().clone();
        let bound = channel.queue_bind(
            name.clone(),
            "longshore.events".into(),
            key.into(),
            lapin::options::QueueBindOptions::default(),
            none(),
        );
        bound.await.unwrap();
        let options = lapin::options::BasicConsumeOptions { no_ack: true, ..Default::default() };
        let deliveries = channel.basic_consume(name, "".into(), options, none()).await.unwrap();
        Events { deliveries, _channel: channel }
    }

    /// The next event, whomever it is for.
    pub async fn any(&mut self) -> Json {
        let event = tokio::time::timeout(ANSWER, self.deliveries.next()).await;
        serde_json::from_slice(&event.expect("no event").unwrap().unwrap().data).unwrap()
    }

    /// The next event that answers a message with this correlation id.
    pub async fn next(&mut self, correlation: &str) -> Json {
        let found = async {
            loop {
                let event = self.deliveries.next().await.unwrap().unwrap();
                let id = event.properties.correlation_id().as_ref();
                if id.is_some_and(|id| id.as_str() == correlation) {
                    return serde_json::from_slice(&event.data).unwrap();
                }
            }
        };
        tokio::time::timeout(ANSWER, found)
            .await
            .unwrap_or_else(|_| panic!("no event for {correlation}"))
    }
}

/// Pools that only one test uses: by their names its queues are its own.
pub struct Pools {
    queue: std::sync::Arc<RabbitMq>,
    names: Vec<String>,
    server: Url,
}

impl Pools {
    /// Declares their queues on the server of all tests.
    pub async fn declare(names: Vec<String>) -> Pools {
        Pools::declare_on(amqp(), names).await
    }

    /// Declares their queues on a server.
    pub async fn declare_on(server: Url, names: Vec<String>) -> Pools {
        let url = server.to_string();
        let prefix = "longshore".to_owned();
        let settings = Settings { url, password: None, prefix, max_length: 1_000_000 };
        let queue = RabbitMq::connect(settings).unwrap();
        queue.declare(&names).await.unwrap();
        Pools { queue, names, server }
    }

    /// How many messages are ready: jobs, and dead letters, in all pools.
    pub async fn ready(&self) -> (u64, u64) {
        let (mut jobs, mut dead) = (0, 0);
        for name in &self.names {
            jobs += self.queue.depth(&Destination::Jobs(name.clone())).await.unwrap().ready;
            dead += self.queue.depth(&Destination::Dead(name.clone())).await.unwrap().ready;
        }
        (jobs, dead)
    }

    /// Deletes their queues. The exchanges stay: they are the same for all. A server of a test's own
    /// goes with the test.
    pub async fn delete(self) {
        if self.server != amqp() {
            return;
        }
        let channel = channel(&amqp()).await;
        for name in &self.names {
            for queue in [format!("longshore.jobs.{name}"), format!("longshore.dead.{name}")] {
                let options = lapin::options::QueueDeleteOptions::default();
                channel.queue_delete(queue.into(), options).await.unwrap();
            }
        }
        channel.close(200, "OK".into()).await.unwrap();
    }
}
