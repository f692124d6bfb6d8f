//! Dead letters as people see them: listed, one by one, and grouped by what is wrong.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::cli::output::{clock, counted, plain, thousands};
use crate::cli::runs::{in_few_words, window_by};
use crate::cli::{Context, Ended, Failure, Verdict};
use crate::error::{Error, Result};
use crate::intake::Bound;
use crate::job::RunId;
use crate::ledger::Which;
use crate::replay::{Filter, Letter, look};
use crate::wiring::Parts;

/// Letters that a dry run looks at.
const LOOKED_AT: usize = 100_000;
/// Letters of one run or message that are shown.
const SHOWN: usize = 100;

pub async fn list(
    context: &Context,
    parts: &Parts,
    pools: &[String],
    filter: &Filter,
    limit: usize,
) -> Ended {
    let letters = look(&*parts.queue, pools, filter, context.out.json, limit).await?;
    if context.out.json {
        for letter in &letters {
            context.out.object(letter)?;
        }
        return Ok(Verdict::Done);
    }
    let now = Timestamp::now();
    let bound = active(parts, &letters).await?;
    let rows = letters
        .iter()
        .map(|letter| {
            let dead = &letter.dead;
            let bound = dead.export.as_ref().and_then(|export| bound.get(export));
            let window = letter.window.map(|window| window_by(&window, bound));
            vec![
                ending(letter),
                dead.export.clone().unwrap_or_else(|| "-".to_owned()),
                in_few_words(window, &letter.params, 1),
                dead.class.clone(),
                dead.attempts.to_string(),
                at(&dead.first_failed_at, now),
                at(&dead.last_failed_at, now),
                dead.reason.clone(),
            ]
        })
        .collect();
    let header = ["RUN", "EXPORT", "WINDOW", "CLASS", "TRY", "FIRST", "LAST", "REASON"];
    context.out.table(&header, rows)?;
    Ok(Verdict::Done)
}

/// The active definitions of the exports of these letters: windows are written as they say.
async fn active(parts: &Parts, letters: &[Letter]) -> Result<BTreeMap<String, Bound>> {
    if letters.iter().all(|letter| letter.window.is_none()) {
        return Ok(BTreeMap::new());
    }
    let active = parts.ledger.definitions(Which::Active).await?;
    let readable = active.iter().filter_map(|stored| Bound::of(stored).ok());
    Ok(readable.map(|bound| (bound.name.clone(), bound)).collect())
}

pub fn run_id(letter: &Letter) -> Option<RunId> {
    letter.dead.run.as_ref()?.parse().ok()
}

fn ending(letter: &Letter) -> String {
    run_id(letter).map_or_else(|| letter.handle.clone(), |run| run.short())
}

fn at(text: &str, now: Timestamp) -> String {
    text.parse().map_or_else(|_| "-".to_owned(), |at| clock(at, now))
}

pub async fn show(context: &Context, parts: &Parts, pools: &[String], run: String) -> Ended {
    const DOING: &str = "show the dead letter";
    let filter = Filter { run: Some(run.clone()), ..Filter::default() };
    let letters = look(&*parts.queue, pools, &filter, true, SHOWN).await?;
    filter.expect_one(DOING, letters.iter().map(|letter| letter.handle.as_str()))?;
    if letters.is_empty() {
        return Err(Error::not_found(DOING, "no dead letter is of a run or message that ends so")
            .with("run", run)
            .help("See `longshore dead list`.")
            .into());
    }
    // The same message may have been set aside several times.
    for (index, letter) in letters.iter().enumerate() {
        if context.out.json {
            context.out.object(letter)?;
            continue;
        }
        if index > 0 {
            context.out.line("")?;
        }
        one(context, letter)?;
    }
    Ok(Verdict::Done)
}

fn one(context: &Context, letter: &Letter) -> Result<(), Failure> {
    let dead = &letter.dead;
    let now = Timestamp::now();
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let name = if dead.run.is_some() { "run" } else { "message" };
    for (name, value) in [
        (name, letter.handle.clone()),
        ("export", or_none(&dead.export)),
        ("class", dead.class.clone()),
        ("reason", dead.reason.clone()),
        ("attempts", dead.attempts.to_string()),
        ("first", at(&dead.first_failed_at, now)),
        ("last", at(&dead.last_failed_at, now)),
        ("worker", dead.worker.clone()),
        ("pool", letter.pool.clone()),
        ("routing key", dead.routing_key.clone()),
        ("correlation", or_none(&letter.correlation_id)),
        ("message id", or_none(&letter.message_id)),
    ] {
        context.out.line(format!("{name:<11} {}", plain(&value)))?;
    }
    if let Some(body) = &letter.body {
        context.out.line(format!("\n{}", plain(body)))?;
    }
    Ok(())
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

/// What a dry run finds.
#[derive(Default)]
pub struct Looked {
    /// The letters that are picked.
    pub letters: Vec<Letter>,
    /// How many there are of other exports than the one that is asked for.
    pub foreign: u64,
    /// How many others are not picked.
    pub others: u64,
    /// How many are picked and cannot be replayed.
    pub stuck: u64,
}

impl Looked {
    pub fn handles(&self) -> impl Iterator<Item = &str> {
        self.letters.iter().map(|letter| letter.handle.as_str())
    }
}

pub async fn looked(parts: &Parts, pools: &[String], filter: &Filter) -> Result<Looked> {
    let all = look(&*parts.queue, pools, &Filter::default(), false, LOOKED_AT).await?;
    let mut looked = Looked::default();
    for letter in all {
        let is_foreign = filter
            .export
            .as_ref()
            .is_some_and(|export| letter.dead.export.as_ref() != Some(export));
        if filter.picks(&letter.dead, &letter.handle) {
            looked.letters.push(letter);
        } else if is_foreign {
            looked.foreign += 1;
        } else {
            looked.others += 1;
        }
    }
    Ok(looked)
}

/// `37 of 41 dead letters (4 are of other exports)`
pub fn how_many(picked: usize, looked: &Looked) -> String {
    let Looked { foreign, others, stuck, .. } = *looked;
    let all = counted(picked as u64 + foreign + others + stuck, "dead letter");
    let mut left = Vec::new();
    for (count, what) in [(foreign, "of other exports"), (others, "not meant")] {
        if count > 0 {
            left.push(format!("{} {what}", be(count)));
        }
    }
    if stuck > 0 {
        left.push(format!("{} cannot be replayed", thousands(stuck)));
    }
    if left.is_empty() {
        return all;
    }
    format!("{} of {all} ({})", thousands(picked as u64), left.join(", "))
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
            handle: "x".to_owned(),
            dead: DeadHeaders {
                class: class.to_owned(),
                reason: "r".to_owned(),
                first_failed_at: first.to_owned(),
                last_failed_at: last.to_owned(),
                ..DeadHeaders::default()
            },
            window: None,
            params: serde_json::Map::new(),
            correlation_id: None,
            message_id: None,
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
        let left = |foreign, others, stuck| Looked { foreign, others, stuck, letters: Vec::new() };
        assert_eq!(how_many(37, &left(4, 0, 0)), "37 of 41 dead letters (4 are of other exports)");
        assert_eq!(
            how_many(1, &left(1, 2, 0)),
            "1 of 4 dead letters (1 is of other exports, 2 are not meant)"
        );
        assert_eq!(how_many(2, &left(0, 0, 1)), "2 of 3 dead letters (1 cannot be replayed)");
        assert_eq!(how_many(1, &left(0, 0, 0)), "1 dead letter");
    }
}
