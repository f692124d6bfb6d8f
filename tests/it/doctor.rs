//! `longshore doctor` on real servers, sound ones and others.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value as Json, json};

use crate::cli::House;
use crate::support::installation::{self, Installation};
use crate::support::processes::Process;
use crate::support::servers::{amqp, postgres};

/// What doctor found, and its exit code. `changed` are settings of this look.
async fn doctor(installation: &Installation, changed: &[(&str, &str)]) -> (i32, Vec<Json>) {
    let mut command = installation.command(&["doctor", "--json"]);
    command.envs(changed.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |level: &str| found.iter().any(|one| one["level"] == level);
    let expected = if has("away") { 4 } else { i32::from(has("error")) };
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(expected), "{text}\n{error}");
    for one in &found {
        let told = |name: &str| one[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(told("part") && told("check") && told("found"), "{one}");
        // Of what is not well is said what can go wrong, and what to do.
        assert!(one["level"] == "ok" || (told("risk") && told("remedy")), "{one}");
    }
    (expected, found)
}

/// The level of a check, with what was found.
fn level<'a>(found: &'a [Json], part: &str, check: &str) -> (&'a str, &'a str) {
    let one = found.iter().find(|one| one["part"] == part && one["check"] == check);
    let one = one.unwrap_or_else(|| panic!("no {part}, {check} in {found:#?}"));
    (one["level"].as_str().unwrap(), one["found"].as_str().unwrap())
}

fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_installation_is_looked_at_from_end_to_end() {
    installation::with("", async |installation| {
        let (_, found) = doctor(installation, &[]).await;
        let (is, words) = level(&found, "ledger", "schema");
        assert!(is == "error" && words.contains("lacks migrations"), "{is} {words}");
        installation.run(&["migrate"]).await;
        let (_, found) = doctor(installation, &[]).await;
        let (pool, bulk) = (&installation.pool, &installation.bulk);
        for (part, check) in [
            ("queue", "version"),
            ("queue", "alarms"),
            ("queue", &format!("queue longshore.jobs.{pool}")),
            ("queue", &format!("queue longshore.dead.{pool}")),
            ("queue", &format!("queue longshore.jobs.{bulk}")),
            ("ledger", "version"),
            ("ledger", "schema"),
            ("ledger", "full_page_writes"),
            ("ledger", "synchronous_commit"),
            ("ledger", "default_transaction_read_only"),
            ("ledger", "pg_is_in_recovery"),
            ("ledger", "privileges"),
            ("claims", "version"),
            ("claims", "eviction"),
            ("claims", "role"),
            ("clocks", "difference"),
        ] {
            let (is, words) = level(&found, part, check);
            assert_eq!(is, "ok", "{part}, {check}: {words}");
        }
        // fsync is as the server of the tests has it.
        let row = installation.database.client.query_one("SHOW fsync", &[]).await.unwrap();
        let fsync: &str = row.get(0);
        let expected = if fsync == "on" { "ok" } else { "error" };
        assert_eq!(level(&found, "ledger", "fsync"), (expected, fsync));
        assert_eq!(level(&found, "queue", "consumer timeout").0, "warning");
        let (is, words) = level(&found, "ledger", "role");
        assert!(is == "warning" && words.contains("superuser"), "{words}");
        assert_eq!(level(&found, "keys", "pseudonyms").0, "warning", "`pepper` is short");
        assert_eq!(
            installation.database.number("SELECT count(*) FROM runs").await,
            0,
            "nothing is changed"
        );

        // For people: a table, what can go wrong, and the remedy.
        let mut command = installation.command(&["doctor"]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for words in ["PART ", "warning: keys, pseudonyms: ", "   = risk: ", "   = help: Make one"]
        {
            assert!(text.contains(words), "no {words} in {text}");
        }
        assert!(text.trim_end().lines().last().unwrap().starts_with("looked at "), "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_is_told_beside_the_rest() {
    installation::with("", async |installation| {
        installation.run(&["migrate"]).await;
        let redis = format!("redis://127.0.0.1:{}", nobody());
        let changed = [("LONGSHORE__CLAIMS__URL", redis.as_str()), ("TEST_PSEUDONYMS", "")];
        let (code, found) = doctor(installation, &changed).await;
        assert_eq!((code, level(&found, "claims", "connection").0), (4, "away"));
        assert_eq!(level(&found, "ledger", "schema").0, "ok");
        assert_eq!(level(&found, "queue", "version").0, "ok");
        let broker = format!("amqp://guest@127.0.0.1:{}/%2f", nobody());
        let ledger = format!("postgres://nobody@127.0.0.1:{}/nothing", nobody());
        let changed = [
            ("LONGSHORE__QUEUE__URL", broker.as_str()),
            ("LONGSHORE__LEDGER__URL", ledger.as_str()),
        ];
        let (code, found) = doctor(installation, &changed).await;
        assert_eq!(code, 4);
        assert_eq!(level(&found, "queue", "connection").0, "away");
        assert_eq!(level(&found, "ledger", "connection").0, "away");
        assert_eq!(level(&found, "claims", "eviction").0, "ok");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_an_error() {
    installation::with("", async |installation| {
        installation.run(&["migrate"]).await;
        let port = nobody();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(folder.path());
        let _server = Process::start(command, folder.path().join("log"));
        let url = format!("redis://127.0.0.1:{port}");
        let client = redis::Client::open(url.as_str()).unwrap();
        let started = Instant::now();
        let mut connection = loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => break connection,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory-policy").arg("allkeys-lru");
        let () = set.query_async(&mut connection).await.unwrap();
        let (code, found) = doctor(installation, &[("LONGSHORE__CLAIMS__URL", &url)]).await;
        assert_eq!(code, 1);
        let (is, words) = level(&found, "claims", "eviction");
        assert!(is == "error" && words.contains("allkeys-lru"), "{is} {words}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_an_error_and_one_that_is_missing_a_warning() {
    installation::with("", async |installation| {
        installation.run(&["migrate"]).await;
        let jobs = format!("longshore.jobs.{}", installation.bulk);
        let dead = format!("longshore.dead.{}", installation.bulk);
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(amqp().as_str(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        for queue in [&jobs, &dead] {
            let delete = QueueDeleteOptions::default();
            channel.queue_delete(queue.as_str().into(), delete).await.unwrap();
        }
        let mut arguments = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            arguments.insert(name.into(), value);
        };
        set("x-queue-type", AMQPValue::LongString("quorum".into()));
        set("x-dead-letter-exchange", AMQPValue::LongString("longshore.dead".into()));
        set("x-dead-letter-routing-key", AMQPValue::LongString(installation.bulk.as_str().into()));
        set("x-dead-letter-strategy", AMQPValue::LongString("at-most-once".into()));
        set("x-max-length", AMQPValue::LongLongInt(1_000_000));
        set("x-delivery-limit", AMQPValue::LongLongInt(100));
        let declare =
            channel.queue_declare(jobs.as_str().into(), QueueDeclareOptions::durable(), arguments);
        declare.await.unwrap();
        let (code, found) = doctor(installation, &[]).await;
        assert_eq!(code, 1);
        let (is, words) = level(&found, "queue", &format!("queue {jobs}"));
        assert!(is == "error" && words.contains("inequivalent arg"), "{is} {words}");
        let one = found.iter().find(|one| one["check"] == format!("queue {jobs}")).unwrap();
        assert!(one["risk"].as_str().unwrap().contains("at most once"), "{one}");
        assert_eq!(
            level(&found, "queue", &format!("queue {dead}")),
            ("warning", "it is not there")
        );
        let usual = format!("queue longshore.jobs.{}", installation.pool);
        assert_eq!(level(&found, "queue", &usual).0, "ok");
        let (_, again) = doctor(installation, &[]).await;
        let absent = level(&again, "queue", &format!("queue {dead}"));
        assert_eq!(absent.1, "it is not there", "looking declares nothing");
        // So that it can be removed with the others.
        let none = FieldTable::default;
        let durable = QueueDeclareOptions::durable();
        channel.queue_declare(dead.as_str().into(), durable, none()).await.unwrap();
        let bind = channel.queue_bind(
            dead.as_str().into(),
            "longshore.dead".into(),
            installation.bulk.as_str().into(),
            QueueBindOptions::default(),
            none(),
        );
        bind.await.unwrap();
        connection.close(200, "OK".into()).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_and_a_database_that_only_reads_are_errors() {
    installation::with("", async |installation| {
        installation.run(&["migrate"]).await;
        let role = format!("longshore_test_{}", uuid::Uuid::now_v7().simple());
        let client = &installation.database.client;
        let password = postgres().password().unwrap_or("x").to_owned();
        let made = format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{password}';
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
             GRANT ALL ON outbox TO {role};
             ALTER ROLE {role} SET default_transaction_read_only = on;
             ALTER ROLE {role} SET synchronous_commit = off"
        );
        client.batch_execute(&made).await.unwrap();
        let mut url = installation.database.url.clone();
        url.set_username(&role).unwrap();
        url.set_password(None).unwrap();
        let (code, found) = doctor(installation, &[("LONGSHORE__LEDGER__URL", url.as_str())]).await;
        client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
        assert_eq!(code, 1);
        assert_eq!(level(&found, "ledger", "role"), ("ok", role.as_str()));
        assert_eq!(level(&found, "ledger", "default_transaction_read_only"), ("error", "on"));
        assert_eq!(level(&found, "ledger", "synchronous_commit"), ("error", "off"));
        let (is, words) = level(&found, "ledger", "privileges");
        assert_eq!(is, "error");
        let words = words.strip_prefix(&format!("{role} lacks ")).unwrap();
        for (right, of, lacks) in [
            ("INSERT", "runs", true),
            ("DELETE", "waiters", true),
            ("USAGE", "outbox_version", true),
            ("SELECT", "runs", false),
            ("UPDATE", "outbox", false),
        ] {
            let found = words.split("; ").any(|group| {
                let (rights, names) = group.split_once(" on ").unwrap();
                let has = |list: &str, one: &str| list.split(", ").any(|other| other == one);
                has(rights, right) && has(names, of)
            });
            assert_eq!(found, lacks, "{right} on {of}: {words}");
        }
    })
    .await;
}

/// The management API, as RabbitMQ 3.10 answers where a policy was set.
async fn management(headers: HeaderMap, uri: Uri) -> (StatusCode, String) {
    // guest:guest
    if headers.get("authorization").is_none_or(|given| given != "Basic Z3Vlc3Q6Z3Vlc3Q=") {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let answer = match uri.path() {
        "/api/nodes" => json!([{
            "name": "rabbit@a", "running": true, "mem_alarm": false, "disk_free_alarm": true,
            "partitions": [],
        }]),
        queue if queue.starts_with("/api/queues/%2F/longshore%2E") => json!({
            "arguments": {"x-max-length": 1_000_000, "x-delivery-limit": 100},
            "policy": "short", "operator_policy": null, "type": "quorum",
            "effective_policy_definition": {"message-ttl": 60000, "consumer-timeout": 60000},
        }),
        _ => return (StatusCode::NOT_FOUND, "{}".to_owned()),
    };
    (StatusCode::OK, answer.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_alarms_are_found_by_the_management_api() {
    installation::with("", async |installation| {
        installation.run(&["migrate"]).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(management);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let (code, found) = doctor(installation, &[("LONGSHORE__QUEUE__MANAGEMENT", &url)]).await;
        assert_eq!(code, 1);
        let (is, words) = level(&found, "queue", "nodes");
        assert_eq!((is, words), ("error", "rabbit@a is short of disk space"));
        let (is, words) = level(&found, "queue", "consumer timeout");
        assert!(is == "error" && words.starts_with("60 s on"), "{is} {words}");
        let check = format!("policies of longshore.dead.{}", installation.pool);
        assert_eq!(level(&found, "queue", &check), ("error", "message-ttl 60000 ms"));
        let gone = format!("http://127.0.0.1:{}", nobody());
        let (code, found) = doctor(installation, &[("LONGSHORE__QUEUE__MANAGEMENT", &gone)]).await;
        assert_eq!((code, level(&found, "queue", "management").0), (4, "away"));
    })
    .await;
}

#[test]
fn a_file_is_looked_at_as_well() {
    let house = House::new();
    let (code, out, _) = house.run(&["doctor", "--json"]);
    // `PSEUDONYMS` is not set.
    assert_eq!(code, 1, "{out}");
    assert!(out.contains(r#""part":"file","check":"file","level":"warning""#), "{out}");
    assert!(!house.path().join("longshore.db").exists());
    house.done(&["apply"]);
    let mut command = house.command(&["doctor"]);
    command.env("PSEUDONYMS", "0123456789abcdef0123456789abcdef");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for words in ["integrity", "write-ahead log", "up to date", "there is a key", "0 errors"] {
        assert!(text.contains(words), "no {words} in {text}");
    }
}
