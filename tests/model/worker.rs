//! A worker with one message in hand: the steps of a job's way, in exactly the order in which
//! `src/worker` takes them. Each step is one thing that others can see; it names the function that
//! it stands for.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use longshore::error::Class;
use longshore::job::command::{Command, Delivery, Open, Outcome};
use longshore::job::decision::{CursorMove, Decision, Part};
use longshore::job::machine::{Closed, Proof, Refusal};
use longshore::job::retry::{self, Next, RetryPolicy};
use longshore::job::run::{End, Run, State};
use longshore::job::waiting::Need;
use longshore::rows::Counts;
use longshore::units::Backoff;

use crate::ledger::{self, LEASE};
use crate::target::Answer;
use crate::world::{Claim, Config, Decided, Late, Letter, Message, Way, World, Write, order};

/// The name of the one cursor.
pub const CURSOR: &str = "cursor/c";
/// The name of the one target.
pub const TARGET: &str = "lake/orders";
/// The name that a new run gets whose key is there already, so that none is made.
const NOBODY: u8 = 200;

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
    /// `settle::failed`: the run is to end.
    Fail(Class),
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
    /// The number of the opening, by which one is known again whose answer was lost.
    pub opening: i64,
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
        (self.run, self.epoch, self.fence, self.asked, self.opening).hash(to);
        (self.letting_go, self.beats, self.failures, self.waits).hash(to);
        (&self.cursor, &self.predecessor, &self.decided).hash(to);
    }
}

impl Hand {
    /// A message that was just taken: `job::handle`.
    pub fn new(mail: Message) -> Hand {
        let (run, step) = match mail {
            Message::Job(job) => (ledger::number(job.key, 1), Step::Claim),
            Message::Wake { run, .. } => (run, Step::Look),
        };
        Hand {
            mail,
            unacked: true,
            letting_go: false,
            step,
            run,
            epoch: 0,
            fence: 0,
            asked: false,
            opening: 0,
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
    fn ends(&mut self, step: Step) {
        self.beats = false;
        self.settles(step);
        self.decided = None;
        (self.failures, self.waits) = (0, 0);
    }

    fn settles(&mut self, step: Step) {
        self.step = step;
        (self.cursor, self.predecessor) = (None, None);
        self.letting_go = false;
        (self.asked, self.opening) = (false, 0);
    }

    /// What an error is to the attempt: `settle::failed`, by the real rules.
    fn failed(&mut self, config: &Config, class: Class) {
        let backoff = Backoff { first: LEASE, last: LEASE };
        let policy = RetryPolicy { attempts: config.attempts, backoff };
        let (failures, waits) = (self.failures.unsigned_abs(), self.waits.unsigned_abs());
        match retry::next(class, failures, waits, &policy, None, 0.5) {
            Next::Retry { .. } => self.ends(Step::PutBack { counted: true, wait: true }),
            Next::Wait { .. } => self.ends(Step::PutBack { counted: false, wait: true }),
            Next::Stop(_) => self.ends(Step::Fail(class)),
            Next::Leave => self.ends(Step::Leave { held: false }),
        }
    }

    /// What a refusal by the ledger is to the attempt: `pipeline::refused` and `job::attempt`.
    fn refused(&mut self, config: &Config, refusal: Refusal) {
        match refusal {
            Refusal::Stands(State::Closing) | Refusal::Superseded => self.ends(Step::CloseTarget),
            Refusal::CursorMoved => self.failed(config, Class::Permanent),
            _ => self.ends(Step::Leave { held: false }),
        }
    }

    /// What the target's answer is to the attempt.
    fn answered(&mut self, config: &Config, answer: Answer, then: Step) {
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
                | Step::Fail(_)
                | Step::CloseLedger
        )
    }
}

/// What a run needs: `Plan::needs`.
fn needs(config: &Config, edition: i32) -> Vec<Need> {
    let slot = config.slots.map(|most| Need::slot("shop", most));
    let cursor = (config.cursor && edition == 1).then(|| Need::cursor(CURSOR));
    slot.into_iter().chain([Need::target(TARGET)]).chain(cursor).collect()
}

fn opening(config: &Config, hand: &Hand, worker: usize, run: u8, edition: i32) -> Command {
    Command::Open(Open {
        run: ledger::id(run),
        worker: hand.name(worker),
        lease: LEASE,
        needs: needs(config, edition),
        attempts: i32::try_from(config.attempts).unwrap(),
        cursor: (config.cursor && edition == 1).then(|| CURSOR.to_owned()),
        target: Some(TARGET.to_owned()),
        uses: vec!["shop".to_owned(), "lake".to_owned()],
    })
}

impl World {
    /// A worker does its next step.
    ///
    /// # Errors
    /// A promise that it breaks.
    pub fn step(&mut self, config: &Config, worker: usize) -> Result<(), String> {
        let Some(mut hand) = self.workers[worker].take() else { return Ok(()) };
        let run = ledger::id(hand.run);
        match hand.step {
            Step::Claim => self.claim(worker, &mut hand),
            Step::Forget => {
                let claim = &mut self.claims[usize::from(ledger::key_of(hand.run))];
                if matches!(claim, Claim::Done { .. }) {
                    *claim = Claim::Free;
                }
                hand.step = Step::Claim;
            }
            Step::Accept { held } => self.accept(config, worker, &mut hand, held),
            Step::Look => match self.ledger.run(hand.run) {
                Some(found) => {
                    (hand.epoch, hand.fence) = (found.epoch, found.fence);
                    let Message::Wake { epoch, .. } = hand.mail else { unreachable!() };
                    if found.epoch != epoch || found.parked.is_some() {
                        hand.step = Step::Ack;
                    } else if found.state.ended() {
                        self.will_open(&mut hand);
                    } else {
                        hand.step = Step::Claim;
                    }
                }
                None => hand.step = Step::Ack,
            },
            Step::Leave { held } => {
                let delay = if held { LEASE } else { Duration::ZERO };
                self.ledger().apply_one(Command::Wake { run, delay });
                hand.step = if held { Step::Ack } else { Step::Release { refused: false } };
            }
            Step::Open => {
                let edition = self.ledger.run(hand.run).map_or(1, |run| run.order.edition);
                let ask = opening(config, &hand, worker, hand.run, edition);
                let outcome = self.ledger().apply_one(ask);
                self.opened(config, &mut hand, outcome);
            }
            Step::Begin => self.begin(config, &mut hand),
            Step::Stage => self.stage(config, &mut hand),
            Step::Decide => self.decide(config, &mut hand)?,
            Step::Approach => match self.target.next(&hand.decided()) {
                Ok(true) => hand.step = Step::Write(Write::Part),
                Ok(false) => hand.step = Step::Record { closing: false },
                Err(answer) => hand.answered(config, answer, Step::Approach),
            },
            Step::Write(write) => {
                let answer = self.target.write(hand.run, hand.fence, write, &hand.decided());
                let then = match write {
                    Write::Part => Step::Write(Write::Manifest),
                    Write::Manifest | Write::Merge => Step::Record { closing: false },
                };
                hand.answered(config, answer, then);
            }
            Step::Record { closing } => self.record(config, &mut hand, closing),
            Step::PutBack { counted, wait } => {
                let command = Command::Retry {
                    run,
                    fence: hand.fence,
                    after: if wait { LEASE } else { Duration::ZERO },
                    failure: wait.then(|| (Class::Transient, "no".to_owned())),
                    counted,
                };
                hand.step = match self.ledger().apply_one(command) {
                    Outcome::Done(_) => Step::Release { refused: false },
                    _ => Step::Leave { held: false },
                };
            }
            Step::Fail(class) => {
                let failure = (class, "no".to_owned());
                let (fence, end) = (hand.fence, End::Dead);
                let command = Command::Fail { run, fence, end, failure, quarantine: None };
                hand.step = match self.ledger().apply_one(command) {
                    Outcome::Done(_) => Step::CloseTarget,
                    Outcome::Refused(Refusal::Stands(State::Committing)) => {
                        Step::PutBack { counted: false, wait: true }
                    }
                    Outcome::Refused(Refusal::Stands(State::Closing)) => Step::CloseTarget,
                    _ => Step::Leave { held: false },
                };
            }
            Step::CloseTarget => self.close_target(config, &mut hand),
            Step::CloseLedger => {
                let command = Command::Close { run, fence: hand.fence };
                hand.step = match self.ledger().apply_one(command) {
                    Outcome::Done(_) => Step::Clean { done: false },
                    _ => Step::Leave { held: false },
                };
            }
            Step::Clean { done } => {
                self.target.clean(hand.run, hand.fence);
                hand.step = if done { Step::Mark } else { Step::Release { refused: false } };
            }
            Step::Mark => {
                let key = usize::from(ledger::key_of(hand.run));
                let content = self.ledger.run(hand.run).unwrap().order.content.parse().unwrap();
                self.claims[key] = Claim::Done { content, epoch: hand.epoch };
                hand.step = Step::Ack;
            }
            Step::Release { refused } => {
                self.release(worker);
                hand.step = if refused { Step::Refuse } else { Step::Ack };
            }
            Step::Refuse => {
                let Message::Job(job) = hand.mail else { unreachable!() };
                self.set_aside(Letter::Refused(job));
                hand.step = Step::Ack;
            }
            Step::GiveBack => {
                self.leave(worker, &hand);
                return Ok(());
            }
            Step::Ack => {
                self.orphan(worker);
                return Ok(());
            }
        }
        self.workers[worker] = Some(hand);
        Ok(())
    }

    fn claim(&mut self, worker: usize, hand: &mut Hand) {
        let claim = &mut self.claims[usize::from(ledger::key_of(hand.run))];
        hand.step = match (*claim, hand.mail) {
            (Claim::Free, Message::Job(_)) => Step::Accept { held: false },
            (Claim::Free, Message::Wake { .. }) => Step::Open,
            (Claim::Held(_), Message::Job(_)) => Step::Accept { held: true },
            (Claim::Held(_), Message::Wake { .. }) => Step::Leave { held: true },
            // A producer's message is of the first epoch.
            (Claim::Done { content, epoch: 0 }, Message::Job(job)) if content == job.content => {
                Step::Ack
            }
            (Claim::Done { .. }, _) => Step::Forget,
        };
        if *claim == Claim::Free {
            *claim = Claim::Held(Some(worker));
            hand.opening = self.ledger.run(hand.run).map_or(0, |run| run.fence);
        }
    }

    /// A number for the opening that none before it had.
    fn will_open(&self, hand: &mut Hand) {
        hand.step = Step::Open;
        hand.opening = self.ledger.run(hand.run).map_or(0, |run| run.fence);
    }

    fn accept(&mut self, config: &Config, worker: usize, hand: &mut Hand, held: bool) {
        let Message::Job(job) = hand.mail else { unreachable!() };
        let new = ledger::number(job.key, 1);
        let known = self.ledger.run(new).is_some() && !hand.asked;
        let named = if known { NOBODY } else { new };
        let order = Box::new(order(config, job, self.ledger.now));
        let id = ledger::id(named);
        let mut commands = vec![Command::Accept { id, order, wake: false, pinned: false }];
        if !held {
            commands.push(opening(config, hand, worker, named, 1));
        }
        let mut outcomes = self.ledger().apply(commands).into_iter();
        let run = match outcomes.next() {
            Some(Outcome::Accepted(run) | Outcome::Duplicate(run)) => run,
            Some(Outcome::Conflict(_)) => {
                return hand.settles(Step::Release { refused: true });
            }
            other => panic!("{other:?}"),
        };
        hand.run = ledger::number(job.key, run.order.edition);
        (hand.epoch, hand.fence) = (run.epoch, run.fence);
        if held && !run.state.ended() {
            return hand.settles(Step::Leave { held: true });
        }
        match outcomes.next().filter(|_| run.id == id) {
            Some(outcome) => self.opened(config, hand, outcome),
            None => self.will_open(hand),
        }
    }

    /// `job::open` and `job::attempt`: by what opening came to.
    fn opened(&self, config: &Config, hand: &mut Hand, outcome: Outcome) {
        let opened = match outcome {
            Outcome::Opened(opened) => *opened,
            Outcome::Closed(Closed::Ended(state)) => {
                return hand.settles(Step::Clean { done: state == State::Done });
            }
            Outcome::Closed(_) | Outcome::Parked(_) => {
                return hand.settles(Step::Release { refused: false });
            }
            other => panic!("{other:?}"),
        };
        let run: &Run = &opened.run;
        hand.settles(Step::Begin);
        (hand.epoch, hand.fence) = (run.epoch, run.fence);
        (hand.failures, hand.waits) = (run.failures, run.waits);
        hand.beats = true;
        match run.state {
            State::Closing => hand.ends(Step::CloseTarget),
            State::Committing => {
                assert_eq!(config.way, Way::Files);
                hand.decided = run.decision.clone().map(|decision| Decided(Arc::new(decision)));
                hand.step = Step::Approach;
            }
            _ => (hand.cursor, hand.predecessor) = (opened.cursor, opened.predecessor),
        }
    }

    /// `Plan::replaced` and `FilesSink::expect_free`: the manifest that is to be replaced.
    fn replaced(&self, config: &Config, hand: &Hand) -> Result<Option<String>, Answer> {
        let standing = self.target.standing.clone();
        let edition = self.ledger.run(hand.run).map_or(1, |run| run.order.edition);
        if config.replace || edition > 1 {
            let known = standing.is_none() || standing == hand.predecessor;
            return if known { Ok(standing) } else { Err(Answer::Refused) };
        }
        let own = format!("{} ", hand.run);
        let free = standing.is_none_or(|standing| standing.starts_with(&own));
        if free { Ok(None) } else { Err(Answer::Refused) }
    }

    fn begin(&mut self, config: &Config, hand: &mut Hand) {
        if config.way == Way::Files {
            match self.replaced(config, hand) {
                Ok(_) => hand.step = Step::Stage,
                Err(answer) => hand.answered(config, answer, Step::Stage),
            }
            return;
        }
        match self.target.raise(hand.run, hand.fence) {
            (fence, _) if fence > hand.fence => hand.ends(Step::Leave { held: false }),
            (_, Some(decided)) => {
                hand.decided = Some(decided);
                hand.step = Step::Record { closing: false };
            }
            _ => hand.step = Step::Stage,
        }
    }

    fn stage(&mut self, config: &Config, hand: &mut Hand) {
        if config.way == Way::Table {
            match self.target.held(hand.run, hand.fence) {
                Ok(_) => {}
                Err(answer) => return hand.answered(config, answer, Step::Stage),
            }
        }
        let replaces = match config.way {
            Way::Files => match self.replaced(config, hand) {
                Ok(replaces) => replaces,
                Err(answer) => return hand.answered(config, answer, Step::Stage),
            },
            Way::Table => None,
        };
        self.target.staged.insert((hand.run, hand.fence));
        let edition = self.ledger.run(hand.run).map_or(1, |run| run.order.edition);
        let (from, to) = if edition == 1 {
            (hand.cursor.clone(), self.source.to_string())
        } else {
            self.range_before(hand.run)
        };
        let (run, fence) = (hand.run, hand.fence);
        // What tells one attempt's delivery from another's, and what range it is of.
        let manifest = format!("{run} {fence} {} {to}", from.as_deref().unwrap_or("-"));
        let moves = config.cursor && edition == 1;
        let decision = Decision {
            parts: vec![Part {
                staged: format!("{run}/{fence}"),
                name: format!("part-{run}-{fence}"),
                bytes: 1,
                rows: 1,
                sha256: manifest.clone(),
                upload: None,
            }],
            manifest,
            counts: Counts::default(),
            cursor: moves.then(|| CursorMove { name: CURSOR.to_owned(), from, to }),
            replaces,
            quarantine: None,
        };
        (hand.cursor, hand.predecessor) = (None, None);
        hand.decided = Some(Decided(Arc::new(decision)));
        hand.step = match config.way {
            Way::Files => Step::Decide,
            Way::Table => Step::Write(Write::Merge),
        };
    }

    /// `job::after_edition`: the range that the last edition that is done has read.
    fn range_before(&self, run: u8) -> (Option<String>, String) {
        let of_key = self.ledger.runs.range(..run).rev();
        let done = of_key
            .filter(|(other, _)| ledger::key_of(**other) == ledger::key_of(run))
            .find_map(|(_, run)| run.decision.as_ref().filter(|_| run.state == State::Done));
        let words: Vec<&str> = done.map(|d| d.manifest.split(' ').collect()).unwrap_or_default();
        let from = words.get(2).filter(|from| **from != "-");
        (from.map(|from| (*from).to_owned()), words.get(3).unwrap_or(&"").to_string())
    }

    fn decide(&mut self, config: &Config, hand: &mut Hand) -> Result<(), String> {
        let decision = Box::new((*hand.decided().0).clone());
        let (run, fence) = (ledger::id(hand.run), hand.fence);
        let holds = self.ledger.run(hand.run).map(|run| run.fence);
        match self.ledger().apply_one(Command::Decide { run, fence, decision }) {
            Outcome::Done(_) if holds != Some(fence) => {
                return Err(format!(
                    "a stale fence decides: {fence}, where {holds:?} holds the run"
                ));
            }
            Outcome::Done(_) => hand.step = Step::Approach,
            Outcome::Refused(refusal) => hand.refused(config, refusal),
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn record(&mut self, config: &Config, hand: &mut Hand, closing: bool) {
        let decision = Box::new((*hand.decided().0).clone());
        let delivery = Delivery {
            id: uuid::Uuid::nil(),
            target: TARGET.to_owned(),
            manifest_sha256: decision.manifest.clone(),
        };
        let proof = match config.way {
            Way::Files => Proof::Decision,
            Way::Table => Proof::Target,
        };
        let run = ledger::id(hand.run);
        let command = Command::Record { run, decision, proof, delivery };
        match self.ledger().apply_one(command) {
            Outcome::Done(_) => hand.ends(Step::Clean { done: true }),
            // `settle::close` cannot store what it found: the message goes back.
            Outcome::Refused(_) if closing => hand.ends(Step::GiveBack),
            Outcome::Refused(refusal) => hand.refused(config, refusal),
            other => panic!("{other:?}"),
        }
    }

    fn close_target(&mut self, config: &Config, hand: &mut Hand) {
        hand.step = Step::CloseLedger;
        if config.way == Way::Files {
            return;
        }
        let fence = hand.fence + 1;
        match self.target.raise(hand.run, fence) {
            (_, Some(decided)) => {
                hand.decided = Some(decided);
                hand.step = Step::Record { closing: true };
            }
            (there, None) if there > fence => hand.step = Step::Leave { held: false },
            _ => {}
        }
    }

    /// A claim is given back by the token that nobody else knows.
    fn release(&mut self, worker: usize) {
        for claim in &mut self.claims {
            if *claim == Claim::Held(Some(worker)) {
                *claim = Claim::Free;
            }
        }
    }

    /// Nobody knows the token any more of a claim that was not given back.
    fn orphan(&mut self, worker: usize) {
        for claim in &mut self.claims {
            if *claim == Claim::Held(Some(worker)) {
                *claim = Claim::Held(None);
            }
        }
    }

    /// A worker's message goes back, and its claim stays until its lease is over.
    fn leave(&mut self, worker: usize, hand: &Hand) {
        self.orphan(worker);
        if hand.unacked {
            self.publish(hand.mail);
        }
    }

    /// A worker dies.
    pub fn crash(&mut self, worker: usize, late: bool) {
        if let Some(hand) = self.workers[worker].take() {
            self.leave(worker, &hand);
            if late {
                self.late(&hand);
            }
        }
    }

    /// A worker stands still for so long that everybody takes it for dead.
    pub fn stall(&mut self, worker: usize) {
        let Some(mut hand) = self.workers[worker].clone() else { return };
        if self.holder(hand.run) == Some(worker) {
            self.ledger().pass(hand.run, |run, now| {
                run.heartbeat = run.heartbeat.map(|until| until.min(now));
            });
        }
        self.leave(worker, &hand);
        (hand.unacked, hand.letting_go) = (false, false);
        self.workers[worker] = Some(hand);
    }

    /// What a worker was about to write lands later, or never.
    fn late(&mut self, hand: &Hand) {
        if let Some((write, decided)) = hand.write().zip(hand.decided.clone()) {
            let (run, fence) = (hand.run, hand.fence);
            self.late.push(Late { run, fence, write, decided });
        }
    }

    /// A late write lands. Whoever is brought to a part's final name goes on with the manifest.
    pub fn land(&mut self, which: usize) {
        let Late { run, fence, write, decided } = self.late.remove(which);
        let answer = self.target.write(run, fence, write, &decided);
        if write == Write::Part && answer == Answer::Fine {
            self.late.push(Late { run, fence, write: Write::Manifest, decided });
        }
    }

    /// `Heart::beat`, and what the job hears of it.
    pub fn beat(&mut self, worker: usize, late: bool) {
        let Some(mut hand) = self.workers[worker].take() else { return };
        let (run, fence) = (ledger::id(hand.run), hand.fence);
        let before = hand.clone();
        match self.ledger().apply_one(Command::Beat { run, fence, lease: LEASE }) {
            Outcome::Done(run) if run.state == State::Closing => hand.ends(Step::CloseTarget),
            Outcome::Done(_) => {}
            _ => hand.ends(Step::Leave { held: false }),
        }
        if late && before.beats && !hand.beats {
            self.late(&before);
        }
        self.workers[worker] = Some(hand);
    }

    /// `job::let_message_go`: first the wake-up.
    pub fn let_go(&mut self, worker: usize) {
        if let Some(hand) = &mut self.workers[worker] {
            hand.letting_go = true;
            let run = ledger::id(hand.run);
            self.ledger().apply_one(Command::Wake { run, delay: Duration::ZERO });
        }
    }

    /// Something is the job's own fault.
    pub fn fail(&mut self, config: &Config, worker: usize, class: Class) {
        if let Some(hand) = &mut self.workers[worker] {
            hand.failed(config, class);
        }
    }

    /// `Stop::HandBack`.
    pub fn hand_back(&mut self, worker: usize) {
        if let Some(hand) = &mut self.workers[worker] {
            hand.ends(Step::PutBack { counted: false, wait: false });
        }
    }
}

impl Hand {
    /// What is decided, or is to be.
    fn decided(&self) -> Decided {
        self.decided.clone().unwrap()
    }
}
