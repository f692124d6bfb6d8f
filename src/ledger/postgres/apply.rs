//! Group commit: the commands of many callers become one transaction.
//!
//! Whoever has commands puts them on a list. Whenever one of a few connections is free, everything
//! on the list is applied in one transaction, so that the more there is to do, the less each
//! costs. Nobody waits for company: a lone command goes at once.
//!
//! What one transaction does is `transaction`'s matter.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Object;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_postgres::error::SqlState;

use super::pool::Pool;
use super::remembered::Remembered;
use super::transaction::{DOING, Prepared, load, store};
use crate::connect::postgres as server;
use crate::error::{Class, Error, Result};
use crate::job::book::Book;
use crate::job::command::{Command, Outcome};
use crate::job::retry::{self, Jitter};
use crate::ledger::sheet::storable;
use crate::units::Backoff;

/// How often a transaction is tried again when it lost a race.
const TRIES: u32 = 8;
/// How long is waited before that.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(8), last: Duration::from_secs(1) };
/// How many transactions are under way at once.
const AT_ONCE: usize = 4;
/// How a transaction begins.
const BEGIN: &str = "BEGIN";
/// And one of a caller who has waited for a lock already, together with others.
const BEGIN_AGAIN: &str = "BEGIN; SET LOCAL lock_timeout = '200ms'";
/// How many commands one transaction applies, unless a single caller has more.
const MOST: usize = 200;

/// Commands of one caller.
struct Asked {
    commands: Vec<Command>,
    answer: oneshot::Sender<Result<Vec<Outcome>>>,
}

/// Gathers commands, and applies them.
pub struct Group {
    pool: Pool,
    asked: Mutex<VecDeque<Asked>>,
    turns: Arc<Semaphore>,
    remembered: Remembered,
    /// Whether runs that die are told of.
    notices: bool,
}

impl Group {
    /// Nothing is gathered yet.
    pub fn new(pool: Pool, notices: bool) -> Group {
        let turns = Arc::new(Semaphore::new(AT_ONCE.min(pool.most())));
        Group { pool, asked: Mutex::default(), turns, remembered: Remembered::default(), notices }
    }

    /// Applies commands, together with whatever else has been asked for.
    pub async fn apply(self: &Arc<Group>, commands: Vec<Command>) -> Result<Vec<Outcome>> {
        storable(&commands)?;
        let (answer, answered) = oneshot::channel();
        self.asked().push_back(Asked { commands, answer });
        // Where there is no turn, whoever has one looks again after it.
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            tokio::spawn(Arc::clone(self).take_turns(turn));
        }
        answered.await.unwrap_or_else(|_| Err(Error::transient(DOING, "the transaction was lost")))
    }

    /// Applies what is asked for as long as there is any.
    async fn take_turns(self: Arc<Group>, mut turn: OwnedSemaphorePermit) {
        loop {
            while !self.asked().is_empty() {
                // Whoever had asked is told that the transaction was lost; the others have their turn.
                let _ = AssertUnwindSafe(self.turn()).catch_unwind().await;
            }
            drop(turn);
            // Somebody may have asked before the turn was free.
            if self.asked().is_empty() {
                return;
            }
            match Arc::clone(&self.turns).try_acquire_owned() {
                Ok(again) => turn = again,
                Err(_) => return,
            }
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, VecDeque<Asked>> {
        // Nothing is left half-done under this lock.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gather(&self) -> Vec<Asked> {
        let mut asked = self.asked();
        let mut commands = 0;
        let mut callers = 0;
        while let Some(next) = asked.get(callers) {
            commands += next.commands.len();
            if callers > 0 && commands > MOST {
                break;
            }
            callers += 1;
        }
        asked.drain(..callers).collect()
    }

    async fn turn(&self) {
        let mut batch = self.gather();
        let commands: Vec<Command> =
            batch.iter().flat_map(|asked| asked.commands.iter().cloned()).collect();
        if commands.is_empty() {
            return batch.into_iter().for_each(|asked| drop(asked.answer.send(Ok(Vec::new()))));
        }
        match self.patiently(&commands, BEGIN).await {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for Asked { commands, answer } in batch {
                    let _ = answer.send(Ok(outcomes.by_ref().take(commands.len()).collect()));
                }
            }
            // What is wrong with one caller's commands must not fail the others', nor must a lock
            // that somebody else holds on one run; and of many who are locked out, none waits for all
            // the others again.
            Err(error)
                if batch.len() > 1
                    && (error.class() == Class::Permanent || was_locked_out(&error)) =>
            {
                let begin = if was_locked_out(&error) { BEGIN_AGAIN } else { BEGIN };
                for Asked { commands, answer } in batch {
                    let _ = answer.send(self.patiently(&commands, begin).await);
                }
            }
            Err(error) => {
                let last = batch.pop();
                for Asked { answer, .. } in batch {
                    let _ = answer.send(Err(error.again()));
                }
                if let Some(Asked { answer, .. }) = last {
                    let _ = answer.send(Err(error));
                }
            }
        }
    }

    /// Applies commands in one transaction, which starts again when it lost a race.
    async fn patiently(&self, commands: &[Command], begin: &'static str) -> Result<Vec<Outcome>> {
        let mut tried = 0;
        loop {
            match self.once(commands, begin).await {
                Err(error) if tried < TRIES && lost_a_race(&error) => {
                    let wait = retry::wait(AGAIN, tried, Jitter::Full, rand::random());
                    tried += 1;
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
    }

    async fn once(&self, commands: &[Command], begin: &'static str) -> Result<Vec<Outcome>> {
        self.pool
            .lend(DOING, async |client| {
                let prepared = Prepared::on(client).await?;
                let applied = Box::pin(self.transact(&prepared, client, commands, begin)).await;
                if applied.is_err() {
                    // Where that fails the connection has ended, and the transaction with it.
                    let _ = client.batch_execute("ROLLBACK").await;
                }
                applied
            })
            .await
    }

    async fn transact(
        &self,
        prepared: &Prepared,
        client: &Object,
        commands: &[Command],
        begin: &str,
    ) -> Result<Vec<Outcome>> {
        let known = self.remembered.take(commands);
        let (facts, xid) = Box::pin(load(prepared, client, commands, known, begin)).await?;
        let mut book = Book::new(facts);
        let outcomes = commands.iter().map(|command| book.apply(command.clone())).collect();
        let changes = book.close();
        Box::pin(store(prepared, client, &changes, self.notices)).await?;
        self.remembered.keep(changes.inserted, &xid);
        self.remembered.keep(changes.updated, &xid);
        Ok(outcomes)
    }
}

/// The SQLSTATE of an error that the server has answered.
fn state(error: &Error) -> Option<&SqlState> {
    std::error::Error::source(error)?.downcast_ref::<server::Quiet>()?.0.code()
}

/// Whether somebody else held a lock for too long.
fn was_locked_out(error: &Error) -> bool {
    state(error) == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// A deadlock, a serialization failure, or two that accepted one key at once: starting again
/// finds what the other did.
fn lost_a_race(error: &Error) -> bool {
    let Some(state) = state(error) else { return false };
    let key_race = *state == SqlState::UNIQUE_VIOLATION
        && error.context().contains(&("constraint", "runs_key_edition_key".to_owned()));
    key_race
        || *state == SqlState::T_R_DEADLOCK_DETECTED
        || *state == SqlState::T_R_SERIALIZATION_FAILURE
}
