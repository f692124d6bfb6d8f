//! Dead runs against the dead-letter queues.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use super::{AGAIN, Discrepancy, Kind, MOMENT, NotRead, Reconciler, Seen, why};
use crate::error::Result;
use crate::job::RunId;
use crate::job::run::State;
use crate::ledger::Account;
use crate::queue::Queue;

/// The runs that have to have a letter, with their epochs.
#[derive(Default)]
pub(super) struct Letters {
    wanted: BTreeMap<RunId, i32>,
    pools: BTreeSet<String>,
    sound: u64,
}

/// Whether the ledger alone does not tell where the letter of a run is.
fn needs(account: &Account) -> bool {
    matches!(account.run.state, State::Dead | State::Expired)
        && !account.traces.letter
        && !account.traces.settled
}

impl Letters {
    /// Takes note of those that are to be looked for.
    pub fn expect(&mut self, page: &[Account]) {
        for account in page {
            if needs(account) {
                self.wanted.insert(account.run.id, account.run.epoch);
                self.pools.insert(account.run.order.pool.clone());
            } else if matches!(account.run.state, State::Dead | State::Expired) {
                self.sound += 1;
            }
        }
    }
}

impl Reconciler {
    /// Looks for letters in the queues of their pools. Nothing is used up.
    pub(super) async fn look_for_letters(&self, letters: Letters) -> Result<Vec<Seen>> {
        let Letters { mut wanted, pools, sound } = letters;
        let all = sound + wanted.len() as u64;
        let mut away = None;
        for turn in 0..AGAIN {
            if wanted.is_empty() || away.is_some() {
                break;
            }
            if turn > 0 {
                // Somebody who replays has taken hold of letters, or a letter was just sent.
                tokio::time::sleep(MOMENT).await;
                let mut still = BTreeMap::new();
                for run in wanted.keys() {
                    if let Some(account) = self.ledger.account(*run).await?.filter(needs) {
                        still.insert(*run, account.run.epoch);
                    }
                }
                wanted = still;
            }
            away = self.find(&pools, &mut wanted).await.err();
        }
        let sound = all - wanted.len() as u64;
        let mut seen: Vec<Seen> = (0..sound).map(|_| Seen::Sound(Kind::Letters)).collect();
        for run in wanted.keys() {
            if let Some(unread) = &away {
                seen.push(Seen::NotRead(unread.clone()));
                continue;
            }
            let Some(account) = self.ledger.account(*run).await? else { continue };
            seen.push(Seen::Wrong(Discrepancy {
                found: format!("no letter of epoch {}", account.run.epoch),
                expected: format!("the dead letter of a run that is {}", account.run.state),
                remedy: "Was a dead-letter queue purged or deleted? `longshore dead replay --run RUN \
                    --reason ...` queues it again without its letter; `longshore dead drop --run RUN \
                    --reason ...` says that nobody wants it.",
                ..super::books::of(&account.run, Kind::Letters, &account.run.order.pool)
            }));
        }
        Ok(seen)
    }

    /// Takes those out of `wanted` whose letter is there; or tells what cannot be read.
    async fn find(
        &self,
        pools: &BTreeSet<String>,
        wanted: &mut BTreeMap<RunId, i32>,
    ) -> std::result::Result<(), NotRead> {
        let unread = |of: &str, why| NotRead { kind: Kind::Letters, of: of.to_owned(), why };
        let queue = self.queue.as_ref().map_err(|why| unread("the queues", why.clone()))?;
        for pool in pools {
            let found = find(&**queue, pool, wanted).await;
            found.map_err(|error| unread(&format!("the dead letters of {pool}"), why(&error)))?;
        }
        Ok(())
    }
}

/// Takes those out of `wanted` whose letter is there.
async fn find(queue: &dyn Queue, pool: &str, wanted: &mut BTreeMap<RunId, i32>) -> Result<()> {
    let mut letters = queue.dead(pool).await?;
    while let Some(letter) = letters.next().await {
        let dead = letter?.properties.dead.unwrap_or_default();
        let run = dead.run.and_then(|run| run.parse::<RunId>().ok());
        if let Some(run) = run.filter(|run| wanted.get(run).copied() == dead.epoch) {
            wanted.remove(&run);
        }
    }
    Ok(())
}
