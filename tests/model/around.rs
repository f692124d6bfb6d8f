//! What happens around the workers: broker, dispatchers, sweeper, clock, operators, faults. And
//! what may happen next in a state.

use std::sync::Arc;
use std::time::Duration;

use longshore::error::Class;
use longshore::job::command::{Command, Outcome};
use longshore::job::pause::Scope;
use longshore::job::run::State;

use crate::hand::{Hand, Step};
use crate::ledger::{self, Kind};
use crate::rules;
use crate::world::{
    Action, Claim, Config, Dispatcher, Fault, Letter, Message, PAUSE, World, Write,
};

/// An action, and whether an end must be reachable by such alone: no fault, and nothing that
/// somebody may leave undone.
pub type Next = (Action, bool);

impl World {
    /// What may happen next.
    pub fn next(&self, config: &Config) -> Vec<Next> {
        let mut next = Vec::new();
        let faulty = |fault| self.left.faults > 0 && config.faults.contains(&fault);
        self.next_of_workers(config, &mut next);
        self.next_of_dispatchers(config, &mut next);
        self.next_of_time(config, &mut next);
        self.next_of_operators(config, &mut next);
        self.next_of_splits(config, &mut next);
        for (n, _) in self.late.iter().enumerate() {
            next.push((Action::Land(n), true));
        }
        let claimed = self.claims.iter().any(|claim| *claim != Claim::Free);
        if faulty(Fault::Flush) && claimed {
            next.push((Action::Flush, false));
        }
        if self.left.growth > 0 {
            next.push((Action::Grow, false));
        }
        next
    }

    fn next_of_workers(&self, config: &Config, next: &mut Vec<Next>) {
        let faulty = |fault| self.left.faults > 0 && config.faults.contains(&fault);
        let mut idle = None;
        for (n, hand) in self.workers.iter().enumerate() {
            let Some(hand) = hand else {
                // Idle workers do not differ: the first one takes it.
                idle.get_or_insert(n);
                continue;
            };
            next.push((Action::Step(n), true));
            if faulty(Fault::AnswerLost) && (hand.asks_ledger() || hand.write().is_some()) {
                next.push((Action::StepUnanswered(n), false));
            }
            let opens = matches!(hand.step, Step::Open | Step::Accept { held: false });
            let open = self.ledger.run(hand.run).is_none_or(|run| !run.state.ended());
            if self.left.unfit > 0 && opens && open {
                next.push((Action::Unfit(n), false));
            }
            let reads = matches!(hand.step, Step::Stage | Step::Export | Step::Read | Step::Gather);
            let may_fail = reads || hand.write() == Some(Write::Merge);
            if self.left.failures > 0 && may_fail {
                next.push((Action::Fail(n, Class::Transient), false));
                next.push((Action::Fail(n, Class::Permanent), false));
            }
            // Blocked threads go on, and what a server was asked for is done.
            let writes = hand.write().is_some();
            if faulty(Fault::Crash) {
                next.push((Action::Crash { worker: n, late: false }, false));
                if writes {
                    next.push((Action::Crash { worker: n, late: true }, false));
                }
            }
            if faulty(Fault::Cut) && hand.unacked && hand.step != Step::Ack {
                next.push((Action::Cut(n), false));
            }
            if faulty(Fault::Stall) {
                next.push((Action::Stall(n), false));
            }
            if hand.beats {
                self.next_of_attempt(n, hand, next);
            }
        }
        if let Some(n) = idle {
            let mut before = None;
            for message in &self.queue {
                if before.replace(message) != Some(message) {
                    next.push((Action::Take(n, *message), true));
                }
            }
        }
    }

    fn next_of_attempt(&self, n: usize, hand: &Hand, next: &mut Vec<Next>) {
        // A heartbeat that changes nothing is left out.
        let run = self.ledger.run(hand.run);
        let news = match hand.split {
            Some(split) => self.split_news(hand, split),
            None => run.is_none_or(|run| {
                let lost = run.fence != hand.fence || run.state == State::Closing;
                lost || !run.alive(self.ledger.now)
            }),
        };
        if news {
            next.push((Action::Beat { worker: n, late: false }, false));
            if hand.write().is_some() {
                next.push((Action::Beat { worker: n, late: true }, false));
            }
        }
        if hand.letting_go {
            next.push((Action::AckEarly(n), true));
        } else if hand.unacked && self.left.letting_go > 0 {
            next.push((Action::LetGo(n), false));
        }
        if self.left.hand_backs > 0 {
            next.push((Action::HandBack(n), false));
        }
    }

    fn next_of_dispatchers(&self, config: &Config, next: &mut Vec<Next>) {
        let faulty = self.left.faults > 0 && config.faults.contains(&Fault::ConfirmLost);
        let mut idle = None;
        let mut taken = Vec::new();
        for (n, one) in self.dispatchers.iter().enumerate() {
            match one {
                Dispatcher::Idle => {
                    idle.get_or_insert(n);
                    continue;
                }
                Dispatcher::Took { version, .. } | Dispatcher::Published { version } => {
                    taken.push(*version);
                }
            }
            next.push((Action::Publish(n), true));
            if faulty {
                next.push((Action::PublishUnanswered(n), false));
            }
        }
        for ((run, kind), row) in &self.ledger.outbox {
            if row.sent {
                continue;
            }
            if !row.taken && row.at <= self.ledger.now {
                next.extend(idle.map(|n| (Action::Dispatch(n, *run, *kind), true)));
            }
            // Its dispatcher is gone, or stands still for longer than it may.
            if row.taken && (!taken.contains(&row.version) || faulty) {
                next.push((Action::Untake(*run, *kind), !taken.contains(&row.version)));
            }
        }
    }

    fn next_of_time(&self, config: &Config, next: &mut Vec<Next>) {
        let stalls = self.left.faults > 0 && config.faults.contains(&Fault::Stall);
        let now = self.ledger.now;
        for (number, run) in &self.ledger.runs {
            let number = *number;
            let row = |kind| self.ledger.outbox.get(&(number, kind));
            let unsent = |kind| row(kind).is_some_and(|row| !row.sent && row.at > now);
            if run.order.not_before.is_some_and(|at| at > now) || unsent(Kind::Wake) {
                next.push((Action::Due(number), true));
            }
            if config.cleanings && unsent(Kind::Clean) {
                next.push((Action::Day(number), true));
            }
            if run.alive(now) && (self.holder(number).is_none() || stalls) {
                next.push((Action::Silent(number), self.holder(number).is_none()));
            }
            if run.order.deadline.is_some_and(|at| at > now) && !run.state.ended() {
                next.push((Action::Deadline(number), false));
            }
            let is_past = run.order.deadline.is_some_and(|at| at <= now);
            if is_past && matches!(run.state, State::Queued | State::Running | State::Fanned) {
                next.push((Action::Overdue(number), true));
            }
            let posted = row(Kind::Wake).is_some_and(|row| !row.sent);
            let silent = !run.state.ended() && run.parked.is_none() && !run.alive(now);
            // What is on the queue is taken long before the sweeper looks.
            let wake =
                |message: &Message| matches!(message, Message::Wake { run, .. } if *run == number);
            if config.sweeper && silent && !posted && !self.queue.iter().any(wake) {
                next.push((Action::Sweep(number), true));
            }
            if let Some(on) = &run.parked {
                let lifted = Scope::of_resource(on).is_some() && !self.ledger.pauses.contains(on);
                if lifted {
                    next.push((Action::Unpark(number), true));
                }
            }
        }
        for (key, claim) in self.claims.iter().enumerate() {
            let number = u8::try_from(key).unwrap_or(u8::MAX);
            match claim {
                Claim::Held(None) => next.push((Action::Lapse(number), true)),
                Claim::Held(Some(_)) if stalls => next.push((Action::Lapse(number), false)),
                _ => {}
            }
        }
    }

    fn next_of_operators(&self, config: &Config, next: &mut Vec<Next>) {
        for (number, run) in &self.ledger.runs {
            if self.left.cancels > 0 && !run.state.ended() {
                next.push((Action::Cancel(*number), false));
            }
            if self.left.reruns > 0 && run.state == State::Done {
                next.push((Action::Rerun(*number), false));
            }
        }
        if self.left.replays > 0 {
            for letter in &self.dead {
                next.push((Action::Replay { letter: *letter, kept: false }, false));
                if self.left.faults > 0 && config.faults.contains(&Fault::LetterKept) {
                    next.push((Action::Replay { letter: *letter, kept: true }, false));
                }
            }
        }
        if self.ledger.pauses.contains(PAUSE) {
            next.push((Action::Lift, true));
        } else if self.left.pauses > 0 {
            next.push((Action::Pause, false));
        }
    }

    /// What comes of an action.
    ///
    /// # Errors
    /// A promise that it breaks.
    pub fn after(&self, config: &Config, action: Action) -> Result<World, String> {
        let mut world = self.clone();
        world.act(config, action)?;
        world.forget(config);
        rules::hold(config, self, &world)?;
        Ok(world)
    }

    /// Leaves out what the configuration does not look at.
    fn forget(&mut self, config: &Config) {
        if !config.cleanings && self.ledger.outbox.keys().any(|(_, kind)| *kind == Kind::Clean) {
            self.ledger().outbox.retain(|(_, kind), _| *kind != Kind::Clean);
        }
    }

    fn act(&mut self, config: &Config, action: Action) -> Result<(), String> {
        match action {
            Action::Take(n, message) => {
                let at = self.queue.iter().position(|other| *other == message).unwrap();
                self.queue.remove(at);
                let mut hand = Hand::new(message);
                if hand.split.is_some() {
                    hand.opening = self.ledger.run(hand.run).map_or(0, |run| run.fence);
                }
                self.workers[n] = Some(hand);
            }
            Action::Step(n) => self.step(config, n)?,
            Action::StepUnanswered(n) => {
                self.left.faults -= 1;
                self.unanswered(config, n)?;
            }
            Action::Unfit(n) => {
                self.left.unfit -= 1;
                if let Some(hand) = &mut self.workers[n] {
                    hand.unfit = true;
                }
                self.step(config, n)?;
            }
            Action::Fail(n, class) => {
                self.left.failures -= 1;
                self.fail(config, n, class);
            }
            Action::Crash { worker, late } => {
                self.left.faults -= 1;
                self.crash(worker, late);
            }
            Action::Cut(n) => {
                self.left.faults -= 1;
                if let Some(hand) = &mut self.workers[n] {
                    hand.unacked = false;
                    let mail = hand.mail;
                    self.publish(mail);
                }
            }
            Action::Stall(n) => {
                self.left.faults -= 1;
                self.stall(n);
            }
            Action::Beat { worker, late } => self.beat(worker, late),
            Action::LetGo(n) => {
                self.left.letting_go -= 1;
                self.let_go(n);
            }
            Action::AckEarly(n) => {
                if let Some(hand) = &mut self.workers[n] {
                    (hand.unacked, hand.letting_go) = (false, false);
                }
            }
            Action::HandBack(n) => {
                self.left.hand_backs -= 1;
                self.hand_back(n);
            }
            Action::Land(n) => self.land(n),
            Action::Dispatch(n, run, kind) => self.dispatch(n, run, kind),
            Action::Publish(n) => self.publish_next(n),
            Action::PublishUnanswered(n) => {
                self.left.faults -= 1;
                if let Dispatcher::Took { posting, .. } = self.dispatchers[n] {
                    self.deliver(posting);
                }
                self.dispatchers[n] = Dispatcher::Idle;
            }
            Action::Untake(run, kind) => {
                let held = self.dispatchers.iter().any(|one| match one {
                    Dispatcher::Idle => false,
                    Dispatcher::Took { version, .. } | Dispatcher::Published { version } => {
                        *version == self.ledger.outbox[&(run, kind)].version
                    }
                });
                self.left.faults -= u8::from(held);
                self.ledger().outbox.get_mut(&(run, kind)).unwrap().taken = false;
            }
            Action::Due(run) => {
                let ledger = self.ledger();
                ledger.pass(run, |run, now| {
                    run.order.not_before = run.order.not_before.map(|at| at.min(now));
                });
                ledger.due(run, Kind::Wake);
            }
            Action::Day(run) => self.ledger().due(run, Kind::Clean),
            Action::Silent(run) => {
                self.left.faults -= u8::from(self.holder(run).is_some());
                self.ledger().pass(run, |run, now| run.heartbeat = Some(now));
            }
            Action::Lapse(key) => {
                let claim = &mut self.claims[usize::from(key)];
                self.left.faults -= u8::from(matches!(claim, Claim::Held(Some(_))));
                *claim = Claim::Free;
            }
            Action::Flush => {
                self.left.faults -= 1;
                self.claims.fill(Claim::Free);
            }
            Action::Sweep(run) => {
                let run = ledger::id(run);
                self.ledger().apply_one(Command::Wake { run, delay: Duration::ZERO });
            }
            Action::Deadline(run) => {
                self.ledger().pass(run, |run, now| run.order.deadline = Some(now));
            }
            Action::Overdue(run) => {
                self.ledger().apply_one(Command::Expire { run: ledger::id(run) });
            }
            Action::Unpark(run) => {
                self.ledger().apply_one(Command::Unpark { run: ledger::id(run) });
            }
            Action::Cancel(run) => {
                self.left.cancels -= 1;
                let (by, reason) = ("ann".to_owned(), "a test".to_owned());
                self.ledger().apply_one(Command::Cancel { run: ledger::id(run), by, reason });
            }
            Action::Replay { letter, kept } => {
                self.left.replays -= 1;
                self.left.faults -= u8::from(kept);
                self.replay(letter, kept)?;
            }
            Action::Rerun(run) => {
                self.left.reruns -= 1;
                self.rerun(run);
            }
            Action::Pause => {
                self.left.pauses -= 1;
                self.ledger().pauses.insert(PAUSE.to_owned());
            }
            Action::Lift => {
                self.ledger().pauses.remove(PAUSE);
            }
            Action::Grow => {
                self.left.growth -= 1;
                self.source += 1;
            }
            Action::Splits(what) => self.act_on_splits(what)?,
        }
        Ok(())
    }

    /// A step is done, and the worker does not hear of it. What it asked the ledger, it asks again
    /// (`Worker::patiently`); what it asked the target, is a failure of the attempt.
    fn unanswered(&mut self, config: &Config, n: usize) -> Result<(), String> {
        let mut hand = self.workers[n].clone().unwrap();
        let is_new = self.ledger.run(hand.run).is_none();
        self.step(config, n)?;
        self.take_back(&hand);
        if hand.write().is_some() {
            self.workers[n] = Some(hand);
            self.fail(config, n, Class::Transient);
            return Ok(());
        }
        hand.asked |= is_new && matches!(hand.step, Step::Accept { .. });
        self.workers[n] = Some(hand);
        Ok(())
    }

    /// `dispatch::once`, of one posting: it is taken.
    fn dispatch(&mut self, n: usize, run: u8, kind: Kind) {
        let epoch_now = self.ledger.run(run).unwrap().epoch;
        let row = self.ledger().outbox.get_mut(&(run, kind)).unwrap();
        row.taken = true;
        let posting = match kind {
            // The letter is written from the run as it is then.
            Kind::Letter => Err(Letter::Run { run, epoch: epoch_now }),
            Kind::Wake | Kind::Clean => Ok(Message::Wake { run, epoch: row.epoch }),
            Kind::Split(split) => Ok(Message::Split { run, epoch: row.epoch, split }),
        };
        let version = row.version;
        self.dispatchers[n] = Dispatcher::Took { version, posting };
    }

    fn deliver(&mut self, posting: Result<Message, Letter>) {
        match posting {
            Ok(message) => self.publish(message),
            Err(letter) => self.set_aside(letter),
        }
    }

    /// `dispatch::once`: it is published; then `Ledger::mark_sent`, by the version that was.
    fn publish_next(&mut self, n: usize) {
        self.dispatchers[n] = match self.dispatchers[n] {
            Dispatcher::Idle => Dispatcher::Idle,
            Dispatcher::Took { version, posting } => {
                self.deliver(posting);
                Dispatcher::Published { version }
            }
            Dispatcher::Published { version } => {
                self.ledger().mark_sent(version);
                Dispatcher::Idle
            }
        };
    }

    /// `Replayer::one`: the ledger first, then the letter.
    fn replay(&mut self, letter: Letter, kept: bool) -> Result<(), String> {
        if !kept {
            let at = self.dead.iter().position(|other| *other == letter).unwrap();
            self.dead.remove(at);
        }
        let Letter::Run { run, epoch } = letter else {
            let Letter::Refused(job) = letter else { unreachable!() };
            self.publish(Message::Job(job));
            return Ok(());
        };
        let before = self.ledger.run(run).map(|run| run.epoch);
        let command = Command::Replay {
            run: ledger::id(run),
            epoch,
            definition: None,
            deadline: None,
            cap: None,
            by: "ann".to_owned(),
            reason: "a test".to_owned(),
        };
        match self.ledger().apply_one(command) {
            Outcome::Done(_) if before != Some(epoch) => {
                Err(format!("a letter of epoch {epoch} replays a run of epoch {before:?}"))
            }
            _ => Ok(()),
        }
    }

    /// `intake::rerun`.
    fn rerun(&mut self, run: u8) {
        let key = ledger::key_of(run);
        let editions = self.ledger.runs.keys().filter(|other| ledger::key_of(**other) == key);
        let edition = i32::try_from(editions.count()).unwrap() + 1;
        let done = Arc::clone(&self.ledger.runs[&run]);
        self.ledger().apply_one(Command::Rerun {
            of: done.id,
            id: ledger::id(ledger::number(key, edition)),
            order: Box::new(done.order.clone()),
            pinned: false,
            by: "ann".to_owned(),
            reason: "a test".to_owned(),
        });
    }
}
