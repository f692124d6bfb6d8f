//! A worker with one message in hand: what each step does, in exactly the order of `src/worker`.

use std::sync::Arc;
use std::time::Duration;

use longshore::error::Class;
use longshore::job::after::AfterFailed;
use longshore::job::command::{Command, Delivery, Open, Outcome};
use longshore::job::decision::{CursorMove, Decision, Part};
use longshore::job::machine::{Closed, Proof, Refusal};
use longshore::job::run::{End, Run, State};
use longshore::job::waiting::Need;
use longshore::rows::Counts;

use crate::hand::{Hand, Step};
use crate::ledger::{self, LEASE};
use crate::target::Answer;
use crate::world::{Claim, Config, Decided, Letter, Message, Way, World, Write, order};

/// The name of the one cursor.
pub const CURSOR: &str = "cursor/c";
/// The name of the one target.
pub const TARGET: &str = "lake/orders";
/// The name that a new run gets whose key is there already, so that none is made.
const NOBODY: u8 = 200;

/// The target of a run: `Plan::target`.
fn target(config: &Config, run: u8) -> String {
    if config.apart { format!("{TARGET}/{}", ledger::key_of(run)) } else { TARGET.to_owned() }
}

/// What a run needs: `Plan::needs`.
fn needs(config: &Config, run: u8, edition: i32) -> Vec<Need> {
    let slot = config.slots.map(|most| Need::slot("shop", most));
    let cursor = (config.cursor && edition == 1).then(|| Need::cursor(CURSOR));
    slot.into_iter().chain([Need::target(&target(config, run))]).chain(cursor).collect()
}

fn opening(config: &Config, hand: &Hand, worker: usize, run: u8, edition: i32) -> Command {
    let fit = !hand.unfit;
    Command::Open(Open {
        run: ledger::id(run),
        worker: hand.name(worker),
        lease: LEASE,
        needs: fit.then(|| needs(config, run, edition)),
        attempts: if fit { i32::try_from(config.attempts).unwrap() } else { i32::MAX },
        cursor: (config.cursor && edition == 1 && fit).then(|| CURSOR.to_owned()),
        target: fit.then(|| target(config, run)),
        uses: if fit { vec!["shop".to_owned(), "lake".to_owned()] } else { Vec::new() },
        before: Vec::new(),
        after_failed: AfterFailed::default(),
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
            Step::Fail { class, early } => {
                let failure = (class, "no".to_owned());
                let (fence, end) = (hand.fence, End::Dead);
                let command = Command::Fail { run, fence, end, failure, quarantine: None };
                hand.step = match self.ledger().apply_one(command) {
                    // The first attempt knows that the target has nothing.
                    Outcome::Done(_) if early && hand.fence == 1 => Step::CloseLedger,
                    Outcome::Done(_) => Step::CloseTarget,
                    Outcome::Refused(Refusal::Stands(State::Committing)) => {
                        Step::PutBack { counted: false, wait: true }
                    }
                    Outcome::Refused(Refusal::Stands(State::Closing))
                        if early && hand.fence == 1 =>
                    {
                        Step::CloseLedger
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
            Step::Export
            | Step::Fan
            | Step::OpenSplit
            | Step::Read
            | Step::SplitDone
            | Step::SplitBack { .. }
            | Step::SplitFail { .. }
            | Step::SplitLost
            | Step::SplitWake
            | Step::Gather => self.split_step(config, worker, &mut hand)?,
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
            (_, Message::Split { .. }) => unreachable!("splits take no claim"),
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
        let unfit = hand.unfit;
        hand.settles(Step::Begin);
        (hand.epoch, hand.fence) = (run.epoch, run.fence);
        (hand.failures, hand.waits) = (run.failures, run.waits);
        hand.beats = true;
        if unfit {
            return match run.state {
                State::Running | State::Fanned => hand.failed(config, Class::Unavailable),
                // `settle::close`: without a plan the target cannot be asked.
                _ if run.epoch == 0 && run.opened_at.is_none() => hand.ends(Step::CloseLedger),
                _ => hand.ends(Step::PutBack { counted: false, wait: true }),
            };
        }
        match run.state {
            State::Closing => hand.ends(Step::CloseTarget),
            State::Committing => {
                assert_eq!(config.way, Way::Files);
                hand.decided = run.decision.clone().map(|decision| Decided(Arc::new(decision)));
                hand.step = Step::Approach;
            }
            State::Fanned => {
                (hand.cursor, hand.predecessor) = (opened.cursor, opened.predecessor);
                hand.step = Step::Gather;
            }
            _ => (hand.cursor, hand.predecessor) = (opened.cursor, opened.predecessor),
        }
    }

    /// `Plan::replaced` and `FilesSink::expect_free`: the manifest that is to be replaced.
    pub fn replaced(&self, config: &Config, hand: &Hand) -> Result<Option<String>, Answer> {
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
                Ok(_) if config.splits > 0 => hand.step = Step::Export,
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
            target: target(config, hand.run),
            manifest_sha256: decision.manifest.clone(),
            files: Vec::new(),
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
}
