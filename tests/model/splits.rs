//! Runs that several workers read: a snapshot that somebody keeps, workers with a split in hand, and the
//! one that makes a delivery of what they have staged.
//!
//! A snapshot is in the hand of who made it until the run is divided. From then on it is kept beside, by
//! no worker in particular: that it goes is one fault, and that a worker goes and takes it along is
//! another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longshore::error::Class;
use longshore::job::command::{Command, Outcome};
use longshore::job::decision::{Decision, Part};
use longshore::job::run::{End, Run, State};
use longshore::job::split::{Piece, Reads, Snapshot, Split, SplitEvent, SplitId};
use longshore::rows::Counts;

use crate::around::Next;
use crate::hand::{Hand, Step};
use crate::ledger::{self, Kind, LEASE};
use crate::world::{Action, Config, Decided, Fault, World};

/// A snapshot that is there: of which run, in which epoch, made under which fence, and how far the source
/// had grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kept {
    pub run: u8,
    pub epoch: i32,
    pub fence: i64,
    pub seen: u8,
}

/// What may happen to snapshots and splits. A number is that of a snapshot, or of a run and its split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfSplits {
    /// Who keeps a snapshot is told that nobody needs it.
    NotNeeded(usize),
    /// A snapshot goes: its connection is cut, or whoever kept it died.
    Lose(usize),
    /// A worker dies, and the snapshot that it kept goes with it.
    LoseWith { worker: usize, kept: usize },
    /// Who keeps a snapshot is to end, and lets go of it.
    LetGo(usize),
    /// Time passes for a split that is to wait, or for its wake-up.
    Due(u8, u8),
    /// The heartbeat of a split expires.
    Silent(u8, u8),
}

/// What a worker stages of a split: `worker::split`.
fn piece(hand: &Hand, split: u8) -> Piece {
    let (run, fence, epoch, fan) = (hand.run, hand.fence, hand.epoch, hand.fan);
    let seen = hand.snapshot.unwrap_or_default();
    let part = Part {
        staged: format!("{run}/{fence}"),
        name: String::new(),
        bytes: 1,
        rows: 1,
        // What tells which reading it is of.
        sha256: format!("{epoch} {fan} {split} {seen}"),
        upload: None,
    };
    Piece {
        parts: vec![part],
        counts: Counts::default(),
        schema: Vec::new(),
        rules: BTreeMap::new(),
        quarantine: None,
        keys: None,
    }
}

/// Whether a split of this epoch is still to be read.
fn is_open(run: &Run, split: &Split) -> bool {
    run.state == State::Fanned && run.epoch == split.epoch && split.piece.is_none()
}

impl World {
    /// A step that only a run with splits has.
    ///
    /// # Errors
    /// A promise that it breaks.
    pub fn split_step(
        &mut self,
        config: &Config,
        worker: usize,
        hand: &mut Hand,
    ) -> Result<(), String> {
        match hand.step {
            Step::Export => {
                // What older epochs have staged is of no use any more.
                self.target.clean(hand.run, hand.fence - 1);
                hand.snapshot = Some(self.source);
                hand.step = Step::Fan;
            }
            Step::Fan => self.fan(config, hand),
            Step::OpenSplit => self.open_split(config, worker, hand),
            Step::Read => match self.snapshot(hand.run, hand.fan) {
                Some(seen) => {
                    self.target.staged.insert((hand.run, hand.fence));
                    hand.snapshot = Some(seen);
                    hand.step = Step::SplitDone;
                }
                None => hand.ends(Step::SplitLost),
            },
            Step::SplitDone => {
                let split = hand.split.unwrap_or_default();
                let piece = Box::new(piece(hand, split));
                let fence = hand.fence;
                let holds = self.ledger.splits.get(&(hand.run, split)).map(|split| split.fence);
                let outcome = self.ask_split(hand, SplitEvent::Done { fence, piece });
                if matches!(outcome, Outcome::Done(_)) && holds != Some(fence) {
                    return Err(format!("a stale fence finishes a split: {fence}, not {holds:?}"));
                }
                self.split_settled(hand, &outcome);
            }
            Step::SplitBack { counted, wait } => {
                let event = SplitEvent::Retry {
                    fence: hand.fence,
                    after: if wait { LEASE } else { Duration::ZERO },
                    failure: wait.then(|| (Class::Transient, "no".to_owned())),
                    counted,
                };
                let outcome = self.ask_split(hand, event);
                self.split_settled(hand, &outcome);
            }
            Step::SplitFail { class } => {
                let failure = (class, "no".to_owned());
                let event = SplitEvent::Fail { fence: hand.fence, end: End::Dead, failure };
                let outcome = self.ask_split(hand, event);
                self.split_settled(hand, &outcome);
            }
            Step::SplitLost => {
                let attempts = i32::try_from(config.attempts).unwrap();
                let was_whole = self.whole(hand.run);
                let event = SplitEvent::Lost { fence: hand.fence, after: LEASE, attempts };
                let outcome = self.ask_split(hand, event);
                if was_whole && matches!(outcome, Outcome::Done(_)) {
                    return Err("what was whole is thrown away".to_owned());
                }
                self.split_settled(hand, &outcome);
            }
            Step::SplitWake => {
                self.ask_split(hand, SplitEvent::Wake { delay: Duration::ZERO });
                hand.step = Step::Ack;
            }
            Step::Gather => self.gather(config, hand)?,
            other => unreachable!("{other:?}"),
        }
        Ok(())
    }

    fn ask_split(&mut self, hand: &Hand, event: SplitEvent) -> Outcome {
        let split = i32::from(hand.split.unwrap_or_default());
        let of = SplitId { run: ledger::id(hand.run), epoch: hand.epoch, split };
        self.ledger().apply_one(Command::Split { of, event })
    }

    /// Whoever is refused leaves a wake-up behind before he acks.
    fn split_settled(&mut self, hand: &mut Hand, outcome: &Outcome) {
        hand.ends(match outcome {
            Outcome::Done(_) => Step::Ack,
            _ => Step::SplitWake,
        });
    }

    /// The plan: `split::fan`. From here on the snapshot is kept beside.
    fn fan(&mut self, config: &Config, hand: &mut Hand) {
        let word = |word: &str| word.to_owned();
        let snapshot =
            Snapshot { id: word("s"), state: word("s"), holder: word("h"), of: word("t") };
        let pages = |n: u8| Reads::Pages { from: n.into(), to: None };
        let command = Command::Fan {
            run: ledger::id(hand.run),
            fence: hand.fence,
            snapshot: Box::new(snapshot),
            reads: (0..config.splits).map(pages).collect(),
            lease: LEASE,
        };
        match self.ledger().apply_one(command) {
            Outcome::Done(_) => {
                let seen = hand.snapshot.unwrap_or_default();
                let (run, epoch, fence) = (hand.run, hand.epoch, hand.fence);
                self.kept.push(Kept { run, epoch, fence, seen });
                self.kept.sort_unstable();
                hand.ends(Step::Release { refused: false });
            }
            Outcome::Refused(refusal) => hand.refused(config, refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Whoever has not heard that the run is divided has the snapshot in hand still.
    pub fn take_back(&mut self, hand: &Hand) {
        if hand.step == Step::Fan {
            self.kept.retain(|kept| (kept.run, kept.fence) != (hand.run, hand.fence));
        }
    }

    /// How far the source had grown when this snapshot was made, if it is there.
    fn snapshot(&self, run: u8, fence: i64) -> Option<u8> {
        let kept = self.kept.iter().find(|kept| (kept.run, kept.fence) == (run, fence));
        let in_hand =
            |hand: &&Hand| hand.step == Step::Fan && (hand.run, hand.fence) == (run, fence);
        let hand = self.workers.iter().flatten().find(in_hand);
        kept.map(|kept| kept.seen).or_else(|| hand?.snapshot)
    }

    fn open_split(&mut self, config: &Config, worker: usize, hand: &mut Hand) {
        let event = SplitEvent::Open {
            worker: hand.name(worker),
            lease: LEASE,
            attempts: i32::try_from(config.attempts).unwrap(),
        };
        match self.ask_split(hand, event) {
            Outcome::Opened(opened) => {
                let split = opened.split.unwrap();
                hand.settles(Step::Read);
                hand.fence = split.fence;
                hand.fan = opened.run.fan.map_or(0, |fan| fan.fence);
                (hand.failures, hand.waits) = (split.failures, split.waits);
                hand.beats = true;
            }
            Outcome::Closed(_) => hand.ends(Step::Ack),
            other => panic!("{other:?}"),
        }
    }

    /// `Ready::gather`: from the ledger's lists of parts, never from a listing.
    fn gather(&mut self, config: &Config, hand: &mut Hand) -> Result<(), String> {
        let replaces = match self.replaced(config, hand) {
            Ok(replaces) => replaces,
            Err(answer) => {
                hand.answered(config, answer, Step::Gather);
                return Ok(());
            }
        };
        let Some(run) = self.ledger.run(hand.run) else { return Ok(()) };
        let holds = run.fence == hand.fence && run.state == State::Fanned;
        let of_epoch = self.ledger.splits.range((hand.run, 0)..=(hand.run, u8::MAX));
        let pieces: Vec<&Piece> = of_epoch
            .filter(|(_, split)| split.epoch == run.epoch)
            .filter_map(|(_, split)| split.piece.as_ref())
            .collect();
        if pieces.len() != usize::from(config.splits) {
            if holds {
                return Err(format!("a delivery is made of {} splits", pieces.len()));
            }
            hand.failed(config, Class::Permanent);
            return Ok(());
        }
        let (number, fence) = (hand.run, hand.fence);
        let parts = pieces.iter().flat_map(|piece| &piece.parts).zip(0..);
        let parts: Vec<Part> = parts
            .map(|(part, n)| Part { name: format!("part-{number}-{fence}-{n}"), ..part.clone() })
            .collect();
        let read: Vec<&str> = parts.iter().map(|part| part.sha256.as_str()).collect();
        let decision = Decision {
            manifest: format!("{number} {fence} - {}", read.join(",")),
            parts,
            counts: Counts::default(),
            cursor: None,
            replaces,
            quarantine: None,
        };
        (hand.cursor, hand.predecessor) = (None, None);
        hand.decided = Some(Decided(Arc::new(decision)));
        hand.step = Step::Decide;
        Ok(())
    }

    fn whole(&self, run: u8) -> bool {
        self.ledger.run(run).is_some_and(Run::gathers)
    }

    /// Who reads the split under its current fence.
    pub fn split_holder(&self, run: u8, split: u8) -> Option<usize> {
        let fence = self.ledger.splits.get(&(run, split))?.fence;
        let holds = |hand: &Hand| {
            hand.beats && hand.split == Some(split) && hand.run == run && hand.fence == fence
        };
        self.workers.iter().position(|hand| hand.as_ref().is_some_and(holds))
    }

    /// Whether a heartbeat of this split would change anything.
    pub fn split_news(&self, hand: &Hand, split: u8) -> bool {
        let run = self.ledger.run(hand.run);
        let row = self.ledger.splits.get(&(hand.run, split));
        let Some((run, row)) = run.zip(row) else { return true };
        run.epoch != hand.epoch
            || !is_open(run, row)
            || row.fence != hand.fence
            || !row.alive(self.ledger.now)
    }

    /// `Heart::beat` of a split.
    pub fn beat_split(&mut self, hand: &mut Hand) {
        let beat = SplitEvent::Beat { fence: hand.fence, lease: LEASE };
        if !matches!(self.ask_split(hand, beat), Outcome::Done(_)) {
            hand.ends(Step::SplitWake);
        }
    }

    /// `split::let_message_go`.
    pub fn let_split_go(&mut self, hand: &Hand) {
        self.ask_split(hand, SplitEvent::Wake { delay: Duration::ZERO });
    }

    /// What may happen next to snapshots and splits.
    pub fn next_of_splits(&self, config: &Config, next: &mut Vec<Next>) {
        let faulty = |fault| self.left.faults > 0 && config.faults.contains(&fault);
        let mut may = |what: OfSplits, sure: bool| next.push((Action::Splits(what), sure));
        for (n, kept) in self.kept.iter().enumerate() {
            if !self.is_needed(kept) {
                may(OfSplits::NotNeeded(n), true);
                continue;
            }
            if faulty(Fault::Snapshot) {
                may(OfSplits::Lose(n), false);
            }
            if faulty(Fault::Crash) {
                let busy = self.workers.iter().enumerate().filter(|(_, hand)| hand.is_some());
                busy.for_each(|(worker, _)| may(OfSplits::LoseWith { worker, kept: n }, false));
            }
            if self.left.hand_backs > 0 {
                may(OfSplits::LetGo(n), false);
            }
        }
        let (now, stalls) = (self.ledger.now, faulty(Fault::Stall));
        for ((run, split), row) in &self.ledger.splits {
            if !self.ledger.run(*run).is_some_and(|of| is_open(of, row)) {
                continue;
            }
            let posted = self.ledger.outbox.get(&(*run, Kind::Split(*split)));
            let unsent = posted.is_some_and(|posted| !posted.sent && posted.at > now);
            if row.not_before.is_some_and(|at| at > now) || unsent {
                may(OfSplits::Due(*run, *split), true);
            }
            let held = self.split_holder(*run, *split).is_some();
            if row.alive(now) && (!held || stalls) {
                may(OfSplits::Silent(*run, *split), !held);
            }
        }
    }

    /// What `Command::Hold` answers to who keeps it.
    fn is_needed(&self, kept: &Kept) -> bool {
        self.ledger.run(kept.run).is_some_and(|run| {
            run.state == State::Fanned
                && !run.gathers()
                && run.epoch == kept.epoch
                && run.fan.as_ref().is_some_and(|fan| fan.fence == kept.fence)
        })
    }

    fn hold(&mut self, kept: Kept, lease: Option<Duration>) -> Outcome {
        let Kept { run, epoch, fence, .. } = kept;
        self.ledger().apply_one(Command::Hold { run: ledger::id(run), epoch, fence, lease })
    }

    /// What comes of it.
    ///
    /// # Errors
    /// A promise that it breaks.
    pub fn act_on_splits(&mut self, what: OfSplits) -> Result<(), String> {
        match what {
            OfSplits::NotNeeded(n) => {
                let kept = self.kept.remove(n);
                if matches!(self.hold(kept, Some(LEASE)), Outcome::Done(_)) {
                    return Err(format!("{kept:?} is kept though nobody needs it"));
                }
            }
            OfSplits::Lose(n) => {
                self.left.faults -= 1;
                self.kept.remove(n);
            }
            OfSplits::LoseWith { worker, kept } => {
                self.left.faults -= 1;
                self.kept.remove(kept);
                self.crash(worker, false);
            }
            OfSplits::LetGo(n) => {
                self.left.hand_backs -= 1;
                let kept = self.kept.remove(n);
                if !matches!(self.hold(kept, None), Outcome::Done(_)) {
                    return Err(format!("{kept:?} is needed, and was not held"));
                }
            }
            OfSplits::Due(run, split) => {
                let ledger = self.ledger();
                ledger.pass_split(run, split, |split, now| {
                    split.not_before = split.not_before.map(|at| at.min(now));
                });
                ledger.due(run, Kind::Split(split));
            }
            OfSplits::Silent(run, split) => {
                self.left.faults -= u8::from(self.split_holder(run, split).is_some());
                self.ledger().pass_split(run, split, |split, now| split.heartbeat = Some(now));
            }
        }
        Ok(())
    }
}
