//! Cursors of PostgreSQL: every type of a column, and the whole on real servers.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use futures::TryStreamExt;
use longshore::budget::Budget;
use longshore::connect::Connection;
use longshore::error::{Class, Result};
use longshore::job::param::Bindings;
use longshore::source::{self, Fresh, Since, SourceConfig};
use serde_json::{Value as Json, json};
use tokio_postgres::NoTls;

use crate::support::installation::{self, message};
use crate::support::servers;

fn shop() -> Connection {
    let url = servers::postgres();
    let mut connection: Connection =
        serde_json::from_value(json!({"type": "postgres", "url": url.as_str()})).unwrap();
    connection.name = "shop".to_owned();
    connection
}

/// The ids that are read since `from` of values of a type, and how far that went.
async fn read(kind: &str, values: &[&str], cursor: Json, since: &Since) -> Result<Read> {
    let rows: Vec<String> =
        values.iter().enumerate().map(|(id, value)| format!("({id}, '{value}'::{kind})")).collect();
    let query = format!("SELECT * FROM (VALUES {}) AS t(id, at)", rows.join(", "));
    let config = json!({"connection": "shop", "query": query, "cursor": cursor});
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let source = source::build(&config, &shop(), None, &Budget::default()).unwrap();
    source.schema(&Bindings::new()).await?;
    let Fresh { rows, to } = source.read_since(&Bindings::new(), since).await?;
    let batches: Vec<_> = rows.stream.try_collect().await?;
    let ids = batches
        .iter()
        .flat_map(|batch| batch.rows.column(0).as_primitive::<Int32Type>().values().to_vec());
    Ok(Read { ids: ids.collect(), to })
}

#[derive(Debug, PartialEq)]
struct Read {
    ids: Vec<i32>,
    to: Option<String>,
}

fn from(value: &str) -> Since {
    Since { from: Some(value.to_owned()), ..Since::default() }
}

#[tokio::test]
async fn every_type_that_has_an_order_is_exact_in_postgresql() {
    for (kind, values, first) in [
        (
            "timestamptz",
            ["2026-10-25 02:30:00.000001+02", "2026-10-25 02:30:00.000001+01"],
            "2026-10-25 00:30:00.000001+00",
        ),
        (
            "timestamp",
            ["2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000002"],
            "2026-01-01 00:00:00.000001",
        ),
        ("date", ["2026-01-31", "2026-02-01"], "2026-01-31"),
        ("int8", ["9223372036854775806", "9223372036854775807"], "9223372036854775806"),
        (
            "numeric(38,10)",
            ["9999999999999999999999999999.9999999998", "9999999999999999999999999999.9999999999"],
            "9999999999999999999999999999.9999999998",
        ),
        ("text", ["it''s \\", "it''s \\z"], "it's \\"),
        (
            "uuid",
            ["00000000-0000-4000-8000-000000000001", "ffffffff-ffff-4fff-bfff-ffffffffffff"],
            "00000000-0000-4000-8000-000000000001",
        ),
    ] {
        let all = |values: &[&str], since: Since| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            async move {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                read(kind, &values, json!("at"), &since).await.unwrap()
            }
        };
        let to = Some(first.to_owned());
        let one = all(&values[..1], Since::default()).await;
        assert_eq!(one, Read { ids: vec![0], to: to.clone() }, "{kind}");
        // Nothing is new; then one is; then the first range is read again.
        let none = all(&values[..1], from(first)).await;
        assert_eq!(none, Read { ids: vec![], to: to.clone() }, "{kind}");
        let two = all(&values, from(first)).await;
        assert_eq!(two.ids, [1], "{kind}");
        let again = all(&values, Since { to: to.clone(), ..Since::default() }).await;
        assert_eq!(again, Read { ids: vec![0], to }, "{kind}");
        let last = two.to.unwrap();
        assert_eq!(all(&values, from(&last)).await, Read { ids: vec![], to: Some(last) }, "{kind}");
    }
}

#[tokio::test]
async fn start_and_lookback_are_by_the_databases_own_reckoning() {
    let times =
        ["2025-12-31 23:59:59.999999+00", "2026-01-01 00:00:00+00", "2026-01-01 00:10:00+00"];
    let cursor = json!({"column": "at", "start": "2026-01-01", "lookback": "10m"});
    let first = read("timestamptz", &times, cursor.clone(), &Since::default()).await.unwrap();
    let to = "2026-01-01 00:10:00+00";
    assert_eq!(first, Read { ids: vec![1, 2], to: Some(to.to_owned()) });
    // Ten minutes before it is not read any more; a microsecond later is.
    let again = read("timestamptz", &times, cursor.clone(), &from(to)).await.unwrap();
    assert_eq!(again, Read { ids: vec![2], to: Some(to.to_owned()) });
    let late = ["2026-01-01 00:00:00.000001+00", to];
    assert_eq!(read("timestamptz", &late, cursor, &from(to)).await.unwrap().ids, [0, 1]);

    let back = json!({"column": "at", "lookback": "10m"});
    for (kind, values, cursor, class, words) in [
        ("int8", ["1"], back, Class::Permanent, "the column has none"),
        ("timestamptz", ["infinity"], json!("at"), Class::Contract, "beyond all others"),
        ("float8", ["NaN"], json!("at"), Class::Contract, "beyond all others"),
        ("json", ["{}"], json!("at"), Class::Permanent, "42883"),
        ("int8", ["1"], json!("on"), Class::Permanent, "42703"),
        ("int8", ["1"], json!({"column": "at", "start": "one"}), Class::Permanent, "22P02"),
    ] {
        let error = read(kind, &values, cursor, &Since::default()).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Changed rows of a shop, kept in step with a warehouse.
const INCREMENTAL: &str = r#"
[source]
connection = "shop"
table      = "public.changing"
cursor     = { column = "updated_at", lookback = "10m" }
[contract]
primary-key = ["id"]
[contract.fields]
id         = { type = "int64", required = true }
note       = { type = "string", required = true }
updated_at = { type = "timestamp(us, UTC)", required = true }
[sink]
connection = "warehouse"
table      = "public.changed"
mode       = "upsert"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_follows_its_source_through_late_rows_and_changes() {
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        let sql = |sql: &'static str| installation.database.client.batch_execute(sql);
        for table in ["changing", "changed"] {
            let table = format!(
                "CREATE TABLE {table}
                     (id bigint PRIMARY KEY, note text NOT NULL, updated_at timestamptz NOT NULL)"
            );
            installation.database.client.batch_execute(&table).await.unwrap();
        }
        installation.export("changes", INCREMENTAL);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let job = |number: i32| {
            let body = json!({"export": "changes", "key": format!("round-{number}")});
            message(&installation.pool, &body)
        };
        let done = async |runs: i64| {
            let ended = format!("SELECT count(*) = {runs} FROM runs WHERE state = 'done'");
            installation
                .until(&format!("{runs} runs are done"), Duration::from_secs(60), &ended)
                .await;
        };
        let differ = "SELECT count(*) FROM ((TABLE changing EXCEPT TABLE changed)
                      UNION ALL (TABLE changed EXCEPT TABLE changing)) AS rows";

        sql("INSERT INTO changing SELECT i, 'first', now() - interval '1 hour' + i * interval '1 us'
             FROM generate_series(1, 1000) i").await.unwrap();
        installation.publish(&[job(1)]).await;
        done(1).await;
        assert_eq!(installation.database.number(differ).await, 0);

        // One transaction takes its time and commits after a later one was delivered.
        let url = installation.database.url.as_str();
        let (late, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        late.batch_execute("BEGIN; INSERT INTO changing VALUES (2000, 'late', now())")
            .await
            .unwrap();
        sql("UPDATE changing SET note = 'second', updated_at = clock_timestamp() WHERE id <= 10")
            .await
            .unwrap();
        installation.publish(&[job(2)]).await;
        done(2).await;
        assert_eq!(installation.database.number(differ).await, 0);
        late.batch_execute("COMMIT").await.unwrap();
        assert_eq!(installation.database.number(differ).await, 1);
        // Two at once wait for each other.
        installation.publish(&[job(3), job(4)]).await;
        done(4).await;
        assert_eq!(installation.database.number(differ).await, 0);
        // A second edition of the first run reads what that read, as it is now, and no more.
        let first = "SELECT id::text FROM runs WHERE key = 'round-1'";
        let first = installation.database.text(first).await;
        installation.run(&["rerun", &first, "--reason", "a test"]).await;
        done(5).await;
        let again = "SELECT counts->>'read' FROM runs WHERE edition = 2";
        assert_eq!(installation.database.text(again).await, "990");
        let stands = "SELECT count(*) FROM cursors
                      WHERE name = 'cursor/changes:public.changing.updated_at'
                        AND value::timestamptz = (SELECT max(updated_at) FROM changing)
                        AND run = (SELECT id FROM runs WHERE key = 'round-2')";
        assert_eq!(installation.database.number(stands).await, 1);
        let read =
            "SELECT string_agg(counts->>'read', ' ' ORDER BY key) FROM runs WHERE edition = 1";
        assert_eq!(installation.database.text(read).await, "1000 1000 11 11");

        // An operator puts it back, and lets it begin anew.
        let name = "cursor/changes:public.changing.updated_at";
        let shown = installation.objects(&["cursors", "show", "changes"]).await;
        assert_eq!(shown.len(), 1);
        assert_eq!((&shown[0]["name"], &shown[0]["held_by"]), (&json!(name), &Json::Null));
        let set =
            ["cursors", "set", "changes", "--to", "2026-01-01 01:00+01", "--reason", "a test"];
        let told = installation.run(&[&set[..], &["--dry-run"]].concat()).await;
        assert!(told.contains(" to 2026-01-01 00:00:00+00\nNothing was changed"), "{told}");
        assert_eq!(installation.objects(&["cursors", "show", "changes"]).await, shown);
        let moved = &installation.objects(&set).await[0];
        assert_eq!(moved["value"], "2026-01-01 00:00:00+00");
        assert_eq!(moved["run"], Json::Null);
        let wrong = ["cursors", "set", "changes", "--to", "soon", "--reason", "a test"];
        assert_eq!(installation.command(&wrong).output().unwrap().status.code(), Some(1));
        let reset = ["cursors", "reset", "changes", "--reason", "a test"];
        let planned = installation.objects(&[&reset[..], &["--dry-run"]].concat()).await;
        assert_eq!((&planned[0]["dry_run"], &planned[0]["to"]), (&json!(true), &json!("nowhere")));
        let told = installation.run(&reset).await;
        assert!(
            told.contains(&format!("moved {name} from 2026-01-01 00:00:00+00 to nowhere")),
            "{told}"
        );
        assert_eq!(installation.objects(&["cursors", "show", "changes"]).await, Vec::<Json>::new());
        let audited = format!("SELECT count(*) FROM audit WHERE subject = '{name}'");
        assert_eq!(installation.database.number(&audited).await, 2);
        installation.publish(&[job(5)]).await;
        done(6).await;
        assert_eq!(installation.database.text(read).await, "1000 1000 11 11 1001");
        assert_eq!(installation.objects(&["cursors", "show", "changes"]).await.len(), 1);
        installation.end([worker, scheduler], 0).await;
    })
    .await;
}
