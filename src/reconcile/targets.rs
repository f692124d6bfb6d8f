//! Runs against what stands at their targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};

use super::books::{leaves, of};
use super::{Discrepancy, Kind, Reconciler, Seen, not_read, why};
use crate::connect::files::Store;
use crate::connect::{Connection, System};
use crate::delivery::{self, Verified};
use crate::error::{Class, Error, Result};
use crate::intake::Bound;
use crate::job::RunId;
use crate::job::run::{Run, State};
use crate::job::waiting;
use crate::ledger::Account;
use crate::pipeline::Plan;

/// How many targets of files are looked at at once.
const AT_ONCE: usize = 8;

/// What a run has delivered to, or would have.
struct Aim<'a> {
    account: &'a Account,
    target: String,
    bound: Arc<Bound>,
    connection: &'a Connection,
}

impl Reconciler {
    pub(super) async fn look_at_targets(
        &self,
        page: &[Account],
        progress: &mut impl FnMut(usize),
    ) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let (mut files, mut tables) = (Vec::new(), BTreeMap::<String, Vec<Aim<'_>>>::new());
        for account in page {
            let run = &account.run;
            // Whoever was never opened has left nothing anywhere, and an open run is not done with it.
            if run.fence == 0 || !run.state.ended() || run.parts.is_some() {
                continue;
            }
            let Some(target) = target(account) else { continue };
            match self.definition(run).await {
                Ok((bound, connection)) => {
                    let kind = connection.kind;
                    let aim = Aim { account, target, bound, connection };
                    match kind {
                        System::Files => files.push(aim),
                        System::Postgres | System::Sqlite => {
                            tables.entry(aim.target.clone()).or_default().push(aim);
                        }
                        System::Discard => {}
                    }
                }
                Err(error) => seen.push(not_read(Kind::Manifests, &target, &error)),
            }
        }
        let in_tables: usize = tables.values().map(Vec::len).sum();
        let mut looked = page.len() - files.len() - in_tables;
        let looks = files.into_iter().map(|aim| self.look_at_files(aim));
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some(found) = looks.next().await {
            seen.extend(found?);
            looked += 1;
            progress(looked);
        }
        for (target, aims) in tables {
            seen.extend(self.look_at_table(&target, &aims).await);
            looked += aims.len();
            progress(looked);
        }
        Ok(seen)
    }

    /// The definition that a run followed, and the connection that it delivers to.
    async fn definition(&self, run: &Run) -> Result<(Arc<Bound>, &Connection)> {
        let order = &run.order;
        let bound = self.definitions.bound(&order.export, &order.definition).await?;
        let name = &bound.export.sink.connection;
        let connection: &Connection = self.house.connections.get(name).ok_or_else(|| {
            Error::config("look at the target", "this configuration does not have the connection")
                .with("connection", name)
        })?;
        Ok((bound, connection))
    }

    async fn look_at_files(&self, aim: Aim<'_>) -> Result<Vec<Seen>> {
        let (Account { run, traces }, target) = (aim.account, &aim.target);
        let done = run.state == State::Done;
        // What was recorded last for the target is what has to stand there, and is looked at once.
        let looks = match &traces.head {
            Some(head) => done && head.run == run.id,
            None => true,
        };
        if !looks {
            return Ok(Vec::new());
        }
        let standing = match self.standing(&aim).await {
            Ok(standing) => standing,
            Err(error) => return Ok(vec![not_read(Kind::Manifests, target, &error)]),
        };
        let expected = match &run.decision {
            Some(decision) if done => leaves(decision),
            _ => None,
        };
        let wrong = |found: String, remedy: &'static str| {
            let (told, remedy) = match &expected {
                Some(hash) => {
                    (format!("the manifest {hash}, which the ledger has as the last"), remedy)
                }
                None => (format!("no manifest of a run that is {}", run.state), UNKNOWN),
            };
            let about = of(run, Kind::Manifests, target);
            vec![Seen::Wrong(Discrepancy { found, expected: told, remedy, ..about })]
        };
        let found = match standing {
            Standing::Nothing if expected.is_none() => {
                return Ok(vec![Seen::Sound(Kind::Manifests)]);
            }
            Standing::Nothing => return Ok(wrong("no manifest".to_owned(), GONE)),
            Standing::Strange(what) => return Ok(wrong(what, FOREIGN)),
            Standing::Delivery(found) => found,
        };
        if expected.as_ref() == Some(&found.manifest_sha256) {
            return Ok(of_files(run, target, &found));
        }
        let hash = &found.manifest_sha256;
        let whose = self.ledger.account(found.run).await?;
        Ok(match whose.map(|whose| whose.run) {
            // Its manifest comes before it is recorded, which it will be.
            Some(whose) if is_on_its_way(&whose, hash) => vec![Seen::Sound(Kind::Manifests)],
            // The ledger does not say that another stood here later.
            Some(whose)
                if whose.state == State::Done && expected.is_none() && whose.id != run.id =>
            {
                vec![Seen::Sound(Kind::Manifests)]
            }
            Some(whose) => {
                let name = whose.id.short();
                wrong(format!("the manifest {hash} of run {name}, which is {}", whose.state), OTHER)
            }
            None => {
                let name = found.run.short();
                wrong(format!("the manifest {hash} of run {name}, not in the ledger"), FOREIGN)
            }
        })
    }

    async fn standing(&self, aim: &Aim<'_>) -> Result<Standing> {
        // First of all: a folder that is not there is not made by looking.
        let store = Store::existing(aim.connection)?;
        let plan = Plan::new(aim.bound.export.clone(), &aim.account.run, &self.house)?;
        let Some(manifest) = plan.sink().manifest() else { return Ok(Standing::Nothing) };
        let found = delivery::verify_manifest(&store, &manifest, self.deep).await;
        match found {
            Ok(found) => Ok(Standing::Delivery(Box::new(found))),
            Err(error) if error.class() == Class::NotFound => Ok(Standing::Nothing),
            Err(error) if error.class() == Class::Malformed => Ok(Standing::Strange(why(&error))),
            Err(error) => Err(error),
        }
    }

    async fn look_at_table(&self, target: &str, aims: &[Aim<'_>]) -> Vec<Seen> {
        let Some(first) = aims.first() else { return Vec::new() };
        let ids: Vec<RunId> = aims.iter().map(|aim| aim.account.run.id).collect();
        let looked = async {
            let plan = Plan::new(first.bound.export.clone(), &first.account.run, &self.house)?;
            let markers = plan.sink().markers(&ids).await?;
            // The table is told of once, with the run that was recorded last for it.
            let is_gone = match aims.iter().any(|aim| filled_last(aim.account)) {
                true => !plan.sink().is_there().await?,
                false => false,
            };
            Ok::<_, Error>((markers, is_gone))
        };
        let (found, is_gone) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                return ids.iter().map(|_| not_read(Kind::Markers, target, &error)).collect();
            }
        };
        let look = |aim: &Aim<'_>| {
            let Account { run, traces } = aim.account;
            let wrong = |found: &str, expected: String, remedy: &'static str| {
                let about = of(run, Kind::Markers, target);
                Seen::Wrong(Discrepancy { found: found.to_owned(), expected, remedy, ..about })
            };
            let committed = "committed, with the decision that the ledger has".to_owned();
            match (run.state, found.get(&run.id)) {
                (State::Done, None) => wrong("no row of the run", committed, LOST),
                (State::Done, Some(None)) => wrong("a row that is open", committed, LOST),
                (State::Done, Some(Some(decision))) if run.decision.as_ref() != Some(decision) => {
                    wrong("another decision", committed, LOST)
                }
                // A newer edition stands in its place.
                (state, Some(Some(_))) if state != State::Done && !traces.superseded => {
                    wrong("committed", format!("not committed: the run is {state}"), DOUBTFUL)
                }
                _ if is_gone && filled_last(aim.account) => {
                    wrong("no table", "the table that the rows were written to".to_owned(), DROPPED)
                }
                _ => Seen::Sound(Kind::Markers),
            }
        };
        aims.iter().map(look).collect()
    }
}

/// What is at a target of files.
enum Standing {
    Nothing,
    /// A manifest that is none.
    Strange(String),
    Delivery(Box<Verified>),
}

const GONE: &str = "Somebody removed it. If a recipient still needs it, move away what is left of its \
    files; then `longshore rerun RUN --reason ...` delivers it again.";
const FOREIGN: &str = "It is damaged, or nothing that this ledger knows has put it there: another \
    installation, or somebody by hand. Deliver to a place of your own, or move it away with the files \
    that it names; then `longshore rerun RUN --reason ...` delivers what is missing.";
const OTHER: &str = "Recipients find a delivery that is not the last. Was the target, or the ledger, \
    restored from a backup? Move that manifest away with the files that it names; then `longshore \
    rerun RUN --reason ...` delivers the last again.";
const UNKNOWN: &str = "The ledger has no delivery there. A run that was resolved, another installation, \
    or somebody by hand has put it there; or the ledger was restored from a backup. Compare it with \
    the source, and move it away with the files that it names.";
const DIFFERS: &str = "Somebody changed or removed it. Move the file away if it is still there; then \
    `longshore rerun RUN --reason ...` delivers it again. Until then recipients must not take it.";
const DROPPED: &str = "Somebody dropped or renamed it: put it back. Where it has to be made anew, \
    `longshore rerun RUN --reason ...` delivers to it again what replaces or upserts rows; what appends \
    them is asked for with other keys, after `longshore cursors reset` where it has a cursor.";
const LOST: &str = "The target was restored from a backup, or its table longshore_deliveries was \
    changed: compare its rows with the source before anything is delivered again.";
const DOUBTFUL: &str = "Rows of a run that the ledger gave up are in the table. Do not ask for them \
    again, which would double them: compare the table with the source.";

/// Whether what a run wrote to a table is the last that was recorded for it, and there were rows.
fn filled_last(Account { run, traces }: &Account) -> bool {
    traces.head.as_ref().is_some_and(|head| head.run == run.id)
        && run.decision.as_ref().is_some_and(|decision| decision.counts.written > 0)
}

/// Its name.
fn target(account: &Account) -> Option<String> {
    let of_need = || waiting::target_of(&account.run.needs);
    let recorded = account.traces.delivery.as_ref().map(|delivery| delivery.target.as_str());
    recorded.or_else(of_need).map(str::to_owned)
}

/// Whether the manifest with this hash is what the run has decided, and is about to record.
fn is_on_its_way(run: &Run, hash: &str) -> bool {
    let decided = run.decision.as_ref().and_then(leaves);
    !run.state.ended() && decided.as_deref() == Some(hash)
}

/// The manifest is the right one: what of its files?
fn of_files(run: &Run, target: &str, found: &Verified) -> Vec<Seen> {
    let mut seen = vec![Seen::Sound(Kind::Manifests)];
    for part in &found.parts {
        let wrong = found.mismatches.iter().find(|one| one.file.as_ref() == Some(&part.name));
        seen.push(match wrong {
            None => Seen::Sound(Kind::Files),
            Some(one) => Seen::Wrong(Discrepancy {
                found: format!("{}: {}", one.what, one.found),
                expected: format!("{}: {}", one.what, one.expected),
                remedy: DIFFERS,
                ..of(run, Kind::Files, &format!("{target}/{}", part.name))
            }),
        });
    }
    seen
}
