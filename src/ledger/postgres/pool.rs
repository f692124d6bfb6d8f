//! The ledger's connections: made when needed, checked when taken, the password read for each.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime,
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::connect::postgres as connect;
use crate::error::{Class, Error, Result};
use crate::secret::Secret;

/// How long a free connection is waited for. Longer means that the ledger is overloaded or away.
const WAIT: Duration = Duration::from_secs(15);
/// How long anything that is asked of the ledger may take. A server that stands still, or one behind
/// something that keeps the connection open, would else be waited for without end.
const ANSWER: Duration = Duration::from_secs(30);

/// How the ledger's sessions differ from the server's settings. A worker that is frozen within a
/// transaction must not keep its locks from the others; nor may somebody else's lock on one run keep
/// up for long those whose commands share a transaction with that run's. And what is asked for is a few rows by
/// their keys, whatever the statistics of young tables say: plans are made once, and use indexes.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '15s'; \
    SET lock_timeout = '5s'; SET statement_timeout = '30s'; \
    SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
    SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";

/// The ledger's connections.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    password: Option<Secret>,
    /// Where they lead, for errors.
    server: Arc<str>,
}

impl Pool {
    /// At most so many connections. Nothing is connected before it is needed.
    ///
    /// # Errors
    /// `config` where the url cannot be understood.
    pub fn new(url: &str, password: Option<&Secret>, connections: usize) -> Result<Pool> {
        let config = connect::config(url, None, None, "ledger")?;
        let server = connect::server(&config).into();
        let connector =
            Connector { tls: connect::tls(&config, None)?, password: password.cloned() };
        let manager = Manager::from_connect(
            config,
            connector,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(connections)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .recycle_timeout(Some(WAIT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|cause| {
                Error::config("set up the ledger's connections", "the pool cannot be built")
                    .caused_by(cause)
            })?;
        Ok(Pool { connections, password: password.cloned(), server })
    }

    /// How many connections there may be.
    pub fn most(&self) -> usize {
        self.connections.status().max_size
    }

    /// Does something with a connection, within [`ANSWER`].
    ///
    /// # Errors
    /// Those of the work; `unavailable` where it did not end in time; those of [`Pool::checkout`].
    pub async fn lend<T>(
        &self,
        doing: &'static str,
        work: impl AsyncFnOnce(&mut Object) -> Result<T>,
    ) -> Result<T> {
        let mut lent = Lent(Some(self.checkout().await?));
        let Some(connection) = &mut lent.0 else { return Err(silent(doing)) };
        let answer = tokio::time::timeout(ANSWER, work(connection)).await;
        answer.map_err(|_| silent(doing)).and_then(|answer| {
            lent.give_back();
            answer
        })
    }

    /// A connection.
    ///
    /// # Errors
    /// `unavailable` where none can be had in time; else as the server's answer is classified.
    pub async fn checkout(&self) -> Result<Object> {
        const DOING: &str = "reach the ledger";
        let error = match self.connections.get().await {
            Ok(connection) => return Ok(connection),
            Err(PoolError::Backend(cause)) => {
                match Secret::read_any_for_job(self.password.as_ref()).await {
                    Err(missing) => missing,
                    // Refused credentials too: somebody mends them, and until then the ledger is away.
                    _ => connect::classify_connect(cause).reclass(Class::Unavailable),
                }
            }
            Err(PoolError::Timeout(_)) => {
                Error::unavailable(DOING, "no connection to the database was free in time")
                    .help("Is PostgreSQL up? Has it reached its max_connections?")
            }
            Err(other) => {
                Error::unavailable(DOING, "no connection to the database").caused_by(other)
            }
        };
        Err(error.with("server", &self.server).with("for", "the ledger"))
    }
}

/// The error where the ledger did not answer in time.
fn silent(doing: &'static str) -> Error {
    Error::unavailable(doing, "the database did not answer in time")
}

/// A connection that may not be done with what it was asked for, or have a transaction open: it is
/// closed, unless it is given back.
struct Lent(Option<Object>);

impl Lent {
    /// Lets others have it.
    fn give_back(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

struct Connector {
    tls: MakeRustlsConnect,
    password: Option<Secret>,
}

impl Connect for Connector {
    fn connect(
        &self,
        config: &Config,
    ) -> futures::future::BoxFuture<
        '_,
        std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error>,
    > {
        let mut config = config.clone();
        Box::pin(async move {
            // Read anew each time, so that a rotated password needs no restart. One that cannot be
            // read shows as a refused login, which `checkout` explains.
            if let Ok(Some(password)) = Secret::read_any_for_job(self.password.as_ref()).await {
                config.password(secrecy::ExposeSecret::expose_secret(&password));
            }
            // A black hole shows within seconds rather than minutes.
            config.tcp_user_timeout(Duration::from_secs(20));
            let (client, connection) = config.connect(self.tls.clone()).await?;
            let task = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    // Whoever needs the ledger tells that it is away, once for all connections.
                    tracing::debug!(%error, "a connection to the ledger was lost");
                }
            });
            client.batch_execute(SESSION).await?;
            Ok((client, task))
        })
    }
}
