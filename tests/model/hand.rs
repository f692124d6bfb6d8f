//! What a worker has in hand: a message, what it knows of the run, and which step of `src/worker` and
//! `src/pipeline` comes next. Each step is one thing that others can see, and names the function that
//! it stands for.

use std::hash::{Hash, Hasher};

use longshore::error::Class;
use longshore::job::machine::Refusal;
use longshore::job::retry::{self, Next, RetryPolicy};
use longshore::job::run::State;
use longshore::units::Backoff;

use crate::ledger::{self, LEASE};
use crate::target::Answer;
use crate::world::{Config, Decided, Message, Write};

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// `receive::claimed`, of a job or of a wake-up.
    Claim,
    /// `receive::claimed`: a done-mark that is not believed is set aside.
    Forget,
    /// `receive::accept`: accepted and, under a claim, opened in the same transaction.
    Accept { held: bool },
    /// `receive::wake_up`: the run is read.
    Look,
    /// `receive::leave_wake_up`; `held`: somebody has the claim, and nothing is to be released.
    Leave { held: bool },
    /// `job::begin`.
    Open,
    /// `Plan::begin`.
    Begin,
    /// `Ready::extract` to `Protected::stage`.
    Stage,
    /// `Staged::decide`.
    Decide,
    /// `sink::files::commit::commit`: it looks first.
    Approach,
    /// A write to the target.
    Write(Write),
    /// `settle::record`; `closing`: of what was found at the target by `settle::close`.
    Record { closing: bool },
    /// `settle::put_back`.
    PutBack { counted: bool, wait: bool },
    /// `settle::failed`: the run is to end; `early`: nothing was committed by this attempt.
    Fail { class: Class, early: bool },
    /// `settle::close`: the commit point is blocked and read.
    CloseTarget,
    /// `settle::close`: the run ends.
    CloseLedger,
    /// `settle::clean`.
    Clean { done: bool },
    /// `settle::done_mark`.
    Mark,
    /// `receive::release`; `refused`: the message is set aside then.
    Release { refused: bool },
    /// `settle::refuse`.
    Refuse,
    /// `job::give_back`.
    GiveBack,
    /// `Unacked::ack`.
    Ack,
    /// `Ready::divide`: the snapshot is made.
    Export,
    /// `split::fan`.
    Fan,
    /// `split::take_up`.
    OpenSplit,
    /// `Ready::read` to `Protected::put`, of a split.
    Read,
    /// The split is done.
    SplitDone,
    /// The split is put back.
    SplitBack { counted: bool, wait: bool },
    /// The split is given up.
    SplitFail { class: Class },
    /// The snapshot is not there any more.
    SplitLost,
    /// What whoever may not act on a split leaves behind.
    SplitWake,
    /// `Ready::gather`.
    Gather,
}

/// A message in hand, and what the worker knows.
#[derive(Debug, Clone)]
pub struct Hand {
    pub mail: Message,
    /// Whether the message is still to be acked.
    pub unacked: bool,
    /// Whether its wake-up is in the ledger, so that it may be acked early.
    pub letting_go: bool,
    pub step: Step,
    /// The run that it is about, as far as that is known, its epoch and its fence.
    pub run: u8,
    pub epoch: i32,
    pub fence: i64,
    /// Whether the accept was applied before, and its answer lost.
    pub asked: bool,
    /// Which split of the run it is about, where it is about one.
    pub split: Option<u8>,
    /// Under which fence the run was divided that this is a split of.
    pub fan: i64,
    /// How far the source had grown in the snapshot that was made, or read.
    pub snapshot: Option<u8>,
    /// The number of the opening, by which one is known again whose answer was lost.
    pub opening: i64,
    /// Whether the worker cannot plan the run that it is about to open.
    pub unfit: bool,
    /// Whether the attempt can be stopped: from its opening until it has an ending.
    pub beats: bool,
    pub failures: i32,
    pub waits: i32,
    pub cursor: Option<String>,
    pub predecessor: Option<String>,
    pub decided: Option<Decided>,
}

impl Hash for Hand {
    /// Whatever it still depends on.
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.step, self.unacked).hash(to);
        let reads = matches!(self.step, Step::Claim | Step::Forget | Step::Accept { .. });
        let refuses = matches!(self.step, Step::Refuse | Step::Release { refused: true });
        if self.unacked || reads || refuses || self.step == Step::Look {
            self.mail.hash(to);
        }
        if matches!(self.step, Step::Release { .. } | Step::Refuse | Step::GiveBack | Step::Ack) {
            return;
        }
        (self.run, self.epoch, self.fence, self.asked, self.opening, self.unfit).hash(to);
        (self.letting_go, self.beats, self.failures, self.waits).hash(to);
        (&self.cursor, &self.predecessor, &self.decided).hash(to);
        (self.split, self.fan, self.snapshot).hash(to);
    }
}

impl Hand {
    /// A message that was just taken: `job::handle`.
    pub fn new(mail: Message) -> Hand {
        let (run, epoch, split, step) = match mail {
            Message::Job(job) => (ledger::number(job.key, 1), 0, None, Step::Claim),
            Message::Wake { run, .. } => (run, 0, None, Step::Look),
            Message::Split { run, epoch, split } => (run, epoch, Some(split), Step::OpenSplit),
        };
        Hand {
            mail,
            unacked: true,
            letting_go: false,
            step,
            run,
            epoch,
            fence: 0,
            asked: false,
            split,
            fan: 0,
            snapshot: None,
            opening: 0,
            unfit: false,
            beats: false,
            failures: 0,
            waits: 0,
            cursor: None,
            predecessor: None,
            decided: None,
        }
    }

    /// By what the ledger knows this opening again.
    pub fn name(&self, worker: usize) -> String {
        format!("w{worker}/{}", self.opening)
    }

    /// The attempt has an ending: nothing stops it any more, and what it knew does not matter.
    pub fn ends(&mut self, step: Step) {
        self.beats = false;
        self.settles(step);
        self.decided = None;
        (self.failures, self.waits) = (0, 0);
    }

    pub fn settles(&mut self, step: Step) {
        self.step = step;
        (self.cursor, self.predecessor) = (None, None);
        (self.letting_go, self.unfit) = (false, false);
        (self.asked, self.opening) = (false, 0);
        self.snapshot = None;
    }

    /// What an error is to the attempt: `settle::failed`, by the real rules.
    pub fn failed(&mut self, config: &Config, class: Class) {
        let backoff = Backoff { first: LEASE, last: LEASE };
        let policy = RetryPolicy { attempts: config.attempts, backoff };
        let (failures, waits) = (self.failures.unsigned_abs(), self.waits.unsigned_abs());
        let next = retry::next(class, failures, waits, &policy, None, 0.5);
        if self.split.is_some() {
            return self.ends(match next {
                Next::Retry { .. } => Step::SplitBack { counted: true, wait: true },
                Next::Wait { .. } => Step::SplitBack { counted: false, wait: true },
                Next::Stop(_) => Step::SplitFail { class },
                Next::Leave => Step::SplitWake,
            });
        }
        match next {
            Next::Retry { .. } => self.ends(Step::PutBack { counted: true, wait: true }),
            Next::Wait { .. } => self.ends(Step::PutBack { counted: false, wait: true }),
            Next::Stop(_) => {
                let early = matches!(
                    self.step,
                    Step::Begin | Step::Stage | Step::Export | Step::Fan | Step::Decide
                );
                self.ends(Step::Fail { class, early });
            }
            Next::Leave => self.ends(Step::Leave { held: false }),
        }
    }

    /// What a refusal by the ledger is to the attempt: `pipeline::refused` and `job::attempt`.
    pub fn refused(&mut self, config: &Config, refusal: Refusal) {
        match refusal {
            Refusal::Stands(State::Closing) | Refusal::Superseded => self.ends(Step::CloseTarget),
            Refusal::CursorMoved => self.failed(config, Class::Permanent),
            _ => self.ends(Step::Leave { held: false }),
        }
    }

    /// What the target's answer is to the attempt.
    pub fn answered(&mut self, config: &Config, answer: Answer, then: Step) {
        match answer {
            Answer::Fine => self.step = then,
            Answer::Fenced => self.ends(Step::Leave { held: false }),
            Answer::Transient => self.failed(config, Class::Transient),
            Answer::Refused => self.failed(config, Class::Refused),
        }
    }

    /// What it would write to the target now.
    pub fn write(&self) -> Option<Write> {
        match self.step {
            Step::Write(write) => Some(write),
            _ => None,
        }
    }

    /// Whether the next step is a transaction of the ledger.
    pub fn asks_ledger(&self) -> bool {
        matches!(
            self.step,
            Step::Accept { .. }
                | Step::Leave { .. }
                | Step::Open
                | Step::Decide
                | Step::Record { .. }
                | Step::PutBack { .. }
                | Step::Fail { .. }
                | Step::CloseLedger
                | Step::Fan
                | Step::OpenSplit
                | Step::SplitDone
                | Step::SplitBack { .. }
                | Step::SplitFail { .. }
                | Step::SplitLost
                | Step::SplitWake
        )
    }

    /// What is decided, or is to be.
    pub fn decided(&self) -> Decided {
        self.decided.clone().unwrap()
    }
}
