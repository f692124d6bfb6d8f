//! What a schedule makes due of each combination of its params. Pure, as [`super::due`] is.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json};

use super::due::{self, MOST, Slot};
use crate::error::Result;
use crate::export::{Export, Schedule};
use crate::ledger::KnownWindows;

/// The windows of an export that have runs, or were skipped, by the params of these.
pub struct Known(HashMap<String, BTreeSet<Timestamp>>);

/// A slot with the params of its run.
pub type Each = (Slot, Map<String, Json>);

/// What is to be done: [`due::Due`], of all combinations together.
#[derive(Debug, Default)]
pub struct Found {
    /// To be enqueued.
    pub enqueue: Vec<Each>,
    /// Left out by `catch-up`.
    pub skipped: Vec<Each>,
    /// What is to be stored as the last tick.
    pub tick: Option<Timestamp>,
}

impl Known {
    /// What the ledger knows, by params as keys compare them.
    pub fn of(export: &Export, windows: KnownWindows) -> Known {
        let mut known: HashMap<String, BTreeSet<Timestamp>> = HashMap::new();
        for (params, starts) in windows {
            let alike = match serde_json::from_str::<Map<String, Json>>(&params) {
                Ok(given) => export.alike(&given),
                Err(_) => params,
            };
            known.entry(alike).or_default().extend(starts);
        }
        Known(known)
    }

    /// Whether there is anything about this window, with params that are alike.
    pub fn has(&self, alike: &str, start: Timestamp) -> bool {
        self.0.get(alike).is_some_and(|starts| starts.contains(&start))
    }
}

/// What the schedule makes due at `now`, in the order of time. At most about [`MOST`] jobs are named;
/// where there are more, the last tick stays before them.
///
/// # Errors
/// Those of [`due::due`].
pub fn due(
    (export, schedule): (&Export, &Schedule),
    zone: &TimeZone,
    now: Timestamp,
    last_tick: Option<Timestamp>,
    from: Timestamp,
    known: &Known,
) -> Result<Found> {
    let combinations = export.combinations(&Map::new());
    let mut found = Found::default();
    if schedule.window.is_none() {
        // All combinations have the same times.
        let most = (MOST / combinations.len().max(1)).max(1);
        let due = due::due(schedule, zone, now, last_tick, from, &|_| false, most)?;
        let with = |slot| combinations.iter().map(move |params| (slot, params.clone()));
        found.enqueue = due.enqueue.into_iter().flat_map(with).collect();
        found.tick = due.tick;
        return Ok(found);
    }
    let mut left = MOST;
    for params in combinations {
        if left == 0 {
            found.tick = None;
            break;
        }
        let alike = export.alike(&params);
        let is_known = |slot: &Slot| match slot {
            Slot::Window(window) => known.has(&alike, window.start),
            Slot::Tick(_) => false,
        };
        let due = due::due(schedule, zone, now, last_tick, from, &is_known, left)?;
        left = left.saturating_sub(due.enqueue.len() + due.skipped.len());
        found.enqueue.extend(due.enqueue.into_iter().map(|slot| (slot, params.clone())));
        found.skipped.extend(due.skipped.into_iter().map(|slot| (slot, params.clone())));
        found.tick = due.tick;
        if due.more {
            break;
        }
    }
    found.enqueue.sort_by_key(|(slot, _)| *slot);
    found.skipped.sort_by_key(|(slot, _)| *slot);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn export(schedule: Json) -> Export {
        serde_json::from_value(json!({
            "schedule": schedule,
            "params": {
                "country": {"type": "string", "default": "NO"},
                "top": {"type": "int64", "default": 10},
            },
            "source": {"connection": "shop", "table": "orders"},
            "sink": {"connection": "lake", "path": "orders"},
        }))
        .unwrap()
    }

    fn daily(catch_up: &str, each: Json) -> Export {
        export(json!({
            "cron": "0 4 * * *", "window": "day", "start": "2026-11-01",
            "catch-up": catch_up, "for-each": each,
        }))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn starts(days: &[i8]) -> BTreeSet<Timestamp> {
        days.iter().map(|day| at(&format!("2026-11-{day:02}T00:00:00Z"))).collect()
    }

    fn look(export: &Export, last: Option<&str>, now: &str, known: KnownWindows) -> Found {
        let schedule = export.schedule.as_ref().unwrap();
        let known = Known::of(export, known);
        let from = due::from(schedule, &TimeZone::UTC, at("2026-11-01T00:00:00Z"));
        due((export, schedule), &TimeZone::UTC, at(now), last.map(at), from, &known).unwrap()
    }

    fn shown(slots: &[Each]) -> Vec<String> {
        let of = |slot: &Slot| match slot {
            Slot::Window(window) => window.start.strftime("%d").to_string(),
            Slot::Tick(at) => at.strftime("%dT%H").to_string(),
        };
        slots
            .iter()
            .map(|(slot, params)| {
                let values: Vec<String> = params.values().map(Json::to_string).collect();
                format!("{} {}", of(slot), values.join(" ").replace('"', ""))
            })
            .collect()
    }

    #[test]
    fn each_combination_is_due_by_itself() {
        let export = daily("all", json!({"country": ["NO", "SE"]}));
        let known = |params: &str, days: &[i8]| (params.to_owned(), starts(days));
        // The default, spelled out or not, is one combination; other params are of no matter.
        let known = KnownWindows::from([
            known("{}", &[1]),
            known(r#"{"country":"NO","top":10}"#, &[2]),
            known(r#"{"country":"SE"}"#, &[1]),
            known(r#"{"country":"SE","top":3}"#, &[2, 3]),
            known(r#"{"region":"north"}"#, &[1, 2, 3]),
        ]);
        let found = look(&export, None, "2026-11-04T05:00:00Z", known);
        assert_eq!(shown(&found.enqueue), ["02 SE", "03 NO", "03 SE"]);
        assert_eq!(found.tick, Some(at("2026-11-04T04:00:00Z")));
    }

    #[test]
    fn what_is_added_is_caught_up_and_the_others_are_untouched() {
        let known = || {
            let days = starts(&[1, 2, 3]);
            KnownWindows::from([
                ("{}".to_owned(), days.clone()),
                (r#"{"country":"SE"}"#.to_owned(), days),
            ])
        };
        for (policy, enqueue, skipped) in [
            ("all", vec!["01 DK", "02 DK", "03 DK", "04 DK", "04 NO", "04 SE"], vec![]),
            ("latest", vec!["03 DK", "04 DK", "04 NO", "04 SE"], vec!["01 DK", "02 DK"]),
            ("skip", vec!["04 DK", "04 NO", "04 SE"], vec!["01 DK", "02 DK", "03 DK"]),
        ] {
            let export = daily(policy, json!({"country": ["DK", "NO", "SE"]}));
            let last = Some("2026-11-04T04:00:00Z");
            let found = look(&export, last, "2026-11-05T05:00:00Z", known());
            assert_eq!(shown(&found.enqueue), enqueue, "{policy}");
            assert_eq!(shown(&found.skipped), skipped, "{policy}");
        }
    }

    #[test]
    fn each_time_of_a_cron_has_every_combination() {
        let export = export(json!({
            "cron": "0 */6 * * *", "for-each": {"country": ["NO", "SE"], "top": [1, 2]},
        }));
        let last = Some("2026-11-04T06:00:00Z");
        let found = look(&export, last, "2026-11-04T12:30:00Z", KnownWindows::new());
        let expected = ["04T12 NO 1", "04T12 NO 2", "04T12 SE 1", "04T12 SE 2"];
        assert_eq!(shown(&found.enqueue), expected);
        let again = look(
            &export,
            Some("2026-11-04T12:00:00Z"),
            "2026-11-04T13:00:00Z",
            KnownWindows::new(),
        );
        assert!(again.enqueue.is_empty() && again.tick.is_none());
    }

    /// However many combinations there are, and however long nobody looked.
    #[test]
    fn a_schedule_that_missed_its_times_goes_on_with_the_latest() {
        let countries: Vec<String> = (0..700).map(|n| format!("c{n:03}")).collect();
        for (policy, times) in [("latest", vec!["04T03", "04T04"]), ("skip", vec!["04T04"])] {
            let export = export(json!({
                "cron": "0 * * * *", "catch-up": policy, "for-each": {"country": countries},
            }));
            let (mut last, mut seen) = ("2026-11-01T04:00:00Z".to_owned(), BTreeSet::new());
            for _ in &times {
                let found = look(&export, Some(&last), "2026-11-04T04:30:00Z", KnownWindows::new());
                seen.extend(shown(&found.enqueue));
                last = found.tick.map_or(last, |tick| tick.to_string());
            }
            assert_eq!(last, "2026-11-04T04:00:00Z", "{policy}");
            let expected = times
                .iter()
                .flat_map(|time| countries.iter().map(move |country| format!("{time} {country}")));
            assert_eq!(seen, expected.collect(), "{policy}");
        }
    }

    #[test]
    fn many_are_named_in_several_looks_and_each_once() {
        let countries: Vec<String> = (0..700).map(|n| format!("c{n:03}")).collect();
        let each = json!({"country": countries});
        for (schedule, all) in [
            (json!({"cron": "0 4 * * *", "window": "day", "start": "2026-11-01"}), 3 * 700),
            (json!({"cron": "0 4 * * *", "start": "2026-11-01"}), 4 * 700),
        ] {
            let mut schedule = schedule;
            schedule["for-each"] = each.clone();
            let export = export(schedule);
            let mut seen = BTreeSet::new();
            let (mut last, mut known, mut looks) = (None::<String>, KnownWindows::new(), 0);
            loop {
                let found = look(&export, last.as_deref(), "2026-11-04T05:00:00Z", known.clone());
                looks += 1;
                assert!(found.enqueue.len() <= MOST && looks < 10);
                for (slot, params) in &found.enqueue {
                    assert!(seen.insert((*slot, params["country"].to_string())), "{slot:?} twice");
                    if let Slot::Window(window) = slot {
                        let params = Json::Object(params.clone()).to_string();
                        known.entry(params).or_default().insert(window.start);
                    }
                }
                last = found.tick.map(|tick| tick.to_string()).or(last);
                if last.as_deref() == Some("2026-11-04T04:00:00Z") {
                    break;
                }
            }
            assert_eq!(seen.len(), all);
        }
    }
}
