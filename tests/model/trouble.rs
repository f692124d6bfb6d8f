//! What befalls a worker between two steps: it dies, stands still, is told to stop; and what it leaves
//! behind.

use std::time::Duration;

use longshore::error::Class;
use longshore::job::command::{Command, Outcome};
use longshore::job::run::State;

use crate::hand::{Hand, Step};
use crate::ledger::{self, LEASE};
use crate::target::Answer;
use crate::world::{Claim, Config, Late, World, Write};

impl World {
    /// A claim is given back by the token that nobody else knows.
    pub fn release(&mut self, worker: usize) {
        for claim in &mut self.claims {
            if *claim == Claim::Held(Some(worker)) {
                *claim = Claim::Free;
            }
        }
    }

    /// Nobody knows the token any more of a claim that was not given back.
    pub fn orphan(&mut self, worker: usize) {
        for claim in &mut self.claims {
            if *claim == Claim::Held(Some(worker)) {
                *claim = Claim::Held(None);
            }
        }
    }

    /// A worker's message goes back, and its claim stays until its lease is over.
    pub fn leave(&mut self, worker: usize, hand: &Hand) {
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
        if let Some(split) = hand.split
            && self.split_holder(hand.run, split) == Some(worker)
        {
            self.ledger().pass_split(hand.run, split, |split, now| {
                split.heartbeat = split.heartbeat.map(|until| until.min(now));
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
        if hand.split.is_some() {
            self.beat_split(&mut hand);
            self.workers[worker] = Some(hand);
            return;
        }
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
        let Some(hand) = &mut self.workers[worker] else { return };
        hand.letting_go = true;
        let hand = hand.clone();
        if hand.split.is_some() {
            return self.let_split_go(&hand);
        }
        let run = ledger::id(hand.run);
        self.ledger().apply_one(Command::Wake { run, delay: Duration::ZERO });
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
            hand.ends(match hand.split {
                Some(_) => Step::SplitBack { counted: false, wait: false },
                None => Step::PutBack { counted: false, wait: false },
            });
        }
    }
}
