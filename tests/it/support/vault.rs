//! A vault that is none: it answers as the HTTP API of HashiCorp Vault is documented to.
//!
//! Version 2 of its KV engine is in no server that the registries of packages have, and the one that has
//! version 1 (RustyVault) needs OpenSSL and takes minutes to build. Its answers were compared by hand:
//! 200, 400, 403, 404 and 503 mean the same there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use longshore::secret::Secret;
use longshore::secret::vault::{VaultServer, VaultSettings};
use serde_json::{Value as Json, json};
use url::Url;

/// The token that it takes.
pub const TOKEN: &str = "hvs.canary-of-the-token";

/// The server. It ends with the runtime.
pub struct Vault {
    port: u16,
    kept: Arc<Mutex<Kept>>,
}

/// What it keeps, and how it answers.
#[derive(Default)]
pub struct Kept {
    /// Whether it is sealed.
    pub sealed: bool,
    /// What it answers to every request in the place of a secret: a status, and a body.
    pub instead: Option<(u16, String)>,
    /// How long it takes to answer.
    pub pause: Duration,
    /// The paths that it was asked for.
    pub asked: Vec<String>,
    /// The namespace of the last request.
    pub namespace: Option<String>,
    paths: BTreeMap<String, Json>,
}

impl Vault {
    /// Starts it, empty and unsealed.
    pub async fn start() -> Vault {
        let kept = Arc::<Mutex<Kept>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&kept));
        tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
        Vault { port, kept }
    }

    /// Where it is.
    pub fn url(&self) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}", self.port)).unwrap()
    }

    /// What it keeps.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Keeps fields in version 1 of the KV engine.
    pub fn keep(&self, path: &str, fields: Json) {
        self.kept().paths.insert(path.to_owned(), json!({"lease_duration": 3600, "data": fields}));
    }

    /// Keeps fields in version 2, at `mount/data/…`.
    pub fn keep_second(&self, path: &str, fields: Json) {
        let metadata =
            json!({"version": 1, "created_time": "2026-11-21T04:15:00Z", "destroyed": false});
        let answer = json!({"data": {"data": fields, "metadata": metadata}});
        self.kept().paths.insert(path.to_owned(), answer);
    }

    /// The settings that lead to it.
    pub fn settings(&self) -> VaultSettings {
        VaultSettings {
            url: self.url().to_string(),
            token: Secret::Literal(TOKEN.to_owned()),
            namespace: None,
            ca: None,
        }
    }

    /// A reference that is read from it.
    pub fn secret(&self, path_and_field: &str) -> Secret {
        secret(self.settings(), path_and_field)
    }
}

/// A reference that is read as the settings say.
pub fn secret(settings: VaultSettings, path_and_field: &str) -> Secret {
    let mut secret = Secret::parse(&format!("${{vault:{path_and_field}}}")).unwrap();
    let Secret::Vault(one) = &mut secret else { panic!("{secret} is in no vault") };
    one.kept_by(&Arc::new(VaultServer::new(settings)));
    secret
}

async fn answer(State(kept): State<Arc<Mutex<Kept>>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches("/v1/").to_owned();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (pause, response) = {
        let mut kept = kept.lock().unwrap();
        kept.asked.push(path.clone());
        kept.namespace = header("X-Vault-Namespace").map(str::to_owned);
        let errors = |status: StatusCode| (status, r#"{"errors":[]}"#).into_response();
        let response = match (&kept.instead, kept.paths.get(&path)) {
            (Some((status, body)), _) => {
                let status = StatusCode::from_u16(*status).unwrap();
                (status, [("location", "/v1/elsewhere")], body.clone()).into_response()
            }
            _ if kept.sealed => errors(StatusCode::SERVICE_UNAVAILABLE),
            _ if header("X-Vault-Token") != Some(TOKEN) => errors(StatusCode::FORBIDDEN),
            (None, None) => errors(StatusCode::NOT_FOUND),
            (None, Some(answer)) => answer.to_string().into_response(),
        };
        (kept.pause, response)
    };
    tokio::time::sleep(pause).await;
    response
}
