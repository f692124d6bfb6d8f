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
use crate::ledger::{Account, Gap, Ledger, Scope, Stray};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unread {
    /// What would have been held against what.
    pub kind: Kind,
    /// What it is about.
    pub of: String,
    /// Why not.
    pub why: String,
}

/// How many of a kind were looked at, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
    /// How many of each kind.
    pub tallies: BTreeMap<Kind, Tally>,
    /// What is not as it should be, [`KEPT`] at the most.
    pub discrepancies: Vec<Discrepancy>,
    /// What could not be looked at, and how many times; [`KEPT`] at the most.
    pub unread: BTreeMap<Unread, u64>,
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
    Unread(Unread),
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
            Seen::Unread(unread) => unread.kind,
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
            Seen::Unread(unread) => {
                tally.unread += 1;
                if self.report.unread.len() < KEPT || self.report.unread.contains_key(&unread) {
                    *self.report.unread.entry(unread).or_default() += 1;
                }
            }
        }
    }
}

impl Reconciler {
    /// Looks at the runs of a scope, and of its export at what belongs to no run alone. `progress` is
    /// told how many runs were looked at.
    ///
    /// # Errors
    /// Where the ledger cannot be read. A target or a queue that cannot be is [`Report::unread`].
    pub async fn audit(&self, scope: &Scope, mut progress: impl FnMut(u64)) -> Result<Report> {
        let mut walk = Walk::default();
        for kind in Kind::ALL {
            walk.report.tallies.insert(kind, Tally::default());
        }
        let (mut after, mut looked) = (None, 0);
        loop {
            let page = self.ledger.accounts(scope, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.run.id);
            for seen in self.look(&page).await? {
                walk.note(seen);
            }
            walk.letters.expect(&page);
            looked += page.len() as u64;
            progress(looked);
        }
        self.look_again(&mut walk).await?;
        let export = scope.export.as_deref();
        let gaps = self.ledger.gaps(export, KEPT as u32).await?;
        let strays = self.ledger.strays(export, KEPT as u32).await?;
        let (cursors, kept) = (gaps.checked, strays.checked);
        gaps.found.into_iter().for_each(|gap| walk.note(Seen::Wrong(of_gap(gap))));
        strays.found.into_iter().for_each(|stray| walk.note(Seen::Wrong(of_stray(stray))));
        // There may be several gaps in a cursor.
        for (kind, checked) in [(Kind::Cursors, cursors), (Kind::Holdings, kept)] {
            walk.report.tallies.entry(kind).or_default().checked = checked;
        }
        for seen in self.look_for_letters(std::mem::take(&mut walk.letters)).await? {
            walk.note(seen);
        }
        Ok(walk.report)
    }

    /// Looks at some runs, with everything but their letters.
    async fn look(&self, page: &[Account]) -> Result<Vec<Seen>> {
        let now = self.ledger.now().await?;
        let mut seen: Vec<Seen> =
            page.iter().flat_map(|account| books::look(account, now)).collect();
        seen.extend(self.look_at_targets(page).await?);
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
                let wrong = self.look(&page).await?.into_iter().filter_map(|seen| match seen {
                    Seen::Wrong(wrong) => Some(wrong),
                    Seen::Sound(_) | Seen::Unread(_) => None,
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
        export: None,
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
        export: None,
        of: stray.resource,
        found: format!("{what} by {by}"),
        expected: "only open runs hold or wait for something".to_owned(),
        remedy: "Others may wait for it in vain. Somebody wrote to the ledger by hand, or it was \
            restored from a backup; delete the row from holdings or waiters.",
    }
}

/// Why something could not be looked at, on one line.
fn why(error: &Error) -> String {
    crate::scrub::scrub(&error.to_string())
}
