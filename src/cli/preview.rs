//! `longshore preview`

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::enqueue::Job;
use super::output::{counted, thousands};
use super::{Context, Ended, Failure, Verdict, arguments, trial};
use crate::error::{Error, Result};
use crate::export::{Definition, TABLE};
use crate::job::message::JobMessage;
use crate::pipeline::{House, Plan, Preview as First};
use crate::wiring;

const DOING: &str = "preview the export";
/// How many of an export's tables are named.
const SOME: usize = 10;

/// The rows as they would be delivered; delivers nothing
///
/// The first rows after transform, contract and protection. Nothing is recorded, and no more is read
/// than a batch beyond what is shown. A column that the contract calls personal or secret is shown as
/// [protect] leaves it; if nothing protects it, not at all.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore preview orders
  longshore preview daily-orders --window 2026-11-19 --param country=SE --rows 5
  longshore preview orders --json | jq .row")]
pub struct Preview {
    /// The export's name
    export: String,
    /// How many rows are shown
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rows: u32,
    /// Of which window: 2026-11-19, 2026-11-19T05, 2026-11, or yesterday
    #[arg(long)]
    window: Option<String>,
    /// The value of a parameter; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = arguments::pair)]
    params: Vec<(String, String)>,
}

impl Preview {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config_with(&self.export)?;
        let definition = trial::definition(DOING, context, &config, &self.export)?;
        let job = Job {
            export: self.export,
            window: self.window,
            params: self.params,
            each: false,
            key: None,
            recipient: None,
            not_before: None,
            deadline: None,
        };
        let mut jobs =
            job.messages(&definition.name, &definition.export, context.by(), Timestamp::now())?;
        let (Some(message), true) = (jobs.pop(), jobs.is_empty()) else {
            return Err(Error::usage(DOING, "these are several windows, or none")
                .help("Name one of them.")
                .into());
        };
        let house = wiring::house(&config);
        if definition.export.spreads(&message.params) {
            return Err(one_table(definition, message, &house).await?.into());
        }
        let run = trial::run(definition, message).map_err(arguments::as_usage)?;
        let plan = Plan::new(Arc::new(definition.export.clone()), &run, &house)?;
        show(context, &plan.preview(self.rows as usize).await?)?;
        Ok(Verdict::Done)
    }
}

/// The error that asks for one of the export's tables, and names some.
async fn one_table(definition: &Definition, job: JobMessage, house: &House) -> Result<Error> {
    let jobs = trial::of_tables(definition, job, house).await?;
    let names = jobs.iter().filter_map(|job| job.params.get(TABLE)?.as_str());
    let shown: Vec<&str> = names.take(SOME).collect();
    let more = if jobs.len() > shown.len() { ", ..." } else { "" };
    Ok(Error::usage(DOING, format!("these are {}", counted(jobs.len() as u64, "table")))
        .help(format!("Name one by --param table=...: {}{more}", shown.join(", "))))
}

fn show(context: &Context, preview: &First) -> Result<(), Failure> {
    let out = &context.out;
    if out.json {
        for row in &preview.rows {
            out.object(&json!({"row": row}))?;
        }
        let refused = preview
            .refused
            .iter()
            .map(|((column, rule), rows)| json!({"column": column, "rule": rule, "rows": rows}));
        return out.object(&json!({
            "rows": preview.rows.len(),
            "read": preview.read,
            "filtered": preview.filtered,
            "refused": refused.collect::<Vec<_>>(),
            "whole": preview.whole,
        }));
    }
    let header: Vec<&str> = preview.columns.iter().map(String::as_str).collect();
    let rows = preview.rows.iter().map(|row| {
        preview.columns.iter().map(|name| row.get(name).map_or_else(String::new, cell)).collect()
    });
    out.table(&header, rows.collect())?;
    let refused: u64 = preview.refused.values().sum();
    out.line(format!(
        "\n{} of {} read, {} filtered, {} refused{}",
        counted(preview.rows.len() as u64, "row"),
        thousands(preview.read),
        thousands(preview.filtered),
        thousands(refused),
        if preview.whole { "" } else { "; there may be more" },
    ))?;
    for ((column, rule), rows) in &preview.refused {
        let column = column.as_ref().map(|name| format!("`{name}` ")).unwrap_or_default();
        out.line(format!("  refused {}: {column}{rule}", counted(*rows, "row")))?;
    }
    out.line("Nothing was delivered.")
}

fn cell(value: &Json) -> String {
    match value {
        Json::Null => "NULL".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
