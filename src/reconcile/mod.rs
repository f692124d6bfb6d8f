//! An installation held against itself: every run of the ledger against what stands at its target,
//! and the ledger against itself and the dead-letter queues. Nothing is changed.
//!
//! It reads in pages, so that memory does not grow with the history: what is kept is what was found,
//! up to a bound, and the names of the runs that have to have a dead letter. The installation may be
//! at work meanwhile. What does not agree is looked at again a moment later, since something may
//! just have been on its way; only what is still there then is told.

mod books;
mod letters;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::letters::Letters;
use crate::error::{Error, Result};
use crate::intake::Definitions;
use crate::job::RunId;
use crate::ledger::{Account, AccountFilter, Counted, Gap, Ledger, Stray};
use crate::pipeline::House;
use crate::queue::Queue;

/// How many runs are looked at at once.
const PAGE: u32 = 200;
/// How many discrepancies are kept; more are only counted.
pub const KEPT: usize = 1000;
/// How often what does not agree is looked at again, and how long is waited before.
const AGAIN: usize = 3;
const MOMENT: Duration = Duration::from_secs(1);

/// What is held against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Done runs, and their one delivery with its manifest.
    Deliveries,
    /// Rows read, and rows written, filtered and refused.
    Counts,
    /// What was recorded last for a target of files, and the manifest that stands there.
    Manifests,
    /// The files that such a manifest names, and those that are there.
    Files,
    /// Runs that deliver to a table, and their row in that database.
    Markers,
    /// Cursors, and the ranges of the deliveries that moved them.
    Cursors,
    /// Open runs, and who will look at them next.
    WakeUps,
    /// What is held or waited for, and the runs that do.
    Holdings,
    /// Dead runs, and their letters.
    Letters,
}

impl Kind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Kind; 9] = [
        Kind::Deliveries,
        Kind::Counts,
        Kind::Manifests,
        Kind::Files,
        Kind::Markers,
        Kind::Cursors,
        Kind::WakeUps,
        Kind::Holdings,
        Kind::Letters,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Deliveries => "deliveries",
            Kind::Counts => "counts",
            Kind::Manifests => "manifests",
            Kind::Files => "files",
            Kind::Markers => "markers",
            Kind::Cursors => "cursors",
            Kind::WakeUps => "wake-ups",
            Kind::Holdings => "holdings",
            Kind::Letters => "letters",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discrepancy {
    /// What was held against what.
    pub kind: Kind,
    /// The run.
    pub run: RunId,
    /// Its export, where the ledger has the run.
    pub export: Option<String>,
    /// What it is about: a target, a file there, a cursor, a resource, a queue.
    pub of: String,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotRead {
    /// What would have been held against what.
    pub kind: Kind,
    /// What it is about.
    pub of: String,
    /// Why not.
    pub why: String,
}

/// How many of a kind were looked at, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were looked at.
    pub checked: u64,
    /// How many discrepancies there are.
    pub discrepancies: u64,
    /// How many could not be looked at.
    pub unread: u64,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many runs were looked at.
    pub looked: u64,
    /// How many of each kind.
    pub tallies: BTreeMap<Kind, Tally>,
    /// What is not as it should be, [`KEPT`] at the most.
    pub discrepancies: Vec<Discrepancy>,
    /// What could not be looked at, and how many times; [`KEPT`] at the most.
    pub unread: BTreeMap<NotRead, u64>,
}

impl Report {
    /// How many discrepancies there are, those that are only counted too.
    pub fn found(&self) -> u64 {
        self.tallies.values().map(|tally| tally.discrepancies).sum()
    }

    /// How many things could not be looked at.
    pub fn not_read(&self) -> u64 {
        self.tallies.values().map(|tally| tally.unread).sum()
    }
}

/// What looking at one thing has come to.
enum Seen {
    Sound(Kind),
    Wrong(Discrepancy),
    NotRead(NotRead),
}

/// Holds an installation against itself.
pub struct Reconciler {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Where the dead letters are; or why it cannot be asked.
    pub queue: std::result::Result<Arc<dyn Queue>, String>,
    /// Definitions out of the ledger.
    pub definitions: Definitions,
    /// The connections, by which targets are reached.
    pub house: House,
    /// Whether every byte of every file is read.
    pub deep: bool,
}

/// How far an audit is.
#[derive(Default)]
struct Walk {
    report: Report,
    letters: Letters,
    /// Discrepancies of runs that were kept.
    runs: BTreeSet<RunId>,
}

impl Walk {
    fn note(&mut self, seen: Seen) {
        let kind = match &seen {
            Seen::Sound(kind) => *kind,
            Seen::Wrong(wrong) => wrong.kind,
            Seen::NotRead(unread) => unread.kind,
        };
        let tally = self.report.tallies.entry(kind).or_default();
        match seen {
            Seen::Sound(_) => tally.checked += 1,
            Seen::Wrong(wrong) => {
                tally.checked += 1;
                tally.discrepancies += 1;
                if self.report.discrepancies.len() < KEPT {
                    self.runs.insert(wrong.run);
                    self.report.discrepancies.push(wrong);
                }
            }
            Seen::NotRead(unread) => {
                tally.unread += 1;
                if self.report.unread.len() < KEPT || self.report.unread.contains_key(&unread) {
                    *self.report.unread.entry(unread).or_default() += 1;
                }
            }
        }
    }
}

impl Reconciler {
    /// Looks at the runs that a filter picks, and of its export at what belongs to no run alone.
    /// `progress` is told how many runs were looked at.
    ///
    /// A target, a cursor or a queue that cannot be read is [`Report::unread`]. Where the ledger cannot
    /// be read on the way, the report has what was found until then.
    ///
    /// # Errors
    /// Where the ledger cannot be read.
    pub async fn audit(
        &self,
        filter: &AccountFilter,
        mut progress: impl FnMut(u64),
    ) -> (Report, Result<()>) {
        let mut walk = Walk::default();
        for kind in Kind::ALL {
            walk.report.tallies.insert(kind, Tally::default());
        }
        // Before the long walk, after which nobody would like to hear that this fails.
        let export = filter.export.as_deref();
        let (cursors, kept) = (self.look_at_cursors(export).await, self.look_at_kept(export).await);
        let mut ended = self.walk(filter, &mut walk, &mut progress).await;
        for (kind, (checked, seen)) in [(Kind::Cursors, cursors), (Kind::Holdings, kept)] {
            seen.into_iter().for_each(|seen| walk.note(seen));
            // There may be several gaps in a cursor.
            walk.report.tallies.entry(kind).or_default().checked = checked;
        }
        if ended.is_ok() {
            match self.look_for_letters(std::mem::take(&mut walk.letters)).await {
                Ok(seen) => seen.into_iter().for_each(|seen| walk.note(seen)),
                Err(error) => ended = Err(error),
            }
        }
        (walk.report, ended)
    }

    /// The runs, with everything but their letters.
    async fn walk(
        &self,
        filter: &AccountFilter,
        walk: &mut Walk,
        progress: &mut impl FnMut(u64),
    ) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.ledger.accounts(filter, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.run.id);
            let before = walk.report.looked;
            let mut progress = |looked: usize| progress(before + looked as u64);
            for seen in self.look(&page, &mut progress).await? {
                walk.note(seen);
            }
            walk.letters.expect(&page);
            walk.report.looked += page.len() as u64;
        }
        self.look_again(walk).await
    }

    /// How many cursors there are, and what is wrong with them.
    async fn look_at_cursors(&self, export: Option<&str>) -> (u64, Vec<Seen>) {
        let exports = match export {
            Some(export) => Ok(vec![export.to_owned()]),
            None => self.ledger.exports().await,
        };
        let exports = match exports {
            Ok(exports) => exports,
            Err(error) => return (0, vec![not_read(Kind::Cursors, "all exports", &error)]),
        };
        let (mut checked, mut seen) = (0, Vec::new());
        // One by one: reading all deliveries of all of them at once takes longer than a query may.
        for export in exports {
            match self.ledger.gaps(&export, KEPT as u32).await {
                Ok(gaps) => {
                    checked += gaps.checked;
                    seen.extend(gaps.found.into_iter().map(|gap| Seen::Wrong(of_gap(gap))));
                }
                Err(error) => seen.push(not_read(Kind::Cursors, &export, &error)),
            }
        }
        (checked, seen)
    }

    /// How much is held or waited for, and what is wrong with it.
    async fn look_at_kept(&self, export: Option<&str>) -> (u64, Vec<Seen>) {
        match self.ledger.strays(export, KEPT as u32).await {
            Ok(Counted { checked, found }) => {
                (checked, found.into_iter().map(|stray| Seen::Wrong(of_stray(stray))).collect())
            }
            Err(error) => (0, vec![not_read(Kind::Holdings, "what runs hold", &error)]),
        }
    }

    /// Looks at some runs, with everything but their letters.
    async fn look(&self, page: &[Account], progress: &mut impl FnMut(usize)) -> Result<Vec<Seen>> {
        let now = self.ledger.now().await?;
        let mut seen: Vec<Seen> =
            page.iter().flat_map(|account| books::look(account, now)).collect();
        seen.extend(self.look_at_targets(page, progress).await?);
        Ok(seen)
    }

    /// Looks again at what did not agree: it may have been on its way.
    async fn look_again(&self, walk: &mut Walk) -> Result<()> {
        for _ in 0..AGAIN {
            if walk.runs.is_empty() {
                break;
            }
            tokio::time::sleep(MOMENT).await;
            let mut still = Vec::new();
            let runs: Vec<RunId> = std::mem::take(&mut walk.runs).into_iter().collect();
            for chunk in runs.chunks(PAGE as usize) {
                let mut page = Vec::new();
                for run in chunk {
                    page.extend(self.ledger.account(*run).await?);
                }
                let looked = self.look(&page, &mut |_| {}).await?;
                let wrong = looked.into_iter().filter_map(|seen| match seen {
                    Seen::Wrong(wrong) => Some(wrong),
                    Seen::Sound(_) | Seen::NotRead(_) => None,
                });
                still.extend(wrong);
            }
            let is_still = |one: &Discrepancy| {
                let same = |other: &Discrepancy| {
                    (other.run, other.kind, &other.of) == (one.run, one.kind, &one.of)
                };
                still.iter().any(same)
            };
            let before = std::mem::take(&mut walk.report.discrepancies);
            for one in before {
                if is_still(&one) {
                    walk.runs.insert(one.run);
                    walk.report.discrepancies.push(one);
                } else if let Some(tally) = walk.report.tallies.get_mut(&one.kind) {
                    tally.discrepancies -= 1;
                }
            }
        }
        Ok(())
    }
}

fn of_gap(gap: Gap) -> Discrepancy {
    let at = |place: Option<String>| place.unwrap_or_else(|| "nowhere".to_owned());
    let (expected, found) = (at(gap.expected), at(gap.found));
    Discrepancy {
        kind: Kind::Cursors,
        run: gap.run,
        export: Some(gap.export),
        of: gap.cursor,
        found: match gap.stands {
            true => format!("it stands at {found}"),
            false => format!("this delivery begins at {found}"),
        },
        expected: match gap.stands {
            true => format!("{expected}, where its last delivery ends"),
            false => format!("{expected}, where the delivery before ends"),
        },
        remedy: "Rows between the two were passed over, or were read twice: compare source and \
            target there. `longshore cursors set` moves the cursor, and says so in the audit trail.",
    }
}

fn of_stray(stray: Stray) -> Discrepancy {
    let what = if stray.waits { "waited for" } else { "held" };
    let by = match &stray.state {
        Some(state) => format!("a run that is {state}"),
        None => "a run that the ledger does not have".to_owned(),
    };
    Discrepancy {
        kind: Kind::Holdings,
        run: stray.run,
        export: stray.export,
        of: stray.resource,
        found: format!("{what} by {by}"),
        expected: "only open runs hold or wait for something".to_owned(),
        remedy: "Others may wait for it in vain. Somebody wrote to the ledger by hand, or it was \
            restored from a backup; delete the row from holdings or waiters.",
    }
}

fn not_read(kind: Kind, of: &str, error: &Error) -> Seen {
    Seen::NotRead(NotRead { kind, of: of.to_owned(), why: why(error) })
}

/// Why something could not be looked at, on one line.
fn why(error: &Error) -> String {
    crate::scrub::scrub(&error.to_string())
}
