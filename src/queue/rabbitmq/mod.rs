//! The queue on RabbitMQ, from 3.10 on.
//!
//! Two connections, each watched by its own supervisor (`link`): one only publishes, the other
//! does everything else. The broker blocks connections that publish while it is short of memory or
//! disk, and acks must not wait behind that.

mod consume;
mod dead;
mod examine;
mod link;
mod management;
mod message;
mod publish;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use lapin::uri::AMQPUri;
use tokio::time::Instant;

use self::consume::Interrupted;
use self::link::{Link, Target};
use self::publish::Publisher;
use self::topology::Topology;
use super::{Depth, Destination, Event, Incoming, Outgoing, Queue};
use crate::error::{Class, Error, Result};
use crate::secret::Secret;

pub use self::examine::{Expected, examine};

/// How long a call waits for a connection before it answers `unavailable`.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// How long one exchange of requests and answers with the broker may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// How to reach a RabbitMQ, and what to call things there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `amqp://user@host:port/vhost`, or `amqps://` for TLS with the system's certificates.
    pub url: String,
    /// The password, read anew for every connection. It takes precedence over one in the URL.
    pub password: Option<Secret>,
    /// The name of the job exchange, and the prefix of all other names: `longshore`.
    pub prefix: String,
    /// How many messages a job queue holds before it refuses more (1,000,000).
    pub max_length: u32,
}

/// The queue on RabbitMQ.
pub struct RabbitMq {
    topology: Arc<Topology>,
    publisher: Publisher,
    publishing: Arc<Link>,
    consuming: Arc<Link>,
    interrupted: Arc<Interrupted>,
}

impl RabbitMq {
    /// Starts connecting in the background and returns at once. Must be called inside a tokio
    /// runtime. An error, of class `config`, means that the URL cannot be understood.
    pub fn connect(settings: Settings) -> Result<Arc<RabbitMq>> {
        let target = Target { uri: parse(&settings.url)?, password: settings.password };
        let topology = Arc::new(Topology::new(settings.prefix, settings.max_length));
        let publishing = Arc::new(Link::start("publish", target.clone(), topology.clone()));
        let consuming = Arc::new(Link::start("consume", target, topology.clone()));
        let publisher = Publisher::new(publishing.clone(), topology.clone());
        let interrupted = Arc::default();
        Ok(Arc::new(RabbitMq { topology, publisher, publishing, consuming, interrupted }))
    }
}

/// The parser's own messages are not shown: they quote the URL, which may hold a password.
fn parse(text: &str) -> Result<AMQPUri> {
    let bad = || {
        Error::config("read the queue's URL", "it is no AMQP URL")
            .help("Write amqps://user@host:5671/%2f, or amqp:// towards this machine.")
    };
    let url = url::Url::parse(text).map_err(|_| bad())?;
    let mut uri: AMQPUri = text.parse().map_err(|_| bad())?;
    // The parser takes an IPv6 address for no host at all, and would go to localhost.
    if let Some(url::Host::Ipv6(address)) = url.host() {
        uri.authority.host = address.to_string();
    }
    // A dead peer is noticed after two missed beats.
    uri.query.heartbeat.get_or_insert(10);
    Ok(uri)
}

/// What the broker or the network said, without what a log should not have.
fn words(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => error.to_string(),
    }
}

/// The broker's reply code, where the broker answered with one.
fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Reply code: this user may not do that.
const ACCESS_REFUSED: u16 = 403;
/// Reply code: there is no such virtual host, or not for this user.
const NOT_ALLOWED: u16 = 530;
/// What to do about a missing right.
const PERMISSIONS: &str = "Give it to the user of queue.url: rabbitmqctl set_permissions -p VHOST USER \
    '^longshore(\\..*)?$' '^longshore(\\..*)?$' '^longshore(\\..*)?$' (configure, write, read).";

/// An error while talking to the broker that says nothing about the request itself, or a right that
/// is missing: somebody gives it, and until then the queue is away.
fn lost(operation: &'static str, error: lapin::Error) -> Error {
    if code(&error) == Some(ACCESS_REFUSED) {
        return forbidden(operation, &words(&error)).caused_by(error);
    }
    Error::unavailable(operation, format!("the connection to RabbitMQ failed: {}", words(&error)))
        .caused_by(error)
}

/// That a right is missing, in the broker's words.
fn forbidden(operation: &'static str, words: &str) -> Error {
    Error::unavailable(operation, format!("RabbitMQ refuses it: {words}")).help(PERMISSIONS)
}

/// As [`lost`], for whoever does not wait until the right is given.
fn refused(operation: &'static str, error: lapin::Error) -> Error {
    match code(&error) {
        Some(ACCESS_REFUSED) => lost(operation, error).reclass(Class::Refused),
        _ => lost(operation, error),
    }
}

/// Bounds one exchange with the broker.
async fn within<T>(
    operation: &'static str,
    limit: Duration,
    exchange: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
        Err(Error::unavailable(
            operation,
            format!("RabbitMQ did not answer within {} s", limit.as_secs_f32()),
        ))
    })
}

#[async_trait]
impl Queue for RabbitMq {
    async fn declare(&self, pools: &[String]) -> Result<()> {
        const OPERATION: &str = "declare the queues";
        let connection = self.consuming.connection(OPERATION, CONNECTION_WAIT).await?;
        within(OPERATION, ANSWER_WAIT, self.topology.declare(&connection, pools)).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<()>> {
        self.publisher.publish(messages).await
    }

    async fn announce(&self, event: Event) -> Result<()> {
        self.publisher.announce(event).await
    }

    async fn consume(&self, pool: &str, prefetch: u16) -> Result<BoxStream<'static, Incoming>> {
        Ok(consume::consume(
            self.consuming.clone(),
            self.topology.clone(),
            self.interrupted.clone(),
            pool.to_owned(),
            prefetch,
        ))
    }

    async fn dead(&self, pool: &str) -> Result<BoxStream<'static, Result<Incoming>>> {
        dead::hold(self.consuming.clone(), self.topology.clone(), pool.to_owned()).await
    }

    async fn depth(&self, queue: &Destination) -> Result<Depth> {
        const OPERATION: &str = "read the depth of a queue";
        let connection = self.consuming.connection(OPERATION, CONNECTION_WAIT).await?;
        within(OPERATION, ANSWER_WAIT, self.topology.depth(&connection, queue)).await
    }

    async fn ping(&self, wait: Duration) -> Result<()> {
        const OPERATION: &str = "check the queue";
        let deadline = Instant::now() + wait;
        let left = || deadline.duration_since(Instant::now());
        self.publishing.unblocked(OPERATION, left()).await?;
        let connection = self.consuming.connection(OPERATION, left()).await?;
        // Opening a channel asks the broker and waits for its answer.
        within(OPERATION, left(), async {
            connection.create_channel().await.map(drop).map_err(|error| lost(OPERATION, error))
        })
        .await?;
        self.interrupted.is_over(left()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_a_config_error_that_does_not_quote_it() {
        for bad in ["http://u:hunter2@h/", "amqp:hunter2", "hunter2"] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Config);
            assert!(!error.chain().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_ipv6_host_is_kept_and_a_heartbeat_is_asked_for() {
        let uri = parse("amqp://[::1]:5672/%2f").unwrap();
        assert_eq!((uri.authority.host.as_str(), uri.query.heartbeat), ("::1", Some(10)));
        assert_eq!(parse("amqp://h/x?heartbeat=3").unwrap().query.heartbeat, Some(3));
    }
}
