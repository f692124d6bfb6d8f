//! `longshore check`

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::output::counted;
use super::{Context, Ended, Failure, Verdict, trial};
use crate::config::Config;
use crate::connect::System;
use crate::error::{Class, Error, Result};
use crate::export::{Definition, Export, TABLE};
use crate::job::message::JobMessage;
use crate::job::param::{Param, ParamType};
use crate::job::window::{self, WindowSpec};
use crate::pipeline::{House, Plan};
use crate::scrub::scrub;
use crate::source::SourceConfig;
use crate::wiring;

/// Check every file and every reference
///
/// Nothing is reached over the network, unless --connect asks for it. Exit 1 if anything is wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore check
  longshore check --connect        also ask the systems that it names
  longshore check --json | jq -r .message")]
pub struct Check {
    /// Ask queue, ledger and claims whether they are there, each export's source for its columns,
    /// and its sink whether it would take what comes of them. No row is read or written; a folder of files
    /// is tried by a small object under its staging folder, which is removed again
    #[arg(long)]
    connect: bool,
}

impl Check {
    pub async fn run(self, context: &Context) -> Ended {
        context.log()?;
        let out = &context.out;
        let config = match context.read(true) {
            Ok(config) => config,
            Err(problems) => {
                for problem in &problems.0 {
                    if out.json {
                        out.object(problem)?;
                    } else {
                        out.line(problem.to_string())?;
                    }
                }
                if !out.json {
                    out.line(format!("{} found", counted(problems.0.len() as u64, "problem")))?;
                }
                return Ok(Verdict::Found);
            }
        };
        for note in &config.notes {
            if out.json {
                out.object(note)?;
            } else {
                out.line(note.to_string())?;
            }
        }
        let failed =
            if self.connect { connect(context, &config).await? } else { Failed::default() };
        if !out.json {
            out.line(format!(
                "checked {} and {}: {}",
                counted(config.exports.len() as u64, "export"),
                counted(config.connections.len() as u64, "connection"),
                failed.told(),
            ))?;
        }
        Ok(if failed == Failed::default() { Verdict::Done } else { Verdict::Found })
    }
}

/// How much does not work as things stand.
#[derive(Default, PartialEq, Eq)]
struct Failed {
    exports: u64,
    servers: u64,
}

impl Failed {
    fn told(&self) -> String {
        let exports = format!("{} cannot run", counted(self.exports, "export"));
        let servers = format!("{} cannot be used", counted(self.servers, "server"));
        match (self.exports, self.servers) {
            (0, 0) => "all is well".to_owned(),
            (_, 0) => exports,
            (0, _) => servers,
            _ => format!("{exports}, {servers}"),
        }
    }
}

/// Asks queue, ledger and claims, and plans every export on the columns that its source has now and
/// the place that it delivers to.
async fn connect(context: &Context, config: &Config) -> Result<Failed, Failure> {
    let mut failed = Failed::default();
    let settings = context.global.config.join("longshore.toml");
    for (part, url, answer) in wiring::ask(&config.settings).await? {
        if let Err(error) = answer {
            failed.servers += 1;
            tell(context, "part", part, &settings, &error.with("url", url))?;
        }
    }
    let house = wiring::house(config);
    for definition in config.exports.values() {
        let jobs = async { trial::of_tables(definition, sample(definition)?, &house).await };
        let mut errors = Vec::new();
        match jobs.await {
            Ok(jobs) => {
                for job in jobs {
                    errors.extend(planned(definition, job, &house).await.err());
                }
            }
            Err(error) => errors.push(error),
        }
        let guessed = guessed(&definition.export, config);
        let (unsure, errors): (Vec<Error>, Vec<Error>) = errors
            .into_iter()
            .partition(|error| guessed.is_some() && error.class() == Class::Permanent);
        for (error, name) in unsure.iter().zip(guessed) {
            unknown(context, definition, name, error)?;
        }
        failed.exports += u64::from(!errors.is_empty());
        for error in errors {
            tell(context, "export", &definition.name, &definition.file, &error)?;
        }
    }
    Ok(failed)
}

/// Plans a job on the columns that its source has now; of many tables, the error names its own.
async fn planned(definition: &Definition, job: JobMessage, house: &House) -> Result<()> {
    let table = job.params.get(TABLE).filter(|_| definition.export.source.tables.is_some());
    let table = table.and_then(|name| name.as_str()).map(str::to_owned);
    let run = trial::run(definition, job)?;
    let checked = Plan::new(Arc::new(definition.export.clone()), &run, house)?.check().await;
    checked.map_err(|error| match table {
        Some(table) => error.with("table", table),
        None => error,
    })
}

/// Tells what does not work, and where that is configured.
fn tell(
    context: &Context,
    what: &str,
    name: &str,
    file: &Path,
    error: &Error,
) -> Result<(), Failure> {
    let (message, help) = (scrub(&error.to_string()), error.advice().map(scrub));
    if context.out.json {
        return context.out.object(&json!({
            "level": "error",
            what: name,
            "file": file,
            "class": error.class(),
            "message": message,
            "help": help,
        }));
    }
    let file = file.display();
    let help = help.map(|help| format!("\n   = help: {help}")).unwrap_or_default();
    let class = error.class();
    context.out.line(format!(
        "error: {message}\n  --> {file}{help}\n   = more: longshore explain {class}\n"
    ))
}

/// What the paths of the files that it reads have in them that only a job tells.
fn guessed<'a>(export: &'a Export, config: &Config) -> Option<&'a str> {
    let told = |param: &Param| param.default.is_some() || param.values.is_some();
    let files = |one: &&SourceConfig| {
        let connection = config.connections.get(&one.connection);
        connection.is_some_and(|connection| connection.kind == System::Files)
    };
    let read = std::iter::once(&export.source).chain(export.reference.values()).filter(files);
    read.flat_map(SourceConfig::uses).find(|name| !export.params.get(*name).is_some_and(told))
}

/// Tells that an export could not be looked at, since its files depend on the job.
fn unknown(
    context: &Context,
    definition: &Definition,
    guessed: &str,
    error: &Error,
) -> Result<(), Failure> {
    let message = scrub(&error.to_string());
    let (name, file) = (&definition.name, definition.file.display());
    let help =
        format!("`longshore preview {name}` with a job's own {{{guessed}}} looks at its files");
    if context.out.json {
        return context.out.object(&json!({
            "level": "note",
            "export": name,
            "file": definition.file,
            "message": message,
            "help": help,
        }));
    }
    context.out.line(format!(
        "note: not looked at: which files it reads depends on {{{guessed}}}; with a made-up one: \
         {message}\n  --> {file}\n   = help: {help}\n"
    ))
}

/// A job as the export might get one: the current window, and the first value that is allowed for
/// each parameter.
fn sample(definition: &Definition) -> Result<JobMessage> {
    let export = &definition.export;
    let zone = window::zone(&export.timezone)?;
    let now = Timestamp::now();
    let schedule = export.schedule.as_ref();
    let start = schedule.and_then(|schedule| schedule.start);
    let first = start.map(|day| window::first_at(day.at(0, 0, 0, 0), &zone));
    let window =
        |spec: WindowSpec| Some(spec.containing(first.map_or(now, |first| now.max(first)), &zone));
    let mut params = serde_json::Map::new();
    for (name, param) in &export.params {
        params.insert(name.clone(), any_value(param, now));
    }
    // Values that the schedule asks for are better than any others.
    params.extend(
        export.combinations(&serde_json::Map::new()).into_iter().next().unwrap_or_default(),
    );
    let job = |spec| JobMessage {
        export: definition.name.clone(),
        window: window(spec),
        params: params.clone(),
        ..JobMessage::default()
    };
    // An export without windows takes what its path names.
    let any = [WindowSpec::Hour, WindowSpec::Day, WindowSpec::Week, WindowSpec::Month];
    let fits = |spec: &WindowSpec| trial::run(definition, job(*spec)).is_ok();
    let spec = schedule.and_then(|schedule| schedule.window);
    Ok(job(spec.or_else(|| any.into_iter().find(fits)).unwrap_or(WindowSpec::Hour)))
}

fn any_value(param: &Param, now: Timestamp) -> serde_json::Value {
    let first = param.values.as_ref().and_then(|values| values.first());
    param.default.as_ref().or(first).cloned().unwrap_or_else(|| match param.kind {
        // A path with the parameter in it wants a part of a name.
        ParamType::String => json!("x"),
        ParamType::Int64 => json!(0),
        ParamType::Bool => json!(false),
        ParamType::Date => json!("2000-01-01"),
        ParamType::Timestamp => json!(now),
    })
}
