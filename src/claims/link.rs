//! One connection to Redis: opened when it is needed, shared by all tasks, replaced when it breaks.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, ScriptInvocation, ServerErrorKind,
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
        let wanted = self.info.redis_settings();
        let given = match &self.password {
            // So that what hangs is told by its name.
            Some(secret) => {
                Some(tokio::time::timeout(READ, secret.read()).await.map_err(|_| {
                    Error::unavailable(
                        operation,
                        "the password for Redis could not be read in time",
                    )
                    .with("address", self.info.addr())
                    .help(format!("Check that {secret} can be read."))
                })??)
            }
            None => None,
        };
        let password = given.as_ref().map(ExposeSecret::expose_secret).or(wanted.password());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(STEP))
            .set_response_timeout(Some(STEP));
        // The client would keep the server's words about a login to itself.
        let plain = RedisConnectionInfo::default().set_skip_set_lib_name();
        let failed = |error| self.explain(operation, error);
        let client = Client::open(self.info.clone().set_redis_settings(plain)).map_err(failed)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(failed)?;
        if password.is_some() || wanted.username().is_some() {
            let mut auth = redis::cmd("AUTH");
            auth.arg(wanted.username()).arg(password.unwrap_or_default());
            let answer = auth.query_async::<()>(&mut connection).await;
            answer.map_err(|error| self.not_let_in(operation, error))?;
        }
        if wanted.db() != 0 {
            let select = redis::cmd("SELECT").arg(wanted.db()).to_owned();
            select.query_async::<()>(&mut connection).await.map_err(|error| {
                if error.code() != Some("ERR") {
                    return failed(error);
                }
                let words = error.detail().unwrap_or_default();
                Error::config(operation, format!("Redis refuses the database: ERR {words}"))
                    .with("address", self.info.addr())
                    .help("Correct the number at the end of [claims] url; 0 is always there.")
            })?;
        }
        Ok(connection)
    }

    /// That a login failed. An answer may quote what it was sent: of most only the code is told.
    fn not_let_in(&self, operation: &'static str, error: RedisError) -> Error {
        let Some(code) = error.code() else { return self.explain(operation, error) };
        let words = error.detail().unwrap_or_default();
        // Refused for another reason, such as that there are too many clients.
        if code == "ERR" && !words.contains("AUTH") {
            return self.explain(operation, error);
        }
        let said = match code == "WRONGPASS" || words.starts_with("AUTH <password> called without")
        {
            true => format!("{code} {words}"),
            false => code.to_owned(),
        };
        Error::permanent(operation, format!("Redis refused the login: {said}"))
            .with("address", self.info.addr())
            .help(
                "Correct [claims] password, or the user in [claims] url; `ACL LIST` has the users.",
            )
    }

    async fn replace(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.number == number {
            current.connection = None;
        }
    }

    fn tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// What an administrator of Redis runs, so that this user may do what is needed.
    fn grant(&self) -> String {
        let user = self.info.redis_settings().username().unwrap_or("default");
        format!(
            "ACL SETUSER {user} ~longshore:* +select +get +set +del +pttl +pexpire +time +evalsha \
             +script|load +info"
        )
    }

    fn away(&self, operation: &'static str, what: &str) -> Error {
        Error::unavailable(operation, format!("Redis {what}"))
            .with("address", self.info.addr())
            .help("Start it, or correct [claims] url; work goes on by itself when it answers.")
    }

    /// What a server does that wants TLS and was not greeted so.
    fn strange(&self, operation: &'static str, what: &str) -> Error {
        let error = self.away(operation, what);
        match self.tls() {
            true => error,
            false => error.help(
                "See its log, and whether the port speaks TLS: then write rediss:// into [claims] url. \
                 Work goes on by itself when it answers.",
            ),
        }
    }

    /// Only what cannot mend itself is `permanent`. A server's own words may quote keys, and stay
    /// in the source, but for those about logins and rights.
    fn explain(&self, operation: &'static str, error: RedisError) -> Error {
        if let Some(failure) = tls::failure(&error) {
            return Error::permanent(operation, format!("no safe connection to Redis: {failure}"))
                .with("address", self.info.addr())
                .help(tls::HELP)
                .caused_by(error);
        }
        let code = error.code().unwrap_or_default().to_owned();
        let words = error.detail().unwrap_or_default().to_owned();
        let explained = match error.kind() {
            _ if refused(&error) => {
                Error::permanent(operation, format!("Redis asks for another login: {code} {words}"))
                    .with("address", self.info.addr())
                    .help("Give [claims] password, as a reference, and the user in [claims] url.")
            }
            ErrorKind::InvalidClientConfig => {
                Error::config(operation, "the address of Redis cannot be used")
                    .with("address", self.info.addr())
                    .help("Write [claims] url = \"rediss://host:6379/0\"; redis: if local.")
            }
            ErrorKind::Server(ServerErrorKind::NoPerm) => Error::permanent(
                operation,
                format!("Redis does not let this user do it: {code} {words}"),
            )
            .with("address", self.info.addr())
            .help(format!("Let it: {}", self.grant())),
            ErrorKind::Server(
                ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot,
            ) => Error::permanent(operation, "the server is part of a Redis Cluster")
                .with("address", self.info.addr())
                .help("Point [claims] url at a Redis that is not in cluster mode."),
            ErrorKind::Io if error.is_timeout() => match self.tls() {
                true => self.away(operation, "did not answer in time").help(
                    "Start it, or correct [claims] url: rediss:// is for a port that speaks TLS.",
                ),
                false => self.away(operation, "did not answer in time"),
            },
            ErrorKind::Io if error.is_connection_refusal() => {
                self.away(operation, "cannot be reached")
            }
            ErrorKind::Io if error.is_connection_dropped() => {
                self.strange(operation, "closed the connection")
            }
            ErrorKind::Io => self.away(operation, "cannot be reached"),
            _ if code.is_empty() => self.strange(operation, "answered what cannot be understood"),
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
