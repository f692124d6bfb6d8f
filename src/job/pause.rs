//! Pauses: what operators hold back.
//!
//! A run that is to be opened while its export, its pool, one of its connections or everything is
//! paused is parked on the pause, as on a resource that has no place: it keeps what it has reserved,
//! and goes on when the pause is lifted. What is running or decided already is left alone.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::run::Run;

/// What every name of a pause among the resources begins with.
const PREFIX: &str = "pause/";

/// What is held back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything: all runs, and all schedules.
    All,
    /// What schedules make due; jobs that others ask for go on.
    Schedules,
    /// An export, and its schedule.
    Export(String),
    /// Whatever reads from a connection or writes to it.
    Connection(String),
    /// A pool.
    Pool(String),
}

impl Scope {
    /// The word for its kind, and the name where there is one.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Scope::All => ("all", ""),
            Scope::Schedules => ("schedules", ""),
            Scope::Export(name) => ("export", name),
            Scope::Connection(name) => ("connection", name),
            Scope::Pool(name) => ("pool", name),
        }
    }

    /// What [`Scope::parts`] gave.
    pub fn of(kind: &str, name: &str) -> Option<Scope> {
        let name = name.to_owned();
        Some(match kind {
            "all" => Scope::All,
            "schedules" => Scope::Schedules,
            "export" => Scope::Export(name),
            "connection" => Scope::Connection(name),
            "pool" => Scope::Pool(name),
            _ => return None,
        })
    }

    /// The resource that its waiters are parked on: `pause/export/orders`.
    pub fn resource(&self) -> String {
        match self.parts() {
            (kind, "") => format!("{PREFIX}{kind}"),
            (kind, name) => format!("{PREFIX}{kind}/{name}"),
        }
    }

    /// Whether the schedule of an export asks for nothing meanwhile.
    pub fn holds_schedule_of(&self, export: &str) -> bool {
        match self {
            Scope::All | Scope::Schedules => true,
            Scope::Export(name) => name == export,
            Scope::Connection(_) | Scope::Pool(_) => false,
        }
    }

    /// What a resource that runs are parked on holds back, where it is a pause.
    pub fn of_resource(resource: &str) -> Option<Scope> {
        let rest = resource.strip_prefix(PREFIX)?;
        let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
        Scope::of(kind, name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            ("all", _) => f.write_str("everything"),
            ("schedules", _) => f.write_str("all schedules"),
            (kind, name) => write!(f, "{kind} {name}"),
        }
    }
}

/// A pause that somebody has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What is held back.
    pub scope: Scope,
    /// When it is lifted by itself.
    pub until: Option<Timestamp>,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When. The ledger's own clock says it.
    pub at: Timestamp,
}

impl Pause {
    /// Why, as the audit trail has it: with when it ends by itself, and with what it takes the place
    /// of, since that is not there any more.
    pub fn audited(&self, before: Option<&Pause>) -> String {
        let second = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let until = self.until.map(|until| format!("until {}", second(until)));
        let before = before.map(|before| {
            let until = before.until.map_or_else(|| "resumed".to_owned(), second);
            let Pause { by, reason, .. } = before;
            format!("in the place of that by {by} until {until}: {reason}")
        });
        let more: Vec<String> = until.into_iter().chain(before).collect();
        if more.is_empty() {
            return self.reason.clone();
        }
        format!("{} ({})", self.reason, more.join("; "))
    }
}

/// A pause as both ledgers' statements give it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    scope: String,
    name: String,
    until: Option<Timestamp>,
    by: String,
    reason: String,
    at: Timestamp,
}

impl Record {
    /// The pause, unless a newer Longshore made it.
    pub(crate) fn pause(self) -> Option<Pause> {
        let scope = Scope::of(&self.scope, &self.name)?;
        Some(Pause { scope, until: self.until, by: self.by, reason: self.reason, at: self.at })
    }
}

/// The pause among those in force that holds a run back, by its name among the resources. `uses`
/// are the run's connections.
pub fn holds(in_force: &BTreeSet<String>, run: &Run, uses: &[String]) -> Option<String> {
    if in_force.is_empty() {
        return None;
    }
    let order = &run.order;
    let of_run = [Scope::All, Scope::Export(order.export.clone()), Scope::Pool(order.pool.clone())];
    let of_connections = uses.iter().map(|name| Scope::Connection(name.clone()));
    of_run
        .into_iter()
        .chain(of_connections)
        .map(|scope| scope.resource())
        .find(|resource| in_force.contains(resource))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::RunId;
    use crate::job::run::tests::order;

    #[test]
    fn names_read_back() {
        let name = "a/b".to_owned();
        for scope in [
            Scope::All,
            Scope::Schedules,
            Scope::Export(name.clone()),
            Scope::Connection(name.clone()),
            Scope::Pool(name),
        ] {
            let (kind, name) = scope.parts();
            assert_eq!(Scope::of(kind, name), Some(scope.clone()));
            assert_eq!(Scope::of_resource(&scope.resource()), Some(scope));
        }
        for other in ["slot/shop", "target/pause/all", "pause/moon"] {
            assert_eq!(Scope::of_resource(other), None, "{other}");
        }
    }

    #[test]
    fn the_audit_trail_tells_until_when_and_what_was_replaced() {
        let pause = |by: &str, reason: &str, until: Option<&str>| Pause {
            scope: Scope::All,
            until: until.map(|until| until.parse().unwrap()),
            by: by.to_owned(),
            reason: reason.to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        let first = pause("ann", "moving", None);
        assert_eq!(first.audited(None), "moving");
        let second = pause("bob", "still moving", Some("2026-11-21T12:00:00Z"));
        assert_eq!(second.audited(None), "still moving (until 2026-11-21T12:00:00Z)");
        assert_eq!(
            second.audited(Some(&first)),
            "still moving (until 2026-11-21T12:00:00Z; in the place of that by ann until resumed: moving)"
        );
        assert_eq!(
            first.audited(Some(&second)),
            "moving (in the place of that by bob until 2026-11-21T12:00:00Z: still moving)"
        );
    }

    #[test]
    fn a_run_is_held_back_by_what_concerns_it_and_by_nothing_else() {
        let run = Run::new(RunId::new(), order("k"), Timestamp::UNIX_EPOCH);
        let uses = ["shop".to_owned(), "lake".to_owned()];
        let held =
            |resource: &str| holds(&BTreeSet::from([resource.to_owned()]), &run, &uses).is_some();
        for resource in ["pause/all", "pause/connection/shop", "pause/connection/lake"] {
            assert!(held(resource), "{resource}");
        }
        assert!(held(&format!("pause/export/{}", run.order.export)));
        assert!(held(&format!("pause/pool/{}", run.order.pool)));
        for resource in ["pause/schedules", "pause/connection/crm", "pause/pool/other"] {
            assert!(!held(resource), "{resource}");
        }
    }
}
