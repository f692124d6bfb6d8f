//! PostgreSQL: clients, what their errors mean, and values as SQL text.
//!
//! The one place that decides about TLS: see [`config`] and [`tls`], which the ledger's pool uses
//! as well.

mod text;

use std::error::Error as _;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{CancelToken, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Connection, Tls, is_loopback};
use crate::error::{Class, Error, Result, cause};
use crate::secret::Secret;
use crate::tls;

pub use text::{literal, quoted};

const CONNECT: &str = "connect to PostgreSQL";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// The driver's settings for a server: address, user, password, timeouts, name, and whether TLS
/// is used.
///
/// Without `tls`, certificates and names are checked, except towards this machine (a loopback
/// address or a socket), where there is no TLS. `application` is what the server shows after
/// `longshore`.
///
/// # Errors
/// `config`: no PostgreSQL URL, `sslmode` in it, or TLS disabled towards another machine.
pub fn config(
    url: &str,
    password: Option<&SecretString>,
    tls: Option<Tls>,
    application: &str,
) -> Result<Config> {
    const HELP: &str = "Write it as postgres://user@host:5432/database.";
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(Error::config(CONNECT, "the url is none of PostgreSQL").help(HELP));
    }
    if url.contains("sslmode=") {
        return Err(Error::config(CONNECT, "the url has an `sslmode`")
            .help("Leave it out, and write tls = \"verify-full\" beside the url if needed."));
    }
    let mut config = url.parse::<Config>().map_err(|cause| {
        Error::config(CONNECT, "the url cannot be understood").help(HELP).caused_by(cause)
    })?;
    if config.get_hosts().is_empty() {
        return Err(Error::config(CONNECT, "the url names no host").help(HELP));
    }
    let mode = match tls {
        None if is_local(&config) => SslMode::Disable,
        None | Some(Tls::VerifyFull) => SslMode::Require,
        Some(Tls::Disable) if is_local(&config) => SslMode::Disable,
        Some(Tls::Disable) => {
            return Err(Error::config(CONNECT, "TLS is disabled towards another machine")
                .help("Write tls = \"verify-full\", and `ca` for a private authority."));
        }
    };
    config
        .ssl_mode(mode)
        .application_name(format!("longshore {application}").trim_end())
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if let Some(password) = password {
        config.password(password.expose_secret());
    }
    Ok(config)
}

/// Where `config` leads, as errors tell it: `host:port/database`, without user and password.
pub fn server(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        }
    });
    // The server's own default is the user's name.
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.collect::<Vec<_>>().join(","))
}

fn is_local(config: &Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => is_loopback(name),
    });
    // `hostaddr` is where the connection really goes.
    hosts && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// The TLS connector that goes with `config`. `ca` is a file of PEM certificates to trust besides
/// the system's.
///
/// # Errors
/// `config`: `ca` cannot be read, or there is no certificate at all to trust.
pub fn tls(config: &Config, ca: Option<&str>) -> Result<MakeRustlsConnect> {
    let mut roots = rustls::RootCertStore::empty();
    if config.get_ssl_mode() != SslMode::Disable {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca {
            add_authorities(&mut roots, path)?;
        }
        if roots.is_empty() {
            return Err(Error::config(CONNECT, "there is no certificate to trust")
                .help("Install the system's CA certificates, or name a file by `ca`."));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| Error::config(CONNECT, "TLS cannot be set up").caused_by(cause))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}

fn add_authorities(roots: &mut rustls::RootCertStore, path: &str) -> Result<()> {
    let unreadable = |message: &str| {
        Error::config(CONNECT, message)
            .with("ca", path)
            .help("`ca` names a file of PEM certificates that this user may read.")
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|list| list.collect::<Result<Vec<_>, _>>())
        .map_err(|cause| {
            unreadable("the file of certificates cannot be read").caused_by(cause.to_string())
        })?;
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err(unreadable("the file holds no certificate that can be used")),
        (_, 0) => Ok(()),
        (_, _) => Err(unreadable("the file holds a certificate that cannot be used")),
    }
}

/// A connection that is cut off when dropped: what it is doing at the server is cancelled. Call
/// [`Client::close`] to leave in peace.
pub struct Client {
    client: tokio_postgres::Client,
    link: Link,
}

struct Link {
    cancel: CancelToken,
    tls: MakeRustlsConnect,
    /// None once the connection was closed in peace.
    task: Option<JoinHandle<()>>,
}

impl Client {
    /// Says goodbye to the server, after all that was sent has been answered.
    pub async fn close(self) {
        let Client { client, mut link } = self;
        drop(client);
        if let Some(task) = link.task.take() {
            // The task ends by itself; should it panic, there is nothing left to save.
            let _ = task.await;
        }
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(task) = self.task.take().filter(|task| !task.is_finished()) else { return };
        let (cancel, tls) = (self.cancel.clone(), self.tls.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            task.abort();
            return;
        };
        // Closing the socket alone would not stop a query that has nothing to send yet.
        runtime.spawn(async move {
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancel.cancel_query(tls)).await;
            task.abort();
        });
    }
}

/// Connects to the database that `connection` names. `application` is what the server shows
/// after `longshore` in its list of sessions.
///
/// The password is read anew each time, and once more when the server refuses it, so that a
/// rotated secret is found.
///
/// # Errors
/// `config` as [`config`] and [`tls`] say; `unavailable` when the server cannot be reached or the
/// password is not where its reference points; `permanent` when it refuses the user.
pub async fn connect(connection: &Connection, application: &str) -> Result<Client> {
    let named = |error: Error| error.with("connection", &connection.name);
    let settings = async || {
        let password = Secret::read_any_for_job(connection.password.as_ref()).await?;
        config(&connection.url, password.as_ref(), connection.tls, application)
    };
    let first = settings().await.map_err(named)?;
    let tls = tls(&first, connection.ca.as_deref()).map_err(named)?;
    let (client, task) = match first.connect(tls.clone()).await {
        Err(error) if connection.password.is_some() && is_refused_user(&error) => {
            settings().await.map_err(named)?.connect(tls.clone()).await
        }
        other => other,
    }
    .map_err(|error| named(classify_connect(error)).with("server", server(&first)))?;
    let task = tokio::spawn(async move {
        // Its error reaches whoever waits for an answer, as a closed connection.
        let _ = task.await;
    });
    let link = Link { cancel: client.cancel_token(), tls, task: Some(task) };
    Ok(Client { client, link })
}

fn is_refused_user(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| state.code().starts_with("28"))
}

/// What an error while connecting means; see [`classify`].
pub fn classify_connect(error: tokio_postgres::Error) -> Error {
    if error.as_db_error().is_some() {
        return classify(CONNECT, error);
    }
    if let Some(failure) = tls::failure(&error) {
        return Error::permanent(CONNECT, failure).help(tls::HELP).caused_by(Quiet(error));
    }
    match cause::<std::io::Error>(&error).map(told) {
        Some(told) => Error::unavailable(CONNECT, told)
            .help("Check that the server runs and that this machine may reach it.")
            .caused_by(Quiet(error)),
        None if error.is_closed() => {
            Error::unavailable(CONNECT, "the server closed the connection").caused_by(Quiet(error))
        }
        None => {
            let error = Quiet(error);
            Error::permanent(CONNECT, error.to_string())
                .help("Check user and password of the connection, and that the server offers TLS.")
                .caused_by(error)
        }
    }
}

/// What kept a connection from being made. Of errors without a kind of their own, such as a name that
/// nobody knows, only their words tell.
fn told(error: &std::io::Error) -> String {
    let kind = error.kind().to_string();
    match kind.as_str() {
        "uncategorized error" | "other error" => error.to_string(),
        _ => kind,
    }
}

/// What an error of the driver means for the work, by SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
///
/// The message has the SQLSTATE, names of tables, columns and constraints, and the server's own
/// words only where those cannot quote a value.
pub fn classify(operation: &'static str, error: tokio_postgres::Error) -> Error {
    let found = classified(operation, &error);
    found.caused_by(Quiet(error))
}

/// The word at which the server stumbled over the syntax of `sent`, where it stands in `written` too:
/// then it is a word of the definition and no value of a parameter.
pub fn stumbled<'a>(
    error: &tokio_postgres::Error,
    sent: &str,
    written: &'a str,
) -> Option<&'a str> {
    let server = error.as_db_error().filter(|server| server.code().code() == "42601")?;
    let tokio_postgres::error::ErrorPosition::Original(at) = server.position()? else {
        return None;
    };
    let at = usize::try_from(*at).ok()?.checked_sub(1)?;
    let word: String =
        sent.chars().skip(at).take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let start = written.find(&word).filter(|_| !word.is_empty())?;
    written.get(start..start + word.len())
}

/// A driver's error as the cause of ours. It shows nothing, since the server's words and details
/// may quote rows; its SQLSTATE and the names that it carries can still be asked for.
#[derive(Debug)]
pub struct Quiet(
    /// The driver's own.
    pub tokio_postgres::Error,
);

impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.code(), self.0.source()) {
            (Some(state), _) => write!(f, "SQLSTATE {}", state.code()),
            (None, Some(cause)) => write!(f, "{}: {cause}", self.0),
            (None, None) => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Quiet {}

fn classified(operation: &'static str, error: &tokio_postgres::Error) -> Error {
    let Some(server) = error.as_db_error() else {
        // Without an answer of the server, the connection is gone or the answer is not one.
        return if error.is_closed() || cause::<std::io::Error>(error).is_some() {
            Error::transient(operation, "the connection was cut")
        } else {
            Error::permanent(operation, error.to_string())
        };
    };
    let state = server.code().code().to_owned();
    let class = class_of(&state);
    let words = if may_quote_values(&state) { "the server refused it" } else { server.message() };
    let mut found = Error::new(class, operation, format!("{words} (SQLSTATE {state})"));
    for (name, value) in [
        ("table", server.table()),
        ("column", server.column()),
        ("constraint", server.constraint()),
    ] {
        if let Some(value) = value {
            found = found.with(name, value);
        }
    }
    if let Some(help) = help_for(&state) {
        found = found.help(help);
    }
    found
}

fn class_of(state: &str) -> Class {
    match state {
        // Shutdowns, a server that is starting, too many connections, full disks and memory.
        _ if state.starts_with("08") || state.starts_with("53") => Class::Unavailable,
        "57P01" | "57P02" | "57P03" | "57P05" => Class::Unavailable,
        // It takes no writes: a standby, as which a primary comes back that was replaced.
        "25006" => Class::Unavailable,
        // Serialization and deadlock; a lock not had in time; a statement that was cancelled.
        "40001" | "40P01" | "40003" | "55P03" | "57014" => Class::Transient,
        // Idle for too long in a transaction, a snapshot too old, a failed server process.
        "25P03" | "25P04" | "72000" | "58000" | "58030" => Class::Transient,
        _ => Class::Permanent,
    }
}

/// Data exceptions quote the datum, syntax errors the word they stumble over (which may be a
/// rendered parameter), and a raised exception whatever its author put in.
fn may_quote_values(state: &str) -> bool {
    state.starts_with("22") || state.starts_with("P0") || matches!(state, "42601" | "23514")
}

fn help_for(state: &str) -> Option<&'static str> {
    Some(match state {
        "42P01" => "Check the table's name and schema, and that the user may see it.",
        "42703" => "Check the column's name.",
        "42501" => "Grant the user the right to do this.",
        "42601" => "Check the SQL of the definition.",
        "3D000" => "Check the database's name in the url.",
        "25006" => "Only reading is allowed here.",
        _ if state.starts_with("28") => "Check the user and the password of the connection.",
        _ if state.starts_with("22") => {
            "A value does not fit an expression of the SQL; the server's log has its words."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str, tls: Option<Tls>) -> Result<SslMode> {
        config(url, None, tls, "test").map(|config| config.get_ssl_mode())
    }

    #[test]
    fn tls_is_left_off_towards_this_machine_only() {
        for local in ["postgres://u@127.0.0.1/d", "postgres://u@[::1]/d", "postgres://u@%2Frun/d"] {
            assert_eq!(mode(local, None).unwrap(), SslMode::Disable, "{local}");
            assert_eq!(mode(local, Some(Tls::VerifyFull)).unwrap(), SslMode::Require);
        }
        for remote in [
            "postgres://u@db.internal/d",
            "postgres://u@localhost,db.internal/d",
            "postgres://u@localhost/d?hostaddr=10.0.0.1",
        ] {
            assert_eq!(mode(remote, None).unwrap(), SslMode::Require, "{remote}");
            let refused = mode(remote, Some(Tls::Disable)).unwrap_err();
            assert_eq!(refused.class(), Class::Config, "{remote}");
        }
        assert!(mode("postgres://u@db/d?sslmode=disable", None).is_err());
        assert!(mode("mysql://u@db/d", None).is_err());
    }

    #[test]
    fn a_server_is_told_without_who_logs_in() {
        for (url, told) in [
            ("postgres://me:hunter2@db.internal:5433/shop", "db.internal:5433/shop"),
            ("postgres://me:hunter2@[::1]/shop", "[::1]:5432/shop"),
            ("postgres://me@a:1,b:2/shop", "a:1,b:2/shop"),
            ("postgres://shop:hunter2@%2Frun/", "/run:5432/shop"),
        ] {
            assert_eq!(server(&config(url, None, None, "test").unwrap()), told);
        }
    }

    #[tokio::test]
    async fn an_error_while_connecting_names_connection_and_server_once() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut away: Connection = serde_json::from_value(serde_json::json!({
            "type": "postgres", "url": format!("postgres://me@127.0.0.1:{port}/shop"),
        }))
        .unwrap();
        away.name = "away".to_owned();
        let refused =
            |error: Result<Client>| error.map(|_| ()).unwrap_err().with("connection", "away");
        assert_eq!(
            refused(connect(&away, "test").await).to_string(),
            format!(
                "cannot connect to PostgreSQL: connection refused (connection away, server \
                 127.0.0.1:{port}/shop)"
            )
        );
        away.password = Some(Secret::Env("LONGSHORE_TEST_NOT_SET".to_owned()));
        let error = refused(connect(&away, "test").await);
        assert_eq!(error.class(), Class::Unavailable);
        assert!(error.to_string().contains("variable LONGSHORE_TEST_NOT_SET"), "{error}");
    }

    #[test]
    fn an_unreadable_file_of_certificates_is_named() {
        let config = config("postgres://u@db.internal/d", None, None, "test").unwrap();
        let error = tls(&config, Some("/nowhere/ca.pem")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn classes_follow_the_sqlstate() {
        for (state, class) in [
            ("08006", Class::Unavailable),
            ("57P01", Class::Unavailable),
            ("53300", Class::Unavailable),
            ("25006", Class::Unavailable),
            ("40001", Class::Transient),
            ("55P03", Class::Transient),
            ("28P01", Class::Permanent),
            ("42P01", Class::Permanent),
            ("22P02", Class::Permanent),
        ] {
            assert_eq!(class_of(state), class, "{state}");
        }
    }
}
