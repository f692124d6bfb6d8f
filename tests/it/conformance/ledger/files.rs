//! What a cursor over files has delivered.

use std::time::Duration;

use longshore::job::RunId;
use longshore::job::command::{Command, Outcome};
use longshore::job::decision::CursorMove;
use longshore::job::machine::Proof;
use longshore::job::manifest::SourceFile;

use super::bed::{Bed, LEASE, decision, delivery, done};

const CURSOR: &str = "cursor/orders:in/*.csv";

fn files(names: &[(&str, &str)]) -> Vec<SourceFile> {
    let file = |(path, etag): &(&str, &str)| SourceFile {
        path: (*path).to_owned(),
        etag: (*etag).to_owned(),
    };
    names.iter().map(file).collect()
}

/// A run's end: it delivers these files, and the cursor moves.
fn deliver(run: RunId, from: Option<&str>, files: &[SourceFile]) -> Command {
    let mut decision = decision("m");
    let to = files.last().map_or(from.unwrap_or_default(), |file| &file.path).to_owned();
    let from = from.map(str::to_owned);
    decision.cursor = Some(CursorMove { name: CURSOR.to_owned(), from, to });
    let mut delivery = delivery("t", "m");
    delivery.files = files.to_vec();
    Command::Record { run, decision, proof: Proof::Target, delivery }
}

pub async fn what_a_cursor_has_delivered_is_known_in_its_state(bed: Bed) {
    let (a, _) = bed.running("a", &[]).await;
    let (b, _) = bed.running("b", &[]).await;
    let first = files(&[("in/1.csv", "\"one\""), ("in/2 ø'\\.csv", "two")]);
    let ask = async |files: &[SourceFile]| bed.ledger.undelivered(CURSOR, files).await.unwrap();
    assert_eq!(ask(&first).await, first);
    assert_eq!(ask(&[]).await, []);
    for _ in 0..2 {
        // Recording once more is no second delivery.
        done(bed.apply(deliver(a, None, &first)).await);
        assert_eq!(ask(&first).await, []);
    }
    let other = bed.ledger.undelivered("cursor/orders:in/*", &first).await.unwrap();
    assert_eq!(other, first, "of another cursor");
    // One has changed, and one is new.
    let then = files(&[("in/2 ø'\\.csv", "three"), ("in/1.csv", "\"one\""), ("in/0.csv", "")]);
    assert_eq!(ask(&then).await, [then[0].clone(), then[2].clone()]);

    let shown = async || bed.ledger.cursors("orders").await.unwrap().pop();
    let cursor = shown().await.unwrap();
    assert_eq!((cursor.files, cursor.run), (Some(2), Some(a)));
    assert_eq!(cursor.value.as_deref(), Some("in/2 ø'\\.csv"));
    // The last by name is the same: the cursor is moved all the same, by the run that delivered.
    done(bed.apply(deliver(b, cursor.value.as_deref(), &then[..1])).await);
    let cursor = shown().await.unwrap();
    assert_eq!((cursor.files, cursor.run), (Some(2), Some(b)));
    // What was before is new again: a change that was taken back is one.
    assert_eq!(ask(&first).await, first[1..]);

    // The history of the runs goes, and the files stay.
    for run in [a, b] {
        bed.age("runs", "ended_at", run, LEASE * 120).await;
    }
    let before = bed.ledger.now().await.unwrap() - Duration::from_secs(3_600);
    assert_eq!(bed.ledger.purge(before, 10).await.unwrap(), 2);
    assert_eq!(ask(&then[..2]).await, []);

    let reset = Command::MoveCursor {
        name: CURSOR.to_owned(),
        to: None,
        by: "ann".to_owned(),
        reason: "again".to_owned(),
    };
    assert!(matches!(bed.apply(reset).await, Outcome::Moved(Some(_))));
    assert_eq!(ask(&then).await, then);
    assert_eq!(shown().await, None);
}

pub async fn as_many_files_as_a_run_takes_are_known_at_once(bed: Bed) {
    let (run, _) = bed.running("a", &[]).await;
    let many: Vec<SourceFile> = (0..10_000)
        .map(|number| SourceFile { path: format!("in/{number:05}.csv"), etag: "e".repeat(34) })
        .collect();
    done(bed.apply(deliver(run, None, &many)).await);
    let mut asked = many[6_000..].to_vec();
    asked[7].etag.push('x');
    let new = bed.ledger.undelivered(CURSOR, &asked).await.unwrap();
    assert_eq!(new, [asked[7].clone()]);
    let cursor = bed.ledger.cursors("orders").await.unwrap().pop().unwrap();
    assert_eq!((cursor.files, cursor.value.as_deref()), (Some(10_000), Some("in/09999.csv")));
}

pub async fn what_was_replaced_at_a_target_is_told(bed: Bed) {
    let mut runs = Vec::new();
    for (key, target) in [("a", "t"), ("b", "t"), ("x", "other"), ("c", "t"), ("d", "t")] {
        let (run, _) = bed.running(key, &[]).await;
        let (decision, delivery) = (decision(key), delivery(target, key));
        done(bed.apply(Command::Record { run, decision, proof: Proof::Target, delivery }).await);
        runs.push(run);
    }
    let now = bed.ledger.now().await.unwrap();
    let hour = Duration::from_secs(3_600);
    let replaced =
        async |ago: Duration, limit| bed.ledger.replaced("t", now - ago, limit).await.unwrap();
    assert_eq!(replaced(hour, 9).await, Vec::<String>::new());
    // The first stands for four hours and is replaced for three; the last two are younger.
    for (run, hours) in [(runs[0], 4), (runs[1], 3), (runs[3], 2)] {
        bed.age("deliveries", "recorded_at", run, hour * hours).await;
    }
    assert_eq!(replaced(hour, 9).await, ["b", "a"]);
    assert_eq!(replaced(hour, 1).await, ["b"]);
    assert_eq!(replaced(hour * 5 / 2, 9).await, ["a"]);
    assert_eq!(replaced(Duration::ZERO, 9).await, ["c", "b", "a"]);
    assert_eq!(bed.ledger.replaced("other", now, 9).await.unwrap(), Vec::<String>::new());

    // Of three the second has delivered nothing, and let the first one's manifest stand.
    for (key, manifest, hours) in [("p", "p", 4), ("s", "p", 3), ("n", "n", 0)] {
        let (run, _) = bed.running(key, &[]).await;
        let (decision, delivery) = (decision(key), delivery("still", manifest));
        done(bed.apply(Command::Record { run, decision, proof: Proof::Target, delivery }).await);
        bed.age("deliveries", "recorded_at", run, hour * hours).await;
    }
    let still = async |before| bed.ledger.replaced("still", before, 9).await.unwrap();
    assert_eq!(still(now - hour).await, Vec::<String>::new());
    let mut told = still(now + hour).await;
    told.sort();
    assert_eq!(told, ["p", "s"]);
}
