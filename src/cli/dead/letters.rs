//! Dead letters as people see them: listed, one by one, and grouped by what is wrong.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::cli::output::{clock, counted, plain, thousands};
use crate::cli::{Context, Ended, Failure, Verdict};
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::replay::{Filter, Letter, look};
use crate::wiring::Parts;

/// Letters that a dry run looks at.
const LOOKED_AT: usize = 100_000;

pub async fn list(
    context: &Context,
    parts: &Parts,
    pools: &[String],
    filter: &Filter,
    limit: usize,
) -> Ended {
    let letters = look(&*parts.queue, pools, filter, false, limit).await?;
    if context.out.json {
        for letter in &letters {
            context.out.object(letter)?;
        }
        return Ok(Verdict::Done);
    }
    let now = Timestamp::now();
    let rows = letters
        .iter()
        .map(|letter| {
            let dead = &letter.dead;
            vec![
                ending(letter),
                dead.export.clone().unwrap_or_else(|| "-".to_owned()),
                dead.class.clone(),
                dead.attempts.to_string(),
                at(&dead.first_failed_at, now),
                at(&dead.last_failed_at, now),
                dead.reason.clone(),
            ]
        })
        .collect();
    let header = ["RUN", "EXPORT", "CLASS", "TRY", "FIRST", "LAST", "REASON"];
    context.out.table(&header, rows)?;
    Ok(Verdict::Done)
}

pub fn run_id(letter: &Letter) -> Option<RunId> {
    letter.dead.run.as_ref()?.parse().ok()
}

fn ending(letter: &Letter) -> String {
    run_id(letter).map_or_else(|| "-".to_owned(), |run| run.short())
}

fn at(text: &str, now: Timestamp) -> String {
    text.parse().map_or_else(|_| "-".to_owned(), |at| clock(at, now))
}

pub async fn show(context: &Context, parts: &Parts, pools: &[String], run: String) -> Ended {
    let filter = Filter { run: Some(run.clone()), ..Filter::default() };
    let mut letters = look(&*parts.queue, pools, &filter, true, 2).await?;
    let letter = match (letters.pop(), letters.is_empty()) {
        (Some(letter), true) => letter,
        (Some(_), false) => {
            return Err(Error::usage("show the dead letter", "several runs' names end so")
                .with("run", run)
                .help("Give more of its name.")
                .into());
        }
        (None, _) => {
            return Err(Error::not_found("show the dead letter", "no dead letter is of this run")
                .with("run", run)
                .help("See `longshore dead list`.")
                .into());
        }
    };
    if context.out.json {
        context.out.object(&letter)?;
        return Ok(Verdict::Done);
    }
    let dead = &letter.dead;
    let now = Timestamp::now();
    let none = || "-".to_owned();
    for (name, value) in [
        ("run", dead.run.clone().unwrap_or_else(none)),
        ("export", dead.export.clone().unwrap_or_else(none)),
        ("class", dead.class.clone()),
        ("reason", dead.reason.clone()),
        ("attempts", dead.attempts.to_string()),
        ("first", at(&dead.first_failed_at, now)),
        ("last", at(&dead.last_failed_at, now)),
        ("worker", dead.worker.clone()),
        ("pool", letter.pool.clone()),
        ("routing key", dead.routing_key.clone()),
    ] {
        context.out.line(format!("{name:<11} {}", plain(&value)))?;
    }
    if let Some(body) = &letter.body {
        context.out.line(format!("\n{}", plain(body)))?;
    }
    Ok(Verdict::Done)
}

/// Letters that have class and reason in common.
#[derive(Default)]
pub struct Group {
    pub count: u64,
    pub first: String,
    pub last: String,
}

pub fn groups(letters: &[Letter]) -> Vec<(String, String, Group)> {
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    for letter in letters {
        let dead = &letter.dead;
        let group = groups.entry((dead.class.clone(), dead.reason.clone())).or_default();
        group.count += 1;
        // RFC 3339 in UTC sorts as text.
        if group.first.is_empty() || dead.first_failed_at < group.first {
            group.first.clone_from(&dead.first_failed_at);
        }
        if dead.last_failed_at > group.last {
            group.last.clone_from(&dead.last_failed_at);
        }
    }
    let mut groups: Vec<_> =
        groups.into_iter().map(|((class, reason), group)| (class, reason, group)).collect();
    groups.sort_by_key(|(_, _, group)| std::cmp::Reverse(group.count));
    groups
}

/// The letters that are picked, and how many others there are: of other exports, and otherwise.
pub async fn counted_letters(
    parts: &Parts,
    pools: &[String],
    filter: &Filter,
) -> Result<(Vec<Letter>, u64, u64)> {
    let all = look(&*parts.queue, pools, &Filter::default(), false, LOOKED_AT).await?;
    let picked: Vec<Letter> =
        all.iter().filter(|letter| filter.picks(&letter.dead)).cloned().collect();
    let foreign = match &filter.export {
        Some(export) => {
            all.iter().filter(|letter| letter.dead.export.as_ref() != Some(export)).count()
        }
        None => 0,
    };
    let others = all.len().saturating_sub(picked.len() + foreign);
    Ok((picked, foreign as u64, others as u64))
}

/// `37 of 41 dead letters (4 are of other exports)`
pub fn how_many(picked: usize, foreign: u64, others: u64) -> String {
    let all = picked as u64 + foreign + others;
    let picked = thousands(picked as u64);
    let (foreign, others) = match (foreign, others) {
        (0, 0) => return counted(all, "dead letter"),
        (foreign, 0) => (format!("{} of other exports", be(foreign)), String::new()),
        (0, others) => (String::new(), format!("{} not meant", be(others))),
        (foreign, others) => {
            (format!("{} of other exports, ", be(foreign)), format!("{} not meant", be(others)))
        }
    };
    format!("{picked} of {} ({foreign}{others})", counted(all, "dead letter"))
}

fn be(count: u64) -> String {
    format!("{} {}", thousands(count), if count == 1 { "is" } else { "are" })
}

pub fn show_groups(context: &Context, letters: &[Letter]) -> Result<(), Failure> {
    let now = Timestamp::now();
    let rows = groups(letters)
        .into_iter()
        .map(|(class, reason, group)| {
            let (first, last) = (at(&group.first, now), at(&group.last, now));
            let when = if first == last { first } else { format!("first {first}, last {last}") };
            vec![thousands(group.count), class, reason, when]
        })
        .collect();
    context.out.table(&["COUNT", "CLASS", "REASON", "WHEN"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::DeadHeaders;

    #[test]
    fn letters_are_grouped_by_what_is_wrong() {
        let letter = |class: &str, first: &str, last: &str| Letter {
            pool: "default".to_owned(),
            dead: DeadHeaders {
                class: class.to_owned(),
                reason: "r".to_owned(),
                first_failed_at: first.to_owned(),
                last_failed_at: last.to_owned(),
                ..DeadHeaders::default()
            },
            body: None,
        };
        let letters = [
            letter("permanent", "1", "1"),
            letter("contract", "3", "5"),
            letter("contract", "2", "4"),
        ];
        let found: Vec<_> = groups(&letters)
            .into_iter()
            .map(|(class, _, group)| (class, group.count, group.first, group.last))
            .collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            found,
            [
                (text("contract"), 2, text("2"), text("5")),
                (text("permanent"), 1, text("1"), text("1")),
            ]
        );
    }

    #[test]
    fn what_is_left_alone_is_told() {
        assert_eq!(how_many(37, 4, 0), "37 of 41 dead letters (4 are of other exports)");
        assert_eq!(
            how_many(1, 1, 2),
            "1 of 4 dead letters (1 is of other exports, 2 are not meant)"
        );
        assert_eq!(how_many(1, 0, 0), "1 dead letter");
    }
}
