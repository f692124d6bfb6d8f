//! One connection to Redis: opened when it is needed, shared by all tasks, replaced when it breaks.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    RedisError, ScriptInvocation, ServerErrorKind,
};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::tls;

/// No call takes longer, whatever the network does.
const BOUND: Duration = Duration::from_secs(2);
/// Shorter than [`BOUND`], so that a connection that hangs is found out and replaced.
const STEP: Duration = Duration::from_millis(1_500);
/// How long the password may take to be read: shorter than [`BOUND`] too.
const READ: Duration = Duration::from_secs(1);

/// A connection that outlives its sockets. The password is read anew for each of them.
pub(crate) struct Link {
    info: ConnectionInfo,
    password: Option<Secret>,
    current: Mutex<Current>,
}

struct Current {
    /// Counts the sockets, so that nobody drops a newer one than the one that failed him.
    number: u64,
    connection: Option<MultiplexedConnection>,
}

impl Link {
    /// Understands the address; nothing is opened yet.
    pub(crate) fn new(url: &str, password: Option<Secret>) -> Result<Link> {
        let info =
            url.into_connection_info().ok().filter(|info| info.addr().is_supported()).ok_or_else(
                || {
                    Error::config("understand the address of Redis", "it is no address of a Redis")
                        .help("Write [claims] url = \"rediss://host:6379/0\"; redis: if local.")
                },
            )?;
        let current = Mutex::new(Current { number: 0, connection: None });
        Ok(Link { info, password, current })
    }

    /// Runs a script, within two seconds. Where the socket turns out to be broken (the server was
    /// restarted, the password was changed), it is tried once more on a new one; therefore scripts
    /// must be harmless to repeat.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T> {
        tokio::time::timeout(BOUND, self.attempt(operation, script))
            .await
            .unwrap_or_else(|_| Err(self.away(operation, "did not answer within two seconds")))
    }

    /// Asks one thing, within two seconds.
    pub(crate) async fn ask<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &redis::Cmd,
    ) -> Result<T> {
        let asking = async {
            let (_, mut connection, _) = self.connection(operation).await?;
            let answer = command.query_async(&mut connection).await;
            answer.map_err(|error| self.explain(operation, error))
        };
        tokio::time::timeout(BOUND, asking)
            .await
            .unwrap_or_else(|_| Err(self.away(operation, "did not answer within two seconds")))
    }

    async fn attempt<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T> {
        let mut again = true;
        loop {
            let (number, mut connection, fresh) = self.connection(operation).await?;
            let error = match script.invoke_async(&mut connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if breaks(&error) {
                self.replace(number).await;
                if again && !fresh && !error.is_timeout() {
                    again = false;
                    continue;
                }
            }
            return Err(self.explain(operation, error));
        }
    }

    /// The current connection, its number, and whether it was opened just now.
    async fn connection(
        &self,
        operation: &'static str,
    ) -> Result<(u64, MultiplexedConnection, bool)> {
        // The lock is held while connecting, so that all wait for one attempt and none storms.
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((current.number, connection.clone(), false));
        }
        let connection = self.open(operation).await?;
        current.number += 1;
        current.connection = Some(connection.clone());
        Ok((current.number, connection, true))
    }

    async fn open(&self, operation: &'static str) -> Result<MultiplexedConnection> {
        let mut info = self.info.clone();
        if let Some(secret) = &self.password {
            // So that what hangs is told by its name.
            let password = tokio::time::timeout(READ, secret.read()).await.map_err(|_| {
                Error::unavailable(operation, "the password for Redis could not be read in time")
                    .with("address", self.info.addr())
                    .help(format!("Check that {secret} can be read."))
            })??;
            let settings = info.redis_settings().clone().set_password(password.expose_secret());
            info = info.set_redis_settings(settings);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(STEP))
            .set_response_timeout(Some(STEP));
        let client = Client::open(info).map_err(|error| self.explain(operation, error))?;
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.explain(operation, error))
    }

    async fn replace(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.number == number {
            current.connection = None;
        }
    }

    fn away(&self, operation: &'static str, what: &str) -> Error {
        Error::unavailable(operation, format!("Redis {what}"))
            .with("address", self.info.addr())
            .help("Start it, or correct [claims] url; work goes on by itself when it answers.")
    }

    /// Only what cannot mend itself is `permanent`. A server's own words may quote keys, and stay
    /// in the source.
    fn explain(&self, operation: &'static str, error: RedisError) -> Error {
        if let Some(failure) = tls::failure(&error) {
            return Error::permanent(operation, format!("no safe connection to Redis: {failure}"))
                .with("address", self.info.addr())
                .help(tls::HELP)
                .caused_by(error);
        }
        let code = error.code().unwrap_or_default().to_owned();
        let explained = match error.kind() {
            _ if refused(&error) => Error::permanent(operation, "Redis refused the credentials")
                .with("address", self.info.addr())
                .help("Correct [claims] password, or the user in [claims] url."),
            ErrorKind::InvalidClientConfig => {
                Error::config(operation, "the address of Redis cannot be used")
                    .with("address", self.info.addr())
                    .help("Write [claims] url = \"rediss://host:6379/0\"; redis: if local.")
            }
            ErrorKind::Server(ServerErrorKind::NoPerm) => Error::permanent(
                operation,
                "the Redis user may not do what is needed",
            )
            .with("address", self.info.addr())
            .help(
                "Allow it SELECT, GET, SET, DEL, PTTL, PEXPIRE, TIME, EVALSHA and SCRIPT LOAD on \
                         the keys of this installation.",
            ),
            ErrorKind::Server(
                ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot,
            ) => Error::permanent(operation, "the server is part of a Redis Cluster")
                .with("address", self.info.addr())
                .help("Point [claims] url at a Redis that is not in cluster mode."),
            ErrorKind::Io if error.is_timeout() => self.away(operation, "did not answer in time"),
            ErrorKind::Io => self.away(operation, "cannot be reached"),
            _ if code.is_empty() => self.away(operation, "answered what cannot be understood"),
            _ => self.away(operation, &format!("answered {code}")),
        };
        explained.caused_by(error)
    }
}

fn refused(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// Whether a new connection may do better: this one is dead, speaks to a server that is no longer
/// the primary, or is no longer logged in.
fn breaks(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || refused(error)
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

/// One part of a key. What Redis Cluster or an operator's eye could mistake is written as `%7B`.
pub(crate) fn escape(part: &str) -> String {
    const ODD: percent_encoding::AsciiSet =
        percent_encoding::CONTROLS.add(b'{').add(b'}').add(b'%').add(b' ');
    percent_encoding::utf8_percent_encode(part, &ODD).to_string()
}

/// Milliseconds, at least one, and no more than Redis can count.
pub(crate) fn millis(duration: Duration) -> u64 {
    const CENTURY: u64 = 100 * 366 * 86_400_000;
    u64::try_from(duration.as_millis()).unwrap_or(CENTURY).clamp(1, CENTURY)
}
