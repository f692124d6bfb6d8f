//! Pauses and stuck runs, as operators meet them on one file.

use longshore::job::RunId;
use longshore::job::after::AfterFailed;
use longshore::job::command::{Command, Open, Outcome};
use longshore::job::run::Run;
use longshore::job::waiting::Need;
use longshore::ledger::embedded::EmbeddedLedger;
use longshore::ledger::{Ledger, RunFilter, apply_one};
use serde_json::json;

use super::House;

#[test]
fn a_pause_is_made_seen_and_lifted() {
    let house = House::new();
    house.done(&["apply"]);
    assert_eq!(house.done(&["pause"]), "nothing is paused\n");
    for (code, command, words) in [
        (2, &["pause", "--reason", "x"][..], "it is not said what"),
        (2, &["pause", "--all"], "--reason is missing"),
        (2, &["pause", "--all", "--schedules", "--reason", "x"], "cannot be used with"),
        (2, &["pause", "--all", "--until", "2020-01-01T00:00:00Z", "--reason", "x"], "has passed"),
        (2, &["pause", "--all", "list"], "takes none of these options"),
        (5, &["pause", "--export", "ordres", "--reason", "x"], "no export of this name"),
        (5, &["pause", "--export", "order", "--reason", "x"], "Did you mean `orders`?"),
        (5, &["pause", "--connection", "lak", "--reason", "x"], "did you mean `lake`?"),
        (5, &["pause", "--pool", "defalt", "--reason", "x"], "did you mean `default`?"),
        (5, &["pause", "--pool", "defalt", "--dry-run"], "did you mean `default`?"),
        (2, &["pause", "--all", "--reason", " "], "say why"),
        (2, &["resume", "--all"], "--reason"),
        (5, &["resume", "--all", "--reason", "x"], "Nothing is paused."),
    ] {
        let error = house.fails(code, command);
        assert!(error.contains(words), "{command:?}: {error}");
    }
    assert!(house.done(&["pause", "--all", "--dry-run"]).contains("Nothing was changed."));
    assert_eq!(house.done(&["pause", "list"]), "nothing is paused\n");
    house.done(&["pause", "--pool", "default", "--until", "2h", "--reason", "upgrade"]);
    house.done(&["pause", "--export", "orders", "--reason", "wrong numbers"]);
    let listed = house.done(&["pause"]);
    for words in ["PAUSED", "pool default", "export orders", "ole@", "upgrade", "wrong numbers"] {
        assert!(listed.contains(words), "no {words} in {listed}");
    }
    // A second one takes the place of the first, and says so.
    let again = ["pause", "--export", "orders", "--until", "1h"];
    let dry = house.done(&[&again[..], &["--dry-run"]].concat());
    assert!(dry.contains("in the place of: export orders by ole@"), "{dry}");
    assert!(dry.contains("until it is resumed: wrong numbers"), "{dry}");
    let told = house.done(&[&again[..], &["--reason", "still wrong"]].concat());
    assert!(told.contains("in the place of: export orders by ole@"), "{told}");
    let replaced = house.objects(&[&again[..], &["--reason", "still wrong"]].concat()).remove(0);
    assert_eq!(replaced["replaces"]["reason"], "still wrong");
    let trail = house.objects(&["audit", "--export", "orders", "--action", "pause"]);
    let reason = trail[1]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("still wrong (until ") && reason.contains("wrong numbers"),
        "{reason}"
    );
    let error = house.fails(5, &["resume", "--all", "--reason", "x"]);
    assert!(error.contains("Paused: pool default, export orders."), "{error}");
    let told = house.done(&["resume", "--pool", "default", "--reason", "done"]);
    assert_eq!(told, "resumed: pool default; 0 runs woken\nstill paused: export orders\n");
    // A trial has no ledger, and is nobody's business.
    house.done(&["run", "orders", "--to", "trial"]);
}

#[test]
fn a_paused_schedule_and_what_lies_before_it_are_told() {
    let house = House::new();
    house.done(&["apply"]);
    let asked = ["windows", "daily", "--window", "2026-10-31..2026-11-02"];
    let states = |found: &[serde_json::Value]| -> Vec<String> {
        found.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
    };
    let (before, due, paused) = ("before-start", "due", "paused");
    assert_eq!(states(&house.objects(&asked)), [before, before, due, due, due, due]);
    let next = |export: &str| {
        let listed = house.objects(&["exports"]);
        let one = listed.into_iter().find(|one| one["export"] == export).unwrap();
        (one["paused"] == true, one["next_look"].is_string())
    };
    assert_eq!((next("daily"), next("orders")), ((false, true), (false, false)));
    let pauses: [&[&str]; 3] = [&["--export", "daily"], &["--schedules"], &["--all"]];
    for pick in pauses {
        house.done(&[&["pause"], pick, &["--until", "2h", "--reason", "wrong numbers"]].concat());
        let found = house.objects(&asked);
        assert_eq!(states(&found), [before, before, paused, paused, paused, paused]);
        assert_eq!(found[2]["paused"]["reason"], "wrong numbers");
        assert!(found[2]["paused"]["until"].is_string() && found[2]["at"].is_null());
        let table = house.done(&asked);
        for words in [": wrong numbers", ", until ", "the schedule begins on 2026-11-01"] {
            assert!(table.contains(words), "{words}\n{table}");
        }
        assert_eq!(next("daily"), (true, false));
        house.done(&[&["resume"], pick, &["--reason", "mended"]].concat());
    }
    // A pause of a pool leaves schedules alone: their runs wait.
    house.done(&["pause", "--pool", "default", "--reason", "upgrade"]);
    assert_eq!(states(&house.objects(&asked))[2..], [due; 4]);
}

#[test]
fn the_audit_trail_is_found_by_what_is_asked() {
    let house = House::new();
    house.done(&["apply", "--reason", "release 41"]);
    house.done(&["enqueue", "orders", "--key", "k"]);
    let run = house.objects(&["runs"])[0]["run"].as_str().unwrap().to_owned();
    house.done(&["runs", "cancel", &run, "--reason", "not needed"]);
    house.done(&["pause", "--connection", "lake", "--reason", "upgrade"]);
    let trail = house.objects(&["audit"]);
    let actions: Vec<&str> = trail.iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(actions[..2], ["pause", "cancel"]);
    assert!(trail.iter().all(|one| one["by"].as_str().unwrap().starts_with("ole@")), "{trail:?}");
    let applied = house.objects(&["audit", "--action", "apply"]);
    assert!(applied.iter().all(|one| one["reason"] == "revision 1: release 41"), "{applied:?}");
    assert_eq!(applied.len(), 2);
    let table = house.done(&["audit"]);
    let short = &run[28..];
    for words in [
        "WHEN",
        "WHO",
        "WHAT",
        "OF",
        "WHY",
        &format!("run {short} of orders"),
        "connection lake",
        "not needed",
    ] {
        assert!(table.contains(words), "{words}\n{table}");
    }
    let of_run = house.objects(&["audit", "--run", short]);
    assert_eq!((of_run.len(), &of_run[0]["export"]), (1, &json!("orders")));
    let of_export = house.objects(&["audit", "--export", "orders"]);
    let actions: Vec<&str> = of_export.iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["cancel", "apply"]);
    assert_eq!(house.objects(&["audit", "--actor", "nobody"]).len(), 0);
    assert_eq!(house.objects(&["audit", "--since", "2030-01-01"]).len(), 0);
    let (_, out, told) = house.run(&["audit", "--limit", "1"]);
    assert!(out.lines().count() == 2 && told.contains("there are older ones"), "{out}{told}");
    house.fails(5, &["audit", "--run", "ffffffff"]);
    house.fails(2, &["audit", "--run", "xyz"]);
    let (code, _, told) = house.run(&["audit", "--export", "ordres"]);
    assert!(code == 0 && told.contains("did you mean `orders`?"), "{told}");
}

/// A run that was decided as `like` was, with this manifest, and that nobody works on.
async fn stick(ledger: &dyn Ledger, like: &Run, key: &str, manifest: String) -> RunId {
    let id = RunId::new();
    let mut order = like.order.clone();
    order.key = key.to_owned();
    let mut decision = like.decision.clone().unwrap();
    decision.manifest = manifest;
    let open = Open {
        run: id,
        worker: "w".to_owned(),
        lease: std::time::Duration::from_secs(60),
        needs: Some(vec![Need::target("lake/orders")]),
        attempts: 8,
        cursor: None,
        target: None,
        uses: Vec::new(),
        before: Vec::new(),
        after_failed: AfterFailed::Skip,
    };
    for command in [
        Command::Accept { id, order: Box::new(order), wake: false, pinned: true },
        Command::Open(open),
        Command::Decide { run: id, fence: 1, decision: Box::new(decision) },
    ] {
        let outcome = apply_one(ledger, command).await.unwrap();
        assert!(!matches!(outcome, Outcome::Refused(_) | Outcome::Stale), "{outcome:?}");
    }
    id
}

#[test]
fn a_stuck_run_is_resolved_by_what_its_target_has() {
    let house = House::new();
    house.done(&["run", "orders", "--key", "first"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = EmbeddedLedger::open(&house.path().join("longshore.db")).unwrap();
    let first = runtime.block_on(ledger.runs(&RunFilter { limit: 1, ..RunFilter::default() }));
    let first = first.unwrap().remove(0);
    let manifest = first.decision.clone().unwrap().manifest;
    let resolve = |run: RunId, end: &'static str| {
        let run = run.to_string();
        house.run(&["runs", "resolve", &run, "--as", end, "--reason", "I have looked"])
    };
    let stuck = |key: &str, manifest: String| {
        let run = runtime.block_on(stick(&ledger, &first, key, manifest));
        let (code, _, error) = resolve(run, "dead");
        assert!(code == 6 && error.contains("w holds it until"), "{error}");
        let back = Command::Retry {
            run,
            fence: 1,
            after: std::time::Duration::from_secs(3600),
            failure: None,
            counted: false,
        };
        runtime.block_on(apply_one(&ledger, back)).unwrap();
        run
    };
    let (code, _, error) = resolve(first.id, "dead");
    assert!(code == 6 && error.contains("it is done"), "{error}");

    // Its parts may be there; its manifest is not.
    let void = stuck("void", format!("{manifest} "));
    let told = house.done(&["runs", "resolve", &void.to_string(), "--as", "dead", "--dry-run"]);
    assert!(told.contains("which is committing, and resolve it as dead"), "{told}");
    let (code, _, error) = resolve(void, "done");
    assert!(code == 6 && error.contains("the target does not have the delivery"), "{error}");
    let (code, told, error) = resolve(void, "dead");
    assert_eq!(code, 0, "{error}");
    assert!(told.starts_with("resolved: run ") && told.ends_with(" of orders is dead\n"), "{told}");
    let run = runtime.block_on(ledger.run(void)).unwrap().unwrap();
    assert_eq!((run.state.as_str(), run.decision), ("dead", None));
    assert!(run.failure.unwrap().message.ends_with(": I have looked"));
    assert_eq!(house.done(&["dead", "list", "--json"]), "", "there is nothing to replay");

    // The very manifest that stands at the target, with the delivery's own name.
    let there = stuck("there", manifest.clone());
    let (code, _, error) = resolve(there, "dead");
    assert!(code == 6 && error.contains("the target has the delivery"), "{error}");
    // Each delivery has one row: that of the first goes, as if it had never been recorded.
    let database = rusqlite::Connection::open(house.path().join("longshore.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM deliveries", []).unwrap(), 1);
    let (code, _, error) = resolve(there, "done");
    assert_eq!(code, 0, "{error}");
    let shown = house.done(&["runs", "show", &there.to_string(), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["state"], &shown["delivery"]["target"]),
        (&json!("done"), &json!("lake/orders"))
    );
    assert_eq!(shown["audit"][0]["action"], "resolve");
    assert_eq!(house.done(&["runs", "watch", "--until-idle"]), "");
}
