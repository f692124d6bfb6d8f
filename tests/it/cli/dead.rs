//! Dead letters that have no run, and filters that mean something else than they say.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use longshore::ledger::embedded::EmbeddedLedger;
use longshore::ledger::{AuditFilter, Ledger};
use longshore::queue::embedded::Embedded;
use longshore::queue::{DeadHeaders, Destination, Outgoing, Properties, Queue};
use serde_json::Value as Json;

use super::{BROKEN, House};
use crate::support::processes::Process;
use crate::support::sample::SETTINGS;

/// What a body that says nothing else is known by: the beginning of its SHA-256.
const EMPTY: (&str, &str) = ("{}", "44136fa355b3678a");

/// Puts messages onto a queue of the house.
fn publish(house: &House, to: &Destination, messages: &[(&str, Properties)]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let queue = Embedded::open(&house.path().join("longshore.db")).unwrap();
        queue.declare(&["default".to_owned()]).await.unwrap();
        let outgoing = messages.iter().map(|(body, properties)| Outgoing {
            to: to.clone(),
            body: (*body).to_owned().into(),
            properties: properties.clone(),
        });
        for answer in queue.publish(outgoing.collect()).await {
            answer.unwrap();
        }
    });
}

/// A letter without a run, as a worker sets it aside.
fn malformed(export: Option<&str>) -> Properties {
    Properties {
        message_id: Some("m-1".to_owned()),
        correlation_id: Some("c-1".to_owned()),
        dead: Some(DeadHeaders {
            reason: "cannot read the message: unknown field `windw`".to_owned(),
            class: "malformed".to_owned(),
            export: export.map(str::to_owned),
            worker: "w".to_owned(),
            first_failed_at: "2026-11-19T05:00:00Z".to_owned(),
            last_failed_at: "2026-11-19T05:00:00Z".to_owned(),
            routing_key: "default".to_owned(),
            ..DeadHeaders::default()
        }),
        ..Properties::default()
    }
}

fn dead() -> Destination {
    Destination::Dead("default".to_owned())
}

fn jobs() -> Destination {
    Destination::Jobs("default".to_owned())
}

/// A house with two dead runs; answers their names too.
fn with_dead_runs() -> (House, Vec<String>) {
    let house = House::new();
    house.write("config/exports/broken.toml", BROKEN);
    house.done(&["apply"]);
    for key in ["first", "second"] {
        house.fails(1, &["run", "broken", "--key", key]);
    }
    let letters = house.objects(&["dead", "list"]);
    let runs = letters.iter().map(|one| one["run"].as_str().unwrap().to_owned()).collect();
    (house, runs)
}

#[test]
fn letters_of_two_countries_can_be_told_apart() {
    let house = House::new();
    house.done(&["apply"]);
    let job = |country: &str| {
        let (start, end) = ("2026-11-19T00:00:00+01:00", "2026-11-20T00:00:00+01:00");
        serde_json::json!({
            "export": "daily",
            "window": {"start": start, "end": end},
            "params": {"country": country},
        })
        .to_string()
    };
    let (no, se) = (job("NO"), job("SE"));
    let dead = Destination::Dead("default".to_owned());
    let letter = || malformed(Some("daily"));
    publish(&house, &dead, &[(&no, letter()), (&se, letter()), (EMPTY.0, malformed(None))]);
    let table = house.done(&["dead", "list"]);
    for words in ["daily   2026-11-19 country=NO ", "daily   2026-11-19 country=SE "] {
        assert!(table.contains(words), "{words}\n{table}");
    }
    let objects = house.objects(&["dead", "list"]);
    assert_eq!(objects[1]["params"], serde_json::json!({"country": "SE"}));
    assert_eq!(objects[1]["window"]["start"], "2026-11-18T23:00:00Z");
    assert_eq!(
        (&objects[2]["params"], &objects[2]["window"]),
        (&serde_json::json!({}), &Json::Null)
    );
}

#[test]
fn a_letter_without_a_run_is_known_by_its_body() {
    let house = House::new();
    house.done(&["apply"]);
    let body = r#"{"export":"orders","windw":1}"#;
    publish(
        &house,
        &dead(),
        &[
            (EMPTY.0, malformed(None)),
            (body, malformed(Some("orders"))),
            (EMPTY.0, malformed(None)),
        ],
    );
    let listed = house.done(&["dead"]);
    assert_eq!(listed, house.done(&["dead", "list"]));
    assert!(listed.contains(&format!("{}  -       -       malformed", EMPTY.1)), "{listed}");
    let objects = house.objects(&["dead", "list", "--export", "orders"]);
    assert_eq!(objects.len(), 1);
    for (name, value) in [("body", body), ("message_id", "m-1"), ("correlation_id", "c-1")] {
        assert_eq!(objects[0][name], value);
    }
    let handle = objects[0]["handle"].as_str().unwrap();
    assert_eq!(handle.len(), 16);
    let shown = house.done(&["dead", "show", &handle[10..]]);
    assert!(shown.starts_with(&format!("message     {handle}\nexport      orders\n")), "{shown}");
    assert!(shown.contains("correlation c-1\nmessage id  m-1\n"), "{shown}");
    assert!(shown.ends_with(&format!("\n\n{body}\n")), "{shown}");
    // The same message twice is one name.
    assert_eq!(house.objects(&["dead", "show", EMPTY.1]).len(), 2);
    let told = house.done(&["dead", "drop", "--run", EMPTY.1, "--reason", "a test"]);
    assert!(told.contains("dropped 2 dead letters"), "{told}");
    let told = house.done(&["dead", "replay", "--run", handle, "--reason", "a test"]);
    assert!(told.contains("replayed 1 dead letter"), "{told}");
    assert_eq!(house.done(&["dead", "list", "--json"]), "");
}

#[test]
fn filters_that_name_nothing_are_wrong_usage() {
    let (house, runs) = with_dead_runs();
    for filter in [
        ["--run", ""],
        ["--run", "-"],
        ["--run", "abc"],
        ["--run", "zzzz"],
        ["--text", ""],
        ["--export", ""],
        ["--pool", ""],
        ["--class", ""],
    ] {
        for command in ["drop", "replay"] {
            house.fails(2, &[&["dead", command, "--reason", "x"], &filter[..]].concat());
        }
    }
    for run in ["", "-", "abc", "zzzz"] {
        house.fails(2, &["dead", "show", "--", run]);
    }
    let error = house.fails(2, &["dead", "list", "--class", "bogus"]);
    assert!(error.contains("the classes are transient, throttled"), "{error}");
    assert!(error.contains("malformed, conflict, poison"), "{error}");
    assert_eq!(house.objects(&["dead", "list"]).len(), 2);
    assert_eq!(house.objects(&["dead", "list", "--run", &runs[0]]).len(), 1);
}

#[test]
fn an_ending_that_several_have_is_refused() {
    let house = House::new();
    house.done(&["apply"]);
    let of = |run: &str| {
        let mut properties = malformed(Some("orders"));
        if let Some(dead) = &mut properties.dead {
            dead.run = Some(run.to_owned());
            dead.epoch = Some(0);
        }
        properties
    };
    let (one, other) =
        ("01932f6e-0000-7000-8000-00001111abcd", "01932f6e-0000-7000-8000-00002222abcd");
    let other_pool = Destination::Dead("bulk".to_owned());
    house.write(
        "config/longshore.toml",
        &format!("{SETTINGS}[worker]\npools = {{ default = 1, bulk = 1 }}\n"),
    );
    house.done(&["dead"]);
    publish(&house, &dead(), &[(EMPTY.0, of(one))]);
    publish(&house, &other_pool, &[(EMPTY.0, of(other))]);
    for command in ["drop", "replay"] {
        for more in [["--reason", "x"], ["--dry-run", "--all"]] {
            let arguments = [&["dead", command, "--run", "abcd"], &more[..]].concat();
            let error = house.fails(2, &arguments);
            assert!(error.contains("the names of several runs or messages end so"), "{error}");
        }
    }
    house.fails(2, &["dead", "show", "abcd"]);
    assert_eq!(house.objects(&["dead", "list"]).len(), 2);
    house.done(&["dead", "drop", "--run", "2222abcd", "--reason", "x"]);
    let left = house.objects(&["dead", "list"]);
    assert_eq!((left.len(), left[0]["run"].as_str()), (1, Some(one)));
}

#[test]
fn letters_of_unknown_exports_stay_and_hinder_no_others() {
    let (house, _) = with_dead_runs();
    publish(&house, &dead(), &[(r#"{"export":"gone"}"#, malformed(Some("gone")))]);
    let dry = house.done(&["dead", "replay", "--all", "--dry-run"]);
    assert!(
        dry.starts_with("would replay 2 of 3 dead letters (1 cannot be replayed) with revision 1"),
        "{dry}"
    );
    assert!(dry.contains("cannot be replayed: 1 dead letter of gone, and no export"), "{dry}");
    let objects = house.objects(&["dead", "replay", "--all", "--dry-run"]);
    let replayable: Vec<_> =
        objects.iter().map(|one| (one["replayable"].clone(), one["count"].clone())).collect();
    assert_eq!(replayable, [(true.into(), 2.into()), (false.into(), 1.into())]);

    let told = house.done(&["dead", "replay", "--all", "--reason", "a test"]);
    assert!(told.contains("replayed 2 dead letters, 1 cannot be replayed"), "{told}");
    let left = house.objects(&["dead", "list"]);
    assert_eq!((left.len(), &left[0]["export"]), (1, &"gone".into()));
}

/// A house with a letter without a run, and after it those of two dead runs; answers their names
/// too.
fn with_letters_of_both_kinds() -> (House, Vec<String>) {
    let house = House::new();
    house.write("config/exports/broken.toml", BROKEN);
    house.done(&["apply"]);
    publish(&house, &dead(), &[(EMPTY.0, malformed(None))]);
    for key in ["first", "second"] {
        house.fails(1, &["run", "broken", "--key", key]);
    }
    let letters = house.objects(&["dead", "list", "--export", "broken"]);
    let runs = letters.iter().map(|one| one["run"].as_str().unwrap().to_owned()).collect();
    (house, runs)
}

#[test]
fn a_letter_without_a_run_is_no_canary_and_waits_for_it() {
    let (house, _) = with_letters_of_both_kinds();
    let replay = |more: &[&str]| -> Json {
        let replay = ["dead", "replay", "--canary", "1", "--reason", "a test", "--json"];
        let (code, told, err) = house.run(&[&replay, more].concat());
        assert_eq!(code, 1, "{told}\n{err}");
        serde_json::from_str(&told).unwrap()
    };
    // There is none: nothing is tried out, and nothing is replayed.
    let report = replay(&["--class", "malformed"]);
    assert_eq!(report["replayed"], 0, "{report}");
    assert!(report["stopped"].as_str().unwrap().contains("no letter has a run"), "{report}");
    assert_eq!(house.objects(&["dead", "list"]).len(), 3);
    // The canary is the first run, which nobody works on here.
    let report = replay(&["--all"]);
    assert_eq!(report["replayed"], 1, "{report}");
    assert!(report["stopped"].as_str().unwrap().contains("no worker"), "{report}");
    let left = house.objects(&["dead", "list"]);
    let classes: Vec<_> = left.iter().map(|one| one["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["malformed", "contract"]);
    assert_eq!(house.objects(&["runs", "--state", "queued"]).len(), 1);
}

#[tokio::test]
async fn a_letter_without_a_run_is_replayed_once_the_canary_is_done() {
    let (house, runs, dev) = tokio::task::spawn_blocking(|| {
        let (house, runs) = with_letters_of_both_kinds();
        let http = "[http]\nlisten = \"127.0.0.1:0\"\n";
        house.write("config/longshore.toml", &format!("{SETTINGS}{http}"));
        let mended = BROKEN.replace("email   = { type = \"string\" }\n", "");
        house.write("config/exports/broken.toml", &mended);
        house.done(&["apply"]);
        let dev = start(house.path(), "dev");
        let replay = ["dead", "replay", "--all", "--canary", "1", "--reason", "a test"];
        let report = house.objects(&replay).remove(0);
        assert_eq!((&report["replayed"], &report["done"]), (&3.into(), &2.into()), "{report}");
        (house, runs, dev)
    })
    .await
    .unwrap();
    assert!(dev.end(Duration::from_secs(30)).await.success());
    let ledger = EmbeddedLedger::open(&house.path().join("longshore.db")).unwrap();
    let canary = ledger.run(runs[0].parse().unwrap()).await.unwrap().unwrap();
    let message = format!("message {}", EMPTY.1);
    let trail = ledger.audit_trail(&AuditFilter::about(&message, 10)).await.unwrap();
    assert_eq!(trail.len(), 1, "{trail:?}");
    assert!(trail[0].action == "replay" && Some(trail[0].at) >= canary.ended_at, "{trail:?}");
}

#[test]
fn a_list_of_letters_counts_attempts_as_one_of_runs_does() {
    let (house, runs) = with_dead_runs();
    house.done(&["dead", "replay", "--run", &runs[0], "--reason", "a test"]);
    house.fails(1, &["run", "broken", "--key", "first"]);
    let tries = |command: &str| -> BTreeMap<String, String> {
        let table = house.done(&[command]);
        let header = table.lines().next().unwrap();
        let at = header.find("TRY").unwrap();
        let rows = table.lines().skip(1);
        let word = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        rows.map(|line| (word(line), word(&line[at..]))).collect()
    };
    let short = |run: &str| run[28..].to_owned();
    let expected: BTreeMap<String, String> =
        [(short(&runs[0]), "1".to_owned()), (short(&runs[1]), "1".to_owned())].into();
    assert_eq!(tries("runs"), expected);
    assert_eq!(tries("dead"), expected);
    // A replay counts anew; the record of the run tells of all that were begun.
    let shown = house.done(&["runs", "show", &runs[0]]);
    assert!(shown.contains("tries       1 of at most 8; 2 attempts begun in all"), "{shown}");
}

#[tokio::test]
async fn what_a_worker_sets_aside_keeps_the_name_of_its_export() {
    let house = House::new();
    house.write("config/longshore.toml", &format!("{SETTINGS}[http]\nlisten = \"127.0.0.1:0\"\n"));
    let (house, worker) = tokio::task::spawn_blocking(move || {
        house.done(&["apply"]);
        house.done(&["run", "orders", "--key", "done"]);
        let repeat = r#"{"export":"orders","key":"done","deadline":"2020-01-01T00:00:00Z"}"#;
        let late = r#"{"export":"orders","key":"late","deadline":"2020-01-01T00:00:00Z"}"#;
        let wrong = r#"{"export":"orders","windw":1}"#;
        let plain = Properties::default();
        publish(&house, &jobs(), &[(repeat, plain.clone()), (wrong, plain.clone()), (late, plain)]);
        let worker = start(house.path(), "worker");
        let started = Instant::now();
        while house.objects(&["dead", "list"]).len() < 2 {
            assert!(started.elapsed() < Duration::from_secs(60), "{}", worker.log());
        }
        (house, worker)
    })
    .await
    .unwrap();
    assert!(worker.end(Duration::from_secs(30)).await.success());
    let letters = house.objects(&["dead", "list", "--export", "orders"]);
    let reasons: Vec<&str> =
        letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    for words in ["unknown field `windw`", "the deadline has passed"] {
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{reasons:?}");
    }
    assert!(letters.iter().all(|letter| letter["class"] == "malformed"));
    // The repeat of a job that came in time is no new one.
    let queue = Embedded::open(&house.path().join("longshore.db")).unwrap();
    assert_eq!(queue.depth(&jobs()).await.unwrap().ready, 0);
    assert_eq!((letters.len(), house.objects(&["runs"]).len()), (2, 1));
}

/// Starts a process that stays.
pub fn start(folder: &Path, command: &str) -> Process {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_longshore"));
    program.arg(command).current_dir(folder).env_remove("LONGSHORE_CONFIG");
    program.env_remove("LONGSHORE_ENV").env("PSEUDONYMS", "pepper");
    Process::start(program, folder.join(format!("{command}.log")))
}

#[test]
fn dead_letters_are_seen_mended_and_replayed() {
    let house = House::new();
    house.write("config/exports/broken.toml", BROKEN);
    house.done(&["apply"]);
    let (code, told, _) = house.run(&["run", "broken", "--key", "k"]);
    assert_eq!(code, 1);
    assert!(told.contains("dead: run ") && told.contains("(contract)"), "{told}");

    let listed = house.done(&["dead", "list"]);
    assert!(listed.starts_with("RUN       EXPORT  WINDOW  CLASS     TRY"), "{listed}");
    assert!(listed.contains("broken  -       contract"), "{listed}");
    let letters = house.objects(&["dead", "list", "--export", "broken"]);
    let run = letters[0]["run"].as_str().unwrap().to_owned();
    assert!(house.done(&["dead", "show", &run[28..]]).contains(r#""export":"broken""#));
    house.fails(5, &["dead", "show", "ffffffff"]);
    assert_eq!(house.done(&["dead", "list", "--export", "orders", "--json"]), "");

    house.write(
        "config/exports/broken.toml",
        &BROKEN.replace("email   = { type = \"string\" }\n", ""),
    );
    house.done(&["apply"]);
    house.fails(2, &["dead", "replay", "--dry-run"]);
    house.fails(2, &["dead", "replay", "--all"]);
    let dry = house.done(&["dead", "replay", "--export", "broken", "--dry-run"]);
    assert!(
        dry.starts_with("would replay 1 dead letter with revision 2 (they failed with 1)"),
        "{dry}"
    );
    assert!(dry.contains("Nothing was changed."), "{dry}");

    let told = house.done(&["dead", "replay", "--run", &run[28..], "--reason", "mended"]);
    assert!(told.contains("replayed 1 dead letter"), "{told}");
    assert_eq!(house.done(&["dead", "list", "--json"]), "");
    let told = house.done(&["run", "broken", "--key", "k"]);
    assert!(told.contains("done: run "), "{told}");
    let shown = house.objects(&["runs", "show", &run]);
    assert_eq!(shown[0]["state"], "done");
    assert_eq!(shown[0]["audit"][0]["reason"], "mended");
}

#[test]
fn a_canary_that_no_worker_takes_is_not_waited_for() {
    let house = House::new();
    house.write("config/exports/broken.toml", BROKEN);
    house.done(&["apply"]);
    for key in ["first", "second"] {
        house.fails(1, &["run", "broken", "--key", key]);
    }
    house.write(
        "config/exports/broken.toml",
        &BROKEN.replace("email   = { type = \"string\" }\n", ""),
    );
    house.done(&["apply"]);

    let replay = ["dead", "replay", "--all", "--canary", "1", "--reason", "mended"];
    let (code, told, err) = house.run(&replay);
    assert_eq!(code, 1, "{told}\n{err}");
    assert!(told.contains("replayed 1 dead letter\n"), "{told}");
    assert!(told.contains("stopped: no worker takes jobs of the pool `default`"), "{told}");
    assert_eq!(err.matches("still waiting for what is replayed to end").count(), 1, "{err}");
    // The canary is queued, and the other letter is where it was.
    assert_eq!(house.objects(&["runs", "--state", "queued"]).len(), 1);
    assert_eq!(house.objects(&["dead", "list"]).len(), 1);
    assert!(house.done(&["run", "broken", "--key", "first"]).contains("done: run "));

    // As with the last of all letters, and as programs are told.
    let (code, told, err) = house.run(&[&replay[..], &["--json"]].concat());
    assert_eq!(code, 1, "{told}\n{err}");
    let report: Json = serde_json::from_str(&told).unwrap();
    assert_eq!((&report["replayed"], &report["done"]), (&1.into(), &0.into()));
    assert!(report["stopped"].as_str().unwrap().contains("no worker"), "{report}");
    assert!(house.done(&["run", "broken", "--key", "second"]).contains("done: run "));
}

#[test]
fn dropped_letters_are_gone() {
    let house = House::new();
    house.write("config/exports/broken.toml", BROKEN);
    house.done(&["apply"]);
    house.fails(1, &["run", "broken", "--key", "k"]);
    house.fails(2, &["dead", "drop", "--export", "broken"]);
    let dry = house.done(&["dead", "drop", "--all", "--dry-run"]);
    assert!(dry.contains("would drop 1 dead letter"), "{dry}");
    let told = house.done(&["dead", "drop", "--all", "--reason", "a test"]);
    assert!(told.contains("dropped 1 dead letter"), "{told}");
    assert_eq!(house.done(&["dead", "list", "--json"]), "");
}

#[tokio::test]
async fn a_run_whose_letter_was_dropped_is_replayed_from_the_ledger() {
    let (house, runs) = tokio::task::spawn_blocking(with_dead_runs).await.unwrap();
    house.done(&["dead", "drop", "--all", "--reason", "a mistake"]);
    let replay = ["dead", "replay", "--run", &runs[0], "--reason", "it is wanted"];
    let told = house.done(&replay);
    assert!(told.contains("replayed 1 dead letter"), "{told}");
    assert_eq!(house.objects(&["runs", "show", &runs[0]])[0]["state"], "queued");
    let error = house.fails(6, &replay);
    assert!(error.contains("it has no dead letter, and is queued"), "{error}");
    assert!(
        house
            .fails(5, &["dead", "replay", "--run", "00000000", "--reason", "x"])
            .contains("no run's name")
    );

    // What fails again is told by the exit code.
    let replay =
        ["dead", "replay", "--run", &runs[1], "--reason", "again", "--stop-after-failures", "1"];
    let dev = start(house.path(), "dev");
    let told = house.run(&replay);
    assert_eq!(told.0, 1, "{told:?}");
    assert!(told.1.contains("1 failed again"), "{told:?}");
    assert!(dev.end(Duration::from_secs(30)).await.success());
}
