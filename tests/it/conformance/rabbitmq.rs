//! What only the RabbitMQ backend must do: keep going whatever happens to connection and queues.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lapin::options::{
    BasicPublishOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use longshore::error::Class;
use longshore::queue::rabbitmq::{RabbitMq, Settings};
use longshore::queue::{DeadHeaders, Outgoing, Properties, Queue};
use longshore::secret::Secret;
use tokio::time::{Instant, timeout};

use super::queue::{SOON, body, dead, jobs, message, next, numbered, publish, quiet, until_ready};
use crate::producer_rights::rabbitmqctl;
use crate::support::proxy::{Fault, Proxy, Way};
use crate::support::servers;

/// The broker under test.
fn url() -> String {
    servers::amqp().into()
}

/// Names of their own for one test.
pub struct Broker {
    settings: Settings,
}

impl Broker {
    pub fn new() -> Broker {
        let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
        Broker { settings: Settings { url: url(), password: None, prefix, max_length: 1_000_000 } }
    }

    pub fn open(&self) -> Arc<dyn Queue> {
        RabbitMq::connect(self.settings.clone()).unwrap()
    }

    /// The queue with the pool `a` declared.
    async fn ready(&self) -> Arc<dyn Queue> {
        let queue = self.open();
        queue.declare(&["a".to_owned()]).await.unwrap();
        queue
    }

    fn name(&self, rest: &str) -> lapin::types::ShortString {
        format!("{}{rest}", self.settings.prefix).into()
    }

    /// Deletes everything that a test may have made.
    pub async fn clean(&self) {
        let channel = connect().await.create_channel().await.unwrap();
        for rest in [".jobs.a", ".jobs.b", ".dead.a", ".dead.b"] {
            channel.queue_delete(self.name(rest), QueueDeleteOptions::default()).await.unwrap();
        }
        for rest in ["", ".dead", ".events"] {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(self.name(rest), options).await.unwrap();
        }
        channel.close(200, "OK".into()).await.unwrap();
    }
}

/// A connection that owes nothing to the code under test.
async fn connect() -> Connection {
    Connection::connect(&url(), ConnectionProperties::default()).await.unwrap()
}

async fn with_broker(test: impl AsyncFnOnce(&mut Broker)) {
    let mut broker = Broker::new();
    let outcome = std::panic::AssertUnwindSafe(test(&mut broker)).catch_unwind().await;
    broker.clean().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// The same broker through a proxy, as `user` (with or without a password).
async fn proxied(broker: &mut Broker, user: &str) -> Proxy {
    let parsed = url::Url::parse(&url()).unwrap();
    let host = parsed.host_str().unwrap();
    let proxy = Proxy::start(format!("{host}:{}", parsed.port().unwrap_or(5672))).await;
    broker.settings.url = format!("amqp://{user}@{}{}", proxy.address(), parsed.path());
    proxy
}

fn user() -> String {
    let parsed = url::Url::parse(&url()).unwrap();
    format!("{}:{}", parsed.username(), parsed.password().unwrap_or("guest"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_comes_back_with_its_prefetch() {
    with_broker(async |broker| {
        let proxy = proxied(broker, &user()).await;
        let queue = broker.ready().await;
        publish(&queue, numbered(&jobs("a"), 5)).await;
        let mut stream = queue.consume("a", 2).await.unwrap();
        let (first, second) = (next(&mut stream).await, next(&mut stream).await);

        proxy.cut();
        let since = Instant::now();
        let in_doubt = || message(jobs("a"), "in doubt");
        let answers = queue.publish(vec![in_doubt(), in_doubt()]).await;
        assert!(since.elapsed() < SOON, "the wait is bounded");
        for answer in answers {
            assert_eq!(answer.unwrap_err().class(), Class::Unavailable);
        }
        let deadline = Instant::now() + SOON;
        loop {
            let error = queue.ping(Duration::from_millis(50)).await.unwrap_err();
            assert_eq!(error.class(), Class::Unavailable);
            if error.message().contains("cannot be reached") && error.advice().is_some() {
                break;
            }
            assert!(Instant::now() < deadline, "{error}");
        }
        assert_eq!(first.settle.ack().await.unwrap_err().class(), Class::Unavailable);

        proxy.reopen();
        queue.ping(SOON).await.unwrap();
        publish(&queue, vec![message(jobs("a"), "5")]).await;
        let (one, two) = (next(&mut stream).await, next(&mut stream).await);
        let mut again = [body(&one), body(&two)];
        again.sort();
        assert_eq!(again, ["0", "1"]);
        assert!(one.redelivered && two.redelivered);
        quiet(&mut stream).await;
        assert!(second.settle.ack().await.is_err());
        one.settle.ack().await.unwrap();
        two.settle.ack().await.unwrap();
        let mut rest = Vec::new();
        while rest.last().is_none_or(|last| last != "5") {
            let job = next(&mut stream).await;
            rest.push(body(&job));
            job.settle.ack().await.unwrap();
        }
        // What was in doubt may have arrived, and what arrived before it keeps its place.
        rest.retain(|body| body != "in doubt");
        assert_eq!(rest, ["2", "3", "4", "5"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_goes_on_after_short_cuts() {
    with_broker(async |broker| {
        let proxy = proxied(broker, &user()).await;
        let queue = broker.ready().await;
        publish(&queue, numbered(&jobs("a"), 1)).await;
        for _ in 0..3 {
            proxy.cut();
            proxy.reopen();
            // The supervisor needs a moment to see it; a publish in that moment may be lost.
            let deadline = Instant::now() + SOON;
            while let Err(error) = &queue.publish(numbered(&jobs("a"), 1)).await[0] {
                assert_eq!(error.class(), Class::Unavailable);
                assert!(Instant::now() < deadline, "{error}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_exists_with_other_arguments_is_used_as_it_is() {
    with_broker(async |broker| {
        let connection = connect().await;
        let channel = connection.create_channel().await.unwrap();
        for rest in [".jobs.a", ".dead.a"] {
            let options = QueueDeclareOptions::durable();
            channel.queue_declare(broker.name(rest), options, FieldTable::default()).await.unwrap();
        }
        let queue = broker.ready().await;
        publish(&queue, vec![message(jobs("a"), "x"), message(dead("a"), "y")]).await;
        let mut stream = queue.consume("a", 1).await.unwrap();
        assert_eq!(body(&next(&mut stream).await), "x");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_throttles_and_loses_nothing() {
    with_broker(async |broker| {
        broker.settings.max_length = 3;
        let queue = broker.ready().await;
        let mut taken = 0;
        let mut refused = 0;
        for message in numbered(&jobs("a"), 40) {
            match queue.publish(vec![message]).await.remove(0) {
                Ok(()) => taken += 1,
                Err(error) => {
                    assert_eq!(error.class(), Class::Throttled, "{error}");
                    refused += 1;
                }
            }
        }
        assert!(taken >= 3 && refused > 0, "{taken} taken, {refused} refused");
        until_ready(&queue, &jobs("a"), taken).await;
        let mut stream = queue.consume("a", 10).await.unwrap();
        for _ in 0..taken {
            next(&mut stream).await.settle.ack().await.unwrap();
        }
        let deadline = Instant::now() + SOON;
        while queue.publish(numbered(&jobs("a"), 1)).await[0].is_err() {
            assert!(Instant::now() < deadline);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_its_consumer_is_declared_again() {
    with_broker(async |broker| {
        let queue = broker.ready().await;
        publish(&queue, numbered(&jobs("a"), 1)).await;
        let mut stream = queue.consume("a", 2).await.unwrap();
        next(&mut stream).await.settle.ack().await.unwrap();
        let connection = connect().await;
        let channel = connection.create_channel().await.unwrap();
        let name = broker.name(".jobs.a");
        channel.queue_delete(name, QueueDeleteOptions::default()).await.unwrap();
        let deadline = Instant::now() + SOON;
        while let Err(error) = &queue.publish(numbered(&jobs("a"), 1)).await[0] {
            assert_eq!(error.class(), Class::Permanent, "{error}");
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        publish(&queue, numbered(&jobs("a"), 2)).await;
        let (_one, _two) = (next(&mut stream).await, next(&mut stream).await);
        quiet(&mut stream).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_told_and_a_rotated_password_is_read() {
    with_broker(async |broker| {
        let user = user();
        let (name, password) = user.split_once(':').unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "wrong\n").unwrap();
        let _proxy = proxied(broker, name).await;
        broker.settings.password = Some(Secret::File(file.display().to_string()));
        let queue = broker.open();
        let deadline = Instant::now() + SOON;
        let error = loop {
            let error = queue.ping(Duration::from_millis(100)).await.unwrap_err();
            if error.message().contains("refuses") {
                break error;
            }
            assert!(Instant::now() < deadline, "{error}");
        };
        assert!(error.message().contains("ACCESS_REFUSED"), "{error}");
        assert!(!error.chain().contains("wrong"), "{error}");
        std::fs::write(&file, password).unwrap();
        queue.ping(SOON).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listening_is_unavailable_within_a_bound() {
    let settings = Settings {
        url: "amqp://127.0.0.1:1/%2f".to_owned(),
        password: None,
        prefix: "none".to_owned(),
        max_length: 1,
    };
    let queue = RabbitMq::connect(settings).unwrap();
    let answers = timeout(SOON, queue.publish(numbered(&jobs("a"), 600))).await.unwrap();
    assert_eq!(answers.len(), 600);
    for answer in answers {
        assert_eq!(answer.unwrap_err().class(), Class::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returned_messages_come_to_the_right_answers_with_many_under_way() {
    with_broker(async |broker| {
        let queue = broker.ready().await;
        let publishers = (0..12).map(|publisher| {
            let queue = queue.clone();
            async move {
                for _ in 0..5 {
                    let batch: Vec<_> = (0..60)
                        .map(|n| {
                            message(jobs(if n % 7 == publisher % 7 { "no" } else { "a" }), "x")
                        })
                        .collect();
                    for (n, answer) in queue.publish(batch).await.into_iter().enumerate() {
                        let routable = n as u32 % 7 != publisher % 7;
                        assert_eq!(answer.is_ok(), routable, "{n}: {answer:?}");
                    }
                }
            }
        });
        futures::future::join_all(publishers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_texts_in_headers_are_cut() {
    with_broker(async |broker| {
        let queue = broker.ready().await;
        let long = "ø".repeat(200_000);
        let letter = Outgoing {
            properties: Properties {
                message_id: Some(long.clone()),
                traceparent: Some(long.clone()),
                dead: Some(DeadHeaders {
                    reason: long.clone(),
                    worker: long.clone(),
                    ..DeadHeaders::default()
                }),
                ..Properties::default()
            },
            ..message(dead("a"), "x")
        };
        publish(&queue, vec![letter]).await;
        let mut letters = queue.dead("a").await.unwrap();
        let letter = futures::StreamExt::next(&mut letters).await.unwrap().unwrap();
        let headers = letter.properties.dead.unwrap();
        assert_eq!(headers.reason, "ø".repeat(1_000));
        assert_eq!(headers.worker, "ø".repeat(127));
        assert_eq!(letter.properties.traceparent.unwrap(), "ø".repeat(127));
        assert_eq!(letter.properties.message_id.unwrap(), "ø".repeat(127));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_headers_do_no_harm() {
    with_broker(async |broker| {
        let queue = broker.ready().await;
        let connection = connect().await;
        let channel = connection.create_channel().await.unwrap();
        let mut headers = FieldTable::default();
        headers.insert("x-longshore-attempts".into(), AMQPValue::Boolean(true));
        headers.insert("traceparent".into(), AMQPValue::Double(1.5));
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(99));
        headers.insert("other".into(), AMQPValue::Void);
        let properties = BasicProperties::default().with_headers(headers).with_type("x".into());
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(broker.name(""), "a".into(), options, b"\xff\x00", properties)
            .await
            .unwrap();
        let mut stream = queue.consume("a", 1).await.unwrap();
        let job = next(&mut stream).await;
        assert_eq!(&job.body[..], b"\xff\x00");
        let expected = Properties { kind: Some("x".to_owned()), ..Properties::default() };
        assert_eq!(job.properties, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_gives_up_is_listed_as_poison() {
    with_broker(async |broker| {
        let queue = broker.ready().await;
        publish(&queue, vec![message(jobs("a"), "poison")]).await;
        let mut stream = queue.consume("a", 1).await.unwrap();
        // The limit is 100 deliveries.
        let mut deliveries = 0;
        while let Ok(job) =
            timeout(Duration::from_secs(2), futures::StreamExt::next(&mut stream)).await
        {
            deliveries += 1;
            job.unwrap().settle.requeue().await.unwrap();
        }
        assert_eq!(deliveries, 101, "the first, and the limit's worth of others");
        until_ready(&queue, &dead("a"), 1).await;
        let mut letters = queue.dead("a").await.unwrap();
        let letter = futures::StreamExt::next(&mut letters).await.unwrap().unwrap();
        assert_eq!(body(&letter), "poison");
        let headers = letter.properties.dead.unwrap();
        assert_eq!(headers.class, "poison");
        assert!(headers.reason.contains("delivery_limit"), "{}", headers.reason);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_holds_up_only_what_it_concerns_and_is_told() {
    with_broker(async |broker| {
        broker.ready().await;
        let user = format!("rights-{}", uuid::Uuid::now_v7().simple());
        rabbitmqctl(&["add_user", &user, "longshore-test"]);
        let write = format!("^{}(\\.jobs.*)?$", broker.settings.prefix);
        let allow = |read: &str| rabbitmqctl(&["set_permissions", &user, ".*", &write, read]);
        allow(".*");
        let proxy = proxied(broker, &format!("{user}:longshore-test")).await;
        let queue = broker.open();
        // More than one batch, and the letters first.
        let mixed = (0..600).map(|n| match n % 2 {
            0 => message(dead("a"), "letter"),
            _ => message(jobs("a"), "job"),
        });
        for (n, answer) in queue.publish(mixed.collect()).await.into_iter().enumerate() {
            match (n % 2, answer) {
                (0, Err(error)) => {
                    assert_eq!(error.class(), Class::Refused, "{error}");
                    assert!(error.advice().unwrap().contains("set_permissions"), "{error}");
                }
                (1, Ok(())) => {}
                (_, other) => panic!("{n}: {other:?}"),
            }
        }
        let mut stream = queue.consume("a", 1).await.unwrap();
        next(&mut stream).await.settle.ack().await.unwrap();
        queue.ping(SOON).await.unwrap();

        allow("^$");
        proxy.cut_once();
        let deadline = Instant::now() + SOON;
        loop {
            if let Err(error) = queue.ping(Duration::from_secs(1)).await
                && error.message().contains("its jobs do not come")
            {
                assert!(error.message().contains("ACCESS_REFUSED"), "{error}");
                break;
            }
            assert!(Instant::now() < deadline, "it is told that nothing is consumed");
        }
        allow(".*");
        let after = next(&mut stream).await;
        assert_eq!(body(&after), "job");
        queue.ping(SOON).await.unwrap();
        drop((stream, after, queue));
        rabbitmqctl(&["delete_user", &user]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_declared_and_is_deleted_is_made_anew_by_whoever_publishes() {
    with_broker(async |broker| {
        let queue = broker.ready().await;
        let channel = connect().await.create_channel().await.unwrap();
        let options = QueueDeleteOptions::default();
        channel.queue_delete(broker.name(".dead.a"), options).await.unwrap();
        channel.exchange_delete(broker.name(""), ExchangeDeleteOptions::default()).await.unwrap();
        let messages = [jobs("a"), dead("a"), jobs("no")].map(|to| message(to, "x"));
        let answers = queue.publish(messages.to_vec()).await;
        let classes = answers.iter().map(|answer| answer.as_ref().err().map(|e| e.class()));
        assert_eq!(classes.collect::<Vec<_>>(), [None, None, Some(Class::Permanent)]);
        until_ready(&queue, &jobs("a"), 1).await;
        until_ready(&queue, &dead("a"), 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_the_broker_starts_too_late_keeps_no_messages() {
    with_broker(async |broker| {
        let proxy = proxied(broker, &user()).await;
        // The connection outlasts the silence.
        broker.settings.url += "?heartbeat=60";
        let queue = broker.ready().await;
        publish(&queue, numbered(&jobs("a"), 2)).await;
        proxy.spoil(Way::ToClient, Fault::Hold);
        let mut stream = queue.consume("a", 2).await.unwrap();
        // For longer than an answer is waited for.
        tokio::time::sleep(Duration::from_secs(31)).await;
        proxy.spoil(Way::ToClient, Fault::None);
        for _ in 0..2 {
            next(&mut stream).await.settle.ack().await.unwrap();
        }
    })
    .await;
}
