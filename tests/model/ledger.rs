//! The ledger of the model: what the tables hold, loaded for a batch of commands as the real
//! ledgers load it, given to the real [`Book`], and stored as its changes say.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use longshore::job::RunId;
use longshore::job::book::Book;
use longshore::job::changes::{Changes, Facts, WakeUp};
use longshore::job::command::{Command, Outcome};
use longshore::job::run::{Run, State};
use longshore::job::split::Split;
use longshore::job::waiting::Resource;
use uuid::Uuid;

/// How long heartbeats last, and how far off is whatever is not due at once. The ledger's clock
/// moves by a microsecond with each transaction; time passes for one thing after the other, by steps
/// of their own.
pub const LEASE: Duration = Duration::from_secs(60);
/// When the model begins.
const BEGIN: Timestamp = Timestamp::constant(1_800_000_000, 0);
/// The name of the one export.
pub const EXPORT: &str = "orders";
/// So many editions of a key have numbers.
const EDITIONS: u8 = 4;

/// A run's number: that of its key, and the edition.
pub fn number(key: u8, edition: i32) -> u8 {
    key * EDITIONS + u8::try_from(edition - 1).unwrap()
}

/// The key of a run.
pub fn key_of(run: u8) -> u8 {
    run / EDITIONS
}

/// The name of a run.
pub fn id(run: u8) -> RunId {
    RunId(Uuid::from_u128(u128::from(run) + 1))
}

fn run_of(id: RunId) -> u8 {
    u8::try_from(id.0.as_u128() - 1).unwrap()
}

/// What a row of the outbox is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Wake,
    Letter,
    Clean,
    Split(u8),
}

/// A row of the outbox.
#[derive(Debug, Clone)]
pub struct Row {
    pub epoch: i32,
    pub version: u32,
    pub at: Timestamp,
    pub sent: bool,
    pub taken: bool,
}

/// The tables.
#[derive(Clone)]
pub struct Ledger {
    pub now: Timestamp,
    pub runs: BTreeMap<u8, Arc<Run>>,
    /// By run and number.
    pub splits: BTreeMap<(u8, u8), Arc<Split>>,
    /// Attempts of splits that have no outcome: run, epoch and fence.
    pub reading: BTreeSet<(u8, i32, i64)>,
    pub resources: BTreeMap<String, Resource>,
    pub outbox: BTreeMap<(u8, Kind), Row>,
    pub cursors: BTreeMap<String, String>,
    pub heads: BTreeMap<String, String>,
    pub pauses: BTreeSet<String>,
    versions: u32,
}

/// What a batch of commands names: see `ledger::sheet::Named`.
#[derive(Default)]
struct Named {
    runs: BTreeSet<RunId>,
    splits: BTreeSet<(RunId, i32)>,
    keys: BTreeSet<String>,
    needs: BTreeSet<String>,
}

impl Named {
    fn of(commands: &[Command]) -> Named {
        let mut named = Named::default();
        for command in commands {
            match command {
                Command::Accept { order, .. } => {
                    named.keys.insert(order.key.clone());
                }
                Command::Rerun { of, order, .. } => {
                    named.runs.insert(*of);
                    named.keys.insert(order.key.clone());
                }
                Command::Open(open) => {
                    named.runs.insert(open.run);
                    named.needs.extend(open.needs.iter().flatten().map(|need| need.name.clone()));
                }
                Command::Beat { run, .. }
                | Command::Wake { run, .. }
                | Command::Decide { run, .. }
                | Command::Record { run, .. }
                | Command::Retry { run, .. }
                | Command::Fail { run, .. }
                | Command::Close { run, .. }
                | Command::Cancel { run, .. }
                | Command::Expire { run }
                | Command::Replay { run, .. }
                | Command::Fan { run, .. }
                | Command::Hold { run, .. }
                | Command::Unpark { run } => {
                    named.runs.insert(*run);
                }
                Command::Split { of, .. } => {
                    named.runs.insert(of.run);
                    named.splits.insert((of.run, of.split));
                }
                other => panic!("the model gives no such command: {other:?}"),
            }
        }
        named
    }
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger {
            now: BEGIN,
            runs: BTreeMap::new(),
            splits: BTreeMap::new(),
            reading: BTreeSet::new(),
            resources: BTreeMap::new(),
            outbox: BTreeMap::new(),
            cursors: BTreeMap::new(),
            heads: BTreeMap::new(),
            pauses: BTreeSet::new(),
            versions: 0,
        }
    }

    /// One transaction of the ledger, as `ledger::embedded::apply::apply` does it.
    pub fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.now += Duration::from_micros(1);
        let mut book = Book::new(self.load(&commands));
        let outcomes = commands.into_iter().map(|command| book.apply(command)).collect();
        self.store(book.close());
        outcomes
    }

    /// One command in a transaction of its own.
    pub fn apply_one(&mut self, command: Command) -> Outcome {
        self.apply(vec![command]).remove(0)
    }

    /// Only what the commands name is loaded, since the book must not need more.
    fn load(&self, commands: &[Command]) -> Facts {
        let named = Named::of(commands);
        let runs: Vec<Run> = self
            .runs
            .values()
            .filter(|run| named.runs.contains(&run.id) || named.keys.contains(&run.order.key))
            .map(|run| (**run).clone())
            .collect();
        let mut names = named.needs;
        for run in &runs {
            names.extend(run.needs.iter().cloned());
            names.extend(run.parked.clone());
        }
        let load = |name: String| {
            let mut resource = self.resources.get(&name)?.clone();
            let first = resource.waiters.iter().take(commands.len()).cloned();
            let of_batch =
                resource.waiters.iter().filter(|w| runs.iter().any(|run| run.id == w.run)).cloned();
            resource.waiters = first.chain(of_batch).collect();
            Some((name, resource))
        };
        Facts {
            now: self.now,
            superseded: runs
                .iter()
                .filter(|run| self.is_superseded(run))
                .map(|run| run.id)
                .collect(),
            resources: names.into_iter().filter_map(load).collect(),
            runs,
            splits: self
                .splits
                .values()
                .filter(|split| named.splits.contains(&(split.run, split.split)))
                .map(|split| (**split).clone())
                .collect(),
            cursors: self.cursors.clone(),
            heads: self.heads.clone(),
            active: BTreeMap::from([(EXPORT.to_owned(), "d".to_owned())]),
            pauses: self.pauses.clone(),
            before: BTreeMap::new(),
        }
    }

    fn is_superseded(&self, run: &Run) -> bool {
        self.runs.values().any(|newer| {
            newer.order.key == run.order.key
                && newer.order.edition > run.order.edition
                && matches!(newer.state, State::Committing | State::Done)
        })
    }

    fn store(&mut self, changes: Changes) {
        self.store_splits(&changes);
        for run in changes.inserted.into_iter().chain(changes.updated) {
            self.runs.insert(run_of(run.id), Arc::new(run));
        }
        for (name, capacity) in changes.resources {
            self.resources.entry(name).or_default().capacity = capacity;
        }
        for (name, run) in changes.freed {
            self.resources.entry(name).or_default().holders.remove(&run);
        }
        for (name, run) in changes.taken {
            self.resources.entry(name).or_default().holders.insert(run);
        }
        for resource in self.resources.values_mut() {
            resource.waiters.retain(|waiter| {
                !changes.unparked.contains(&waiter.run) && !changes.parked.contains_key(&waiter.run)
            });
        }
        for (on, waiter) in changes.parked.into_values() {
            self.resources.entry(on).or_default().waiters.insert(waiter);
        }
        // What a run is parked on is kept in the list of waiters alone.
        for run in self.runs.values_mut() {
            let parked = self
                .resources
                .iter()
                .find(|(_, resource)| resource.waiters.iter().any(|waiter| waiter.run == run.id))
                .map(|(name, _)| name.clone());
            if run.parked != parked {
                Arc::make_mut(run).parked = parked;
            }
        }
        for run in changes.unwoken {
            self.outbox.remove(&(run_of(run), Kind::Wake));
        }
        for run in changes.unlettered {
            self.outbox.remove(&(run_of(run), Kind::Letter));
        }
        for (run, wake) in changes.wakes {
            self.post(run, Kind::Wake, &wake);
        }
        for (run, wake) in changes.cleanings {
            self.post(run, Kind::Clean, &wake);
        }
        for (run, epoch) in changes.letters {
            let wake = WakeUp { epoch, pool: String::new(), at: self.now, had_turn: false };
            self.post(run, Kind::Letter, &wake);
        }
        for (run, delivery) in changes.deliveries {
            assert!(self.runs.contains_key(&run_of(run)));
            self.heads.insert(delivery.target, delivery.manifest_sha256);
        }
        for (name, (value, _)) in changes.cursors {
            self.cursors.insert(name, value);
        }
    }

    /// As `ledger::sheet` is to have it: what goes, before what takes its place.
    fn store_splits(&mut self, changes: &Changes) {
        self.splits.retain(|_, split| !changes.refanned.contains(&split.run));
        for split in &changes.splits {
            let key = (run_of(split.run), u8::try_from(split.split).unwrap());
            self.splits.insert(key, Arc::new(split.clone()));
        }
        self.outbox.retain(|(run, kind), row| {
            let Kind::Split(split) = kind else { return true };
            let id = id(*run);
            let forsaken = changes.forsaken.get(&id).is_some_and(|epoch| row.epoch <= *epoch);
            !forsaken && !changes.unwoken_splits.contains(&(id, i32::from(*split)))
        });
        for ((run, split), wake) in &changes.split_wakes {
            self.post(*run, Kind::Split(u8::try_from(*split).unwrap()), wake);
        }
        for ended in &changes.ended {
            let ended = (run_of(ended.run), ended.fence);
            self.reading.retain(|(run, _, fence)| (*run, *fence) != ended);
        }
        for opened in changes.opened.iter().filter(|opened| opened.split.is_some()) {
            self.reading.insert((run_of(opened.run), opened.epoch, opened.fence));
        }
        self.reading.retain(|(run, epoch, _)| {
            changes.forsaken.get(&id(*run)).is_none_or(|forsaken| epoch > forsaken)
        });
    }

    /// A posting takes the place of an earlier one of its run and kind, under a new version.
    fn post(&mut self, run: RunId, kind: Kind, wake: &WakeUp) {
        self.versions += 1;
        let row = Row {
            epoch: wake.epoch,
            version: self.versions,
            at: wake.at,
            sent: false,
            taken: false,
        };
        self.outbox.insert((run_of(run), kind), row);
    }

    pub fn run(&self, run: u8) -> Option<&Run> {
        self.runs.get(&run).map(|run| &**run)
    }

    /// Changes a run outside of the book: time passes for it.
    pub fn pass(&mut self, run: u8, how: impl FnOnce(&mut Run, Timestamp)) {
        let now = self.now;
        if let Some(run) = self.runs.get_mut(&run) {
            how(Arc::make_mut(run), now);
        }
    }

    /// As [`Ledger::pass`], for a split.
    pub fn pass_split(&mut self, run: u8, split: u8, how: impl FnOnce(&mut Split, Timestamp)) {
        let now = self.now;
        if let Some(split) = self.splits.get_mut(&(run, split)) {
            how(Arc::make_mut(split), now);
        }
    }

    /// A row is due now.
    pub fn due(&mut self, run: u8, kind: Kind) {
        let now = self.now;
        if let Some(row) = self.outbox.get_mut(&(run, kind)) {
            row.at = row.at.min(now);
        }
    }

    /// `Ledger::mark_sent`: what was replaced meanwhile has another version, and stays to be sent.
    pub fn mark_sent(&mut self, version: u32) {
        let found = self.outbox.iter().find(|(_, row)| row.version == version);
        let Some(key) = found.map(|(key, _)| *key) else { return };
        if matches!(key.1, Kind::Wake | Kind::Split(_)) {
            let row = self.outbox.get_mut(&key).unwrap();
            (row.sent, row.taken) = (true, false);
        } else {
            self.outbox.remove(&key);
        }
    }

    /// Whatever future steps can depend on: of times only whether they have come, and in which order
    /// runs began to wait. Versions are hashed by whoever knows who else remembers them.
    pub fn hash(&self, to: &mut impl Hasher) {
        let since: BTreeSet<Timestamp> =
            self.runs.values().filter_map(|run| run.waiting_since).collect();
        let future = |at: Option<Timestamp>| at.map(|at| at > self.now);
        for (number, run) in &self.runs {
            number.hash(to);
            run.state.hash(to);
            run.end.map(|end| end.state()).hash(to);
            (run.epoch, run.fence, run.failures, run.crashes, run.waits).hash(to);
            future(run.heartbeat).hash(to);
            run.order.not_before.is_some_and(|at| at > self.now).hash(to);
            future(run.order.deadline).hash(to);
            run.order.content.hash(to);
            run.decision.as_ref().map(|decision| (&decision.manifest, &decision.replaces)).hash(to);
            (&run.needs, &run.parked).hash(to);
            run.waiting_since.map(|at| since.range(..at).count()).hash(to);
            run.fan.as_ref().map(|fan| (fan.fence, fan.done, fan.until.is_some())).hash(to);
        }
        for (key, split) in &self.splits {
            (key, split.epoch, split.fence).hash(to);
            (split.failures, split.crashes, split.waits).hash(to);
            (future(split.heartbeat), split.not_before.is_some_and(|at| at > self.now)).hash(to);
            let parts = split.piece.iter().flat_map(|piece| &piece.parts);
            parts.for_each(|part| (&part.staged, &part.sha256).hash(to));
            split.piece.is_some().hash(to);
        }
        self.reading.hash(to);
        for (name, resource) in &self.resources {
            if resource.holders.is_empty() && resource.waiters.is_empty() {
                continue;
            }
            (name, resource.capacity, &resource.holders).hash(to);
            resource.waiters.iter().for_each(|waiter| (waiter.run, waiter.epoch).hash(to));
        }
        // What was sent is only ever replaced.
        for (key, row) in self.outbox.iter().filter(|(_, row)| !row.sent) {
            (key, row.epoch, row.at > self.now, row.taken).hash(to);
        }
        (&self.cursors, &self.heads, &self.pauses).hash(to);
    }
}
