//! The small world: what there is, and what may happen to it next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use longshore::error::Class;
use longshore::job::command::Command;
use longshore::job::decision::Decision;
use longshore::job::run::Order;

use crate::hand::Hand;
use crate::ledger::{self, EXPORT, LEASE, Ledger};
use crate::splits::{Kept, OfSplits};

/// How the one target commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A folder: the ledger decides, parts are renamed, the manifest is last.
    Files,
    /// A table with a marker row for each run.
    Table,
}

/// A job that a producer publishes, or that a schedule places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job {
    pub key: u8,
    pub content: u8,
}

/// A configuration: what there is in the beginning, and how often what may happen.
#[derive(Debug, Clone)]
pub struct Config {
    pub name: &'static str,
    pub way: Way,
    pub workers: usize,
    pub dispatchers: usize,
    /// Messages that are on the queue in the beginning.
    pub published: Vec<Job>,
    /// Runs that are in the ledger in the beginning, with their wake-ups.
    pub placed: Vec<Job>,
    /// `if-exists = "replace"`.
    pub replace: bool,
    /// Each key has a table of its own.
    pub apart: bool,
    /// All runs go by one cursor.
    pub cursor: bool,
    /// `max-runs` of the connection.
    pub slots: Option<u32>,
    /// Orders have a deadline.
    pub deadline: bool,
    /// `[retry] attempts`.
    pub attempts: u32,
    /// `[limits] splits`: into how many a run is divided. 0: it is not.
    pub splits: u8,
    /// Whether sweepers run. The promises hold without them, but where somebody who lifts a pause
    /// is cut off before he has woken those who waited for it.
    pub sweeper: bool,
    /// Whether what is cleaned up a day after the end is looked at.
    pub cleanings: bool,
    /// Which faults there are; how many in all, [`Left`] says.
    pub faults: &'static [Fault],
    pub left: Left,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A worker dies; its message comes back, and what it knew is gone.
    Crash,
    /// The broker gives a message to somebody else while its worker goes on.
    Cut,
    /// A transaction was committed, and its answer was lost.
    AnswerLost,
    /// A worker stands still past its lease, or only a heartbeat or a claim's renewal stays away.
    Stall,
    /// The claims are emptied.
    Flush,
    /// A publication was taken, and its confirm was lost; or the dispatcher dies behind it.
    ConfirmLost,
    /// The replayer dies before it acks its letter.
    LetterKept,
    /// A snapshot goes that others read.
    Snapshot,
}

/// How often something may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Left {
    pub faults: u8,
    pub failures: u8,
    pub cancels: u8,
    pub replays: u8,
    pub reruns: u8,
    pub pauses: u8,
    pub hand_backs: u8,
    pub letting_go: u8,
    pub growth: u8,
    pub unfit: u8,
}

/// What is on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    Job(Job),
    Wake { run: u8, epoch: i32 },
    Split { run: u8, epoch: i32, split: u8 },
}

/// What is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Letter {
    Run { run: u8, epoch: i32 },
    Refused(Job),
}

/// What the claims know of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    Free,
    /// By the job that this worker has in hand; `None`: by one that is no more.
    Held(Option<usize>),
    Done {
        content: u8,
        epoch: i32,
    },
}

/// What a dispatcher is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatcher {
    Idle,
    Took { version: u32, posting: Result<Message, Letter> },
    Published { version: u32 },
}

/// A decision as somebody has it in his hands.
#[derive(Debug, Clone)]
pub struct Decided(pub Arc<Decision>);

impl Hash for Decided {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (&self.0.manifest, &self.0.replaces).hash(to);
    }
}

/// A write to the target whose worker is gone, and which may still land.
#[derive(Debug, Clone, Hash)]
pub struct Late {
    pub run: u8,
    pub fence: i64,
    pub write: Write,
    pub decided: Decided,
}

/// What is written to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Write {
    Part,
    Manifest,
    Merge,
}

/// A delivery that recipients have seen.
#[derive(Debug, Clone, Hash)]
pub struct Seen {
    pub run: u8,
    pub decided: Decided,
}

/// The target.
#[derive(Debug, Clone, Default, Hash)]
pub struct Target {
    /// The manifest that stands in the folder.
    pub standing: Option<String>,
    /// The parts in the folder.
    pub parts: BTreeSet<String>,
    /// What is staged: of which run, under which fence.
    pub staged: BTreeSet<(u8, i64)>,
    /// The marker rows of the table: a fence, and what was committed.
    pub markers: BTreeMap<u8, (i64, Option<Decided>)>,
    /// All deliveries that ever were visible, in order.
    pub seen: Vec<Seen>,
}

/// A state.
#[derive(Clone)]
pub struct World {
    pub ledger: Arc<Ledger>,
    pub queue: Vec<Message>,
    pub dead: Vec<Letter>,
    pub claims: Vec<Claim>,
    pub workers: Vec<Option<Hand>>,
    pub dispatchers: Vec<Dispatcher>,
    pub target: Target,
    pub late: Vec<Late>,
    /// Snapshots that somebody keeps, in order.
    pub kept: Vec<Kept>,
    /// How far the source has grown.
    pub source: u8,
    pub left: Left,
}

/// What may happen next. A number is that of a worker, a dispatcher, or a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A worker takes a message.
    Take(usize, Message),
    /// A worker does its next step.
    Step(usize),
    /// The same, and it does not learn of it.
    StepUnanswered(usize),
    /// A worker opens a run that it cannot plan: it lacks a connection, or is of another version.
    Unfit(usize),
    /// Something that is the job's own fault goes wrong.
    Fail(usize, Class),
    /// A worker dies; what it asked the target for last may still land.
    Crash { worker: usize, late: bool },
    /// A worker's message goes to somebody else.
    Cut(usize),
    /// A worker stands still past its lease: its message, its claim and its run are free.
    Stall(usize),
    /// A worker's heartbeat, and what it is told by it.
    Beat { worker: usize, late: bool },
    /// A long job's wake-up takes the place of its message.
    LetGo(usize),
    /// A long job's message is acked.
    AckEarly(usize),
    /// A worker is to end.
    HandBack(usize),
    /// A late write lands.
    Land(usize),
    /// A dispatcher takes what is due.
    Dispatch(usize, u8, ledger::Kind),
    /// A dispatcher publishes, or marks what it has published.
    Publish(usize),
    /// The same, and it does not learn of it.
    PublishUnanswered(usize),
    /// What a dispatcher has taken is free for others again.
    Untake(u8, ledger::Kind),
    /// Time passes for a run that is to wait, or for its wake-up.
    Due(u8),
    /// A day passes after a run's end.
    Day(u8),
    /// A heartbeat expires.
    Silent(u8),
    /// A claim's lease ends.
    Lapse(u8),
    /// All claims are gone.
    Flush,
    /// The sweeper wakes a run.
    Sweep(u8),
    /// A deadline passes.
    Deadline(u8),
    /// The sweeper closes a run whose deadline has passed.
    Overdue(u8),
    /// Somebody who has lifted a pause, or the sweeper, looks after a waiter.
    Unpark(u8),
    /// An operator cancels a run.
    Cancel(u8),
    /// An operator replays a letter; `kept`: it is not acked.
    Replay { letter: Letter, kept: bool },
    /// An operator asks for a run that is done once more.
    Rerun(u8),
    /// An operator holds everything back.
    Pause,
    /// The pause is over.
    Lift,
    /// The source grows.
    Grow,
    /// What happens to snapshots and splits.
    Splits(OfSplits),
}

/// The pause that operators make here.
pub const PAUSE: &str = "pause/connection/shop";

/// The order that a job is.
pub fn order(config: &Config, job: Job, now: jiff::Timestamp) -> Order {
    Order {
        key: format!("k{}", job.key),
        edition: 1,
        content: job.content.to_string(),
        export: EXPORT.to_owned(),
        definition: "d".to_owned(),
        revision: 1,
        recipient: None,
        params: serde_json::Map::new(),
        window: None,
        pool: "default".to_owned(),
        body: String::new(),
        correlation_id: None,
        traceparent: None,
        requested_by: None,
        cap: None,
        parent: None,
        after: Vec::new(),
        not_before: None,
        deadline: config.deadline.then(|| now + LEASE * 60),
        supplements: None,
    }
}

impl World {
    /// How it begins.
    pub fn new(config: &Config) -> World {
        let mut ledger = Ledger::new();
        for job in &config.placed {
            let order = Box::new(order(config, *job, ledger.now));
            let id = ledger::id(ledger::number(job.key, 1));
            ledger.apply_one(Command::Accept { id, order, wake: true, pinned: false });
        }
        let jobs = config.published.iter().chain(&config.placed);
        let keys = jobs.map(|job| usize::from(job.key) + 1).max().unwrap_or(0);
        World {
            ledger: Arc::new(ledger),
            queue: config.published.iter().map(|job| Message::Job(*job)).collect(),
            dead: Vec::new(),
            claims: vec![Claim::Free; keys],
            workers: vec![None; config.workers],
            dispatchers: vec![Dispatcher::Idle; config.dispatchers],
            target: Target::default(),
            late: Vec::new(),
            kept: Vec::new(),
            source: 1,
            left: config.left,
        }
    }

    /// The ledger, to be changed.
    pub fn ledger(&mut self) -> &mut Ledger {
        Arc::make_mut(&mut self.ledger)
    }

    /// Puts a message on the queue. Which one comes next is anybody's guess.
    pub fn publish(&mut self, message: Message) {
        let at = self.queue.partition_point(|other| *other < message);
        self.queue.insert(at, message);
    }

    /// Sets a letter aside.
    pub fn set_aside(&mut self, letter: Letter) {
        let at = self.dead.partition_point(|other| *other < letter);
        self.dead.insert(at, letter);
    }

    /// Who works on the run under its current fence.
    pub fn holder(&self, run: u8) -> Option<usize> {
        let fence = self.ledger.run(run)?.fence;
        let holds = |hand: &Hand| {
            hand.beats && hand.split.is_none() && hand.run == run && hand.fence == fence
        };
        self.workers.iter().position(|hand| hand.as_ref().is_some_and(holds))
    }

    /// Whether nothing is left to be done.
    pub fn rests(&self) -> bool {
        let ledger = &self.ledger;
        self.queue.is_empty()
            && self.late.is_empty()
            && self.kept.is_empty()
            && self.workers.iter().all(Option::is_none)
            && self.dispatchers.iter().all(|one| *one == Dispatcher::Idle)
            && ledger.outbox.values().all(|row| row.sent)
            && ledger.runs.values().all(|run| run.state.ended())
            && ledger.resources.values().all(|one| one.holders.is_empty() && one.waiters.is_empty())
    }

    /// By what a state is known again. Two states with one fingerprint do not differ in what may
    /// become of them (but for a collision, of which there is one among ten million states with a
    /// probability of three in a million).
    pub fn fingerprint(&self) -> u64 {
        let mut to = DefaultHasher::new();
        self.ledger.hash(&mut to);
        let mut versions: BTreeSet<u32> =
            self.ledger.outbox.values().filter(|row| !row.sent).map(|row| row.version).collect();
        versions.extend(self.dispatchers.iter().filter_map(|one| match one {
            Dispatcher::Idle => None,
            Dispatcher::Took { version, .. } | Dispatcher::Published { version } => Some(*version),
        }));
        let rank = |version: u32| versions.range(..version).count();
        for row in self.ledger.outbox.values().filter(|row| !row.sent) {
            rank(row.version).hash(&mut to);
        }
        // Workers do not differ among each other, nor do dispatchers: whose hand it is does not matter.
        let mut hands: Vec<u64> = (0..self.workers.len()).map(|n| self.hand_print(n)).collect();
        hands.sort_unstable();
        hands.hash(&mut to);
        let print = |one: &Dispatcher| match one {
            Dispatcher::Idle => hash_of(0),
            Dispatcher::Took { version, posting } => hash_of((rank(*version), posting)),
            Dispatcher::Published { version } => hash_of((rank(*version), true)),
        };
        let mut dispatchers: Vec<u64> = self.dispatchers.iter().map(print).collect();
        dispatchers.sort_unstable();
        dispatchers.hash(&mut to);
        for claim in &self.claims {
            match claim {
                Claim::Held(Some(_)) => Claim::Held(Some(0)).hash(&mut to),
                other => other.hash(&mut to),
            }
        }
        (&self.queue, &self.dead, &self.target, &self.late).hash(&mut to);
        (&self.kept, self.source, self.left).hash(&mut to);
        to.finish()
    }

    /// What a worker has in hand, with the claims that it holds.
    fn hand_print(&self, worker: usize) -> u64 {
        let Some(hand) = &self.workers[worker] else { return 0 };
        let claims: Vec<bool> =
            self.claims.iter().map(|claim| *claim == Claim::Held(Some(worker))).collect();
        // Names are never used twice: they matter only where an open is asked for again.
        let again = match hand.split {
            Some(split) => self.ledger.splits.get(&(hand.run, split)).map(|split| &split.worker),
            None => self.ledger.run(hand.run).map(|run| &run.worker),
        };
        let again = again.is_some_and(|by| *by == Some(hand.name(worker)));
        hash_of((hand, again && hand.asks_ledger(), claims))
    }
}

fn hash_of(what: impl Hash) -> u64 {
    let mut to = DefaultHasher::new();
    what.hash(&mut to);
    to.finish()
}
