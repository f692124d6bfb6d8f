//! One connection that is kept up for ever: connect, declare what was declared before, tell those
//! who wait, and watch until it breaks.
//!
//! lapin's own recovery stays off: it can leave a consumer silent for ever.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::topology::Topology;
use super::{ACCESS_REFUSED, NOT_ALLOWED, code, within, words};
use crate::error::{Error, Result};
use crate::job::retry::{self, Jitter};
use crate::secret::Secret;
use crate::tls;
use crate::units::Backoff;

const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), last: Duration::from_secs(10) };
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A connection that lived this long is followed by a quick attempt, not by a slow one.
const STEADY: Duration = Duration::from_secs(30);

/// Where to connect to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) uri: AMQPUri,
    pub(super) password: Option<Secret>,
}

/// Why there is no connection.
#[derive(Debug, Clone)]
struct Cause {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Nobody answered, or the connection broke.
    Away,
    /// The broker answered, and refused the login, or the virtual host.
    Refused(u16),
    /// There is no TLS with whoever answered.
    Unsafe,
    /// The password could not be read.
    Unread(Arc<Error>),
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    cause: Option<Cause>,
    /// The broker takes nothing from this connection for now, for this reason.
    blocked: Option<String>,
}

/// One supervised connection.
pub(super) struct Link {
    state: watch::Receiver<State>,
    address: String,
    supervisor: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Link {
    /// Starts the supervisor. `role` is what it is called in logs and in the broker's list.
    pub(super) fn start(role: &'static str, target: Target, topology: Arc<Topology>) -> Link {
        let (sender, state) = watch::channel(State::default());
        let address = format!("{}:{}", target.uri.authority.host, target.uri.authority.port);
        let supervisor = tokio::spawn(supervise(role, target, topology, sender, address.clone()));
        Link { state, address, supervisor }
    }

    /// The connection, waiting for it up to `wait`.
    pub(super) async fn connection(
        &self,
        operation: &'static str,
        wait: Duration,
    ) -> Result<Arc<Connection>> {
        timeout(wait, self.wait_for_connection())
            .await
            .ok()
            .flatten()
            .ok_or_else(|| self.away(operation))
    }

    /// The connection, however long it takes. `None` when the link is being dropped.
    pub(super) async fn wait_for_connection(&self) -> Option<Arc<Connection>> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| state.connection.is_some()).await.ok()?;
        up.connection.clone()
    }

    /// Like [`Link::connection`], and waits until the broker takes messages from it.
    pub(super) async fn unblocked(
        &self,
        operation: &'static str,
        wait: Duration,
    ) -> Result<Arc<Connection>> {
        let mut state = self.state.clone();
        let open = state.wait_for(|state| state.connection.is_some() && state.blocked.is_none());
        match timeout(wait, open).await {
            Ok(Ok(state)) => state.connection.clone(),
            _ => None,
        }
        .ok_or_else(|| self.away(operation))
    }

    /// The reason that the broker gave for taking nothing, while it takes nothing.
    pub(super) fn blocked(&self) -> Option<String> {
        self.state.borrow().blocked.clone()
    }

    fn away(&self, operation: &'static str) -> Error {
        let state = self.state.borrow();
        let (message, help) = match (&state.blocked, &state.cause) {
            (Some(reason), _) if state.connection.is_some() => (
                format!("RabbitMQ takes no messages: {reason}"),
                "Free memory or disk space on the broker; Longshore then goes on by itself.",
            ),
            (_, Some(cause)) => match &cause.kind {
                Kind::Unread(error) => return error.again(),
                Kind::Refused(code) => {
                    (format!("RabbitMQ refuses the connection: {}", cause.text), remedy(*code))
                }
                Kind::Unsafe => {
                    (format!("no safe connection to RabbitMQ: {}", cause.text), tls::HELP)
                }
                Kind::Away => (
                    format!("RabbitMQ cannot be reached: {}", cause.text),
                    "Check that the broker runs and that queue.url is right; Longshore goes on by \
                     itself when it answers.",
                ),
            },
            (_, None) => (
                "RabbitMQ has not answered yet".to_owned(),
                "Check that the broker runs and that queue.url is right.",
            ),
        };
        Error::unavailable(operation, message).with("broker", &self.address).help(help)
    }
}

async fn supervise(
    role: &'static str,
    target: Target,
    topology: Arc<Topology>,
    state: watch::Sender<State>,
    address: String,
) {
    let mut failures = 0;
    let mut told = None;
    loop {
        let cause = match open(role, &target, &topology).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                told = None;
                info!(broker = address, role, "connected to RabbitMQ");
                state.send_replace(State {
                    connection: Some(connection.clone()),
                    ..State::default()
                });
                let since = Instant::now();
                let text = watch_over(&connection, &state).await;
                if since.elapsed() > STEADY {
                    failures = 0;
                }
                Cause { text, kind: Kind::Away }
            }
            Err(cause) => cause,
        };
        // A refusal does not pass by itself: neither the broker's log nor ours is to be filled.
        let away = matches!(cause.kind, Kind::Away);
        let wait = backoff(if away { failures } else { u32::MAX });
        failures = failures.saturating_add(1);
        // The same once more is no news: whoever uses the queue tells how long it lasts.
        if told.as_ref() != Some(&cause.text) {
            warn!(
                broker = address,
                role,
                cause = cause.text,
                refused = !away,
                "no connection to RabbitMQ; trying again"
            );
            told = Some(cause.text.clone());
        }
        state.send_replace(State { cause: Some(cause), ..State::default() });
        tokio::time::sleep(wait).await;
    }
}

/// What to do about a refusal.
fn remedy(code: u16) -> &'static str {
    match code {
        NOT_ALLOWED => {
            "The virtual host in queue.url must be there (`rabbitmqctl add_vhost VHOST`), and its user \
             have permissions in it: rabbitmqctl set_permissions -p VHOST USER '^longshore(\\..*)?$' \
             '^longshore(\\..*)?$' '^longshore(\\..*)?$'"
        }
        _ => {
            "Correct the user in queue.url or [queue] password; `rabbitmqctl authenticate_user USER` \
              tries them."
        }
    }
}

/// How long to wait after so many failures.
pub(super) fn backoff(failures: u32) -> Duration {
    retry::wait(BACKOFF, failures, Jitter::Half, rand::random())
}

/// A connection for one look, which nobody watches.
///
/// # Errors
/// `unavailable`: nobody answers; `permanent`: it is refused, or there is no TLS.
pub(super) async fn once(
    role: &'static str,
    target: &Target,
    topology: &Topology,
) -> Result<Connection> {
    const OPERATION: &str = "connect to RabbitMQ";
    open(role, target, topology).await.map_err(|cause| {
        let error = match cause.kind {
            Kind::Unread(error) => return error.again(),
            Kind::Away => Error::unavailable(OPERATION, cause.text)
                .help("Check that the broker runs and that queue.url is right."),
            Kind::Refused(code) => Error::permanent(OPERATION, cause.text).help(remedy(code)),
            Kind::Unsafe => Error::permanent(OPERATION, cause.text).help(tls::HELP),
        };
        error.with("broker", &target.uri.authority.host)
    })
}

async fn open(
    role: &'static str,
    target: &Target,
    topology: &Topology,
) -> Result<Connection, Cause> {
    let mut uri = target.uri.clone();
    if let Some(password) = &target.password {
        let password = password.read_for_job().await.map_err(|error| Cause {
            text: error.to_string(),
            kind: Kind::Unread(Arc::new(error)),
        })?;
        uri.authority.userinfo.password = password.expose_secret().to_owned();
    }
    let properties =
        ConnectionProperties::default().with_connection_name(format!("longshore {role}").into());
    let failed = |error: lapin::Error| match (tls::failure(&error), code(&error)) {
        (Some(failure), _) => Cause { text: failure, kind: Kind::Unsafe },
        (None, Some(code @ (ACCESS_REFUSED | NOT_ALLOWED))) => {
            Cause { text: words(&error), kind: Kind::Refused(code) }
        }
        (None, _) => Cause { text: words(&error), kind: Kind::Away },
    };
    let connecting = Connection::connector(
        uri,
        lapin::runtime::default_runtime().map_err(failed)?,
        async |uri: AMQPUri, runtime| {
            let tls = OwnedTLSConfig::default();
            let connecting = uri.connect_with_config_async(tls.as_ref(), &runtime);
            Ok(timeout(CONNECT_LIMIT, connecting).await.map_err(std::io::Error::from)??)
        },
        properties,
    );
    let late = |_| Cause {
        text: format!("no answer within {} s", 2 * CONNECT_LIMIT.as_secs()),
        kind: Kind::Away,
    };
    let connection = timeout(2 * CONNECT_LIMIT, connecting).await.map_err(late)?.map_err(failed)?;
    let restored = within("declare the queues", CONNECT_LIMIT, topology.restore(&connection)).await;
    match restored {
        Ok(()) => Ok(connection),
        // What is declared wrongly, or has no nodes that answer, concerns its own pool; others go on.
        Err(error) if connection.status().connected() => {
            warn!(role, error = error.chain(), "the queues could not be declared again");
            Ok(connection)
        }
        Err(error) => Err(Cause { text: error.to_string(), kind: Kind::Away }),
    }
}

/// Returns why the connection ended, when it has.
async fn watch_over(connection: &Connection, state: &watch::Sender<State>) -> String {
    let mut events = std::pin::pin!(connection.events_listener());
    // Events are a hint; the status is what counts.
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut reason = String::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tick.tick() => None,
        };
        match event {
            Some(lapin::Event::Error(error)) => reason = words(&error),
            Some(lapin::Event::ConnectionBlocked(why)) => {
                warn!(reason = why, "RabbitMQ takes no messages for now");
                state.send_modify(|state| state.blocked = Some(why));
            }
            _ => {}
        }
        if !connection.status().connected() {
            return if reason.is_empty() { "the connection was closed".to_owned() } else { reason };
        }
        let blocked = connection.status().blocked();
        state.send_if_modified(|state| match (blocked, &state.blocked) {
            (false, Some(_)) => {
                info!("RabbitMQ takes messages again");
                state.blocked = None;
                true
            }
            (true, None) => {
                state.blocked = Some("it is short of memory or disk space".to_owned());
                true
            }
            _ => false,
        });
    }
}
