//! An export: a definition composed of what each part of the pipeline owns.

pub mod diff;
mod each;
mod tables;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use crate::contract::ContractConfig;
use crate::digest;
use crate::error::{Error, Result};
use crate::job::after::AfterFailed;
use crate::job::param::{self, Params};
use crate::job::template::Template;
use crate::ledger::NewDefinition;
use crate::protect::ProtectConfig;
use crate::sink::{Mode, SinkConfig};
use crate::source::SourceConfig;
use crate::transform::TransformConfig;

pub use tables::{SCHEMA, TABLE};

/// A definition: one TOML file under `exports/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Export {
    /// What it is, for people: `exports show` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who answers for it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The pool whose workers run it: one of those in `[worker] pools` of a worker.
    #[serde(default = "default_pool")]
    pub pool: String,
    /// The time zone of its windows, its cron, and the times in its paths: a name of the IANA
    /// database, like `Europe/Oslo`.
    #[serde(default = "default_timezone")]
    pub timezone: String,
    /// When it runs by itself. Without it, it runs when it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The parameters that its jobs give.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
    /// Where its rows come from.
    pub source: SourceConfig,
    /// Small tables in which the transform looks rows up, by the names that its SQL calls them by.
    /// Each is read whole at the start of an attempt, before the first row. Columns of a database to
    /// which that gives no exact type have one by `fields`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reference: BTreeMap<String, SourceConfig>,
    /// What is done to each row. Without it, rows stay as they are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<TransformConfig>,
    /// What its recipients are promised, checked on every row before protection. Without it, what
    /// the source has is delivered as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractConfig>,
    /// What happens to columns that tell too much: column = protection. A protection is a word in
    /// quotes, its `method`, or a table with the keys below.
    #[serde(default, skip_serializing_if = "ProtectConfig::is_empty")]
    #[cfg_attr(
        test,
        schemars(with = "std::collections::BTreeMap<String, crate::protect::Protection>")
    )]
    pub protect: ProtectConfig,
    /// Where its deliveries go.
    pub sink: SinkConfig,
    /// What it may use.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// How it is tried again.
    #[serde(default)]
    pub retry: RetryConfig,
}

impl Export {
    /// The names of the connections that it uses, where the rows come from first. One may be there
    /// more than once.
    pub fn connections(&self) -> impl Iterator<Item = &str> {
        let references = self.reference.values().map(|one| &one.connection);
        let read = [&self.source.connection].into_iter().chain(references);
        read.chain([&self.sink.connection]).map(String::as_str)
    }

    /// Where it uses the window of a job, if it does. A job without one can then never succeed.
    pub fn uses_window(&self) -> Option<&'static str> {
        let is_window = |name: &str| param::WINDOW.contains(&name);
        if self.source.uses().any(is_window) {
            return Some("[source]");
        }
        if self.reference.values().flat_map(SourceConfig::uses).any(is_window) {
            return Some("[reference]");
        }
        if self.sink.mode == Some(Mode::ReplaceWindow) {
            return Some("[sink] mode");
        }
        let named =
            [("[sink] path", self.sink.path.clone()), ("[sink] file", self.sink.template())];
        named.into_iter().find_map(|(place, text)| {
            let text = text?;
            let (template, _) = Template::read(&text, &self.param_names());
            template.placeholders().any(is_window).then_some(place)
        })
    }
}

/// An export as it is applied: its name, what it says, and the hash of what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The export's name.
    pub name: String,
    /// The file that it was read from; empty where it came from the ledger.
    pub file: PathBuf,
    /// What it says.
    pub export: Export,
    /// The export as JSON, with every default written out: the same for the same meaning, however
    /// the file was formatted. Keys of tables that name columns keep their order, which is that of
    /// the columns delivered; it is therefore not RFC 8785, which would sort them.
    pub content: String,
    /// SHA-256 of the content, in hex.
    pub hash: String,
}

impl Definition {
    /// The definition of an export that was read from `file`.
    ///
    /// # Errors
    /// `config`, when it cannot be written as JSON.
    pub fn new(name: String, file: PathBuf, export: Export) -> Result<Definition> {
        let content = serde_json::to_string(&export).map_err(|cause| {
            Error::config("write the definition", "it has no form in JSON").caused_by(cause)
        })?;
        let hash = digest::sha256(&content);
        Ok(Definition { name, file, export, content, hash })
    }
}

impl From<&Definition> for NewDefinition {
    fn from(definition: &Definition) -> NewDefinition {
        NewDefinition {
            export: definition.name.clone(),
            hash: definition.hash.clone(),
            content: definition.content.clone(),
        }
    }
}

fn default_pool() -> String {
    "default".to_owned()
}

fn default_timezone() -> String {
    "UTC".to_owned()
}

/// The `[schedule]` of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Schedule {
    /// When to look, by the clock of the export's `timezone`: minute, hour, day of the month, month, day
    /// of the week.
    pub cron: String,
    /// The windows that tile time; a window is due once it has ended. Without it, each time that
    /// cron names is one job without a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<crate::job::window::WindowSpec>,
    /// The day on which the first window starts; a schedule with windows needs it. Without windows:
    /// the day before which no time of cron counts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "day")]
    #[cfg_attr(test, schemars(with = "Option<crate::units::written::Day>"))]
    pub start: Option<jiff::civil::Date>,
    /// What becomes of windows that were missed: that ended before the previous look and have no
    /// run. What is left out is listed as skipped.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Values of params: each time there is a run for every combination of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub for_each: BTreeMap<String, Vec<Json>>,
    /// The exports that come before: its run for a window waits until every run of these for the
    /// same window is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What becomes of the run when one of those ended without a delivery.
    #[serde(default, skip_serializing_if = "is_skip")]
    pub after_failed: AfterFailed,
}

/// Whether it is what an export says that says nothing: the content of those that were applied
/// before there was a choice stays what it is.
fn is_skip(policy: &AfterFailed) -> bool {
    *policy == AfterFailed::Skip
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<jiff::civil::Date>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format!("`{text}` is no day; write one like 2026-11-01"))
    })
}

/// What becomes of windows that closed before the previous tick and have no run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// Each is delivered.
    #[default]
    All,
    /// Only the last of them is. The windows that closed since the tick before are due as ever.
    Latest,
    /// None is.
    Skip,
}

/// The `[limits]` of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// How much memory its rows may take on their way. Its references may take half of it, and a run
    /// fails whose references are larger; for other rows it is not enforced yet.
    pub memory: crate::units::Size,
    /// How long one attempt may take to stage its rows, and then to make them visible.
    #[serde(with = "crate::units::duration")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    pub timeout: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            memory: crate::units::Size(256 << 20),
            timeout: Duration::from_secs(2 * 3600),
        }
    }
}

/// The `[retry]` of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RetryConfig {
    /// How many failures of its own a run may have before it is dead. Outages and throttling are not
    /// counted.
    pub attempts: u32,
    /// How long is waited between two attempts: a random time up to the first bound, which doubles
    /// with each failure up to the second.
    pub backoff: crate::units::Backoff,
    /// How long after it was due a run is given up, whatever its failures.
    #[serde(with = "crate::units::duration")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    pub give_up_after: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            attempts: 8,
            backoff: crate::units::Backoff {
                first: Duration::from_secs(5),
                last: Duration::from_secs(600),
            },
            give_up_after: Duration::from_secs(24 * 3600),
        }
    }
}
