//! Connections: named systems, their clients and their type maps, shared by sources and sinks.

pub mod files;
pub mod postgres;
pub mod sql;
pub mod sqlite;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::units::Rate;

/// A named system: one table of `connections.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Connection {
    /// The name by which exports know it. Set from the table's name.
    #[serde(skip)]
    pub name: String,
    /// Which kind of system it is.
    #[serde(rename = "type")]
    pub kind: System,
    /// Where it is: `postgres://user@host:5432/database`, `sqlite:shop.db`, `s3://bucket/folder`,
    /// `file:///a/folder` or `file:folder`. Holds no secret.
    pub url: String,
    /// The password that goes with the user in `url`.
    pub password: Option<Secret>,
    /// PostgreSQL: how TLS is used. Default: always, but towards this machine.
    pub tls: Option<Tls>,
    /// PostgreSQL: a file of PEM certificates to trust besides the system's.
    pub ca: Option<String>,
    /// How many runs may use it at once, over the whole fleet; others are parked. Default: any number.
    pub max_runs: Option<u32>,
    /// How many attempts may begin on it, over the whole fleet. A run that has to wait longer is put
    /// off, which uses up no attempt.
    pub max_requests: Option<Rate>,
    /// S3: the region.
    pub region: Option<String>,
    /// S3: the endpoint of a store that is not Amazon's.
    pub endpoint: Option<String>,
    /// S3: the access key; without it, the environment's own credentials.
    pub access_key: Option<Secret>,
    /// S3: the secret key.
    pub secret_key: Option<Secret>,
    /// Files: the folder under `url` where parts are staged. Recipients get no right to read it.
    #[serde(default = "default_staging")]
    pub staging: String,
}

impl Connection {
    /// The references to its secrets.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        [&self.password, &self.access_key, &self.secret_key].into_iter().flatten()
    }
}

/// Whether a host in an address is this machine by its loopback, towards which TLS is not asked for.
pub(crate) fn is_loopback(host: &str) -> bool {
    // An address of version 6 stands in brackets in a URL.
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn default_staging() -> String {
    ".longshore".to_owned()
}

/// The systems that can be read from and written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// A PostgreSQL database.
    Postgres,
    /// An SQLite database file.
    Sqlite,
    /// Files in a local folder or an object store.
    Files,
    /// Nothing: as a source it has no rows, as a sink it counts them and keeps none. For measuring
    /// and trying out.
    Discard,
}

/// How a connection uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Not at all; refused unless the address is of this machine.
    Disable,
    /// Always, with the server's certificate and name checked.
    VerifyFull,
}
