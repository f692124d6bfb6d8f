//! `longshore quarantine show`

use std::sync::Arc;

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::super::arguments::reason;
use super::super::output::{clock, counted, plain};
use super::super::{Context, Ended, Verdict, trial};
use super::{Told, kept_until, object, place_of, rows_of, state_of, vault};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::job::RunId;
use crate::job::changes::Audit;
use crate::ledger::{Ledger, one_run};
use crate::pipeline::{KeptRow, KeptRows, Vault};
use crate::rows::{Breach, Origin};
use crate::wiring;

const DOING: &str = "show the refused rows";
/// How a file of refused rows ends.
const FILE: &str = ".jsonl.age";
/// What stands in the place of a value.
const HIDDEN: &str = "‹hidden›";

/// The refused rows of a run: which rule each broke, and its columns. The values are hidden unless
/// they are asked for, which the audit trail tells.
#[derive(Debug, Args)]
pub struct Show {
    /// The ending of the run's name, as tables show it; or a file of refused rows that `longshore run
    /// --to` has kept
    run: String,
    /// At the most so many rows
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rows: u32,
    /// Show the values; that is written to the audit trail first
    #[arg(long, requires = "reason")]
    reveal: bool,
    /// Why the values are looked at
    #[arg(long, requires = "reveal", value_parser = reason)]
    reason: Option<String>,
}

/// A row as it is shown.
struct Shown {
    rule: String,
    column: Option<String>,
    why: Option<String>,
    also: Vec<Breach>,
    origin: Option<Origin>,
    fields: Vec<(String, Option<FieldType>, Box<RawValue>)>,
}

impl Show {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let vault = vault(&config, DOING)?;
        if self.run.ends_with(FILE) {
            return self.of_file(context, &config, vault).await;
        }
        let ledger = wiring::existing_ledger(&config.settings).await?;
        let run = one_run(&*ledger, &self.run).await?;
        let place = place_of(&run, DOING)?;
        let most = self.rows as usize;
        let (rows, more) =
            KeptRows::open(&vault, run.id, place, move |rows| first(rows, most)).await?;
        if self.reveal {
            self.audit(context, &*ledger, run.id, rows.len()).await?;
        }
        if context.out.json {
            for (index, row) in rows.iter().enumerate() {
                self.print_object(context, object(&run), index + 1, row)?;
            }
            return Ok(Verdict::Done);
        }
        let now = ledger.now().await?;
        let all = rows_of(&run)
            .map_or_else(|| "refused rows".to_owned(), |rows| counted(rows, "refused row"));
        let state = state_of(&*ledger, &run).await?.as_str();
        let until = kept_until(&config, &run);
        let until = until.map(|until| format!(" until {}", clock(until, now))).unwrap_or_default();
        let (name, export) = (run.id.short(), &run.order.export);
        context.out.line(format!("run {name} of {export}: {all}, {state}{until}"))?;
        self.print_all(context, &rows, more)?;
        Ok(Verdict::Done)
    }

    /// The rows of a run that no ledger knows.
    async fn of_file(&self, context: &Context, config: &Config, vault: Vault) -> Ended {
        let file =
            std::path::absolute(&self.run).map_err(|cause| no_file(&self.run).caused_by(cause))?;
        let (run, connection, place) = trial::kept_file(&file).ok_or_else(|| no_file(&self.run))?;
        let vault = Vault { connection: Arc::new(connection), ..vault };
        let most = self.rows as usize;
        let (rows, more) =
            KeptRows::open(&vault, run, &place, move |rows| first(rows, most)).await?;
        if self.reveal {
            let ledger = wiring::existing_ledger(&config.settings).await?;
            self.audit(context, &*ledger, run, rows.len()).await?;
        }
        if context.out.json {
            for (index, row) in rows.iter().enumerate() {
                let object = json!({"run": run, "file": file});
                self.print_object(context, object, index + 1, row)?;
            }
            return Ok(Verdict::Done);
        }
        context.out.line(format!("{}: refused rows", file.display()))?;
        self.print_all(context, &rows, more)?;
        Ok(Verdict::Done)
    }

    /// Writes down that values are shown, before anything is: what cannot be written down is not
    /// looked at.
    async fn audit(
        &self,
        context: &Context,
        ledger: &dyn Ledger,
        run: RunId,
        rows: usize,
    ) -> Result<()> {
        ledger
            .audit(Audit {
                by: context.by(),
                action: format!("reveal {}", counted(rows as u64, "refused row")),
                subject: run.to_string(),
                reason: self.reason.clone().unwrap_or_default(),
            })
            .await
    }

    fn print_all(&self, context: &Context, rows: &[Shown], more: bool) -> Told {
        for (index, row) in rows.iter().enumerate() {
            self.print(context, index + 1, row)?;
        }
        if more {
            context.out.line("\nThere are more; --rows shows them.")?;
        }
        if !self.reveal {
            context
                .out
                .line("\nValues are hidden; --reveal --reason … shows them, and is audited.")?;
        }
        Ok(())
    }

    fn print(&self, context: &Context, number: usize, row: &Shown) -> Told {
        let place = row.origin.as_ref().map(|origin| format!(", {origin}")).unwrap_or_default();
        let broke = told(row.column.as_deref(), &row.rule, row.why.as_deref());
        context.out.line(format!("\nrow {number}{}: {}", plain(&place), plain(&broke)))?;
        for Breach { rule, column, why } in &row.also {
            let broke = told(column.as_deref(), rule, why.as_deref());
            context.out.line(format!("  also {}", plain(&broke)))?;
        }
        let kind = |kind: &Option<FieldType>| {
            kind.as_ref().map_or_else(|| "-".to_owned(), FieldType::to_string)
        };
        let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let names = width(&mut row.fields.iter().map(|(name, ..)| plain(name).chars().count()));
        let kinds = width(&mut row.fields.iter().map(|(_, one, _)| kind(one).len()));
        for (name, one, value) in &row.fields {
            let value = if self.reveal { words(value) } else { HIDDEN.to_owned() };
            let (name, one) = (plain(name), kind(one));
            context.out.line(format!("  {name:names$}  {one:kinds$}  {value}"))?;
        }
        Ok(())
    }

    fn print_object(
        &self,
        context: &Context,
        mut object: Json,
        number: usize,
        row: &Shown,
    ) -> Told {
        let types: serde_json::Map<String, Json> =
            row.fields.iter().map(|(name, kind, _)| (name.clone(), json!(kind))).collect();
        object["row"] = json!(number);
        object["rule"] = json!(row.rule);
        object["column"] = json!(row.column);
        object["why"] = json!(row.why);
        object["also"] = json!(row.also);
        object["origin"] = json!(row.origin);
        object["types"] = json!(types);
        let mut text = object.to_string();
        if self.reveal {
            // As they were written: a number that passed through another would lose digits.
            let values: Vec<String> = row
                .fields
                .iter()
                .map(|(name, _, value)| format!("{}:{}", json!(name), value.get()))
                .collect();
            text.pop();
            text.push_str(&format!(",\"values\":{{{}}}}}", values.join(",")));
        }
        context.out.line(text)
    }
}

/// A rule that was broken, its column, and why.
fn told(column: Option<&str>, rule: &str, why: Option<&str>) -> String {
    let column = column.map(|column| format!("`{column}` ")).unwrap_or_default();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("{column}{rule}{why}")
}

fn no_file(name: &str) -> Error {
    Error::not_found(DOING, "this is no file of refused rows").with("file", name).help(
        "`longshore run --to DIR` keeps them in DIR/quarantine/RUN/1.jsonl.age; a run of the ledger \
         is named by its ending.",
    )
}

/// A value for people: a text without its quotes, on one line.
fn words(value: &RawValue) -> String {
    match serde_json::from_str::<Json>(value.get()) {
        Ok(Json::Null) => "NULL".to_owned(),
        Ok(Json::String(text)) => plain(&text),
        _ => plain(value.get()),
    }
}

/// The first rows, and whether there are more.
fn first(mut rows: KeptRows, most: usize) -> Result<(Vec<Shown>, bool)> {
    let mut found = Vec::new();
    while let Some(row) = rows.next_row()? {
        if found.len() == most {
            return Ok((found, true));
        }
        found.push(shown(row, &rows)?);
    }
    Ok((found, false))
}

fn shown(row: KeptRow, rows: &KeptRows) -> Result<Shown> {
    let KeptRow { rule, column, why, also, origin, of, row } = row;
    let types = of.and_then(|of| rows.types().get(of));
    let fields: indexmap::IndexMap<String, Box<RawValue>> = serde_json::from_str(row.get())
        .map_err(|_| Error::permanent(DOING, "a row is no JSON object"))?;
    let fields = fields.into_iter().map(|(name, value)| {
        let kind = types.and_then(|types| types.get(&name).cloned());
        (name, kind, value)
    });
    Ok(Shown { rule, column, why, also, origin, fields: fields.collect() })
}
