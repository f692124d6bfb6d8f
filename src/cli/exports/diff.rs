//! `longshore exports diff`, and what `apply --dry-run` shows of a changed export.

use clap::Args;
use serde_json::{Value as Json, json};

use super::{definition, unknown};
use crate::cli::{Context, Failure, trial};
use crate::error::{Error, Result};
use crate::export::diff::{Comparison, Difference};
use crate::ledger::{Ledger, RunFilter, StoredDefinition, Which};
use crate::wiring;

const DOING: &str = "compare the definitions";

/// What differs between two revisions, and whom it breaks
///
/// Without revisions: between the one that is active and the files, as `apply` would find it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore exports diff daily-orders           the active revision and the files
  longshore exports diff daily-orders 4         revision 4 and the files
  longshore exports diff daily-orders 4 5       two revisions
  longshore exports diff daily-orders --ran     what ran last and the files")]
pub struct Diff {
    /// The export's name
    name: String,
    /// The older revision. Default: the one that is active
    #[arg(value_name = "A")]
    old: Option<i32>,
    /// The newer revision. Default: what the files have
    #[arg(value_name = "B")]
    new: Option<i32>,
    /// Compare with the revision that ran last
    #[arg(long, conflicts_with_all = ["old", "new"])]
    ran: bool,
}

impl Diff {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = match self.new {
            Some(_) => context.config(false)?,
            None => context.config_with(&self.name)?,
        };
        let ledger = wiring::existing_ledger(&config.settings).await?;
        let revisions = ledger.definitions(Which::RevisionsOf(&self.name)).await?;
        let of = |number: i32| {
            revisions.iter().find(|one| one.revision == number).ok_or_else(|| {
                let known: Vec<_> = revisions.iter().map(|one| one.revision.to_string()).collect();
                Error::not_found(DOING, "there is no such revision")
                    .with("export", &self.name)
                    .with("revision", number)
                    .help(format!("There are: {}.", known.join(", ")))
            })
        };
        if revisions.is_empty() {
            return Err(unknown(DOING, &*ledger, &self.name).await?.into());
        }
        let old = match self.old {
            Some(number) => of(number)?,
            None if self.ran => of(ran(&*ledger, &self.name).await?)?,
            None => match revisions.iter().find(|one| one.active) {
                Some(active) => active,
                None => return Err(unknown(DOING, &*ledger, &self.name).await?.into()),
            },
        };
        let (new, name) = match self.new {
            Some(number) => (definition(of(number)?)?, Side::Revision(number)),
            None => {
                let found = trial::definition(DOING, context, &config, &self.name)?;
                let content = serde_json::from_str(&found.content).map_err(|cause| {
                    Error::permanent(DOING, "the definition is no JSON").caused_by(cause)
                })?;
                (content, Side::Files(found.file.display().to_string()))
            }
        };
        let comparison = Comparison::of(&definition(old)?, &new);
        if context.out.json {
            let mut object = object(&comparison);
            if let Json::Object(object) = &mut object {
                object.insert("export".to_owned(), self.name.into());
                object.insert("old".to_owned(), old.revision.into());
                object.insert(
                    "new".to_owned(),
                    match name {
                        Side::Revision(number) => number.into(),
                        Side::Files(file) => file.into(),
                    },
                );
            }
            return context.out.object(&object);
        }
        let active = if old.active { " (active)" } else { "" };
        let new = match name {
            Side::Revision(number) => format!("revision {number}"),
            Side::Files(file) => file,
        };
        context.out.line(format!("{}: revision {}{active} and {new}", self.name, old.revision))?;
        context.out.line(text(&comparison))
    }
}

/// What the newer side is.
enum Side {
    Revision(i32),
    Files(String),
}

/// The revision of the run that was accepted last.
async fn ran(ledger: &dyn Ledger, name: &str) -> Result<i32> {
    let filter = RunFilter { export: Some(name.to_owned()), limit: 1, ..RunFilter::default() };
    let last = ledger.runs(&filter).await?.pop();
    last.map(|run| run.order.revision).ok_or_else(|| {
        Error::not_found(DOING, "it has never run")
            .with("export", name)
            .help("Leave out --ran to compare with the revision that is active.")
    })
}

/// What a new content of an active definition means.
pub fn compared(old: &StoredDefinition, content: &str) -> Result<Comparison> {
    let new = serde_json::from_str(content)
        .map_err(|cause| Error::permanent(DOING, "the definition is no JSON").caused_by(cause))?;
    Ok(Comparison::of(&definition(old)?, &new))
}

/// The comparison for programs.
pub fn object(comparison: &Comparison) -> Json {
    json!({
        "changes": comparison.changes,
        "effects": comparison.effects,
        "breaks": comparison.breaks,
        "warning": comparison.warning,
    })
}

/// The comparison for people.
pub fn text(comparison: &Comparison) -> String {
    if comparison.changes.is_empty() {
        return "  nothing differs".to_owned();
    }
    let mut lines: Vec<String> = comparison.changes.iter().flat_map(change).collect();
    for (breaks, title) in [(true, "breaks recipients:"), (false, "does not break them:")] {
        let effects: Vec<_> =
            comparison.effects.iter().filter(|effect| effect.breaks == breaks).collect();
        if effects.is_empty() {
            continue;
        }
        let title = if breaks || comparison.breaks { title } else { "breaks no recipient:" };
        lines.push(title.to_owned());
        lines.extend(effects.iter().map(|effect| format!("  {}", effect.what)));
    }
    if let Some(warning) = &comparison.warning {
        lines.push(format!("warning: {warning}"));
        lines.push(
            "   = help: raise `version` under [contract], and tell the recipients".to_owned(),
        );
    }
    lines.join("\n")
}

fn change(one: &Difference) -> Vec<String> {
    let key = if one.key.is_empty() { "the definition" } else { one.key.as_str() };
    match (&one.old, &one.new) {
        (Some(Json::String(old)), Some(Json::String(new)))
            if old.contains('\n') || new.contains('\n') =>
        {
            let mut lines = vec![format!("  ~ {key}")];
            lines.extend(lines_that_differ(old, new));
            lines
        }
        (Some(old), Some(new)) => vec![format!("  ~ {key}: {old} -> {new}")],
        (Some(old), None) => vec![format!("  - {key}: {old}")],
        (None, Some(new)) => vec![format!("  + {key}: {new}")],
        (None, None) => Vec::new(),
    }
}

/// The lines between those that are the same at the beginning and at the end.
fn lines_that_differ(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old, new) = (old.get(same..).unwrap_or_default(), new.get(same..).unwrap_or_default());
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let cut = |lines: &[&str], sign: char| -> Vec<String> {
        lines.iter().take(lines.len() - end).map(|line| format!("      {sign} {line}")).collect()
    };
    [cut(old, '-'), cut(new, '+')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_texts_only_what_differs_is_shown() {
        let (old, new) = ("SELECT a\nFROM t\nWHERE b\n", "SELECT a\nFROM u\n  JOIN v\nWHERE b\n");
        let shown = lines_that_differ(old, new);
        assert_eq!(shown, ["      - FROM t", "      + FROM u", "      +   JOIN v"]);
        assert_eq!(lines_that_differ("a\na", "a"), ["      - a"]);
    }
}
