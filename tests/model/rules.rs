//! What must hold in every state, and where nothing is left to be done.

use longshore::job::decision::Part;
use longshore::job::run::{Run, State};

use crate::ledger::{self, Kind};
use crate::worker::{CURSOR, TARGET};
use crate::world::{Config, Letter, Message, Seen, Way, World};

type Broken = Result<(), String>;

/// Holds a state, and the step that led to it, against the promises.
///
/// # Errors
/// The one that is broken.
pub fn hold(config: &Config, before: &World, now: &World) -> Broken {
    for (number, run) in &now.ledger.runs {
        if let Some(was) = before.ledger.run(*number) {
            moved(*number, was, run)?;
        }
        one_effect(now, *number, run)?;
        not_forgotten(now, *number, run)?;
        splits_not_forgotten(now, *number, run)?;
    }
    no_attempt_left(now)?;
    reserved(config, now)?;
    in_order(config, now)?;
    if !now.target.is_whole() {
        return Err("a manifest stands, and its part is missing".to_owned());
    }
    if now.target.seen.len() > before.target.seen.len() {
        if config.way == Way::Files {
            replaced(before, now)?;
        }
        if config.splits > 0 {
            one_reading(config, now)?;
        }
    }
    if now.rests() { at_rest(config, now) } else { Ok(()) }
}

/// A run that is done never opens again, and a fence never falls.
fn moved(number: u8, was: &Run, run: &Run) -> Broken {
    if was.state == State::Done && run.state != State::Done {
        return Err(format!("run {number} was done, and is {}", run.state));
    }
    if run.fence < was.fence || run.epoch < was.epoch {
        return Err(format!("the fence or the epoch of run {number} fell"));
    }
    if was.state == State::Committing && !matches!(run.state, State::Committing | State::Done) {
        return Err(format!("run {number} was decided, and is {}", run.state));
    }
    if was.state == State::Fanned && run.state == State::Committing && !was.gathers() {
        return Err(format!("run {number} was decided before all its splits were done"));
    }
    if was.state == State::Fanned && run.state == State::Queued && run.epoch == was.epoch {
        return Err(format!("run {number} is divided anew in the same epoch"));
    }
    Ok(())
}

/// One key and edition, one delivery: and the ledger and the target say the same of it.
fn one_effect(world: &World, number: u8, run: &Run) -> Broken {
    let mut seen = world.target.seen.iter().filter(|seen| seen.run == number);
    let first = seen.next();
    if seen.next().is_some() {
        return Err(format!("run {number} was delivered twice"));
    }
    match (run.state, first) {
        (State::Done, None) => Err(format!("run {number} is done, and was not delivered")),
        (State::Done, Some(seen)) if run.decision.as_ref() != Some(&seen.decided.0) => {
            Err(format!("run {number} is recorded with another delivery than was seen"))
        }
        (State::Dead | State::Cancelled | State::Expired, Some(_)) => {
            Err(format!("run {number} is {}, and was delivered", run.state))
        }
        _ => Ok(()),
    }
}

/// Whoever is open and not parked is on somebody's mind: a wake-up that is to be sent, a message on
/// the queue or in a worker's hand.
fn not_forgotten(world: &World, number: u8, run: &Run) -> Broken {
    // While splits are under way, they are what is not to be forgotten.
    let divided = run.state == State::Fanned && !run.gathers();
    if run.state.ended() || run.parked.is_some() || divided {
        return Ok(());
    }
    let about = |message: &Message| match message {
        Message::Job(job) => job.key == ledger::key_of(number),
        Message::Wake { run: other, epoch } => *other == number && *epoch == run.epoch,
        Message::Split { .. } => false,
    };
    let posted = world.ledger.outbox.get(&(number, Kind::Wake)).is_some_and(|row| !row.sent);
    let queued = world.queue.iter().any(about);
    let in_hand = world.workers.iter().flatten().any(|hand| hand.unacked && about(&hand.mail));
    if posted || queued || in_hand {
        return Ok(());
    }
    Err(format!("run {number} is {} and forgotten: no wake-up, no message", run.state))
}

/// Of a fanned run each split is there once, and whoever is not done is on somebody's mind. Of another
/// run none is: no wake-up is to be sent for one.
fn splits_not_forgotten(world: &World, number: u8, run: &Run) -> Broken {
    let posted =
        |split| world.ledger.outbox.get(&(number, Kind::Split(split))).is_some_and(|row| !row.sent);
    let fan = run.fan.as_ref().filter(|_| run.state == State::Fanned);
    let Some(fan) = fan else {
        let rows = world.ledger.outbox.iter();
        let mut unsent = rows.filter(|((run, kind), row)| {
            *run == number && matches!(kind, Kind::Split(_)) && !row.sent
        });
        return match unsent.next() {
            Some(_) => Err(format!("run {number} is {}, and splits of it are woken", run.state)),
            None => Ok(()),
        };
    };
    let mut done = 0;
    for split in 0..u8::try_from(fan.splits).unwrap_or(u8::MAX) {
        let row = world.ledger.splits.get(&(number, split));
        let Some(row) = row.filter(|row| row.epoch == run.epoch) else {
            return Err(format!("split {split} of run {number} is not there"));
        };
        if row.piece.is_some() {
            done += 1;
            continue;
        }
        let mail = Message::Split { run: number, epoch: run.epoch, split };
        let in_hand = world.workers.iter().flatten().any(|hand| hand.unacked && hand.mail == mail);
        if !posted(split) && !world.queue.contains(&mail) && !in_hand {
            return Err(format!("split {split} of run {number} is forgotten"));
        }
    }
    if done != fan.done {
        return Err(format!("{done} splits of run {number} are done, and {} counted", fan.done));
    }
    Ok(())
}

/// An attempt of a split has an outcome once its run is not fanned any more in that epoch.
fn no_attempt_left(world: &World) -> Broken {
    for (number, epoch, fence) in &world.ledger.reading {
        let run = world.ledger.run(*number);
        if run.is_none_or(|run| run.state != State::Fanned || run.epoch != *epoch) {
            return Err(format!("attempt {fence} at a split of run {number} has no outcome"));
        }
    }
    Ok(())
}

/// A delivery is of one epoch and one snapshot, and has each split once, in order.
fn one_reading(config: &Config, world: &World) -> Broken {
    let Some(Seen { run, decided }) = world.target.seen.last() else { return Ok(()) };
    let told = |part: &Part| -> Vec<String> { part.sha256.split(' ').map(str::to_owned).collect() };
    let parts: Vec<Vec<String>> = decided.0.parts.iter().map(told).collect();
    let Some(first) = parts.first() else { return Err(format!("run {run} delivers nothing")) };
    let each = (0..config.splits)
        .map(|split| vec![first[0].clone(), first[1].clone(), split.to_string(), first[3].clone()]);
    if parts != each.collect::<Vec<_>>() {
        return Err(format!("run {run} delivers parts of several readings: {parts:?}"));
    }
    Ok(())
}

/// Nothing is held by more runs than may, and by no run that has ended.
fn reserved(config: &Config, world: &World) -> Broken {
    for (name, resource) in &world.ledger.resources {
        let most = if name.starts_with("slot/") { config.slots.unwrap_or(0) } else { 1 };
        if resource.holders.len() > most as usize {
            return Err(format!("{name} is held by {:?}", resource.holders));
        }
        for (number, run) in &world.ledger.runs {
            let there = resource.holders.contains(&run.id)
                || resource.waiters.iter().any(|waiter| waiter.run == run.id);
            if run.state.ended() && there {
                return Err(format!("run {number} is {} and holds or waits for {name}", run.state));
            }
        }
    }
    Ok(())
}

/// The ranges of what was delivered follow one upon the other, and the cursor stands where the last
/// that is recorded ends.
fn in_order(config: &Config, world: &World) -> Broken {
    if !config.cursor {
        return Ok(());
    }
    let (mut at, mut recorded) = (None, None);
    for Seen { run, decided } in &world.target.seen {
        let Some(step) = &decided.0.cursor else { continue };
        if step.from != at {
            return Err(format!(
                "run {run} delivers from {:?}, where {at:?} was reached",
                step.from
            ));
        }
        at = Some(step.to.clone());
        if world.ledger.run(*run).is_some_and(|run| run.state == State::Done) {
            recorded.clone_from(&at);
        }
    }
    let stands = world.ledger.cursors.get(CURSOR);
    if stands != recorded.as_ref() {
        return Err(format!("the cursor stands at {stands:?}, and {recorded:?} was recorded"));
    }
    Ok(())
}

/// What is replaced was recorded, and never stood there before the one that replaces it.
fn replaced(before: &World, now: &World) -> Broken {
    let Some(new) = now.target.seen.last() else { return Ok(()) };
    let Some(was) = &before.target.standing else { return Ok(()) };
    let Some(old) = before.target.seen.iter().rfind(|seen| seen.decided.0.manifest == *was) else {
        return Err("what stood there was never seen".to_owned());
    };
    let done = before.ledger.run(old.run).is_some_and(|run| run.state == State::Done);
    if !done || new.decided.0.replaces.as_ref() != Some(was) {
        return Err(format!("run {} replaces {was}, which it may not", new.run));
    }
    Ok(())
}

/// Every job is settled, and the target shows what was recorded last.
fn at_rest(config: &Config, world: &World) -> Broken {
    for job in config.published.iter().chain(&config.placed) {
        let run = world.ledger.run(ledger::number(job.key, 1));
        let accepted = run.is_some_and(|run| run.order.content == job.content.to_string());
        if !accepted && !world.dead.contains(&Letter::Refused(*job)) {
            return Err(format!("{job:?} is neither a run nor set aside"));
        }
    }
    for (number, run) in &world.ledger.runs {
        let letter = Letter::Run { run: *number, epoch: run.epoch };
        let dead = matches!(run.state, State::Dead | State::Expired);
        if dead && !world.dead.contains(&letter) {
            return Err(format!("run {number} is {}, and has no letter", run.state));
        }
    }
    let head = world.ledger.heads.get(TARGET);
    if config.way == Way::Files && world.target.standing.as_ref() != head {
        return Err(format!("{:?} stands, and {head:?} was recorded", world.target.standing));
    }
    Ok(())
}
