//! PostgreSQL: clients, what their errors mean, and values as SQL text.
//!
//! The one place that decides about TLS: see [`config`] and [`tls`], which the ledger's pool uses
//! as well.

mod text;
mod told;

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
use crate::error::{Error, Result, cause};
use crate::secret::Secret;
use crate::tls;

pub use text::{literal, quoted};
pub use told::{Quiet, classify, classify_sql};

const CONNECT: &str = "connect to PostgreSQL";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to let a client in, once it is reached.
const GREETING: Duration = Duration::from_secs(20);
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
    let at = |error: Error| named(error).with("server", server(&first));
    let connecting = async |config: &Config| {
        let connected = tokio::time::timeout(GREETING, config.connect(tls.clone())).await;
        connected.map_err(|_| {
            at(Error::unavailable(CONNECT, "the server was reached, and does not answer")
                .help("See whether it hangs, or what stands before it."))
        })
    };
    let (client, task) = match connecting(&first).await? {
        Err(error) if connection.password.is_some() && is_refused_user(&error) => {
            connecting(&settings().await.map_err(named)?).await?
        }
        other => other,
    }
    .map_err(|error| at(classify_connect(error)))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

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
}
