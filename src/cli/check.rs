//! `longshore check`

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::output::counted;
use super::{Context, Ended, Failure, Verdict, trial};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::Definition;
use crate::job::message::JobMessage;
use crate::job::param::{Param, ParamType};
use crate::job::window::{self, WindowSpec};
use crate::pipeline::Plan;
use crate::scrub::scrub;
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
    /// and its sink whether it would take what comes of them. No row is read or written
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
        let checked = async {
            let run = trial::run(definition, sample(definition)?)?;
            Plan::new(Arc::new(definition.export.clone()), &run, &house)?.check().await
        };
        if let Err(error) = checked.await {
            failed.exports += 1;
            tell(context, "export", &definition.name, &definition.file, &error)?;
        }
    }
    Ok(failed)
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

/// A job as the export might get one: the current window, and the first value that is allowed for
/// each parameter.
fn sample(definition: &Definition) -> Result<JobMessage> {
    let export = &definition.export;
    let zone = window::zone(&export.timezone)?;
    let now = Timestamp::now();
    let schedule = export.schedule.as_ref();
    // The shortest is a part of whatever an export without windows names in its path.
    let spec = schedule.and_then(|schedule| schedule.window).unwrap_or(WindowSpec::Hour);
    let start = schedule.and_then(|schedule| schedule.start);
    let first = start.map(|day| window::first_at(day.at(0, 0, 0, 0), &zone));
    let window = spec.containing(first.map_or(now, |first| now.max(first)), &zone);
    let mut params = serde_json::Map::new();
    for (name, param) in &export.params {
        params.insert(name.clone(), any_value(param, now));
    }
    Ok(JobMessage {
        export: definition.name.clone(),
        window: Some(window),
        params,
        ..JobMessage::default()
    })
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
