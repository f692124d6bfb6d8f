//! Folders of files: on this machine, or in an object store that speaks S3.
//!
//! Requests are bounded and hardly repeated here: how often a job is tried again is decided by
//! the class of its error, not by a client that waits in silence.

use std::fmt;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService, ReqwestConnector,
};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{BackoffConfig, CredentialProvider, ObjectStore, RetryConfig};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::{Connection, is_loopback};
use crate::error::{Class, Error, Result, cause};
use crate::secret::Secret;
use crate::tls;

/// How long establishing a connection to an object store may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take: a server-side copy of the largest part fits in it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// An opened folder of files: what a connection of type `files` points to.
#[derive(Clone)]
pub struct Store {
    /// The store that holds the files. Its paths come from [`Store::path`].
    pub objects: Arc<dyn ObjectStore>,
    /// The same store, where its uploads can be completed by whoever knows their ids.
    pub uploads: Option<Arc<dyn MultipartStore>>,
    /// The connection's name, for errors.
    pub connection: String,
    /// Where the folder is, where it is on this machine.
    root: Option<PathBuf>,
    /// The connection's folder within its bucket.
    prefix: Path,
}

impl Store {
    /// Opens what `connection.url` names: `file:///folder`, `file:folder` (by now relative to the
    /// working directory), or `s3://bucket/folder`. A local folder that is missing is created.
    /// No request is made; secrets are read before the first one, once.
    ///
    /// # Errors
    /// `config`, for an address that cannot be understood, or an endpoint without TLS that is not on
    /// this machine; `unavailable` when the local folder cannot be created.
    pub fn open(connection: &Connection) -> Result<Store> {
        Store::opened(connection, true)
    }

    /// As [`Store::open`], for whoever only reads: a local folder that is missing is not created, since
    /// nothing would be found in it.
    ///
    /// # Errors
    /// Those of [`Store::open`]; `unavailable` when the local folder is not there.
    pub fn existing(connection: &Connection) -> Result<Store> {
        Store::opened(connection, false)
    }

    fn opened(connection: &Connection, create: bool) -> Result<Store> {
        let url = connection.url.as_str();
        if let Some(rest) = url.strip_prefix("s3://") {
            return s3(connection, rest);
        }
        let Some(rest) = url.strip_prefix("file:") else {
            return Err(unknown(connection, "its url has no known scheme"));
        };
        let folder = match rest.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => return Err(unknown(connection, "its url names another machine")),
            None => rest,
        };
        let folder = percent_encoding::percent_decode_str(folder)
            .decode_utf8()
            .map_err(|_| unknown(connection, "its url is not UTF-8"))?;
        if folder.is_empty() {
            return Err(unknown(connection, "its url names no folder"));
        }
        let folder = LocalPath::new(&*folder);
        if !create && !folder.is_dir() {
            return Err(gone("open the folder", folder, &connection.name));
        }
        create_durably(folder).map_err(|cause| {
            Error::unavailable("open the folder", "it is not there and cannot be created")
                .with("connection", &connection.name)
                .with("folder", folder.display())
                .caused_by(cause)
                .help("Mount or create it, or give this user the right to.")
        })?;
        Store::at(folder, &connection.name)
    }

    /// Opens a folder of this machine, which must exist.
    pub(crate) fn at(folder: &LocalPath, connection: &str) -> Result<Store> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::permanent("open the folder", "it cannot be opened")
                .with("connection", connection)
                .with("folder", folder.display())
                .caused_by(cause)
                .help("Check that it exists and that this user may read it.")
        };
        let root = folder.canonicalize().map_err(|cause| failed(cause.into()))?;
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(|e| failed(e.into()))?;
        Ok(Store {
            objects: Arc::new(objects),
            uploads: None,
            connection: connection.to_owned(),
            root: Some(root),
            prefix: Path::default(),
        })
    }

    /// The place of `relative` in [`Store::objects`]. The empty text is the folder itself.
    ///
    /// # Errors
    /// `config` for what would leave the folder or has no exact counterpart: an absolute path,
    /// `.`, `..`, an empty name between two slashes, a control character.
    pub fn path(&self, relative: &str) -> Result<Path> {
        let refuse = || {
            Error::config("find the path", "it does not stay under the connection's url")
                .with("connection", &self.connection)
                .with("path", relative)
                .help("Write a relative path without `.`, `..`, `//` and control characters.")
        };
        if relative.starts_with('/') {
            return Err(refuse());
        }
        let tail = Path::parse(relative).map_err(|_| refuse())?;
        Ok(self.prefix.parts().chain(tail.parts()).collect())
    }

    /// What [`Store::path`] was made from: `path` without the connection's own folder.
    pub fn relative(&self, path: &Path) -> String {
        match path.prefix_match(&self.prefix) {
            Some(parts) => parts.collect::<Path>().to_string(),
            None => path.to_string(),
        }
    }

    /// The file of this machine that `path` is, where the store is a folder of this machine.
    pub fn local(&self, path: &Path) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        Some(path.parts().fold(root.clone(), |folder, part| folder.join(part.as_ref())))
    }

    /// What an error is where the folder itself has gone: an outage, whatever was not found in it.
    pub fn away(&self, error: Error) -> Error {
        match &self.root {
            Some(root)
                if matches!(error.class(), Class::Permanent | Class::Transient)
                    && !root.is_dir() =>
            {
                gone(error.operation(), root, &self.connection).caused_by(error)
            }
            _ => error,
        }
    }

    /// The folder itself, where it is on this machine.
    pub fn root(&self) -> Option<&LocalPath> {
        self.root.as_deref()
    }
}

/// The client is left out: it holds credentials.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("connection", &self.connection)
            .field("root", &self.root)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The folder itself is not there, as that of a share that is not mounted.
fn gone(operation: &'static str, folder: &LocalPath, connection: &str) -> Error {
    Error::unavailable(operation, "the connection's folder is not there")
        .with("connection", connection)
        .with("folder", folder.display())
        .help("Mount or create it.")
}

fn unknown(connection: &Connection, what: &str) -> Error {
    Error::config("open the folder", what)
        .with("connection", &connection.name)
        .help("Write `file:///folder`, `file:folder` or `s3://bucket/folder`.")
}

fn s3(connection: &Connection, rest: &str) -> Result<Store> {
    let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(unknown(connection, "its url names no bucket"));
    }
    let prefix = Path::parse(folder)
        .map_err(|_| unknown(connection, "the folder in its url is not a plain path"))?;
    let mut builder = match (&connection.access_key, &connection.secret_key) {
        (Some(access), Some(secret)) => AmazonS3Builder::new().with_credentials(Arc::new(Keys {
            connection: connection.name.clone(),
            access: access.clone(),
            secret: secret.clone(),
            read: OnceCell::new(),
        })),
        (None, None) => AmazonS3Builder::from_env(),
        _ => {
            return Err(Error::config("open the bucket", "one half of the credentials is missing")
                .with("connection", &connection.name)
                .help("Give both access-key and secret-key, or neither."));
        }
    };
    if let Some(region) = &connection.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &connection.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let mut options =
        ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
    if let Some(endpoint) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint)
        && !endpoint.starts_with("https://")
    {
        let host = url::Url::parse(&endpoint).ok();
        if !host.as_ref().and_then(url::Url::host_str).is_some_and(is_loopback) {
            return Err(Error::config("open the bucket", "the endpoint does not use TLS")
                .with("connection", &connection.name)
                .help("Use https://; http:// is for stores on this machine only."));
        }
        options = options.with_allow_http(true);
    }
    let objects = builder
        .with_bucket_name(bucket)
        .with_client_options(options)
        .with_retry(RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(1), ..Default::default() },
            max_retries: 2,
            retry_timeout: Duration::from_secs(10),
        })
        .with_http_connector(Attentive)
        .build()
        .map_err(|cause| {
            Error::config("open the bucket", "its settings do not fit together")
                .with("connection", &connection.name)
                .caused_by(cause)
                .help("Check url, region and endpoint of the connection.")
        })?;
    let objects = Arc::new(objects);
    let uploads: Option<Arc<dyn MultipartStore>> = Some(objects.clone());
    Ok(Store { objects, uploads, connection: connection.name.clone(), root: None, prefix })
}

/// The credentials of a store, read before its first request.
struct Keys {
    connection: String,
    access: Secret,
    secret: Secret,
    read: OnceCell<Arc<AwsCredential>>,
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let read = async || {
            // At once: of a pair in a vault, both are of one version.
            let (access, secret) =
                tokio::try_join!(self.access.read_for_job(), self.secret.read_for_job())
                    .map_err(|error| error.with("connection", &self.connection))?;
            Ok(Arc::new(AwsCredential {
                key_id: access.expose_secret().to_owned(),
                secret_key: secret.expose_secret().to_owned(),
                token: None,
            }))
        };
        self.read.get_or_try_init(read).await.cloned().map_err(|error: Error| {
            object_store::Error::Generic { store: "S3", source: Box::new(error) }
        })
    }
}

/// What was read is left out.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Creates a folder and all above it, so that it outlasts a crash of the machine.
pub(crate) fn create_durably(folder: &LocalPath) -> std::io::Result<()> {
    if folder.is_dir() || folder.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(LocalPath::new("."));
    create_durably(parent)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(parent)
}

/// Makes the names in a folder outlast a crash of the machine.
fn sync_folder(folder: &LocalPath) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { LocalPath::new(".") } else { folder };
    std::fs::File::open(folder)?.sync_all()
}

/// Makes the names of `folder` and of all folders up to `root` outlast a crash of the machine,
/// whoever made them.
pub(crate) fn sync_up(root: &LocalPath, folder: &LocalPath) -> std::io::Result<()> {
    for folder in folder.ancestors().take_while(|one| one.starts_with(root)) {
        sync_folder(folder)?;
    }
    Ok(())
}

/// A store's answer that asks for patience, or refuses to list.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status}: {body}")]
struct Answered {
    status: u16,
    wait: Option<Duration>,
    body: String,
}

/// The usual client, which keeps some answers as an [`Answered`]: the store's own error would leave
/// nothing but its text to know them by.
#[derive(Debug)]
struct Attentive;

impl HttpConnector for Attentive {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Listening(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Listening(HttpClient);

#[async_trait]
impl HttpService for Listening {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let listing = request.uri().query().is_some_and(|query| query.contains("list-type="));
        let response = self.0.execute(request).await?;
        let status = response.status().as_u16();
        if !(matches!(status, 429 | 503) || listing && matches!(status, 401 | 403 | 404)) {
            return Ok(response);
        }
        let wait = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let body = response.into_body().bytes().await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body).into_owned();
        Err(HttpError::new(HttpErrorKind::Unknown, Answered { status, wait, body }))
    }
}

/// The error that a store's answer to `operation` is. What is not there, and what is there
/// already, is `permanent`: who expects either looks at the answer first.
pub fn classify(operation: &'static str, error: object_store::Error) -> Error {
    use object_store::Error as Answer;
    // The credentials could not be read.
    if let Some(own) = cause::<Error>(&error) {
        return own.again();
    }
    let found = match &error {
        Answer::PermissionDenied { .. } if told_of_clock(&error.to_string()) => apart(operation),
        Answer::NotFound { .. } => missing(operation),
        Answer::PermissionDenied { .. } | Answer::Unauthenticated { .. } => denied(operation),
        Answer::AlreadyExists { .. } | Answer::Precondition { .. } | Answer::NotModified { .. } => {
            Error::permanent(operation, "something else is there by now")
        }
        Answer::NotSupported { .. } | Answer::NotImplemented { .. } => {
            Error::permanent(operation, "the store cannot do that")
        }
        Answer::InvalidPath { .. } => Error::permanent(operation, "the path is not allowed"),
        _ => of_cause(operation, &error),
    };
    found.caused_by(error)
}

fn missing(operation: &'static str) -> Error {
    Error::permanent(operation, "there is no such file or bucket")
        .help("Check the path, and url and region of the connection.")
}

/// Whether an answer refuses this machine for its clock alone, as S3 does from 15 minutes on.
fn told_of_clock(answer: &str) -> bool {
    answer.contains("<Code>RequestTimeTooSkewed</Code>")
}

fn apart(operation: &'static str) -> Error {
    Error::unavailable(operation, "the store refuses requests by this machine's clock")
        .help("Set the clock right, as ntpd or chrony does; work goes on by itself then.")
}

fn denied(operation: &'static str) -> Error {
    Error::permanent(operation, "the store refused access")
        .help("Check the credentials of the connection and what they allow.")
}

/// The error that a failure on this machine's file system is.
pub(crate) fn classify_io(operation: &'static str, error: std::io::Error) -> Error {
    of_io(operation, &error).caused_by(error)
}

fn of_io(operation: &'static str, error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::permanent(operation, "the system refused access")
                .help("Give this user the right to use the folder.")
        }
        ErrorKind::NotFound => Error::permanent(operation, "there is no such file"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::unavailable(operation, "no space is left").help("Make room on the disk.")
        }
        ErrorKind::StaleNetworkFileHandle
        | ErrorKind::NotConnected
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::TimedOut => {
            Error::unavailable(operation, format!("the file system is away: {}", error.kind()))
                .help("Mount it again.")
        }
        kind => Error::transient(operation, format!("the file system failed: {kind}")),
    }
}

fn of_cause(operation: &'static str, error: &object_store::Error) -> Error {
    if let Some(Answered { status, wait, body }) = cause(error) {
        return match status {
            403 if told_of_clock(body) => apart(operation),
            401 | 403 => denied(operation),
            404 => missing(operation),
            _ => {
                let error = Error::throttled(operation, format!("the store answered {status}"));
                match wait {
                    Some(wait) => error.retry_after(*wait),
                    None => error,
                }
            }
        };
    }
    let away = match cause::<HttpError>(error).map(HttpError::kind) {
        Some(HttpErrorKind::Connect) => Some("cannot be reached"),
        Some(HttpErrorKind::Timeout) => Some("did not answer in time"),
        _ => None,
    };
    if let Some(away) = away {
        return match tls::failure(error) {
            Some(failure) => {
                let found = format!("no safe connection to the store: {failure}");
                Error::permanent(operation, found).help(tls::HELP)
            }
            None => Error::unavailable(operation, format!("{} {away}", asked(error)))
                .help("Check the endpoint of the connection, and the network."),
        };
    }
    if let Some(answer) = said(error) {
        return Error::transient(operation, format!("{} answered {answer}", asked(error)));
    }
    if cause::<HttpError>(error).is_some() {
        return Error::transient(operation, "the connection to the store was cut");
    }
    match cause::<std::io::Error>(error) {
        Some(io) => of_io(operation, io),
        None => Error::transient(operation, "the store did not do it"),
    }
}

/// Who was asked: the store, unless this machine had to give the credentials first.
fn asked(error: &object_store::Error) -> &'static str {
    let text = error.to_string();
    match ["/latest/api/token", "/latest/meta-data/"].iter().any(|path| text.contains(path)) {
        true => "the metadata service of this machine, asked for credentials,",
        false => "the store",
    }
}

/// The status that the store answered with, and its word for it: of the texts of other crates, only
/// what holds no value of anybody's.
fn said(error: &object_store::Error) -> Option<String> {
    let text = error.to_string();
    let (_, answer) = text.split_once("status code: ")?;
    let status = answer.get(..3).filter(|status| status.bytes().all(|b| b.is_ascii_digit()))?;
    let word = answer
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map(|(word, _)| word)
        .filter(|word| word.len() < 100 && word.bytes().all(|b| b.is_ascii_alphanumeric()));
    Some(word.map_or_else(|| status.to_owned(), |word| format!("{status} ({word})")))
}

#[cfg(test)]
mod tests;
