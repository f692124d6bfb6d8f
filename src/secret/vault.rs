//! Secrets that a vault keeps: HashiCorp Vault, OpenBao, or what speaks their HTTP API.
//!
//! Nothing that was read is kept. Whoever asks for a path while it is being asked for shares that
//! answer, so that however many connections are made at once, a process makes one request at a time
//! for each path.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Secret, given};
use crate::error::{Error, Result};
use crate::tls;

const DOING: &str = "read from the vault";
/// How long a request may take, with its answer: shorter than whoever connects to a server waits.
const ANSWER: Duration = Duration::from_secs(2);
/// No secret is longer.
const LONGEST: usize = 1 << 20;

/// The `[vault]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VaultSettings {
    /// Where the vault is: `https://host:8200` (`http://` towards this machine alone).
    pub url: String,
    /// The token that is shown to it, from the environment or a file, and read again for each request.
    pub token: Secret,
    /// The namespace that paths are in.
    pub namespace: Option<String>,
    /// A file of PEM certificates to trust besides the system's.
    pub ca: Option<String>,
}

/// A vault that can be asked.
pub struct VaultServer {
    settings: VaultSettings,
    client: OnceLock<reqwest::Client>,
    under_way: Mutex<HashMap<String, WeakShared<Asking>>>,
}

/// The fields at a path; nothing in the place of one that is no text, or an empty one.
type Fields = BTreeMap<String, Option<SecretString>>;
type Asking = BoxFuture<'static, Result<Arc<Fields>, Arc<Error>>>;

impl VaultServer {
    /// Nothing is asked yet.
    pub fn new(settings: VaultSettings) -> VaultServer {
        VaultServer { settings, client: OnceLock::new(), under_way: Mutex::default() }
    }

    /// The fields at a path, now.
    async fn fields(self: &Arc<Self>, path: &str) -> Result<Arc<Fields>> {
        let asking: Shared<Asking> = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = under_way.get(path).and_then(WeakShared::upgrade);
            match asked.filter(|asked| asked.peek().is_none()) {
                Some(asking) => asking,
                None => {
                    let (server, of) = (Arc::clone(self), path.to_owned());
                    let asking = async move {
                        server.ask(&of).await.map(Arc::new).map_err(|error| {
                            let error = error.with("path", &of);
                            Arc::new(error.with("vault", &server.settings.url))
                        })
                    };
                    let asking = asking.boxed().shared();
                    under_way.extend(asking.downgrade().map(|weak| (path.to_owned(), weak)));
                    asking
                }
            }
        };
        asking.await.map_err(|error| error.again())
    }

    async fn ask(&self, path: &str) -> Result<Fields> {
        let token =
            self.settings.token.read_here().await.map_err(|error| error.with("for", "[vault]"))?;
        let url = format!("{}/v1/{path}", self.settings.url.trim_end_matches('/'));
        let mut request = self
            .client()?
            .get(url)
            .header("X-Vault-Request", "true")
            .header("X-Vault-Token", header(token.expose_secret(), "token")?);
        if let Some(namespace) = &self.settings.namespace {
            request = request.header("X-Vault-Namespace", header(namespace, "namespace")?);
        }
        let mut answer = request.send().await.map_err(away)?;
        match answer.status().as_u16() {
            200 => {}
            status => return Err(self.refused(path, status)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > LONGEST {
                return Err(no_secret());
            }
            body.extend_from_slice(&chunk);
        }
        // A cause would quote what stands there.
        let answer: Json = serde_json::from_slice(&body).map_err(|_| no_secret())?;
        fields(&answer)
    }

    fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut builder = reqwest::Client::builder()
            .timeout(ANSWER)
            // The token is for one address.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")));
        if self.settings.url.starts_with("http:") {
            // This machine: no proxy is to see what goes there in the clear.
            builder = builder.no_proxy();
        }
        if let Some(path) = &self.settings.ca {
            let read = std::fs::read(path).map_err(|error| error.to_string());
            let certificates = read.and_then(|pem| {
                let found = reqwest::Certificate::from_pem_bundle(&pem);
                found.map_err(|error| error.to_string())
            });
            let certificates = certificates.map_err(|cause| unreadable(path).caused_by(cause))?;
            if certificates.is_empty() {
                return Err(unreadable(path));
            }
            builder = certificates.into_iter().fold(builder, |b, one| b.add_root_certificate(one));
        }
        let client = builder.build().map_err(|cause| {
            Error::config(DOING, "no HTTP client can be made")
                .caused_by(cause.without_url())
                .help("Check [vault] ca, and that there are certificates to trust.")
        })?;
        Ok(self.client.get_or_init(|| client))
    }

    /// What an answer means that has no secret in it.
    fn refused(&self, path: &str, status: u16) -> Error {
        match status {
            403 => Error::config(DOING, "it refuses the token (403)").help(format!(
                "Renew the token that {} leads to, or give it a policy with `path \"{path}\" {{ \
                 capabilities = [\"read\"] }}`.",
                self.settings.token
            )),
            404 => Error::config(DOING, "nothing is there (404)").help(
                "The path is that of the HTTP API below /v1/: `secret/data/shop` in version 2 of the \
                 KV engine (with `data/`), `kv/shop` in version 1. Was the secret deleted?",
            ),
            503 => Error::unavailable(DOING, "it is sealed, or being worked on (503)")
                .help("Unseal it; Longshore goes on by itself."),
            300..400 => Error::unavailable(DOING, format!("it leads elsewhere ({status})")).help(
                "Write the address of the active node, or of what stands before all of them, into \
                 [vault] url: a redirect is not followed.",
            ),
            412 | 429 | 472 | 473 | 500.. => {
                Error::unavailable(DOING, format!("it answered {status}"))
                    .help("Look into the vault's log; Longshore goes on by itself.")
            }
            _ => Error::config(DOING, format!("it answered {status}"))
                .help("Check [vault] url and namespace, and the path; the vault's log tells more."),
        }
    }
}

impl PartialEq for VaultServer {
    fn eq(&self, other: &VaultServer) -> bool {
        self.settings == other.settings
    }
}

impl Eq for VaultServer {}

/// What was read is left out.
impl fmt::Debug for VaultServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultServer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A field of what is at a path of a vault.
#[derive(Clone, PartialEq, Eq)]
pub struct InVault {
    path: String,
    field: String,
    /// The vault, once the settings are known.
    server: Option<Arc<VaultServer>>,
}

impl InVault {
    /// Understands `path#field`.
    pub(super) fn parse(text: &str) -> Result<InVault> {
        // A token or a password that was written here by mistake is not shown.
        let wrong = |what: &str| {
            Err(Error::config("read a secret reference", what).help(
                "Write ${vault:path#field}: the path of the HTTP API below /v1/, and one field of \
                 what is there: ${vault:secret/data/shop#password}.",
            ))
        };
        let Some((path, field)) = text.split_once('#') else {
            return wrong("the reference to the vault names no field");
        };
        let plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~@+=".contains(&b))
        };
        if field.is_empty() || !path.split('/').all(plain) {
            return wrong("the reference to the vault is no path and field");
        }
        Ok(InVault { path: path.to_owned(), field: field.to_owned(), server: None })
    }

    /// Lets it be read from `server`.
    pub fn kept_by(&mut self, server: &Arc<VaultServer>) {
        self.server = Some(Arc::clone(server));
    }

    /// The path below `/v1/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of the field.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Asks the vault, now.
    ///
    /// # Errors
    /// `unavailable` where it cannot be reached, is sealed or fails; `config` where it refuses the
    /// token, or nothing is there.
    pub(super) async fn read(&self) -> Result<SecretString> {
        let Some(server) = &self.server else {
            return Err(Error::config(DOING, "it is not known which: there is no [vault]")
                .with("path", &self.path)
                .help("Add [vault] with `url` and `token` to longshore.toml."));
        };
        let fields = server.fields(&self.path).await?;
        let (what, help) = match fields.get(&self.field) {
            Some(Some(secret)) => return Ok(secret.clone()),
            Some(None) => ("the field is empty or no text", "Put the secret there, as text."),
            None => ("there is no such field", "Put it there, or correct the reference."),
        };
        Err(Error::config(DOING, what)
            .with("path", &self.path)
            .with("field", &self.field)
            .with("vault", &server.settings.url)
            .help(help))
    }
}

/// The fields of an answer: of version 2 of the KV engine (`data.data` beside `data.metadata`), of
/// version 1, or of any other engine that can be read (`data`).
fn fields(answer: &Json) -> Result<Fields> {
    let data = &answer["data"];
    let kept = match data["metadata"]["version"].is_number() {
        true => &data["data"],
        false => data,
    };
    let kept = kept.as_object().ok_or_else(no_secret)?;
    let secret = |value: &Json| value.as_str().and_then(given);
    Ok(kept.iter().map(|(name, value)| (name.clone(), secret(value))).collect())
}

fn header(text: &str, what: &str) -> Result<reqwest::header::HeaderValue> {
    let mut value = reqwest::header::HeaderValue::from_str(text).map_err(|_| {
        Error::config(DOING, format!("the {what} has characters that none can have"))
            .help(format!("Correct [vault] {what}, or what it refers to."))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreadable(path: &str) -> Error {
    Error::config(DOING, "the file of certificates cannot be read")
        .with("ca", path)
        .help("[vault] ca names a file of PEM certificates that this user may read.")
}

fn no_secret() -> Error {
    Error::config(DOING, "the answer is none with a secret")
        .help("Check [vault] url, and that the path is that of one secret.")
}

fn away(cause: reqwest::Error) -> Error {
    if let Some(failure) = tls::failure(&cause) {
        return Error::unavailable(DOING, format!("there is no safe connection: {failure}"))
            .caused_by(cause.without_url())
            .help(tls::HELP);
    }
    let why = match (cause.is_timeout(), cause.is_connect()) {
        (true, _) => "it did not answer in time",
        (_, true) => "it cannot be reached",
        _ => "the exchange with it failed",
    };
    Error::unavailable(DOING, why)
        .caused_by(cause.without_url())
        .help("Check [vault] url, and that it runs; Longshore goes on by itself.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_versions_of_the_engine_are_understood() {
        let second = json!({"data": {
            "data": {"password": "p2\n", "port": 5432, "empty": ""},
            "metadata": {"version": 3, "created_time": "2026-11-21T00:00:00Z"},
        }});
        let read = fields(&second).unwrap();
        assert_eq!(read["password"].as_ref().unwrap().expose_secret(), "p2");
        assert!(read["port"].is_none() && read["empty"].is_none());
        // Of version 1, even where somebody has chosen these names.
        let first = json!({"data": {"data": "x", "metadata": "y", "password": "p1"}});
        let read = fields(&first).unwrap();
        assert_eq!(read["password"].as_ref().unwrap().expose_secret(), "p1");
        assert_eq!(read["data"].as_ref().unwrap().expose_secret(), "x");
        // A version that was deleted, and what is no secret at all.
        let deleted = json!({"data": {"data": null, "metadata": {"version": 4}}});
        for none in [deleted, json!({"data": ["a"]}), json!({"errors": []}), json!("text")] {
            assert!(fields(&none).is_err(), "{none}");
        }
    }
}
