//! What a scheduled run waits for: the runs of other exports for exactly its own window (PROTOCOL,
//! "Waiting").
//!
//! It looks when it is first opened in an epoch, under the lock of those runs' rows. Until all of
//! them are done it is parked on `after/<export>/<start>/<end>`, a resource that has no place:
//! whichever transaction ends a run wakes all who wait for its export and window, and they look
//! again.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::RunId;
use super::run::{Order, State};
use super::window::Window;

/// What every name of a predecessor among the resources begins with.
const PREFIX: &str = "after/";

/// What is waited for: every run of an export for a window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Predecessor {
    /// The export.
    pub export: String,
    /// The window, exactly.
    pub window: Window,
}

impl Predecessor {
    /// All that an order waits for, in the order in which its export names them.
    pub fn of(order: &Order) -> Vec<Predecessor> {
        let Some(window) = order.window else { return Vec::new() };
        let exports = order.after.iter().cloned();
        exports.map(|export| Predecessor { export, window }).collect()
    }

    /// What others wait for that wait for a run of this order.
    pub fn of_own(order: &Order) -> Option<Predecessor> {
        Some(Predecessor { export: order.export.clone(), window: order.window? })
    }

    /// The resource that its waiters are parked on.
    pub fn resource(&self) -> String {
        format!("{PREFIX}{}/{}/{}", self.export, self.window.start, self.window.end)
    }

    /// What is waited for on a resource, where it is a predecessor's.
    pub fn of_resource(resource: &str) -> Option<Predecessor> {
        let mut parts = resource.strip_prefix(PREFIX)?.split('/');
        let export = parts.next()?.to_owned();
        let (start, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Predecessor { export, window: Window { start, end } })
    }
}

/// What becomes of a run when a predecessor ended without a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AfterFailed {
    /// It ends as well, as a dead letter that says for what.
    #[default]
    Skip,
    /// It goes on, once all of them have ended.
    Run,
}

/// A run of a predecessor, as far as who waits for it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its key: only the newest edition of each counts.
    pub key: String,
    /// Which edition of the key it is.
    pub edition: i32,
    /// Where it stands.
    pub state: State,
}

/// What the ledger knows of a predecessor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// All its runs for the window.
    pub runs: BTreeMap<RunId, Standing>,
    /// How the window ended where it has no run: `catch-up` left it out, or the state in which a run
    /// ended whose history is deleted.
    pub without: Option<Without>,
}

/// How a window ended that has no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// `catch-up` left it out.
    LeftOut,
    /// It had a run, which ended so; its history is deleted.
    Ended(State),
}

impl Without {
    /// What the ledger's word says.
    pub fn of(why: &str) -> Without {
        State::parse(why).map_or(Without::LeftOut, Without::Ended)
    }
}

/// Why there will be no delivery of a predecessor unless somebody sees to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// A run of it has ended so.
    Run(RunId, State),
    /// It has no run.
    NoRun(Without),
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lacking::Run(run, state) => write!(f, "run {} is {state}", run.short()),
            Lacking::NoRun(Without::LeftOut) => f.write_str("its catch-up left the window out"),
            Lacking::NoRun(Without::Ended(state)) => {
                write!(f, "its run was {state}, and its history is deleted")
            }
        }
    }
}

/// What is found when a run looks at a predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Every run of it is done.
    Done,
    /// One has not ended, or there is none yet.
    Waits,
    /// All have ended, or one that has is enough to know: this one without a delivery.
    Lacks(Lacking),
}

/// How a predecessor stands for a run with this policy. With [`AfterFailed::Skip`] the first that
/// ended without a delivery decides; else all of them are waited for.
pub fn look(known: &Known, policy: AfterFailed) -> Found {
    let mut newest: BTreeMap<&str, (i32, RunId, State)> = BTreeMap::new();
    for (run, one) in &known.runs {
        let this = (one.edition, *run, one.state);
        let entry = newest.entry(&one.key).or_insert(this);
        if entry.0 < this.0 {
            *entry = this;
        }
    }
    let open = newest.values().any(|(_, _, state)| !state.ended());
    let lacks = newest.values().find(|(_, _, state)| state.ended() && *state != State::Done);
    match (lacks, known.without) {
        (Some((_, run, state)), _) if !open || policy == AfterFailed::Skip => {
            Found::Lacks(Lacking::Run(*run, *state))
        }
        _ if open => Found::Waits,
        _ if !newest.is_empty() => Found::Done,
        (_, Some(Without::Ended(State::Done))) => Found::Done,
        (_, Some(without)) => Found::Lacks(Lacking::NoRun(without)),
        (_, None) => Found::Waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(runs: &[(&str, i32, State)], without: Option<Without>) -> Known {
        let standing = |(key, edition, state): &(&str, i32, State)| {
            (RunId::new(), Standing { key: (*key).to_owned(), edition: *edition, state: *state })
        };
        Known { runs: runs.iter().map(standing).collect(), without }
    }

    /// In one letter what is found by either policy.
    fn found(known: &Known) -> (char, char) {
        let letter = |policy| match look(known, policy) {
            Found::Done => 'd',
            Found::Waits => 'w',
            Found::Lacks(_) => 'l',
        };
        (letter(AfterFailed::Skip), letter(AfterFailed::Run))
    }

    #[test]
    fn every_run_counts_by_its_newest_edition() {
        use State::{Cancelled, Closing, Committing, Dead, Done, Expired, Fanned, Queued, Running};
        let runs = |runs: &[(&str, i32, State)]| found(&known(runs, None));
        assert_eq!(runs(&[]), ('w', 'w'));
        for open in [Queued, Running, Fanned, Committing, Closing] {
            assert_eq!(runs(&[("a", 1, open)]), ('w', 'w'));
            assert_eq!(runs(&[("a", 1, Done), ("b", 1, open)]), ('w', 'w'));
            assert_eq!(runs(&[("a", 1, Done), ("a", 2, open)]), ('w', 'w'));
            assert_eq!(runs(&[("a", 1, Dead), ("b", 1, open)]), ('l', 'w'));
        }
        for lacking in [Dead, Cancelled, Expired] {
            assert_eq!(runs(&[("a", 1, lacking)]), ('l', 'l'));
            assert_eq!(runs(&[("a", 1, Done), ("b", 1, lacking)]), ('l', 'l'));
            assert_eq!(runs(&[("a", 2, Done), ("a", 1, lacking)]), ('d', 'd'));
        }
        assert_eq!(runs(&[("a", 1, Done), ("b", 3, Done)]), ('d', 'd'));
    }

    #[test]
    fn a_window_without_a_run_is_what_the_ledger_remembers_of_it() {
        let without = |why: &str| found(&known(&[], Some(Without::of(why))));
        assert_eq!(without("done"), ('d', 'd'));
        for why in ["catch-up", "dead", "expired", "cancelled"] {
            assert_eq!(without(why), ('l', 'l'), "{why}");
        }
        // A run that somebody asked for later counts before it.
        let asked = known(&[("a", 1, State::Queued)], Some(Without::LeftOut));
        assert_eq!(found(&asked), ('w', 'w'));
    }

    #[test]
    fn names_read_back() {
        let window = Window {
            start: "2026-11-18T23:00:00Z".parse().unwrap(),
            end: "2026-11-19T23:00:00.000001Z".parse().unwrap(),
        };
        let one = Predecessor { export: "daily-orders".to_owned(), window };
        assert_eq!(Predecessor::of_resource(&one.resource()), Some(one));
        for other in ["slot/shop", "pause/all", "after/x", "target/after/x/y/z"] {
            assert_eq!(Predecessor::of_resource(other), None, "{other}");
        }
    }
}
