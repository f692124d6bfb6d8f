//! `longshore explain`

use clap::Args;
use serde_json::json;

use super::{Context, Ended, Failure, Verdict};
use crate::config::{self, Page, Wrong};

/// What an error means, and what to do about it
///
/// Without a code it lists all: the codes of problems in the configuration, and the classes by which
/// jobs fail.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore explain
  longshore explain LS0312
  longshore explain unavailable")]
pub struct Explain {
    /// A code like LS0312, or a class like contract
    code: Option<String>,
}

impl Explain {
    pub fn run(self, context: &Context) -> Ended {
        match self.code {
            Some(code) => show(context, &config::page(&code)?)?,
            None => list(context)?,
        }
        Ok(Verdict::Done)
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    if context.out.json {
        return config::pages().try_for_each(|page| context.out.object(&object(&page)));
    }
    let rows = config::pages().map(|page| vec![page.name.to_owned(), page.title.to_owned()]);
    context.out.table(&["CODE", "MEANING"], rows.collect())
}

fn show(context: &Context, page: &Page) -> Result<(), Failure> {
    let out = &context.out;
    if out.json {
        return out.object(&object(page));
    }
    out.line(format!("{}: {}\n", page.name, page.title))?;
    out.line(wrapped(page.cause))?;
    match page.wrong {
        Wrong::File(file, text) => {
            out.line(format!("\nWrong, for example, in {file}:\n{}", indented(text)))?;
        }
        Wrong::Terminal(text) => out.line(format!("\nFor example:\n{}", indented(text)))?,
    }
    out.line(format!("\nWhat to do:\n{}", wrapped(page.remedy)))
}

fn object(page: &Page) -> serde_json::Value {
    let (file, wrong) = match page.wrong {
        Wrong::File(file, text) => (Some(file), text),
        Wrong::Terminal(text) => (None, text),
    };
    json!({
        "code": page.name,
        "title": page.title,
        "cause": page.cause,
        "example": { "file": file, "text": wrong },
        "remedy": page.remedy,
    })
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// In lines of at most 80 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + word.chars().count() < 80 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
