//! What every backend of the queue must do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use longshore::error::Class;
use longshore::queue::embedded::Embedded;
use longshore::queue::{
    DeadHeaders, Destination, Incoming, JOB_TYPE, MAX_BODY, Outgoing, Properties, Queue,
};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::rabbitmq::Broker;

/// Longer than anything here takes.
pub const SOON: Duration = Duration::from_secs(20);
/// Long enough for what must not come to have come.
pub const QUIET: Duration = Duration::from_millis(500);

/// Where a backend lives for one test.
enum Home {
    RabbitMq(Broker),
    Embedded(TempDir),
}

impl Home {
    /// The queue; each call opens it anew.
    fn open(&self) -> Arc<dyn Queue> {
        match self {
            Home::RabbitMq(broker) => broker.open(),
            Home::Embedded(dir) => Embedded::open(&dir.path().join("queue.db")).unwrap(),
        }
    }

    /// The queue with the pool `a` declared.
    async fn ready(&self) -> Arc<dyn Queue> {
        let queue = self.open();
        queue.declare(&["a".to_owned()]).await.unwrap();
        queue
    }

    async fn clean(&self) {
        if let Home::RabbitMq(broker) = self {
            broker.clean().await;
        }
    }
}

pub fn jobs(pool: &str) -> Destination {
    Destination::Jobs(pool.to_owned())
}

pub fn dead(pool: &str) -> Destination {
    Destination::Dead(pool.to_owned())
}

pub fn message(to: Destination, body: impl Into<Bytes>) -> Outgoing {
    Outgoing { to, body: body.into(), properties: Properties::default() }
}

/// `count` messages whose bodies are their numbers.
pub fn numbered(to: &Destination, count: usize) -> Vec<Outgoing> {
    (0..count).map(|n| message(to.clone(), n.to_string())).collect()
}

pub async fn publish(queue: &Arc<dyn Queue>, messages: Vec<Outgoing>) {
    for answer in queue.publish(messages).await {
        answer.unwrap();
    }
}

pub async fn next(jobs: &mut BoxStream<'static, Incoming>) -> Incoming {
    timeout(SOON, jobs.next()).await.expect("no message came").expect("the stream ended")
}

pub async fn quiet(jobs: &mut BoxStream<'static, Incoming>) {
    if let Ok(job) = timeout(QUIET, jobs.next()).await {
        panic!("a message came: {:?}", job.map(|job| job.body));
    }
}

/// Waits until so many messages are ready: giving back takes a moment.
pub async fn until_ready(queue: &Arc<dyn Queue>, at: &Destination, ready: u64) {
    let deadline = Instant::now() + SOON;
    loop {
        let depth = queue.depth(at).await.unwrap();
        if depth.ready == ready {
            return;
        }
        assert!(Instant::now() < deadline, "{depth:?}, expected {ready}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn body(job: &Incoming) -> String {
    String::from_utf8(job.body.to_vec()).unwrap()
}

/// The bodies of all dead letters, each given back.
async fn look(queue: &Arc<dyn Queue>, pool: &str) -> Vec<String> {
    let letters = queue.dead(pool).await.unwrap();
    timeout(SOON, letters.map(|letter| body(&letter.unwrap())).collect()).await.unwrap()
}

async fn a_message_arrives_with_all_its_properties(home: &Home) {
    let queue = home.ready().await;
    let properties = Properties {
        kind: Some(JOB_TYPE.to_owned()),
        message_id: Some("m-1".to_owned()),
        correlation_id: Some("c-ø".to_owned()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        first_failed_at: None,
        unread_since: Some("2026-11-19T05:00:00Z".to_owned()),
        dead: Some(DeadHeaders {
            reason: "the contract was broken: «naïve»".to_owned(),
            class: "contract".to_owned(),
            export: Some("orders".to_owned()),
            run: Some("r-1".to_owned()),
            epoch: Some(2),
            attempts: 8,
            worker: "w-1".to_owned(),
            first_failed_at: "2026-11-01T04:15:00Z".to_owned(),
            last_failed_at: "2026-11-02T04:15:00Z".to_owned(),
            routing_key: "a".to_owned(),
        }),
    };
    let full = Outgoing { properties: properties.clone(), ..message(jobs("a"), r#"{"n":1}"#) };
    let again = Properties {
        first_failed_at: Some("2026-11-01T04:15:00Z".to_owned()),
        ..Properties::default()
    };
    let replayed = Outgoing { properties: again.clone(), ..message(jobs("a"), "again") };
    publish(&queue, vec![full, message(jobs("a"), "bare"), replayed]).await;
    let mut stream = queue.consume("a", 10).await.unwrap();
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    let third = next(&mut stream).await;
    assert_eq!((body(&third), &third.properties), ("again".to_owned(), &again));
    third.settle.ack().await.unwrap();
    assert_eq!((body(&first), &first.properties), (r#"{"n":1}"#.to_owned(), &properties));
    assert_eq!((first.pool.as_str(), first.redelivered), ("a", false));
    assert_eq!((body(&second), second.properties), ("bare".to_owned(), Properties::default()));
    first.settle.ack().await.unwrap();
    second.settle.ack().await.unwrap();
}

async fn what_was_confirmed_is_there_after_reopening(home: &Home) {
    publish(&home.ready().await, numbered(&jobs("a"), 3)).await;
    let queue = home.open();
    assert_eq!(queue.depth(&jobs("a")).await.unwrap().ready, 3);
    let mut stream = queue.consume("a", 1).await.unwrap();
    assert_eq!(body(&next(&mut stream).await), "0");
}

async fn an_unknown_pool_is_a_permanent_error_of_its_own_message_only(home: &Home) {
    let queue = home.ready().await;
    let mut batch = numbered(&jobs("a"), 40);
    for at in [0, 17, 39] {
        batch.insert(at, message(jobs("nowhere"), "lost"));
    }
    batch.push(message(dead("nowhere"), "lost"));
    let targets: Vec<_> = batch.iter().map(|message| message.to.clone()).collect();
    for (to, answer) in targets.iter().zip(queue.publish(batch).await) {
        if *to == jobs("a") {
            answer.unwrap();
        } else {
            let error = answer.unwrap_err();
            assert_eq!(error.class(), Class::Permanent, "{error}");
            assert!(error.to_string().contains("nowhere") && error.advice().is_some(), "{error}");
        }
    }
    until_ready(&queue, &jobs("a"), 40).await;
}

async fn no_more_than_the_prefetch_is_out_at_once(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 6)).await;
    let mut stream = queue.consume("a", 3).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut stream).await);
    }
    quiet(&mut stream).await;
    held.remove(1).settle.ack().await.unwrap();
    assert_eq!(body(&next(&mut stream).await), "3");
    quiet(&mut stream).await;
}

async fn what_a_dropped_consumer_held_comes_again(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 4)).await;
    let mut stream = queue.consume("a", 3).await.unwrap();
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    first.settle.ack().await.unwrap();
    drop(stream);
    until_ready(&queue, &jobs("a"), 2).await;
    // With the last that it had handed out, the consumer ends.
    drop(second);
    until_ready(&queue, &jobs("a"), 3).await;
    let mut stream = queue.consume("a", 3).await.unwrap();
    let mut again = Vec::new();
    for _ in 0..3 {
        let job = next(&mut stream).await;
        again.push(body(&job));
        job.settle.ack().await.unwrap();
    }
    again.sort();
    assert_eq!(again, ["1", "2", "3"]);
}

async fn a_dropped_stream_keeps_what_it_handed_out_and_nothing_else(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 8)).await;
    let mut stream = queue.consume("a", 6).await.unwrap();
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    // Four more are prefetched, and go back to their places.
    until_ready(&queue, &jobs("a"), 2).await;
    drop(stream);
    until_ready(&queue, &jobs("a"), 6).await;
    let mut other = home.open().consume("a", 10).await.unwrap();
    for n in 2..8 {
        let job = next(&mut other).await;
        assert_eq!((body(&job), job.redelivered), (n.to_string(), n < 6));
        job.settle.ack().await.unwrap();
    }
    // The first two are still being worked on, for as long as that takes.
    quiet(&mut other).await;
    first.settle.ack().await.unwrap();
    second.settle.requeue().await.unwrap();
    let again = next(&mut other).await;
    assert_eq!((body(&again).as_str(), again.redelivered), ("1", true));
    again.settle.ack().await.unwrap();
    quiet(&mut other).await;
    assert_eq!(queue.depth(&jobs("a")).await.unwrap().ready, 0);
}

async fn an_ack_is_final(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 5)).await;
    let mut stream = queue.consume("a", 2).await.unwrap();
    for _ in 0..5 {
        next(&mut stream).await.settle.ack().await.unwrap();
    }
    drop(stream);
    let mut stream = queue.consume("a", 2).await.unwrap();
    quiet(&mut stream).await;
    assert_eq!(queue.depth(&jobs("a")).await.unwrap().ready, 0);
}

async fn what_is_given_back_is_delivered_again(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 1)).await;
    let mut stream = queue.consume("a", 1).await.unwrap();
    for round in 0..30 {
        let job = next(&mut stream).await;
        assert_eq!((body(&job).as_str(), job.redelivered), ("0", round > 0));
        job.settle.requeue().await.unwrap();
    }
    next(&mut stream).await.settle.ack().await.unwrap();
    quiet(&mut stream).await;
}

async fn messages_keep_their_order(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 600)).await;
    let mut stream = queue.consume("a", 50).await.unwrap();
    for n in 0..600 {
        let job = next(&mut stream).await;
        assert_eq!(body(&job), n.to_string());
        job.settle.ack().await.unwrap();
    }
}

async fn two_consumers_share_the_work(home: &Home) {
    let queue = home.ready().await;
    let mut one = queue.consume("a", 1).await.unwrap();
    let mut two = home.open().consume("a", 1).await.unwrap();
    publish(&queue, numbered(&jobs("a"), 20)).await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        let pair = [next(&mut one).await, next(&mut two).await];
        for job in pair {
            seen.push(body(&job).parse::<u32>().unwrap());
            job.settle.ack().await.unwrap();
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

async fn pools_are_apart(home: &Home) {
    let queue = home.ready().await;
    queue.declare(&["b".to_owned()]).await.unwrap();
    publish(&queue, vec![message(jobs("b"), "for b"), message(dead("a"), "dead")]).await;
    let mut a = queue.consume("a", 1).await.unwrap();
    let mut b = queue.consume("b", 1).await.unwrap();
    assert_eq!(body(&next(&mut b).await), "for b");
    quiet(&mut a).await;
}

async fn looking_at_dead_letters_changes_nothing(home: &Home) {
    let queue = home.ready().await;
    // More than are held by one consumer, or read at once.
    publish(&queue, numbered(&dead("a"), 600)).await;
    let expected: Vec<String> = (0..600).map(|n| n.to_string()).collect();
    for _ in 0..3 {
        // Several consumers hold so many, and a broker puts each one's back as it hears of it.
        let mut found = look(&queue, "a").await;
        found.sort_by_key(|number| number.parse::<u32>().unwrap());
        assert_eq!(found, expected);
        until_ready(&queue, &dead("a"), 600).await;
    }
}

async fn many_looks_do_not_use_up_a_letter(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&dead("a"), 2)).await;
    for _ in 0..25 {
        assert_eq!(look(&queue, "a").await, ["0", "1"]);
        until_ready(&queue, &dead("a"), 2).await;
    }
}

async fn acking_one_letter_leaves_the_others_in_their_places(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&dead("a"), 5)).await;
    let mut letters = queue.dead("a").await.unwrap();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(timeout(SOON, letters.next()).await.unwrap().unwrap().unwrap());
    }
    assert!(timeout(SOON, letters.next()).await.unwrap().is_none());
    held.remove(2).settle.ack().await.unwrap();
    held.remove(0).settle.requeue().await.unwrap();
    drop((letters, held));
    until_ready(&queue, &dead("a"), 4).await;
    let mut left = look(&queue, "a").await;
    // One that was given back by itself may go to the front or to the end.
    left.retain(|body| body != "0");
    assert_eq!(left, ["1", "3", "4"]);
}

async fn a_pass_ends_at_the_depth_at_its_start(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&dead("a"), 3)).await;
    let mut letters = queue.dead("a").await.unwrap();
    for n in 0..3 {
        let letter = timeout(SOON, letters.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(body(&letter), n.to_string());
        // As a replay that fails again does: ack, and there is a new one.
        publish(&queue, vec![message(dead("a"), "new")]).await;
        letter.settle.ack().await.unwrap();
    }
    assert!(timeout(SOON, letters.next()).await.unwrap().is_none());
    drop(letters);
    until_ready(&queue, &dead("a"), 3).await;
}

async fn a_pass_over_nothing_ends_at_once(home: &Home) {
    let queue = home.ready().await;
    assert!(look(&queue, "a").await.is_empty());
    let Err(error) = queue.dead("nowhere").await else { panic!("there is no such queue") };
    assert_eq!(error.class(), Class::NotFound);
}

async fn the_depth_counts_what_waits_and_who_consumes(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 7)).await;
    let depth = queue.depth(&jobs("a")).await.unwrap();
    assert_eq!((depth.ready, depth.consumers), (7, 0));
    let mut stream = queue.consume("a", 2).await.unwrap();
    let _job = next(&mut stream).await;
    until_ready(&queue, &jobs("a"), 5).await;
    assert_eq!(queue.depth(&jobs("a")).await.unwrap().consumers, 1);
    let error = queue.depth(&dead("nowhere")).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
}

async fn the_largest_body_arrives_whole(home: &Home) {
    let queue = home.ready().await;
    let large: Vec<u8> = (0..MAX_BODY).map(|n| (n * 31 % 251) as u8).collect();
    publish(&queue, vec![message(jobs("a"), large.clone()), message(jobs("a"), "")]).await;
    let mut stream = queue.consume("a", 2).await.unwrap();
    assert!(next(&mut stream).await.body == large);
    assert!(next(&mut stream).await.body.is_empty());
}

async fn declaring_again_is_harmless(home: &Home) {
    let queue = home.ready().await;
    publish(&queue, numbered(&jobs("a"), 2)).await;
    queue.declare(&["a".to_owned(), "b".to_owned()]).await.unwrap();
    home.open().declare(&["a".to_owned()]).await.unwrap();
    assert_eq!(queue.depth(&jobs("a")).await.unwrap().ready, 2);
}

async fn a_waiting_consumer_is_woken_by_a_publish(home: &Home) {
    let queue = home.ready().await;
    let mut stream = queue.consume("a", 1).await.unwrap();
    quiet(&mut stream).await;
    publish(&home.open(), numbered(&jobs("a"), 1)).await;
    let since = Instant::now();
    next(&mut stream).await.settle.ack().await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(2));
}

async fn many_publishers_and_consumers_lose_and_invent_nothing(home: &Home) {
    let queue = home.ready().await;
    let publishers = (0..8).map(|publisher| {
        let queue = queue.clone();
        async move {
            for n in 0..25 {
                publish(&queue, vec![message(jobs("a"), format!("{publisher}-{n}"))]).await;
            }
        }
    });
    let all = tokio::spawn(futures::future::join_all(publishers));
    let mut seen = std::collections::BTreeSet::new();
    let mut stream = queue.consume("a", 16).await.unwrap();
    while seen.len() < 200 {
        let job = next(&mut stream).await;
        assert!(seen.insert(body(&job)), "twice");
        job.settle.ack().await.unwrap();
    }
    all.await.unwrap();
    quiet(&mut stream).await;
}

async fn it_answers_a_ping(home: &Home) {
    let queue = home.open();
    queue.ping(SOON).await.unwrap();
    let event = longshore::queue::Event {
        routing_key: "run.done.orders".to_owned(),
        body: Bytes::from_static(b"{}"),
        correlation_id: None,
    };
    queue.declare(&["a".to_owned()]).await.unwrap();
    queue.announce(event).await.unwrap();
}

/// Runs one behaviour, and cleans up however it went.
async fn run(home: Home, behaviour: impl AsyncFnOnce(&Home)) {
    let outcome = std::panic::AssertUnwindSafe(behaviour(&home)).catch_unwind().await;
    home.clean().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

macro_rules! conformance {
    ($($behaviour:ident),* $(,)?) => {
        mod on_rabbitmq {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let home = super::Home::RabbitMq(super::Broker::new());
                super::run(home, async |home| super::$behaviour(home).await).await;
            })*
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let home = super::Home::Embedded(tempfile::tempdir().unwrap());
                super::run(home, async |home| super::$behaviour(home).await).await;
            })*
        }
    };
}

conformance! {
    a_message_arrives_with_all_its_properties,
    what_was_confirmed_is_there_after_reopening,
    an_unknown_pool_is_a_permanent_error_of_its_own_message_only,
    no_more_than_the_prefetch_is_out_at_once,
    what_a_dropped_consumer_held_comes_again,
    a_dropped_stream_keeps_what_it_handed_out_and_nothing_else,
    an_ack_is_final,
    what_is_given_back_is_delivered_again,
    messages_keep_their_order,
    two_consumers_share_the_work,
    pools_are_apart,
    looking_at_dead_letters_changes_nothing,
    many_looks_do_not_use_up_a_letter,
    acking_one_letter_leaves_the_others_in_their_places,
    a_pass_ends_at_the_depth_at_its_start,
    a_pass_over_nothing_ends_at_once,
    the_depth_counts_what_waits_and_who_consumes,
    the_largest_body_arrives_whole,
    declaring_again_is_harmless,
    a_waiting_consumer_is_woken_by_a_publish,
    many_publishers_and_consumers_lose_and_invent_nothing,
    it_answers_a_ping,
}
