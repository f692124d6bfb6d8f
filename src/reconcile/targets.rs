//! Runs against what stands at their targets.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};

use super::books::{leaves, of};
use super::{Discrepancy, Kind, Reconciler, Seen, Unread, why};
use crate::connect::System;
use crate::connect::files::Store;
use crate::delivery::{self, Verified};
use crate::error::{Class, Error, Result};
use crate::job::RunId;
use crate::job::run::{Run, State};
use crate::ledger::Account;
use crate::pipeline::Plan;

/// How many targets of files are looked at at once.
const AT_ONCE: usize = 8;

impl Reconciler {
    pub(super) async fn look_at_targets(&self, page: &[Account]) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let (mut files, mut tables) = (Vec::new(), BTreeMap::<String, Vec<&Account>>::new());
        for account in page {
            let run = &account.run;
            // Whoever was never opened has left nothing anywhere, and an open run is not done with it.
            if run.fence == 0 || !run.state.ended() || run.parts.is_some() {
                continue;
            }
            let Some(target) = target(account) else { continue };
            match self.system(run).await {
                Ok(System::Files) => files.push((account, target)),
                Ok(System::Postgres | System::Sqlite) => {
                    tables.entry(target).or_default().push(account);
                }
                Ok(System::Discard) => {}
                Err(error) => seen.push(unread(Kind::Manifests, &target, &error)),
            }
        }
        let looks = files.into_iter().map(|(account, target)| self.look_at_files(account, target));
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some(looked) = looks.next().await {
            seen.extend(looked?);
        }
        for (target, accounts) in tables {
            seen.extend(self.look_at_table(&target, &accounts).await);
        }
        Ok(seen)
    }

    /// The kind of system that a run delivers to.
    async fn system(&self, run: &Run) -> Result<System> {
        let order = &run.order;
        let bound = self.definitions.bound(&order.export, &order.definition).await?;
        let name = &bound.export.sink.connection;
        let connection = self.house.connections.get(name).ok_or_else(|| {
            Error::config("look at the target", "this configuration does not have the connection")
                .with("connection", name)
        })?;
        if connection.kind == System::Files {
            // A folder that is not there is not made by looking.
            Store::existing(connection)?;
        }
        Ok(connection.kind)
    }

    async fn plan(&self, run: &Run) -> Result<Plan> {
        let order = &run.order;
        let bound = self.definitions.bound(&order.export, &order.definition).await?;
        Plan::new(bound.export.clone(), run, &self.house)
    }

    async fn look_at_files(&self, account: &Account, target: String) -> Result<Vec<Seen>> {
        let Account { run, facts } = account;
        let done = run.state == State::Done;
        // What was recorded last for the target is what has to stand there, and is looked at once.
        let looks = match &facts.head {
            Some(head) => done && head.run == run.id,
            None => true,
        };
        if !looks {
            return Ok(Vec::new());
        }
        let standing = match self.standing(run).await {
            Ok(standing) => standing,
            Err(error) => return Ok(vec![unread(Kind::Manifests, &target, &error)]),
        };
        let expected = match &run.decision {
            Some(decision) if done => leaves(decision, true),
            _ => None,
        };
        let wrong = |found: String, remedy: &'static str| {
            let told = match &expected {
                Some(hash) => format!("the manifest {hash}, which the ledger has as the last"),
                None => format!("no manifest of a run that is {}", run.state),
            };
            let about = of(run, Kind::Manifests, &target);
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
            return Ok(of_files(run, &target, &found));
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

    async fn standing(&self, run: &Run) -> Result<Standing> {
        let plan = self.plan(run).await?;
        let Some(manifest) = plan.sink().manifest() else { return Ok(Standing::Nothing) };
        let name = &plan.export().sink.connection;
        let Some(connection) = self.house.connections.get(name) else {
            return Ok(Standing::Nothing);
        };
        let store = Store::existing(connection)?;
        let found = match self.deep {
            true => delivery::verify_manifest(&store, &manifest).await,
            false => delivery::verify_sizes(&store, &manifest).await,
        };
        match found {
            Ok(found) => Ok(Standing::Delivery(Box::new(found))),
            Err(error) if error.class() == Class::NotFound => Ok(Standing::Nothing),
            Err(error) if error.class() == Class::Malformed => Ok(Standing::Strange(why(&error))),
            Err(error) => Err(error),
        }
    }

    async fn look_at_table(&self, target: &str, accounts: &[&Account]) -> Vec<Seen> {
        let Some(first) = accounts.first() else { return Vec::new() };
        let ids: Vec<RunId> = accounts.iter().map(|account| account.run.id).collect();
        let found = async { self.plan(&first.run).await?.sink().markers(&ids).await };
        let found = match found.await {
            Ok(found) => found,
            Err(error) => {
                return ids.iter().map(|_| unread(Kind::Markers, target, &error)).collect();
            }
        };
        let look = |account: &&Account| {
            let Account { run, facts } = *account;
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
                (state, Some(Some(_))) if state != State::Done && !facts.superseded => {
                    wrong("committed", format!("not committed: the run is {state}"), DOUBTFUL)
                }
                _ => Seen::Sound(Kind::Markers),
            }
        };
        accounts.iter().map(look).collect()
    }
}

/// What is at a target of files.
enum Standing {
    Nothing,
    /// A manifest that is none.
    Strange(String),
    Delivery(Box<Verified>),
}

const GONE: &str = "Somebody removed it. If a recipient still needs it, `longshore rerun RUN` delivers \
    it again.";
const FOREIGN: &str = "Nothing that this ledger knows has put it there: another installation, or \
    somebody by hand. Deliver to a place of your own, or move it away.";
const OTHER: &str = "Recipients find a delivery that is not the last. Was the target, or the ledger, \
    restored from a backup? `longshore rerun RUN` delivers the last again.";
const DIFFERS: &str = "Somebody changed or removed it. `longshore rerun RUN` delivers it again; until \
    then recipients must not take it.";
const LOST: &str = "The target was restored from a backup, or its table longshore_deliveries was \
    changed: compare its rows with the source before anything is delivered again.";
const DOUBTFUL: &str = "Rows of a run that the ledger gave up are in the table. Do not ask for them \
    again, which would double them: compare the table with the source.";

fn unread(kind: Kind, of: &str, error: &Error) -> Seen {
    Seen::Unread(Unread { kind, of: of.to_owned(), why: why(error) })
}

/// What a run has delivered to, or would have.
fn target(account: &Account) -> Option<String> {
    let of_need = || account.run.needs.iter().find_map(|need| need.strip_prefix("target/"));
    let recorded = account.facts.delivery.as_ref().map(|delivery| delivery.target.as_str());
    recorded.or_else(of_need).map(str::to_owned)
}

/// Whether the manifest with this hash is what the run has decided, and is about to record.
fn is_on_its_way(run: &Run, hash: &str) -> bool {
    let decided = run.decision.as_ref().and_then(|decision| leaves(decision, true));
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
