//! A run against what the ledger itself has about it.

use jiff::{SignedDuration, Timestamp};

use super::{Discrepancy, Kind, Seen};
use crate::digest::sha256;
use crate::job::decision::Decision;
use crate::job::manifest::{MANIFEST_LIMIT, Manifest, ManifestCounts};
use crate::job::run::{Run, State};
use crate::ledger::{Account, Traces};

/// How long what is on its way may take before it is missed.
const GRACE: SignedDuration = SignedDuration::from_mins(1);
/// How long a wake-up that was sent may wait in its queue, at least. The sweeper sends another then.
const QUEUED: SignedDuration = SignedDuration::from_mins(65);

/// Everything that the ledger alone tells.
pub(super) fn look(account: &Account, now: Timestamp) -> Vec<Seen> {
    let run = &account.run;
    match run.state {
        // What was spread has delivered nothing itself.
        State::Done if run.parts.is_some() => Vec::new(),
        State::Done => done(account),
        // Its splits are woken, and the last of them wakes it; of theirs the account tells nothing.
        State::Fanned if !run.gathers() => Vec::new(),
        _ if !run.state.ended() => vec![wake_up(account, now)],
        _ => match &account.traces.delivery {
            Some(delivery) => vec![Seen::Wrong(Discrepancy {
                found: format!("delivery {} of a run that is {}", delivery.id, run.state),
                expected: "only done runs have a delivery".to_owned(),
                remedy: WRITTEN,
                ..of(run, Kind::Deliveries, &delivery.target)
            })],
            None => Vec::new(),
        },
    }
}

const WRITTEN: &str = "The ledger was written to by hand, or restored from a backup: compare with the \
    manifest at the target, which is signed for by its hash.";

/// A discrepancy of a run, of which nothing is told yet.
pub(super) fn of(run: &Run, kind: Kind, what: &str) -> Discrepancy {
    Discrepancy {
        kind,
        run: run.id,
        export: Some(run.order.export.clone()),
        of: what.to_owned(),
        found: String::new(),
        expected: String::new(),
        remedy: "",
    }
}

/// The manifest that has to stand at a target of files after this decision was carried out: that of
/// its predecessor, where there was nothing to deliver.
pub(super) fn leaves(decision: &Decision) -> Option<String> {
    match decision.parts.is_empty() {
        true => decision.replaces.clone(),
        false => Some(sha256(&decision.manifest)),
    }
}

fn done(account: &Account) -> Vec<Seen> {
    let Account { run, traces } = account;
    let kind = Kind::Deliveries;
    let target = traces.delivery.as_ref().map_or("-", |delivery| delivery.target.as_str());
    let wrong = |found: String, expected: String| {
        Seen::Wrong(Discrepancy { found, expected, remedy: WRITTEN, ..of(run, kind, target) })
    };
    let Some(delivery) = &traces.delivery else {
        return vec![wrong("no delivery".to_owned(), "the delivery of a done run".to_owned())];
    };
    let Some(decision) = &run.decision else {
        return vec![wrong("no decision".to_owned(), "the decision of a done run".to_owned())];
    };
    let manifest = match Manifest::parse(decision.manifest.as_bytes(), MANIFEST_LIMIT) {
        Ok(manifest) => manifest,
        Err(error) => return vec![wrong(super::why(&error), "the run's manifest".to_owned())],
    };
    let mut seen = Vec::new();
    let mine = sha256(&decision.manifest);
    // With nothing to deliver, what stood there still does.
    let before = decision.replaces.as_ref().filter(|_| decision.parts.is_empty());
    let recorded = &delivery.manifest_sha256;
    let whole = (manifest.delivery, manifest.run, manifest.key.as_str(), manifest.edition);
    if *recorded != mine && Some(recorded) != before {
        seen.push(wrong(
            format!("the delivery has the manifest {recorded}"),
            format!("{mine}, as decided"),
        ));
    } else if whole != (delivery.id, run.id, run.order.key.as_str(), run.order.edition) {
        let (id, of, key, edition) = whole;
        seen.push(wrong(
            format!("a manifest of delivery {id}, run {of}, key {key}, edition {edition}"),
            format!("delivery {}, and the run's own key and edition", delivery.id),
        ));
    } else if traces.deliveries != 1 {
        seen.push(wrong(
            format!("{} deliveries of one key and edition", traces.deliveries),
            "one".to_owned(),
        ));
    } else {
        seen.push(Seen::Sound(kind));
    }
    seen.push(counts(run, decision, &manifest, target));
    seen
}

/// Whether no row is unaccounted for, and ledger, decision and manifest say the same.
fn counts(run: &Run, decision: &Decision, manifest: &Manifest, target: &str) -> Seen {
    let counts = decision.counts;
    let ManifestCounts { read, written, filtered, quarantined } = manifest.counts;
    let sum = u128::from(written) + u128::from(filtered) + u128::from(quarantined);
    let listed: u128 = manifest.files.iter().map(|file| u128::from(file.rows)).sum();
    let told = format!(
        "{read} read, {written} written, {filtered} filtered, {quarantined} quarantined, {listed} in files"
    );
    let expected = if run.counts != Some(counts) || ManifestCounts::from(counts) != manifest.counts
    {
        "the same counts in run, decision and manifest"
    } else if u128::from(read) != sum {
        "read = written + filtered + quarantined"
    } else if !manifest.files.is_empty() && u128::from(written) != listed {
        "as many rows in the files as were written"
    } else {
        return Seen::Sound(Kind::Counts);
    };
    Seen::Wrong(Discrepancy {
        found: told,
        expected: expected.to_owned(),
        remedy: "Rows are not accounted for. Keep the delivery and the ledger's row as they are, and \
            report it: a run whose counts do not add up has to fail.",
        ..of(run, Kind::Counts, target)
    })
}

/// Whether somebody will look at an open run.
fn wake_up(Account { run, traces }: &Account, now: Timestamp) -> Seen {
    let Traces { wake, .. } = traces;
    let ago = |at: Timestamp| now.duration_since(at);
    let on_its_way = match wake {
        Some(wake) => match wake.sent_at {
            None => true,
            // Sent before the heartbeat ended, it found the run held; the sweeper sends the next.
            Some(sent) => match run.heartbeat {
                Some(until) if sent < until => ago(until) < GRACE || ago(sent) < GRACE,
                _ => ago(sent) < QUEUED.max(sent.duration_since(run.changed_at) + GRACE),
            },
        },
        None => ago(run.changed_at) < GRACE || run.heartbeat.is_some_and(|at| ago(at) < GRACE),
    };
    if run.parked.is_some() || run.alive(now) || on_its_way {
        return Seen::Sound(Kind::WakeUps);
    }
    Seen::Wrong(Discrepancy {
        found: match wake.as_ref().and_then(|wake| wake.sent_at) {
            Some(sent) => format!("{}, with a wake-up that was sent at {sent}", run.state),
            None => format!("{}, with nothing on its way", run.state),
        },
        expected: "a wake-up on its way, a living heartbeat, or a place among the waiters"
            .to_owned(),
        remedy: "Is a scheduler running? Its sweeper wakes such runs within seconds; see `longshore \
            doctor`.",
        ..of(run, Kind::WakeUps, &run.order.pool)
    })
}
