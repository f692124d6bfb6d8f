use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::job::span;

/// An export with this path, and what else it has.
fn bound(path: &str, more: serde_json::Value) -> Bound {
    let mut export = json!({
        "timezone": "Europe/Oslo",
        "source": {"connection": "shop", "table": "orders"},
        "sink": {"connection": "lake", "path": path},
    });
    export.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Bound {
        name: "orders".to_owned(),
        revision: 1,
        hash: "0f".repeat(32),
        applied_at: now(),
        export: Arc::new(serde_json::from_value(export).unwrap()),
    }
}

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn job(window: Option<&str>) -> JobMessage {
    let zone = window::zone("Europe/Oslo").unwrap();
    let window = window.map(|text| span::parse_span(text, None, &zone, now()).unwrap());
    JobMessage {
        export: "orders".to_owned(),
        window,
        key: Some("k".to_owned()),
        ..JobMessage::default()
    }
}

/// What a job is refused with, if it is.
fn refusal(job: JobMessage, bound: &Bound) -> Option<String> {
    let error = order(job, Sender::default(), bound, now()).err()?;
    assert_eq!(error.class(), Class::Malformed);
    Some(format!("{error}. {}", error.advice().unwrap_or_default()))
}

#[test]
fn a_path_names_the_whole_window() {
    for (path, window, refused) in [
        ("o/{window_start:%Y-%m}", "1998-02", false),
        ("o/{window_start:%Y-%m}", "1998-02-03", true),
        ("o/{window_start:%Y-%m}/{run}", "1998-02-03", false),
        ("o/{window_start:%F}", "1998-02-03", false),
        ("o/{window_start:%F}", "1998-02-03T11:00:00Z/1998-02-03T23:00:00Z", true),
        ("o/{window_start:%F}", "1998-02-03T05", true),
        ("o/{window_start:%FT%H}", "1998-02-03T05", false),
        ("o/{window_start:%Y-%m}", "1998-02..1998-05", true),
        ("o/{window_start:%Y-%m}/{window_end:%Y-%m}", "1998-02..1998-05", false),
        ("o/{window_start:%F}", "1998-02", true),
        // In Oslo's time.
        ("o/{window_start:%F}", "1998-01-31T23:00:00Z/1998-02-01T23:00:00Z", false),
        ("o/{window_start:%F}", "1998-02-01T00:00:00Z/1998-02-02T00:00:00Z", true),
        // An instant is no span of time.
        ("o/{window_start}", "1998-02", false),
        ("o/{window_start:%FT%H%M}", "1998-02", false),
        ("o/{run}", "1998-02", false),
        ("o", "1998-02", false),
    ] {
        let told = refusal(job(Some(window)), &bound(path, json!({})));
        assert_eq!(told.is_some(), refused, "{path} {window}: {told:?}");
        if let Some(told) = told {
            assert!(told.contains("(path o/1998-0"), "{told}");
            assert!(told.contains("{window_end}"), "{told}");
        }
    }
    // Windows of a schedule are held against the path by `check`.
    let schedule =
        json!({"schedule": {"cron": "5 * * * *", "window": "day", "start": "1998-02-01"}});
    let day = refusal(job(Some("1998-02-03")), &bound("o/{window_start:%FT%H}", schedule));
    assert_eq!(day, None);
}

#[test]
fn a_job_without_the_window_that_its_export_uses_is_refused() {
    let query = json!({"source": {"connection": "shop", "query": "SELECT :window_start"}});
    let condition =
        json!({"source": {"connection": "shop", "table": "t", "where": "at < :window_end"}});
    let files = json!({"source": {"connection": "in", "path": "{window_start}.csv"}});
    for (bound, place) in [
        (bound("o/{window_end}", json!({})), "[sink] path"),
        (bound("o", query), "[source]"),
        (bound("o", condition), "[source]"),
        (bound("o", files), "[source]"),
    ] {
        let told = refusal(job(None), &bound).unwrap();
        assert!(told.contains(&format!("the export uses it in {place}")), "{told}");
        assert!(told.ends_with("Give the job a window."), "{told}");
        assert_eq!(refusal(job(Some("2026-11-19")), &bound), None);
    }
    assert_eq!(refusal(job(None), &bound("o", json!({}))), None);
}

#[test]
fn a_path_that_cannot_be_is_refused() {
    let params = json!({"params": {"c": {"type": "string"}}});
    let mut empty = job(None);
    empty.params.insert("c".to_owned(), json!(""));
    let told = refusal(empty, &bound("o/{c}", params)).unwrap();
    assert!(told.contains("is empty"), "{told}");
}

#[test]
fn a_job_that_comes_too_late_is_refused() {
    let late = |deadline: &str, window| {
        let mut job = job(window);
        job.deadline = Some(deadline.parse().unwrap());
        job
    };
    let bound = bound("o", json!({}));
    let told = refusal(late("2026-11-20T12:00:00Z", None), &bound).unwrap();
    assert!(told.contains("the deadline has passed (deadline 2026-11-20T12:00:00Z)"), "{told}");
    let told = refusal(late("2026-11-20T13:00:00Z", Some("2026-11-20")), &bound).unwrap();
    assert!(told.contains("the deadline comes before the job may start"), "{told}");
    assert_eq!(refusal(late("2026-11-20T12:00:01Z", None), &bound), None);
    // The repeat of one that was accepted in time is told from a new one.
    let repeat = late("2026-11-20T12:00:00Z", None);
    let order = order_at_any_time(repeat, Sender::default(), &bound, now()).unwrap();
    assert!(in_time(&order, now()).is_err());
}

#[test]
fn the_nearest_window_is_one_of_the_exports() {
    let with = |window: &str, start: &str| {
        let schedule = json!({"cron": "5 * * * *", "window": window, "start": start});
        bound("o/{window_start}", json!({"schedule": schedule}))
    };
    for (spec, start, window, nearest) in [
        (
            "day",
            "2026-11-01",
            "2026-10-19",
            "days in Europe/Oslo from 2026-11-01 on; the nearest is 2026-11-01.",
        ),
        ("day", "2026-11-01", "2026-11-19T05", "the nearest is 2026-11-19."),
        ("month", "2026-10-15", "2026-10", "the nearest is 2026-11."),
        ("week", "2026-11-01", "2026-11-01", "the nearest is 2026-11-02..2026-11-08."),
        (
            "15m",
            "2026-11-01",
            "2026-11-19T05",
            "of 15 minutes in Europe/Oslo from 2026-11-01 on; the nearest is 2026-11-19T05:00.",
        ),
    ] {
        let told = refusal(job(Some(window)), &with(spec, start)).unwrap();
        assert!(told.ends_with(nearest), "{told}");
    }
    let told = refusal(job(None), &with("day", "2026-11-01")).unwrap();
    assert!(told.contains("they are days in Europe/Oslo"), "{told}");
}

#[test]
fn a_release_to_files_knows_the_delivery_that_it_lies_beside() {
    let contract = json!({"contract": {"fields": {"id": {"type": "int64"}}}});
    let bound = bound("orders", contract);
    let delivery = |run: &Run, target: &str| RecordedDelivery {
        id: uuid::Uuid::now_v7(),
        run: run.id,
        export: "orders".to_owned(),
        target: target.to_owned(),
        manifest_sha256: format!("of {target}"),
        manifest: String::new(),
        counts: crate::rows::Counts::default(),
        recorded_at: now(),
    };
    let refusing = |order: Order| {
        let place = Some("quarantine/one".to_owned());
        Run { quarantine: place, ..Run::new(RunId::new(), order, now()) }
    };
    let mut run = refusing(order(job(None), Sender::default(), &bound, now()).unwrap());
    // What was refused once more belongs to the first delivery as well.
    for target in ["lake/orders", "lake/orders/supplement-1"] {
        let delivery = delivery(&run, target);
        let by = ("ann", "mended");
        let command = release(&run, &delivery, &bound.export, &bound, by, now()).unwrap();
        let Command::Release { order, .. } = command else { panic!("{command:?}") };
        let beside = order.supplements.as_ref().unwrap().beside.clone().unwrap();
        assert_eq!(
            (beside.target.as_str(), beside.manifest_sha256.as_str()),
            ("lake/orders", "of lake/orders")
        );
        run = refusing(*order);
    }
}
