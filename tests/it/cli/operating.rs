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
        (5, &["pause", "--connection", "lak", "--reason", "x"], "did you mean `lake`?"),
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
    let error = house.fails(5, &["resume", "--all", "--reason", "x"]);
    assert!(error.contains("Paused: pool default, export orders."), "{error}");
    let told = house.done(&["resume", "--pool", "default", "--reason", "done"]);
    assert_eq!(told, "resumed: pool default; 0 runs woken\nstill paused: export orders\n");
    // A trial has no ledger, and is nobody's business.
    house.done(&["run", "orders", "--to", "trial"]);
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
