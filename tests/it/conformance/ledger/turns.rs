//! Wake-ups of queued runs go by turns: so many of each export are on their way at once, and all else
//! goes as it is due.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use longshore::job::RunId;
use longshore::job::command::{Command, Outcome};
use longshore::job::machine::Proof;
use longshore::job::run::Order;
use longshore::job::waiting::Need;
use longshore::ledger::{Adrift, NewDefinition, Posting, UnreadMessage};
use longshore::queue::Properties;
use longshore::units::Backoff;

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
    // A retry is the last in line; whom the slot is free for is in none.
    done(lines.bed.apply(retry(lines.run("bulk 1"), 1, Duration::ZERO)).await);
    assert_eq!(lines.go(100, 3).await, none);
    done(lines.bed.apply(retry(lines.run("bulk 3"), 1, Duration::ZERO)).await);
    assert_eq!(lines.go(100, 3).await, ["bulk 7", "bulk 4"]);
    for name in ["bulk 4", "bulk 5", "bulk 6"] {
        opened(open_one(name, &[]).await);
    }
    assert_eq!(lines.go(100, 3).await, ["bulk 8", "bulk 9"]);
    for name in ["bulk 7", "bulk 8", "bulk 9"] {
        opened(open_one(name, &[]).await);
    }
    assert_eq!(lines.go(100, 3).await, ["bulk 1", "bulk 3"]);
}

pub async fn whom_a_slot_is_free_for_goes_however_many_are_parked(bed: Bed) {
    let mut lines = Lines::of(bed, &[("bulk", 1, 7)]).await;
    let none = Vec::<&str>::new();
    let slots = [Need::slot("shop", 2)];
    let name = |n: u32| format!("bulk {n}");
    // As when producers publish them, which takes no turns.
    for n in 1..=7 {
        let outcome = lines.bed.apply(open(lines.run(&name(n)), &slots)).await;
        assert_eq!(matches!(outcome, Outcome::Opened(_)), n <= 2, "{n}: {outcome:?}");
    }
    let fresh = lines.queue("bulk", 8).await;
    assert_eq!(lines.go(100, 2).await, none);
    for n in [1, 2] {
        done(lines.bed.apply(record(lines.run(&name(n)), "m", Proof::Target)).await);
    }
    assert_eq!(lines.go(100, 2).await, ["bulk 3", "bulk 4"]);
    // No worker had the memory for one; another's wake-up was lost. Each still has its turn.
    let wake = async |n, delay| {
        done(lines.bed.apply(Command::Wake { run: lines.run(&name(n)), delay }).await);
    };
    wake(3, HOUR).await;
    wake(4, Duration::ZERO).await;
    assert_eq!(lines.go(100, 2).await, ["bulk 4"]);
    lines.bed.age("outbox", "due_at", lines.run("bulk 3"), HOUR).await;
    assert_eq!(lines.go(100, 2).await, ["bulk 3"]);
    // Asked for in the same moment in which it is roused.
    opened(lines.bed.apply(open(lines.run("bulk 3"), &slots)).await);
    opened(lines.bed.apply(open(lines.run("bulk 4"), &slots)).await);
    let at_once = vec![
        retry(lines.run("bulk 3"), 1, HOUR),
        Command::Wake { run: lines.run("bulk 5"), delay: Duration::ZERO },
    ];
    lines.bed.ledger.apply(at_once).await.unwrap();
    assert_eq!(lines.go(100, 2).await, ["bulk 5"]);
    // Parked on what it holds itself.
    opened(lines.bed.apply(open(lines.run("bulk 5"), &slots)).await);
    let own = lines.run("bulk 6");
    lines.bed.sql("UPDATE resources SET capacity = 3").await;
    lines
        .bed
        .sql(&format!("INSERT INTO holdings (resource, run) VALUES ('slot/shop', '{own}')"))
        .await;
    done(lines.bed.apply(Command::Unpark { run: own }).await);
    let another = lines.queue("bulk", 9).await;
    for run in [fresh, another] {
        assert!(matches!(lines.bed.apply(open(run, &slots)).await, Outcome::Parked(_)));
    }
    lines.queue("bulk", 10).await;
    assert_eq!(lines.go(100, 2).await, ["bulk 6"]);
    // A new attempt takes a new turn.
    done(lines.bed.apply(retry(lines.run("bulk 4"), 1, Duration::ZERO)).await);
    assert!(!lines.go(100, 2).await.contains(&"bulk 4"));
}

pub async fn wake_ups_that_are_lost_do_not_hold_up_the_others_for_long(bed: Bed) {
    const AHEAD: u32 = 64;
    let lines = Lines::of(bed, &[("bulk", 1, 200)]).await;
    // They have stood in line for thirty hours.
    lines.bed.age_all("runs", "changed_at", HOUR * 30).await;
    let pass = async |by: Duration| {
        for column in ["sent_at", "first_sent_at"] {
            lines.bed.age_all("outbox", column, by).await;
        }
    };
    let first: Vec<String> = lines.go(500, AHEAD).await.into_iter().map(str::to_owned).collect();
    assert_eq!(first.len(), 64);
    // The queue is deleted, with all that was on it.
    pass(Duration::from_secs(590)).await;
    assert_eq!(lines.go(500, AHEAD).await.len(), 0);
    pass(Duration::from_secs(20)).await;
    let second: Vec<String> = lines.go(500, AHEAD).await.into_iter().map(str::to_owned).collect();
    assert_eq!(second.len(), 64);
    assert_eq!(lines.go(500, AHEAD).await.len(), 0);
    opened(lines.bed.apply(open(lines.run(&second[0]), &[])).await);
    assert_eq!(lines.go(500, AHEAD).await.len(), 1);
    // But a queue on which all wait for long is not filled without end.
    pass(HOUR / 4).await;
    assert_eq!(lines.go(500, AHEAD).await.len(), 0);
    // An hour after they were sent they are asked for again, and are the first.
    let adrift = async || lines.bed.ledger.adrift(1_000).await.unwrap();
    assert_eq!(adrift().await, []);
    pass(HOUR).await;
    let found = adrift().await;
    assert!(found.iter().all(|(_, why)| *why == Adrift::Silent), "{found:?}");
    assert_eq!(found.len(), 128);
    for name in first.iter().chain(&second[1..]) {
        let run = lines.run(name);
        done(lines.bed.apply(Command::Wake { run, delay: Duration::ZERO }).await);
    }
    let mut found = lines.go(500, AHEAD).await;
    found.sort_unstable();
    let mut first: Vec<&str> = first.iter().map(String::as_str).collect();
    first.sort_unstable();
    // The one that took the place of what was begun is the only other on its way.
    assert_eq!(found.len(), 64);
    assert_eq!(found, first);
}

pub async fn what_is_put_off_keeps_its_place(bed: Bed) {
    let lines = Lines::of(bed, &[("bulk", 1, 8)]).await;
    let begin = async |names: &[&str]| {
        for name in names {
            opened(lines.bed.apply(open(lines.run(name), &[])).await);
        }
    };
    // Refused by its queue, and declined by a worker: others go meanwhile.
    let refused = lines.bed.ledger.take_due(100, 2, LEASE).await.unwrap();
    let versions: Vec<i64> = refused.iter().map(Posting::version).collect();
    lines.bed.ledger.defer(&versions, Backoff { first: HOUR, last: HOUR }).await.unwrap();
    assert_eq!(lines.go(100, 2).await, ["bulk 3", "bulk 4"]);
    let declined = lines.run("bulk 3");
    done(lines.bed.apply(Command::Wake { run: declined, delay: HOUR }).await);
    assert_eq!(lines.go(100, 2).await, ["bulk 5"]);
    begin(&["bulk 4", "bulk 5"]).await;
    for name in ["bulk 1", "bulk 2", "bulk 3"] {
        lines.bed.age("outbox", "due_at", lines.run(name), HOUR).await;
    }
    assert_eq!(lines.go(100, 2).await, ["bulk 1", "bulk 2"]);
    begin(&["bulk 1", "bulk 2"]).await;
    assert_eq!(lines.go(100, 2).await, ["bulk 3", "bulk 6"]);
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
    let message = UnreadMessage {
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
