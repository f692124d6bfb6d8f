//! `longshore.toml`: how an installation runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::problem::{Code, Problems};
use super::tree::Node;
use crate::connect::is_loopback;
use crate::notify::NotifySettings;
use crate::secret::Secret;
use crate::secret::vault::VaultSettings;
use crate::worker::WorkerSettings;

/// How an installation runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What queue, ledger and claims stand on.
    pub backing: Backing,
    /// How many messages a job queue holds before it refuses more. Default: 1,000,000.
    pub max_length: u32,
    /// `[queue] management`: the broker's management API (`http://host:15672`), which `longshore
    /// doctor` asks with the user of the queue. Without it, policies and alarms of other nodes are
    /// not looked at.
    pub management: Option<String>,
    /// How long history and keys are remembered. Default: 400 days.
    pub keep: Duration,
    /// `[worker]`
    pub worker: WorkerSettings,
    /// `[http]`
    pub http: HttpSettings,
    /// `[keys]`: the keys of protections by name.
    pub keys: BTreeMap<String, Secret>,
    /// `[quarantine]`: where refused rows are kept. Without it, one refused row fails its run.
    pub quarantine: Option<QuarantineSettings>,
    /// `[notify]`: who is told of runs that are dead, late or stuck. Without it, nobody is.
    pub notify: Option<NotifySettings>,
    /// `[vault]`: what keeps the secrets that `${vault:…}` refers to.
    pub vault: Option<VaultSettings>,
    /// `[log]`
    pub log: LogSettings,
}

/// The `[quarantine]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// The files connection.
    pub connection: String,
    /// The key that the rows are encrypted with: an identity of age.
    pub key: Secret,
    /// How long after the end of their run rows are kept. Default: 30 days.
    pub keep: Duration,
}

/// What queue, ledger and claims stand on: one file, or three servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// One SQLite file.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// RabbitMQ, PostgreSQL and Redis.
    Servers {
        /// The queue.
        amqp: Server,
        /// The ledger.
        postgres: Server,
        /// The claims.
        redis: Server,
    },
}

/// A server's address, and the password that goes with the user in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address. Holds no secret.
    pub url: String,
    /// The password.
    pub password: Option<Secret>,
}

/// The `[http]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Where probes and metrics are served. Default: `127.0.0.1:8640`.
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
}

fn listen<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is no address to listen on; write IP and port: \"127.0.0.1:8640\""
        ))
    })
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings { listen: SocketAddr::from(([127, 0, 0, 1], 8640)) }
    }
}

/// The `[log]` of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LogSettings {
    /// How lines are written. Default: `auto`.
    pub format: LogFormat,
    /// The least important lines that are written. Default: `info`.
    pub level: LogLevel,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One object a line.
    Json,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum LogLevel {
    /// Something is lost or stuck unless somebody acts.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What a reader wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct SettingsFile {
    /// What carries jobs to workers.
    queue: Queue,
    /// What keeps the truth about every run.
    ledger: Ledger,
    /// What tells workers quickly who holds a key.
    claims: Claims,
    /// How a worker works.
    #[serde(default)]
    worker: WorkerSettings,
    /// Probes and metrics.
    #[serde(default)]
    http: HttpSettings,
    /// Keys of the installation.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "KeysTable"))]
    keys: BTreeMap<String, Secret>,
    /// Where refused rows are kept. Without it, one refused row fails its run.
    #[serde(default)]
    quarantine: Option<Quarantine>,
    /// Who is told of runs that are dead, late or stuck. Without it, nobody is.
    #[serde(default)]
    notify: Option<NotifySettings>,
    /// What keeps the secrets that `${vault:path#field}` refers to: HashiCorp Vault, or what speaks its HTTP
    /// API.
    #[serde(default)]
    vault: Option<VaultSettings>,
    /// What processes log to standard error.
    #[serde(default)]
    log: LogSettings,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Queue {
    /// `amqps://user@host:5671/%2f` (`amqp://` towards this machine alone), or `sqlite:longshore.db`.
    url: String,
    /// The password of the user in `url`.
    password: Option<Secret>,
    /// How many messages a job queue holds; the broker refuses more, and nothing is lost.
    #[serde(default = "a_million")]
    max_length: u32,
    /// The broker's management API, `https://host:15671`, which `longshore doctor` asks with the user
    /// of the queue. Without it, policies and alarms of other nodes are not looked at.
    management: Option<String>,
}

fn a_million() -> u32 {
    1_000_000
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Ledger {
    /// `postgres://user@host:5432/database`, always with TLS towards another machine, or
    /// `sqlite:longshore.db`.
    url: String,
    /// The password of the user in `url`.
    password: Option<Secret>,
    /// How long history is kept, and keys are remembered.
    #[serde(with = "crate::units::duration", default = "four_hundred_days")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    keep: Duration,
}

fn four_hundred_days() -> Duration {
    Duration::from_secs(400 * 86_400)
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Claims {
    /// `rediss://user@host:6379/0` (`redis://` towards this machine alone), or `sqlite:longshore.db`.
    url: String,
    /// The password of the user in `url`, or of the server where it names none.
    password: Option<Secret>,
}

/// What `[keys]` may have, for the reference.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct KeysTable {
    /// The key from which hashes and tokens are made. Whoever has it can tell whose they are. Without
    /// it nothing can be hashed or made a token, and with another one they differ from those of old
    /// deliveries.
    pseudonyms: Option<Secret>,
    /// A key by a name of your own, for `encrypt`: 128 hex digits, as `openssl rand -hex 64` makes
    /// them. The recipient of what is encrypted under it has it too.
    #[schemars(rename = "<name>")]
    name: Option<Secret>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Quarantine {
    /// A connection of type `files`, which recipients cannot read.
    connection: String,
    /// An age identity (<https://age-encryption.org/v1>), to which refused rows are encrypted. It is needed:
    /// `longshore quarantine key` makes one.
    key: Option<Secret>,
    /// How long refused rows are kept after their run has ended.
    #[serde(with = "crate::units::duration", default = "thirty_days")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    keep: Duration,
}

fn thirty_days() -> Duration {
    Duration::from_secs(30 * 86_400)
}

impl SettingsFile {
    /// Checks what one key alone cannot tell. `None` after a problem with the three addresses.
    pub fn check(self, tree: &Node, problems: &mut Problems) -> Option<Settings> {
        for (section, secret) in [
            ("queue", &self.queue.password),
            ("ledger", &self.ledger.password),
            ("claims", &self.claims.password),
        ] {
            super::validate::secret(secret.as_ref(), tree, &[section, "password"], problems);
        }
        for (name, secret) in &self.keys {
            super::validate::secret(Some(secret), tree, &["keys", name], problems);
            if !super::is_name(name) {
                super::bad_name("key", name, tree.key_at(&["keys", name]), problems);
            }
        }
        self.worker(tree, problems);
        self.posts(tree, problems);
        self.token(tree, problems);
        let quarantine = self.quarantine(tree, problems);
        let backing = self.backing(tree, problems);
        Some(Settings {
            backing: backing?,
            max_length: self.queue.max_length,
            management: self.queue.management,
            keep: self.ledger.keep,
            worker: self.worker,
            http: self.http,
            keys: self.keys,
            quarantine,
            notify: self.notify,
            vault: self.vault,
            log: self.log,
        })
    }

    /// Checks how refused rows are kept.
    fn quarantine(&self, tree: &Node, problems: &mut Problems) -> Option<QuarantineSettings> {
        let Quarantine { connection, key, keep } = self.quarantine.as_ref()?;
        super::validate::secret(key.as_ref(), tree, &["quarantine", "key"], problems);
        if keep.is_zero() {
            let place = tree.at(&["quarantine", "keep"]);
            problems
                .add(Code::BadValue, place, "refused rows are to be kept for no time", "")
                .help("write \"30d\", or whatever time is needed to look at them");
        }
        let Some(key) = key else {
            let place = tree.at(&["quarantine", "connection"]);
            problems
                .add(
                    Code::NoQuarantineKey,
                    place,
                    "refused rows are encrypted, and there is no key",
                    "",
                )
                .help(
                    "add `key = \"${file:/run/secrets/quarantine}\"` under [quarantine]; \
                     `longshore quarantine key` makes one",
                );
            return None;
        };
        Some(QuarantineSettings { connection: connection.clone(), key: key.clone(), keep: *keep })
    }

    /// Checks the token that is shown to the vault.
    fn token(&self, tree: &Node, problems: &mut Problems) {
        let token = self.vault.as_ref().map(|vault| &vault.token);
        super::validate::secret(token, tree, &["vault", "token"], problems);
        if let Some(Secret::Vault(_)) = token {
            problems
                .add(
                    Code::BadValue,
                    tree.at(&["vault", "token"]),
                    "the token for the vault is in the vault",
                    "",
                )
                .help("write \"${file:/run/secrets/vault-token}\" or \"${env:VAULT_TOKEN}\"");
        }
    }

    /// Checks the addresses that are asked or told over HTTP.
    fn posts(&self, tree: &Node, problems: &mut Problems) {
        let notify = self.notify.as_ref();
        let secret = notify.and_then(|notify| notify.secret.as_ref());
        super::validate::secret(secret, tree, &["notify", "secret"], problems);
        for (section, key, url) in [
            ("notify", "url", notify.map(|notify| &notify.url)),
            ("queue", "management", self.queue.management.as_ref()),
            ("vault", "url", self.vault.as_ref().map(|vault| &vault.url)),
        ] {
            let Some(url) = url else { continue };
            let place = tree.at(&[section, key]);
            super::validate::no_password(url, place, problems);
            let parsed = url::Url::parse(url).ok().filter(|url| url.has_host());
            match parsed {
                Some(url) if url.scheme() == "https" => {}
                Some(url) if url.scheme() == "http" => {
                    if !is_loopback(url.host_str().unwrap_or_default()) {
                        problems
                            .add(Code::NoTls, place, "another machine is reached only with TLS", "")
                            .help("write \"https://host\"; http:// is for localhost only");
                    }
                }
                _ => problems
                    .add(Code::BadUrl, place, "this is no address of HTTP", "")
                    .help("write \"https://host/path\""),
            }
        }
        if self.queue.management.is_some() && self.queue.url.starts_with("sqlite:") {
            let place = tree.key_at(&["queue", "management"]);
            problems.add(Code::Unfit, place, "a file has no management API", "remove it");
        }
    }

    fn worker(&self, tree: &Node, problems: &mut Problems) {
        let mut refuse = |key: &str, wrong: bool, what: &str, help: &str| {
            if wrong {
                problems.add(Code::BadValue, tree.at(&["worker", key]), what, "").help(help);
            }
        };
        let worker = &self.worker;
        refuse("concurrency", worker.concurrency == 0, "a worker without jobs", "write 1 or more");
        refuse(
            "pools",
            worker.pools.is_empty() || worker.pools.values().any(|weight| *weight == 0),
            "a worker needs a pool, and each pool a weight of 1 or more",
            "write `pools = { default = 1 }`",
        );
        refuse(
            "lease",
            worker.lease < Duration::from_secs(5),
            "the lease is too short to be renewed in time",
            "write \"5s\" or more; \"60s\" is usual",
        );
        refuse(
            "hold",
            worker.hold > Duration::from_secs(25 * 60),
            "messages would be held too near the broker's consumer timeout of 30 minutes",
            "write \"25m\" or less; longer jobs let their message go and work on",
        );
        for pool in worker.pools.keys().filter(|pool| !super::is_name(pool)) {
            let place = tree.key_at(&["worker", "pools", pool]);
            super::bad_name("pool", pool, place, problems);
        }
    }

    fn backing(&self, tree: &Node, problems: &mut Problems) -> Option<Backing> {
        let parts = [
            ("queue", &self.queue.url, &self.queue.password, ["amqps", "amqp"]),
            ("ledger", &self.ledger.url, &self.ledger.password, ["postgres", "postgresql"]),
            ("claims", &self.claims.url, &self.claims.password, ["rediss", "redis"]),
        ];
        let mut schemes = Vec::new();
        for (section, url, _, known) in &parts {
            let place = tree.at(&[section, "url"]);
            super::validate::no_password(url, place, problems);
            let scheme = url.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
            let fits = match scheme {
                "sqlite" => url.len() > "sqlite:".len(),
                other => known.contains(&other) && url::Url::parse(url).is_ok_and(|u| u.has_host()),
            };
            if !fits {
                problems
                    .add(Code::BadUrl, place, format!("this is no address for the {section}"), "")
                    .help(format!("write \"{}://host\" or \"sqlite:longshore.db\"", known[0]));
                continue;
            }
            let host = url::Url::parse(url).ok();
            let host = host.as_ref().and_then(url::Url::host_str).unwrap_or_default();
            // PostgreSQL agrees on TLS without a word in the address: see `connect::postgres`.
            if matches!(scheme, "amqp" | "redis") && !is_loopback(host) {
                problems
                    .add(Code::NoTls, place, "another machine is reached only with TLS", "")
                    .help(format!("write \"{scheme}s://host\"; {scheme}:// is for localhost only"));
            }
            schemes.push((*section, scheme, place));
        }
        let &[(_, first, _), ..] = schemes.as_slice() else { return None };
        if schemes.len() < parts.len() {
            return None;
        }
        let embedded = first == "sqlite";
        if let Some((_, _, place)) =
            schemes.iter().find(|(_, scheme, _)| (*scheme == "sqlite") != embedded)
        {
            let list: Vec<_> =
                schemes.iter().map(|(s, scheme, _)| format!("{s} {scheme}:")).collect();
            problems
                .add(
                    Code::Mixture,
                    place,
                    format!("servers and a file are mixed: {}", list.join(", ")),
                    if embedded { "a server" } else { "a file" },
                )
                .help("all three are sqlite: with one file, or amqp:, postgres: and redis:");
            return None;
        }
        if !embedded {
            let [amqp, postgres, redis] = parts.map(|(_, url, password, _)| Server {
                url: url.clone(),
                password: password.clone(),
            });
            return Some(Backing::Servers { amqp, postgres, redis });
        }
        for (section, url, password, _) in &parts {
            if *url != parts[0].1 {
                let place = tree.at(&[section, "url"]);
                problems
                    .add(Code::Apart, place, "queue, ledger and claims name different files", "")
                    .help(format!("write \"{}\" in all three", parts[0].1));
                return None;
            }
            if password.is_some() {
                let place = tree.key_at(&[section, "password"]);
                problems.add(Code::Unfit, place, "a file has no password", "remove it");
            }
        }
        let path = parts[0].1.trim_start_matches("sqlite:");
        Some(Backing::Embedded { path: PathBuf::from(path.strip_prefix("//").unwrap_or(path)) })
    }
}
