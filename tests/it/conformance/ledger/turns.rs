//! Wake-ups of queued runs go by turns: so many of each export are on their way at once, and all else
//! goes as it is due.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use longshore::job::RunId;
use longshore::job::command::{Command, Outcome};
use longshore::job::run::Order;
use longshore::job::waiting::Need;
use longshore::ledger::{Adrift, Message, NewDefinition, Posting};
use longshore::queue::Properties;

use super::bed::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Runs of exports, by their names: `bulk 3` is the third of `bulk`.
struct Lines {
    bed: Bed,
    names: BTreeMap<RunId, String>,
}

impl Lines {
    /// So many queued runs of each export, the first exports first; and their weights.
    async fn of(bed: Bed, exports: &[(&str, u16, u32)]) -> Lines {
        let definitions: Vec<NewDefinition> = exports
            .iter()
            .map(|(export, weight, _)| NewDefinition {
                weight: *weight,
                ..definition(export, "d1")
            })
            .collect();
        bed.ledger.activate(&definitions, false, "test", "", false).await.unwrap();
        let mut lines = Lines { bed, names: BTreeMap::new() };
        for (export, _, runs) in exports {
            for n in 1..=*runs {
                lines.queue(export, n).await;
            }
        }
        lines
    }

    async fn queue(&mut self, export: &str, n: u32) -> RunId {
        let name = format!("{export} {n}");
        let order = Order { export: export.to_owned(), ..order(&name) };
        let run = done(self.bed.apply(accept(order)).await).id;
        self.names.insert(run, name);
        run
    }

    fn run(&self, name: &str) -> RunId {
        *self.names.iter().find(|(_, one)| *one == name).unwrap().0
    }

    /// Takes what may go, and marks it sent: the names of the runs, in order.
    async fn go(&self, limit: u32, ahead: u32) -> Vec<&str> {
        let due = self.bed.ledger.take_due(limit, ahead, LEASE).await.unwrap();
        let versions: Vec<i64> = due.iter().map(Posting::version).collect();
        self.bed.ledger.mark_sent(&versions).await.unwrap();
        due.iter()
            .map(|posting| match posting {
                Posting::Wake { run, .. } => self.names[run].as_str(),
                Posting::Letter { .. } => "letter",
                Posting::Job { .. } => "job",
            })
            .collect()
    }
}

pub async fn of_each_export_so_many_are_on_their_way(bed: Bed) {
    let lines = Lines::of(bed, &[("bulk", 1, 9), ("urgent", 1, 2)]).await;
    let none = Vec::<&str>::new();
    let (target, slot) = (Need::target("t"), Need::slot("shop", 1));
    let open_one =
        async |name: &str, needs: &[Need]| lines.bed.apply(open(lines.run(name), needs)).await;
    assert_eq!(lines.go(100, 3).await, ["bulk 1", "urgent 1", "bulk 2", "urgent 2", "bulk 3"]);
    assert_eq!(lines.go(100, 3).await, none);
    // One that was begun has left the queue, and so has one that is parked.
    opened(open_one("bulk 1", slice::from_ref(&target)).await);
    assert_eq!(lines.go(100, 3).await, ["bulk 4"]);
    assert!(matches!(open_one("bulk 2", slice::from_ref(&target)).await, Outcome::Parked(_)));
    assert_eq!(lines.go(100, 3).await, ["bulk 5"]);
    // But whoever comes later for a slot would have to wait for all that are parked on it.
    opened(open_one("bulk 3", slice::from_ref(&slot)).await);
    assert_eq!(lines.go(100, 3).await, ["bulk 6"]);
    assert!(matches!(open_one("bulk 4", slice::from_ref(&slot)).await, Outcome::Parked(_)));
    assert_eq!(lines.go(100, 3).await, none);
    // A retry is the last in line; what has waited for the slot has kept its place.
    done(lines.bed.apply(retry(lines.run("bulk 1"), 1, Duration::ZERO)).await);
    assert_eq!(lines.go(100, 3).await, none);
    done(lines.bed.apply(retry(lines.run("bulk 3"), 1, Duration::ZERO)).await);
    assert_eq!(lines.go(100, 3).await, ["bulk 4"]);
    for name in ["bulk 4", "bulk 5", "bulk 6"] {
        opened(open_one(name, &[]).await);
    }
    assert_eq!(lines.go(100, 3).await, ["bulk 7", "bulk 8", "bulk 9"]);
    for name in ["bulk 7", "bulk 8", "bulk 9"] {
        opened(open_one(name, &[]).await);
    }
    assert_eq!(lines.go(100, 3).await, ["bulk 1", "bulk 3"]);
}

pub async fn a_weight_is_a_share_of_the_turns(bed: Bed) {
    let lines = Lines::of(bed, &[("heavy", 2, 9), ("light", 1, 9)]).await;
    let turns = ["heavy 1", "light 1", "heavy 2", "heavy 3", "light 2", "heavy 4"];
    let mut found = lines.go(100, 2).await;
    // Within a turn by the time since when they are due.
    assert_eq!(found.len(), turns.len());
    found[..3].sort_unstable();
    found[3..].sort_unstable();
    assert_eq!(found, ["heavy 1", "heavy 2", "light 1", "heavy 3", "heavy 4", "light 2"]);
    // With a definition that weighs less, it has too many on their way already.
    let lighter = NewDefinition { weight: 1, ..definition("heavy", "d2") };
    lines.bed.ledger.activate(&[lighter], false, "test", "", false).await.unwrap();
    for name in ["heavy 1", "heavy 2", "light 1"] {
        opened(lines.bed.apply(open(lines.run(name), &[])).await);
    }
    assert_eq!(lines.go(100, 2).await, ["light 3"]);
}

pub async fn few_at_a_time_are_of_all_exports(bed: Bed) {
    let lines = Lines::of(bed, &[("a", 1, 50), ("b", 1, 50), ("c", 1, 1)]).await;
    // More than a batch takes of what waits for no turn: letters here.
    for n in 0..9 {
        lines.bed.dead(&format!("dead {n}")).await;
    }
    for _ in 0..2 {
        let mut batch = lines.go(8, 64).await;
        batch.sort_unstable();
        assert!(batch.iter().filter(|one| **one == "letter").count() >= 2, "{batch:?}");
        assert!(batch.iter().any(|one| one.starts_with("a ")), "{batch:?}");
        assert!(batch.iter().any(|one| one.starts_with("b ")), "{batch:?}");
    }
}

pub async fn only_the_wake_ups_of_queued_runs_are_held_back(bed: Bed) {
    let mut lines = Lines::of(bed, &[("orders", 1, 2)]).await;
    assert_eq!(lines.go(100, 1).await, ["orders 1"]);
    // The message of a run that is worked on is let go, a cancelled one is to be closed, a dead one
    // has its letter, and what ended is cleaned up.
    let running = lines.run("orders 2");
    opened(lines.bed.apply(open(running, &[])).await);
    done(lines.bed.apply(Command::Wake { run: running, delay: Duration::ZERO }).await);
    lines.bed.age("outbox", "due_at", running, HOUR).await;
    assert_eq!(lines.go(100, 1).await, ["orders 2"]);
    let closing = lines.queue("orders", 3).await;
    opened(lines.bed.apply(open(closing, &[])).await);
    done(lines.bed.apply(retry(closing, 1, Duration::ZERO)).await);
    done(lines.bed.apply(cancel(closing)).await);
    assert_eq!(lines.go(100, 1).await, ["orders 3"]);
    let dead = lines.bed.dead("k").await;
    lines.names.insert(dead, "cleaning".to_owned());
    lines.bed.sql("UPDATE outbox SET due_at = (SELECT min(due_at) FROM outbox)").await;
    let mut found = lines.go(100, 1).await;
    found.sort_unstable();
    assert_eq!(found, ["cleaning", "letter"]);
    // What waits for its turn has a wake-up, however long it waits.
    let waiting = lines.queue("orders", 4).await;
    lines.bed.age("runs", "changed_at", waiting, HOUR * 9).await;
    assert_eq!(lines.go(100, 1).await, Vec::<&str>::new());
    assert_eq!(lines.bed.adrift(waiting).await, []);
    // Not so, where somebody else began with it and fell silent.
    opened(lines.bed.apply(open(waiting, &[])).await);
    assert_eq!(lines.bed.adrift(waiting).await, []);
    lines.bed.age("runs", "heartbeat", waiting, HOUR).await;
    assert_eq!(lines.bed.adrift(waiting).await, [Adrift::Silent]);
    done(lines.bed.apply(Command::Wake { run: waiting, delay: Duration::ZERO }).await);
    assert_eq!(lines.go(100, 1).await, ["orders 4"]);
}

pub async fn what_a_dispatcher_has_taken_has_its_place(bed: Bed) {
    let lines = Lines::of(bed, &[("orders", 1, 5)]).await;
    let short = Duration::from_millis(300);
    let take = async |lease| {
        let due = lines.bed.ledger.take_due(100, 2, lease).await.unwrap();
        due.iter().map(Posting::version).collect::<Vec<i64>>()
    };
    let first = take(short).await;
    assert_eq!(first.len(), 2);
    assert!(take(short).await.is_empty());
    lines.bed.ledger.mark_sent(&first[..1]).await.unwrap();
    assert!(take(short).await.is_empty());
    // It died, and others take what it had.
    tokio::time::sleep(short * 2).await;
    assert_eq!(take(LEASE).await, first[1..]);
}

pub async fn a_message_that_nobody_could_read_comes_again_as_it_was(bed: Bed) {
    let message = Message {
        body: r#"{"export":"orders","key":"ø"}"#.to_owned(),
        properties: Properties {
            message_id: Some("m".to_owned()),
            correlation_id: Some("c".to_owned()),
            unread_since: Some("2026-11-19T00:00:00Z".to_owned()),
            ..Properties::default()
        },
    };
    for _ in 0..2 {
        bed.ledger.post_again("bulk", &message, Duration::ZERO).await.unwrap();
    }
    bed.ledger.post_again("bulk", &message, HOUR).await.unwrap();
    let due = bed.due().await;
    let [Posting::Job { pool, message: found, version }, Posting::Job { version: other, .. }] =
        &due[..]
    else {
        panic!("{due:?}")
    };
    assert_eq!((pool.as_str(), &**found), ("bulk", &message));
    bed.ledger.mark_sent(&[*version, *other]).await.unwrap();
    bed.sql("UPDATE outbox SET taken_until = NULL").await;
    assert_eq!(bed.due().await.len(), 0);
    // A number never comes again.
    bed.queued("k").await;
    let next = bed.due().await[0].version();
    assert!(next > *version.max(other), "{next}");
}
