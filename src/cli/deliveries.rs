//! `longshore deliveries`

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::arguments::past;
use super::output::{clock, counted, place, plain, thousands};
use super::runs::{LIMITS, cut_short, endings, in_few_words, tell_unknown, window_under};
use super::{Context, Ended, Failure, Verdict, told};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::intake::Definitions;
use crate::job::manifest::Manifest;
use crate::ledger::{Delivered, DeliveryFilter, Ledger, RecordedDelivery, one_delivery};
use crate::units::Size;
use crate::wiring;

/// How many deliveries a list has, unless it is said.
const LIMIT: u32 = 20;

/// See what was delivered: when, to where, and what has taken its place since
///
/// Alone it is `deliveries list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore deliveries
  longshore deliveries list --export daily-orders --since 30d
  longshore deliveries list --since 2026-11-01 --until 2026-12-01 --limit 10000 --json
  longshore deliveries show 7c2f9a1e
  longshore deliveries show 7c2f9a1e --json | jq .manifest")]
pub struct Deliveries {
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Deliveries, newest first
    List(List),
    /// One delivery: what it holds, file by file, and who asked for it
    Show {
        /// The ending of the delivery's name, or of its run's, as tables show it
        delivery: String,
    },
}

#[derive(Debug, Default, Args)]
struct List {
    /// Only deliveries of this export
    #[arg(long)]
    export: Option<String>,
    /// Only deliveries recorded since: 24h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    since: Option<Timestamp>,
    /// Only deliveries recorded before: 24h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    until: Option<Timestamp>,
    /// At the most so many; default: 20
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMITS)))]
    limit: Option<u32>,
}

impl Deliveries {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        match self.command.unwrap_or_else(|| What::List(List::default())) {
            What::List(list) => list.run(context, &config, ledger).await?,
            What::Show { delivery } => show(context, &config, ledger, &delivery).await?,
        }
        Ok(Verdict::Done)
    }
}

impl List {
    async fn run(
        self,
        context: &Context,
        config: &Config,
        ledger: Arc<dyn Ledger>,
    ) -> Result<(), Failure> {
        let now = ledger.now().await?;
        let limit = self.limit.unwrap_or(LIMIT);
        let filter = DeliveryFilter {
            export: self.export,
            since: self.since,
            until: self.until,
            ending: None,
            // One more tells whether there are more.
            limit: limit + 1,
        };
        let mut found = ledger.deliveries(&filter).await?;
        if found.len() > limit as usize {
            found.truncate(limit as usize);
            told(&cut_short(limit, "--export, --since and --until"));
        }
        if let (true, Some(export)) = (found.is_empty(), &filter.export) {
            tell_unknown(&*ledger, export).await?;
        }
        if context.out.json {
            return found.iter().try_for_each(|one| context.out.object(&object(one, config)?));
        }
        if found.is_empty() && context.out.terminal() {
            return context.out.line("no deliveries match");
        }
        let definitions = Definitions::new(ledger);
        let runs: Vec<_> = found.iter().map(|one| one.run).collect();
        let mut rows = Vec::with_capacity(found.len());
        for (one, run) in found.iter().zip(endings(&runs)) {
            let window = match one.window() {
                Some(_) => Some(window_of(one, &definitions).await),
                None => None,
            };
            rows.push(vec![
                run,
                one.export.clone(),
                in_few_words(window, &one.params, one.edition),
                standing(one).to_owned(),
                thousands(one.files.into()),
                thousands(one.counts.written),
                match one.counts.bytes {
                    // Rows of a table have no bytes of their own.
                    0 => "-".to_owned(),
                    bytes => Size(bytes).human(),
                },
                clock(one.recorded_at, now),
                place(&one.target, &config.connections),
            ]);
        }
        let header =
            ["RUN", "EXPORT", "WINDOW", "STATE", "FILES", "ROWS", "BYTES", "RECORDED", "TO"];
        context.out.table(&header, rows)
    }
}

/// Whether it is what recipients find.
fn standing(one: &Delivered) -> &'static str {
    if one.replaced_by.is_some() { "replaced" } else { "standing" }
}

async fn window_of(one: &Delivered, definitions: &Definitions) -> String {
    window_under(one.window().as_ref(), &one.export, &one.definition, definitions).await
}

/// A delivery as programs see it.
fn object(one: &Delivered, config: &Config) -> Result<Json> {
    let object = serde_json::to_value(one).map_err(|cause| {
        Error::permanent("show the delivery", "it has no form in JSON").caused_by(cause)
    })?;
    let Json::Object(fields) = object else { return Ok(object) };
    let fields = fields.into_iter().filter_map(|(name, value)| match name.as_str() {
        "id" => Some(("delivery".to_owned(), value)),
        "window_start" => Some(("window".to_owned(), json!(one.window()))),
        "window_end" => None,
        _ => Some((name, value)),
    });
    let place = ("place".to_owned(), json!(place(&one.target, &config.connections)));
    Ok(Json::Object(fields.chain([place]).collect()))
}

/// The manifest that the ledger keeps of a delivery.
fn manifest(recorded: &RecordedDelivery) -> Result<Manifest> {
    serde_json::from_str(&recorded.manifest).map_err(|cause| {
        Error::permanent("show the delivery", "the ledger's manifest is none")
            .with("delivery", recorded.id)
            .caused_by(cause)
    })
}

async fn show(
    context: &Context,
    config: &Config,
    ledger: Arc<dyn Ledger>,
    ending: &str,
) -> Result<(), Failure> {
    let one = one_delivery(&*ledger, ending).await?;
    let Some(recorded) = ledger.delivery(one.run).await? else {
        // Its history was deleted between two questions.
        return Err(Error::not_found("show the delivery", "it is not in the ledger any more")
            .with("delivery", one.id)
            .into());
    };
    let manifest = manifest(&recorded)?;
    if context.out.json {
        let mut object = object(&one, config)?;
        if let Some(fields) = object.as_object_mut() {
            fields.insert("manifest".to_owned(), json!(manifest));
        }
        return context.out.object(&object);
    }
    let now = ledger.now().await?;
    let definitions = Definitions::new(ledger);
    let line =
        |name: &str, value: String| context.out.line(format!("{name:<11} {}", plain(&value)));
    line("delivery", one.id.to_string())?;
    line("run", one.run.to_string())?;
    line("export", format!("{}, revision {}", one.export, one.revision))?;
    if let Some(window) = one.window() {
        let shown = window_of(&one, &definitions).await;
        line("window", format!("{shown} ({} to {})", window.start, window.end))?;
    }
    if !one.params.is_empty() {
        line("params", json!(one.params).to_string())?;
    }
    if let Some(recipient) = &one.recipient {
        line("recipient", recipient.clone())?;
    }
    line("key", format!("{}, edition {}", one.key, one.edition))?;
    if let Some(before) = manifest.supersedes {
        line("supersedes", format!("delivery {before}"))?;
    }
    line("to", place(&one.target, &config.connections))?;
    let by = one.requested_by.as_ref().map(|by| format!(" for {by}")).unwrap_or_default();
    line("recorded", format!("{}{by}", clock(one.recorded_at, now)))?;
    line(
        "state",
        match &one.replaced_by {
            Some(run) => format!("replaced by that of run {}", run.short()),
            None => standing(&one).to_owned(),
        },
    )?;
    let counts = one.counts;
    line(
        "rows",
        format!(
            "{} read = {} written + {} filtered + {} quarantined",
            thousands(counts.read),
            thousands(counts.written),
            thousands(counts.filtered),
            thousands(counts.quarantined)
        ),
    )?;
    if let Some(version) = &manifest.contract_version {
        line("contract", format!("version {version}"))?;
    }
    line("columns", counted(manifest.schema.len() as u64, "column"))?;
    line("manifest", format!("SHA-256 {}", one.manifest_sha256))?;
    if one.files > 0 {
        context.out.line("")?;
        let files = manifest.files.iter().map(|file| {
            vec![
                file.name.clone(),
                thousands(file.rows),
                Size(file.bytes).human(),
                file.sha256.clone(),
            ]
        });
        context.out.table(&["FILE", "ROWS", "BYTES", "SHA-256"], files.collect())?;
    }
    Ok(())
}
