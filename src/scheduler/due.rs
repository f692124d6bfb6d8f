//! What a schedule makes due. Pure: the clock and the ledger's knowledge are given.
//!
//! A tick is a time that the cron names. What follows from a tick depends on the tick alone, not
//! on when a scheduler gets to it, so that any number of schedulers find the same. Of the windows
//! closed by the last tick, those that closed after the tick before it are due; those closed
//! earlier that still have no run were missed, and `catch-up` decides. Several ticks that passed
//! while no scheduler ran are looked at as one: the last.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};
use crate::export::{CatchUp, Schedule};
use crate::job::Window;
use crate::job::cron::Cron;
use crate::job::window::{WindowSpec, first_at};

/// How many jobs, due and skipped together, one call names at the most.
pub const MOST: usize = 1000;

/// What a schedule names: a window or, where it has none, a time of its cron.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A window.
    Window(Window),
    /// A time that the cron names.
    Tick(Timestamp),
}

/// What is to be done. Both lists are in the order of time, and both must be recorded: what is
/// skipped too, since it counts as known from then on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// To be enqueued.
    pub enqueue: Vec<Slot>,
    /// Windows left out by `catch-up`, to be listed as skipped; times of a cron are not.
    pub skipped: Vec<Slot>,
    /// What is to be stored as the last tick: up to here all is done. `None`: as it was.
    pub tick: Option<Timestamp>,
    /// Whether more were found than were to be named: record these, and call again.
    pub more: bool,
}

/// What the schedule makes due at `now`.
///
/// `last_tick` is what an earlier [`Due::tick`] said; windows that start before `from`, and times of the
/// cron up to it, are of no matter (see [`from`]). `known` answers whether a slot has a run already, or
/// was recorded as skipped. At the most `most` are named.
///
/// # Errors
/// `config`, where the cron cannot be understood.
pub fn due(
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    last_tick: Option<Timestamp>,
    from: Timestamp,
    known: &dyn Fn(&Slot) -> bool,
    most: usize,
) -> Result<Due> {
    let cron = Cron::parse(&schedule.cron)?;
    let after_now = now.checked_add(SignedDuration::from_nanos(1)).map_err(|error| {
        Error::config("find what is due", "the clock is at the end of time").caused_by(error)
    })?;
    let Some(tick) = cron.previous(after_now, zone) else { return Ok(Due::default()) };
    if last_tick.is_some_and(|last| tick <= last) {
        return Ok(Due::default());
    }
    let before = cron.previous(tick, zone).unwrap_or(Timestamp::MIN);
    let mut plan = Plan { policy: schedule.catch_up, most, missed: None, due: Due::default() };
    match schedule.window {
        Some(spec) => {
            for window in spec.within(Window { start: from, end: tick.max(from) }, zone) {
                let slot = Slot::Window(window);
                if !known(&slot) && !plan.take(slot, window.end <= before) {
                    return Ok(plan.due);
                }
            }
        }
        None => {
            // Of those that were missed, at most the latest is wanted: none else is looked at.
            let missed = match schedule.catch_up {
                CatchUp::All => None,
                CatchUp::Latest => cron.previous(before, zone),
                CatchUp::Skip => Some(before),
            };
            let mut at = last_tick.into_iter().chain(missed).fold(from, Timestamp::max);
            while let Some(next) = cron.next_after(at, zone).filter(|next| *next <= tick) {
                let slot = Slot::Tick(next);
                if !known(&slot) && !plan.take(slot, next <= before) {
                    return Ok(plan.so_far());
                }
                at = next;
            }
        }
    }
    Ok(plan.end(tick))
}

/// From when on a schedule that became active then is followed: the start of its first window or, where
/// it has none, the instant after which its cron counts.
pub fn from(schedule: &Schedule, zone: &TimeZone, since: Timestamp) -> Timestamp {
    match (schedule.window, schedule.start) {
        (Some(spec), _) => first(schedule, spec, zone, since),
        (None, None) => since,
        (None, Some(day)) => {
            // A time of the cron at the very start belongs to it.
            let start = first_at(day.at(0, 0, 0, 0), zone);
            start.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(start)
        }
    }
}

/// From when on the windows of a schedule are asked for: its `start`, else the window in which it
/// became active.
pub fn first(
    schedule: &Schedule,
    spec: WindowSpec,
    zone: &TimeZone,
    since: Timestamp,
) -> Timestamp {
    match schedule.start {
        Some(day) => first_at(day.at(0, 0, 0, 0), zone),
        None => spec.containing(since, zone).start,
    }
}

struct Plan {
    policy: CatchUp,
    most: usize,
    /// The latest missed slot so far, where only the latest is delivered.
    missed: Option<Slot>,
    due: Due,
}

impl Plan {
    /// Takes the next slot in the order of time; answers `false` when the call's bound is reached.
    fn take(&mut self, slot: Slot, missed: bool) -> bool {
        if self.due.enqueue.len() + self.due.skipped.len() + usize::from(self.missed.is_some())
            >= self.most
        {
            // The latest of the missed is not known before all of them are seen.
            self.due.more = true;
            if self.policy != CatchUp::Latest || !missed {
                self.settle_missed();
            }
            return false;
        }
        match (missed, self.policy) {
            (false, _) => {
                self.settle_missed();
                self.due.enqueue.push(slot);
            }
            (true, CatchUp::All) => self.due.enqueue.push(slot),
            (true, CatchUp::Skip) => self.due.skipped.push(slot),
            (true, CatchUp::Latest) => self.due.skipped.extend(self.missed.replace(slot)),
        }
        true
    }

    fn settle_missed(&mut self) {
        self.due.enqueue.extend(self.missed.take());
    }

    /// What was found until the call's bound was reached. Times of the cron come in their order, so
    /// that up to the last that is named all is done.
    fn so_far(mut self) -> Due {
        let named = self.due.enqueue.iter();
        self.due.tick = named
            .filter_map(|slot| match slot {
                Slot::Tick(at) => Some(*at),
                Slot::Window(_) => None,
            })
            .max();
        self.due
    }

    fn end(mut self, tick: Timestamp) -> Due {
        self.settle_missed();
        self.due.tick = Some(tick);
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::window;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(cron: &str, window: Option<&str>, start: Option<&str>, catch_up: &str) -> Schedule {
        let mut toml = format!("cron = \"{cron}\"\ncatch-up = \"{catch_up}\"\n");
        if let Some(window) = window {
            toml += &format!("window = \"{window}\"\n");
        }
        if let Some(start) = start {
            toml += &format!("start = \"{start}\"\n");
        }
        toml::from_str(&toml).unwrap()
    }

    /// The clock times of the slots in Oslo.
    fn shown(slots: &[Slot]) -> Vec<String> {
        let oslo = window::zone("Europe/Oslo").unwrap();
        let show = |at: Timestamp, format| at.to_zoned(oslo.clone()).strftime(format).to_string();
        slots
            .iter()
            .map(|slot| match slot {
                Slot::Window(window) => show(window.start, "%m-%d"),
                Slot::Tick(at) => show(*at, "%m-%dT%H:%M"),
            })
            .collect()
    }

    fn daily(catch_up: &str, now: &str, last: Option<&str>, done: &[&str]) -> Due {
        let oslo = window::zone("Europe/Oslo").unwrap();
        let schedule = schedule("15 4 * * *", Some("day"), Some("2026-11-01"), catch_up);
        let known = |slot: &Slot| done.contains(&shown(&[*slot])[0].as_str());
        let from = from(&schedule, &oslo, at("2026-11-01T00:00:00Z"));
        due(&schedule, &oslo, at(now), last.map(at), from, &known, MOST).unwrap()
    }

    #[test]
    fn a_window_is_due_at_the_first_tick_after_it_closed() {
        let done = ["11-01", "11-02"];
        let early = daily("all", "2026-11-04T03:14:59Z", Some("2026-11-03T03:15:00Z"), &done);
        assert_eq!(early, Due::default());
        let due = daily("all", "2026-11-04T03:15:00Z", Some("2026-11-03T03:15:00Z"), &done);
        assert_eq!(shown(&due.enqueue), ["11-03"]);
        assert_eq!(due.tick, Some(at("2026-11-04T03:15:00Z")));
        let again =
            daily("all", "2026-11-04T12:00:00Z", due.tick.map(|t| t.to_string()).as_deref(), &done);
        assert_eq!(again, Due::default());
    }

    #[test]
    fn catch_up_decides_about_what_was_missed() {
        let last = Some("2026-11-02T03:15:00Z");
        let now = "2026-11-06T08:00:00Z";
        for (policy, enqueue, skipped) in [
            ("all", vec!["11-02", "11-03", "11-04", "11-05"], vec![]),
            ("latest", vec!["11-04", "11-05"], vec!["11-02", "11-03"]),
            ("skip", vec!["11-05"], vec!["11-02", "11-03", "11-04"]),
        ] {
            let due = daily(policy, now, last, &["11-01"]);
            assert_eq!(shown(&due.enqueue), enqueue, "{policy}");
            assert_eq!(shown(&due.skipped), skipped, "{policy}");
            assert!(!due.more);
        }
        let hole = daily("latest", now, last, &["11-01", "11-03", "11-04", "11-05"]);
        assert_eq!(shown(&hole.enqueue), ["11-02"]);
    }

    #[test]
    fn the_first_look_goes_back_to_the_start() {
        let due = daily("all", "2026-11-04T12:00:00Z", None, &[]);
        assert_eq!(shown(&due.enqueue), ["11-01", "11-02", "11-03"]);
        let before = daily("all", "2026-10-30T12:00:00Z", None, &[]);
        assert_eq!(before.enqueue, []);
    }

    #[test]
    fn without_a_start_the_past_begins_when_the_schedule_became_active() {
        let oslo = window::zone("Europe/Oslo").unwrap();
        let schedule = schedule("15 4 * * *", Some("day"), None, "all");
        let from = from(&schedule, &oslo, at("2026-11-04T12:00:00Z"));
        let found = |now| due(&schedule, &oslo, at(now), None, from, &|_| false, MOST).unwrap();
        assert_eq!(found("2026-11-04T13:00:00Z").enqueue, []);
        assert_eq!(shown(&found("2026-11-05T03:15:00Z").enqueue), ["11-04"]);
    }

    #[test]
    fn a_schedule_without_window_names_its_ticks() {
        let oslo = window::zone("Europe/Oslo").unwrap();
        let found = |policy, last: Option<&str>, now| {
            let schedule = schedule("0 */6 * * *", None, None, policy);
            let from = from(&schedule, &oslo, at("2026-11-04T00:00:00Z"));
            due(&schedule, &oslo, at(now), last.map(at), from, &|_| false, MOST).unwrap()
        };
        let last = Some("2026-11-04T05:00:00Z");
        let due = found("all", last, "2026-11-04T18:00:00Z");
        assert_eq!(shown(&due.enqueue), ["11-04T12:00", "11-04T18:00"]);
        let due = found("skip", last, "2026-11-04T18:00:00Z");
        assert_eq!(shown(&due.enqueue), ["11-04T18:00"]);
        let due = found("latest", last, "2026-11-05T18:00:00Z");
        assert_eq!(shown(&due.enqueue), ["11-05T12:00", "11-05T18:00"]);
        assert!(due.skipped.is_empty() && !due.more);
        let first = found("all", None, "2026-11-04T04:00:00Z");
        assert_eq!(first.enqueue, []);
        assert_eq!(found("all", last, "2026-11-04T10:59:59Z"), Due::default());
    }

    #[test]
    fn many_are_named_in_several_calls_and_each_once() {
        let now = at("2026-03-01T00:00:00Z");
        let all = 59 * 24;
        for (policy, enqueued) in [("all", all), ("latest", 2), ("skip", 1)] {
            for window in [Some("hour"), None] {
                let schedule = schedule("0 * * * *", window, Some("2026-01-01"), policy);
                let from = from(&schedule, &TimeZone::UTC, now);
                let known = RefCell::new(BTreeSet::new());
                let (mut enqueue, mut calls, mut last) = (0, 0, None);
                loop {
                    // Of times of the cron only the last look is known.
                    let is_known = |slot: &Slot| window.is_some() && known.borrow().contains(slot);
                    let due =
                        due(&schedule, &TimeZone::UTC, now, last, from, &is_known, MOST).unwrap();
                    calls += 1;
                    assert!(due.enqueue.len() + due.skipped.len() <= MOST);
                    enqueue += due.enqueue.len();
                    let mut known = known.borrow_mut();
                    for slot in due.enqueue.iter().chain(&due.skipped) {
                        assert!(known.insert(*slot), "{slot:?} is named twice");
                    }
                    if !due.more {
                        assert_eq!(due.tick, Some(now));
                        break;
                    }
                    assert_eq!(due.tick.is_some(), window.is_none());
                    last = due.tick;
                }
                // The ticks of 59 days include both ends; those that are left out are not named.
                let (named, in_calls) = match (window, policy) {
                    (Some(_), _) => (all, 2),
                    (None, "all") => (all + 1, 2),
                    (None, _) => (enqueued, 1),
                };
                assert_eq!((known.borrow().len(), calls), (named, in_calls), "{policy}");
                let ticks = usize::from(window.is_none() && policy == "all");
                assert_eq!(enqueue, enqueued + ticks, "{policy}");
            }
        }
    }

    #[test]
    fn a_bad_cron_is_told() {
        let schedule = schedule("often", None, None, "all");
        let now = at("2026-11-04T00:00:00Z");
        assert!(due(&schedule, &TimeZone::UTC, now, None, now, &|_| false, MOST).is_err());
    }
}
