//! PostgreSQL as a source, against a real server.

mod snapshot;

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use futures::{StreamExt, TryStreamExt};
use longshore::budget::Budget;
use longshore::connect::{Connection, postgres};
use longshore::error::Class;
use longshore::format::FieldType;
use longshore::job::param::{Bindings, Value};
use longshore::rows::Refused;
use longshore::source::{Promised, Source, SourceConfig, Types, build};
use serde_json::json;

use crate::support::servers;

fn connection() -> Connection {
    let url = servers::postgres();
    let mut connection: Connection =
        serde_json::from_value(json!({"type": "postgres", "url": url.as_str()})).unwrap();
    connection.name = "shop".to_owned();
    connection
}

fn source(config: serde_json::Value, types: Option<&Types>) -> Box<dyn Source> {
    let mut config = config;
    config["connection"] = "shop".into();
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let promised = types.map(|types| Promised { types: types.clone(), ..Promised::default() });
    build(&config, &connection(), promised.as_ref(), &Budget::default()).unwrap()
}

fn decimals(types: &[(&str, u8, i8)]) -> Types {
    let types = types.iter();
    types.map(|(name, p, s)| ((*name).to_owned(), FieldType::Decimal(*p, *s))).collect()
}

/// All rows in one batch, the refused ones, and how many were read.
async fn all(source: &dyn Source, bindings: &Bindings) -> (RecordBatch, Vec<Refused>, u64) {
    let rows = source.read(bindings).await.unwrap();
    assert!(rows.snapshot.is_some());
    let batches: Vec<_> = rows.stream.try_collect().await.unwrap();
    let read = batches.iter().map(|batch| batch.read).sum();
    let refused: Vec<_> = batches.iter().flat_map(|batch| batch.refused.clone()).collect();
    let one = concat_batches(&rows.schema, batches.iter().map(|batch| &batch.rows)).unwrap();
    assert_eq!(read, one.num_rows() as u64 + refused.len() as u64);
    (one, refused, read)
}

async fn query(sql: &str) -> (RecordBatch, Vec<Refused>, u64) {
    all(&*source(json!({"query": sql}), None), &Bindings::new()).await
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|text| text.map(str::to_owned)).collect()
}

/// As a server does that hangs, or what stands before it.
#[tokio::test]
async fn a_server_that_takes_connections_and_never_answers_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://nobody@{}/nothing", silent.local_addr().unwrap());
    let connection: Connection =
        serde_json::from_value(json!({"type": "postgres", "url": url})).unwrap();
    let connecting = postgres::connect(&connection, "source");
    let answer = tokio::time::timeout(Duration::from_secs(60), connecting).await.unwrap();
    let error = answer.err().expect("it cannot be connected to");
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[tokio::test]
async fn numbers_keep_their_extremes() {
    let (batch, refused, _) = query(
        "SELECT * FROM (VALUES
           (true, (-32768)::int2, (-2147483648)::int4, (-9223372036854775808)::int8,
            'NaN'::float4, '-Infinity'::float8),
           (false, 32767::int2, 2147483647, 9223372036854775807, 3.4028235e38, 5e-324),
           (NULL, NULL, NULL, NULL, NULL, NULL)) AS t(b, s, i, l, f, d)",
    )
    .await;
    assert!(refused.is_empty());
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    assert!((0..6).all(|index| batch.column(index).is_null(2)));
    assert!(column("b").as_boolean().value(0) && !column("b").as_boolean().value(1));
    assert_eq!(column("s").as_primitive::<Int16Type>().values()[..2], [i16::MIN, i16::MAX]);
    assert_eq!(column("i").as_primitive::<Int32Type>().values()[..2], [i32::MIN, i32::MAX]);
    assert_eq!(column("l").as_primitive::<Int64Type>().values()[..2], [i64::MIN, i64::MAX]);
    let singles = column("f").as_primitive::<Float32Type>().clone();
    assert!(singles.value(0).is_nan() && singles.value(1) == f32::MAX);
    let doubles = column("d").as_primitive::<Float64Type>().clone();
    assert_eq!(doubles.values()[..2], [f64::NEG_INFINITY, 5e-324]);
}

#[tokio::test]
async fn every_numeric_is_exact() {
    let source = source(
        json!({"query": "SELECT n, n::numeric(20,5) AS narrow, n AS free FROM (
            SELECT ((-1)^i * i * 1000003 * 7::numeric^(i % 5) / 100000)::numeric(38,10) AS n
            FROM generate_series(0, 3000) i) t"}),
        Some(&decimals(&[("free", 38, 12)])),
    );
    let (batch, refused, read) = all(&*source, &Bindings::new()).await;
    assert_eq!((read, refused.len()), (3001, 0));
    let (expected, ..) = query(
        "SELECT n::text AS n, n::numeric(20,5)::text AS narrow, n::numeric(38,12)::text AS free
         FROM (SELECT ((-1)^i * i * 1000003 * 7::numeric^(i % 5) / 100000)::numeric(38,10) AS n
               FROM generate_series(0, 3000) i) t",
    )
    .await;
    for name in ["n", "narrow", "free"] {
        let column = batch.column_by_name(name).unwrap().as_primitive::<Decimal128Type>();
        let shown: Vec<_> = (0..3001).map(|row| Some(column.value_as_string(row))).collect();
        if name != "free" {
            assert_eq!(shown, texts(&expected, name), "{name}");
        }
    }
    // `free` carries the modifier of its inner cast, since PostgreSQL keeps it.
    assert_eq!(batch.schema().field(2).data_type(), &DataType::Decimal128(38, 10));
}

#[tokio::test]
async fn an_unconstrained_numeric_takes_its_precision_from_the_contract() {
    let sql = "SELECT i AS id, n FROM (VALUES
        (1, '1.50'::numeric), (2, 'NaN'), (3, '1.005'), (4, 'Infinity'), (5, '-Infinity'),
        (6, NULL), (7, 1e13), (8, '9999999999999.99'), (9, '1.5000000'), (10, '-0.01'))
        AS t(i, n)";
    let error = source(json!({"query": sql}), None).schema(&Bindings::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("column n"), "{error}");
    assert!(error.advice().unwrap().contains("decimal("));

    let types = decimals(&[("n", 15, 2)]);
    let (batch, refused, read) =
        all(&*source(json!({"query": sql}), Some(&types)), &Bindings::new()).await;
    assert_eq!(read, 10);
    let ids = batch.column(0).as_primitive::<Int32Type>();
    assert_eq!(ids.values(), &[1, 6, 8, 9, 10]);
    let numbers = batch.column(1).as_primitive::<Decimal128Type>();
    assert_eq!(
        numbers.iter().collect::<Vec<_>>(),
        [Some(150), None, Some(999_999_999_999_999), Some(150), Some(-1)]
    );
    let shown: Vec<_> = refused.iter().map(|one| one.row["n"].as_str().unwrap()).collect();
    assert_eq!(shown, ["NaN", "1.005", "Infinity", "-Infinity", "10000000000000"]);
    assert!(refused.iter().all(|one| one.rule == "type decimal(15,2)"
        && one.column.as_deref() == Some("n")
        && one.row["id"].is_number()));
}

#[tokio::test]
async fn thirty_eight_nines_and_stranger_scales() {
    let nines = "9".repeat(38);
    let (batch, ..) = query(&format!(
        "SELECT '{nines}'::numeric(38,0) AS a, '-0.{nines}'::numeric(38,38) AS b,
                12300::numeric(3,-2) AS c, 0.00123::numeric(3,5) AS d, 'NaN'::numeric(5,2) IS NULL AS e"
    ))
    .await;
    let decimal = |index: usize| batch.column(index).as_primitive::<Decimal128Type>().value(0);
    assert_eq!(decimal(0), 10_i128.pow(38) - 1);
    assert_eq!(decimal(1), 1 - 10_i128.pow(38));
    assert_eq!(decimal(2), 12_300);
    assert_eq!(decimal(3), 123);
}

#[tokio::test]
async fn times_are_exact_and_infinity_is_refused() {
    let (batch, refused, read) = query(
        "SELECT * FROM (VALUES
           (DATE '1969-12-31', TIME '23:59:59.999999', TIMESTAMP '1969-12-31 23:59:59.999999',
            TIMESTAMPTZ '1999-12-31 23:59:59.999999+00'),
           (DATE '4713-01-01 BC', TIME '00:00', TIMESTAMP '4713-01-01 00:00:00 BC',
            TIMESTAMPTZ '2026-11-19 00:00:00.000001+01'),
           (DATE '5874897-12-31', NULL, NULL, NULL),
           ('infinity', NULL, NULL, NULL),
           (NULL, NULL, '-infinity', 'infinity'),
           (NULL, TIME '24:00:00', NULL, NULL),
           (NULL, NULL, TIMESTAMP '294276-12-31 23:59:59.999999', NULL)) AS t(d, t, ts, tz)",
    )
    .await;
    assert_eq!((read, batch.num_rows()), (7, 3));
    let days = batch.column(0).as_primitive::<Date32Type>();
    assert_eq!(days.values()[..], [-1, -2_440_550, 2_145_042_905][..]);
    let times = batch.column(1).as_primitive::<Time64MicrosecondType>();
    assert_eq!(times.value(0), 86_399_999_999);
    let civil = batch.column(2).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(civil.value(0), -1);
    assert_eq!(civil.value(1), -2_440_550 * 86_400_000_000);
    let instants = batch.column(3).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(instants.value(0), 946_684_799_999_999);
    assert_eq!(instants.value(1), 1_795_042_800_000_001);
    assert_eq!(FieldType::of_arrow(instants.data_type()), Some(FieldType::Instant));
    let seen: Vec<_> = refused
        .iter()
        .map(|one| (one.rule.as_str(), one.column.as_deref().unwrap(), &one.row))
        .map(|(rule, column, row)| (rule, column, row[column].as_str().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            ("infinity", "d", "infinity"),
            ("infinity", "ts", "-infinity"),
            ("type time(us)", "t", "24:00:00"),
            ("type timestamp(us)", "ts", "9223371331199999999 microseconds after 2000"),
        ]
    );
    assert_eq!(refused[1].row["tz"], "infinity");
}

#[tokio::test]
async fn texts_and_bytes_arrive_as_postgresql_prints_them() {
    let values = "
        ('', 'é\"\n,', 'a  '::char(5), 'n'::name, '{\"a\": 1}'::json,
         '{\"a\": 12345678901234567890.10}'::jsonb, '<a>é</a>'::xml,
         'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid, '\\x00ff'::bytea,
         '192.168.0.1'::inet, '10.0.0.0/8'::inet, '10.0.0.0/8'::cidr,
         '::ffff:1.2.3.4'::inet, '08:00:2b:01:02:03'::macaddr),
        (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";
    let names = "e, t, c, n, j, jb, x, u, b, i, ii, ci, v6, m";
    let (batch, ..) = query(&format!("SELECT * FROM (VALUES {values}) AS t({names})")).await;
    assert!((0..14).all(|index| batch.column(index).is_null(1)));
    for (name, expected) in [
        ("e", ""),
        ("t", "é\"\n,"),
        ("c", "a    "),
        ("n", "n"),
        ("j", "{\"a\": 1}"),
        ("jb", "{\"a\": 12345678901234567890.10}"),
        ("x", "<a>é</a>"),
        ("u", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("i", "192.168.0.1"),
        ("ii", "10.0.0.0/8"),
        ("ci", "10.0.0.0/8"),
        ("v6", "::ffff:1.2.3.4"),
        ("m", "08:00:2b:01:02:03"),
    ] {
        assert_eq!(texts(&batch, name)[0].as_deref(), Some(expected), "{name}");
    }
    assert_eq!(batch.column_by_name("b").unwrap().as_binary::<i32>().value(0), [0, 255]);
}

#[tokio::test]
async fn literals_survive_hostile_strings() {
    let hostile = [
        "",
        "'",
        "''",
        "\\",
        "\\'",
        "'; DROP TABLE x; --",
        "$$",
        "$1",
        ":name",
        "é\u{10ffff}",
        "/* */",
        "--\n",
        "\"",
        "E'\\n'",
        "\u{7f}\t\r\n",
        "'::text || '",
    ];
    let values = hostile.iter().map(|text| Value::String((*text).to_owned()));
    let at = |text: &str| Value::Timestamp(text.parse().unwrap());
    let day = |text: &str| Value::Date(text.parse().unwrap());
    let values = values.chain([
        Value::Int64(i64::MIN),
        Value::Int64(i64::MAX),
        Value::Bool(true),
        day("2026-11-19"),
        day("0000-02-29"),
        at("1969-12-31T23:59:59.999999Z"),
        at("2026-11-19T00:00:00+01:00"),
    ]);
    let client = postgres::connect(&connection(), "test").await.unwrap();
    for setting in ["on", "off"] {
        let set =
            format!("SET standard_conforming_strings = {setting}; SET timezone = 'Asia/Tokyo'");
        client.batch_execute(&set).await.unwrap();
        for value in values.clone() {
            let sql = format!("SELECT{}AS v", postgres::literal(&value).unwrap());
            let row = client.query_one(&sql, &[]).await.unwrap();
            match &value {
                Value::String(text) => assert_eq!(&row.get::<_, String>(0), text),
                Value::Int64(number) => assert_eq!(row.get::<_, i64>(0), *number),
                Value::Bool(flag) => assert_eq!(row.get::<_, bool>(0), *flag),
                Value::Date(date) => assert_eq!(row.get::<_, jiff::civil::Date>(0), *date),
                Value::Timestamp(at) => assert_eq!(row.get::<_, jiff::Timestamp>(0), *at),
            }
        }
    }
    client.close().await;
    let bindings = Bindings::from([("t".to_owned(), Value::String("a\\'b:t".to_owned()))]);
    let source = source(json!({"query": "SELECT :t AS v, ':t'::text AS w -- :t\n;"}), None);
    let (batch, ..) = all(&*source, &bindings).await;
    assert_eq!(texts(&batch, "v"), [Some("a\\'b:t".to_owned())]);
    assert_eq!(texts(&batch, "w"), [Some(":t".to_owned())]);
}

#[tokio::test]
async fn a_table_with_hostile_names_enums_and_domains() {
    let client = postgres::connect(&connection(), "test").await.unwrap();
    client
        .batch_execute(
            "DROP SCHEMA IF EXISTS \"d1 \"\"src\" CASCADE; CREATE SCHEMA \"d1 \"\"src\";
             SET search_path = \"d1 \"\"src\";
             CREATE TYPE mood AS ENUM ('très', 'ok'); CREATE DOMAIN money2 AS numeric(15,2);
             CREATE TABLE \"or'ders\" (\"i:d\" int8, m mood, d money2, h text, a int4[]);
             INSERT INTO \"or'ders\" VALUES (1, 'très', 1.25, 'x', '{1}'), (2, 'ok', 'NaN', 'y', NULL);",
        )
        .await
        .unwrap();
    let table = "d1 \"src.or'ders";
    let bindings = Bindings::from([("least".to_owned(), Value::Int64(1))]);
    let wanted = source(
        json!({"table": table, "columns": ["m", "i:d", "d"], "where": "\"i:d\" >= :least -- all"}),
        None,
    );
    let (batch, refused, _) = all(&*wanted, &bindings).await;
    assert_eq!(texts(&batch, "m"), [Some("très".to_owned())]);
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(refused[0].rule, "type decimal(15,2)");
    assert_eq!(refused[0].row, *json!({"m": "ok", "i:d": 2, "d": "NaN"}).as_object().unwrap());

    let error = source(json!({"table": table}), None).schema(&bindings).await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("int4[]") && error.to_string().contains("column a"));
    let missing = source(json!({"table": "d1 \"src.nowhere"}), None);
    let error = missing.read(&bindings).await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("42P01") && error.to_string().contains("shop"), "{error}");
    client.batch_execute("DROP SCHEMA \"d1 \"\"src\" CASCADE").await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn errors_never_quote_a_value() {
    for sql in ["SELECT ('sec' || 'ret')::int4 AS n", "SELECT 'sec' 'ret' || 5 5 AS n"] {
        let rows = source(json!({"query": sql}), None).read(&Bindings::new()).await;
        let error = match rows {
            Ok(rows) => rows.stream.try_collect::<Vec<_>>().await.map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.class(), Class::Permanent);
        assert!(!error.to_string().contains("ret"), "{error}");
        assert!(error.to_string().contains("SQLSTATE"), "{error}");
    }
    // A word of the definition is told.
    let wrong = source(json!({"query": "SELECT 1 AS n form pg_class orders whre x"}), None);
    let error = wrong.read(&Bindings::new()).await.map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("syntax error at or near \"form\" (SQLSTATE 42601)"), "{text}");
}

#[tokio::test]
async fn what_the_server_refuses_is_told_in_words() {
    let failure = async |sql: &str| {
        let rows = source(json!({"query": sql}), None).read(&Bindings::new()).await;
        match rows {
            Ok(rows) => rows.stream.try_collect::<Vec<_>>().await.map(|_| ()).unwrap_err(),
            Err(error) => error,
        }
        .to_string()
    };
    for (sql, words) in [
        (
            "SELECT 1 / (i - 1) AS n FROM generate_series(0, 3) i",
            "division by zero (SQLSTATE 22012",
        ),
        ("SELECT 1 AS n; SELECT 2 AS n", "cannot insert multiple commands"),
        ("SELECT i::int2 AS n FROM generate_series(99999, 99999) i", "out of the range"),
        ("SELECT ('sec' || 'ret')::date AS n", "a text is no date or time (SQLSTATE 22007)"),
    ] {
        let said = failure(sql).await;
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn what_does_more_than_read_is_refused_when_planned() {
    for sql in [
        "DELETE FROM pg_class RETURNING relname",
        "WITH gone AS (DELETE FROM pg_class RETURNING relname) SELECT * FROM gone",
        "SHOW ALL",
        "EXPLAIN SELECT 1",
    ] {
        let error = source(json!({"query": sql}), None).schema(&Bindings::new()).await.unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        assert!(error.to_string().contains("is not a query that only reads"), "{error}");
        assert!(error.advice().unwrap().contains("SELECT"), "{error}");
    }
    for sql in [
        "VALUES (1, 'a')",
        "TABLE pg_catalog.pg_am",
        "WITH one AS (SELECT 1 AS a) SELECT a FROM one -- the end",
        "(SELECT 1 AS a UNION SELECT 2) ORDER BY a LIMIT 1",
    ] {
        // `regproc` of pg_am has no counterpart.
        if let Err(error) = source(json!({"query": sql}), None).schema(&Bindings::new()).await {
            assert!(error.to_string().contains("counterpart"), "{sql}: {error}");
        }
    }
}

#[tokio::test]
async fn all_columns_without_a_counterpart_are_told_at_once() {
    let sql = "SELECT 1 AS id, 1.5::numeric AS n, '1 day'::interval AS i, '{a}'::text[] AS t,
                      1::money AS m, '12:00+01'::timetz AS z, '[1,2)'::int4range AS r";
    let error = source(json!({"query": sql}), None).schema(&Bindings::new()).await.unwrap_err();
    assert_eq!(
        error.message(),
        "6 columns have no exact counterpart: `n` (a numeric without known precision), \
         `i` (the type interval), `t` (the type text[]), `m` (the type money), `z` (the type \
         timetz), `r` (the type int4range)"
    );
    let help = error.advice().unwrap();
    assert!(help.contains("n = { type = \"decimal(18,4)\" }"), "{help}");
    assert!(help.contains("i = { type = \"string\" }"), "{help}");
    let types: Types = ["n", "i", "t", "m", "z", "r", "id"]
        .map(|name| (name.to_owned(), FieldType::String))
        .into_iter()
        .collect();
    let (batch, ..) = all(&*source(json!({"query": sql}), Some(&types)), &Bindings::new()).await;
    for (name, expected) in [
        ("id", "1"),
        ("n", "1.5"),
        ("i", "1 day"),
        ("t", "{a}"),
        ("z", "12:00:00+01"),
        ("r", "[1,2)"),
    ] {
        assert_eq!(texts(&batch, name)[0].as_deref(), Some(expected), "{name}");
    }
}

/// With a transform a column of the source need not be what one of the same name is promised to be.
#[tokio::test]
async fn behind_a_transform_only_what_has_no_counterpart_is_text() {
    let types = ["n", "i"].map(|name| (name.to_owned(), FieldType::String));
    let promised = Promised { types: types.into_iter().collect(), transformed: true, drop: false };
    let config = json!({
        "connection": "shop",
        "query": "SELECT 1.50::numeric(15,2) AS n, '1 day'::interval AS i",
    });
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let source = build(&config, &connection(), Some(&promised), &Budget::default()).unwrap();
    let schema = source.schema(&Bindings::new()).await.unwrap();
    assert_eq!(schema.field(0).data_type(), &DataType::Decimal128(15, 2));
    assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
}

/// What is printed so that it does not read back is refused, and the query's own words mean what they did.
#[tokio::test]
async fn a_role_that_prints_in_its_own_way_is_refused() {
    let client = postgres::connect(&connection(), "test").await.unwrap();
    let role = format!("longshore_test_{}", uuid::Uuid::now_v7().simple());
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let mut own = connection();
    let mut url = servers::postgres();
    url.set_username(&role).unwrap();
    url.set_password(None).unwrap();
    own.url = url.to_string();
    let config = |sql: &str| -> SourceConfig {
        serde_json::from_value(json!({"connection": "shop", "query": sql})).unwrap()
    };
    let types: Types = [("v".to_owned(), FieldType::String)].into_iter().collect();
    let promised = Promised { types, ..Promised::default() };
    let printed = config("SELECT ARRAY[date '2026-11-19'] AS v");
    let own_words = config("SELECT (date '2026-11-19')::text AS v, inet '10.0.0.1' AS ip");
    let schema = async |config: &SourceConfig| {
        let source = build(config, &own, Some(&promised), &Budget::default()).unwrap();
        source.schema(&Bindings::new()).await.map(|_| ())
    };
    let mut told = Vec::new();
    for (name, value) in
        [("DateStyle", "German"), ("IntervalStyle", "sql_standard"), ("extra_float_digits", "0")]
    {
        client.batch_execute(&format!("ALTER ROLE {role} SET {name} = '{value}'")).await.unwrap();
        told.push((name, schema(&printed).await, schema(&own_words).await));
        client.batch_execute(&format!("ALTER ROLE {role} RESET {name}")).await.unwrap();
    }
    let fine = schema(&printed).await;
    client.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    client.close().await;
    fine.unwrap();
    for (name, printed, own_words) in told {
        let error = printed.unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.advice().unwrap().contains(&format!("SET {name} = ")), "{error}");
        own_words.unwrap();
    }
}

#[tokio::test]
async fn batches_are_bounded_and_one_snapshot_is_read() {
    let wide = source(
        json!({"query": "SELECT repeat('x', 1000000) AS t FROM generate_series(1, 30)"}),
        None,
    );
    let rows = wide.read(&Bindings::new()).await.unwrap();
    let sizes: Vec<_> =
        rows.stream.map_ok(|batch| batch.rows.num_rows()).try_collect().await.unwrap();
    assert_eq!(sizes, [5, 5, 5, 5, 5, 5]);
    let long = source(json!({"query": "SELECT i FROM generate_series(1, 20000) i"}), None);
    let rows = long.read(&Bindings::new()).await.unwrap();
    let sizes: Vec<_> =
        rows.stream.map_ok(|batch| batch.rows.num_rows()).try_collect().await.unwrap();
    assert_eq!(sizes, [8192, 8192, 3616]);
    let (empty, _, read) = query("SELECT 1::int4 AS i WHERE false").await;
    assert_eq!((empty.num_rows(), read), (0, 0));
}

#[tokio::test]
async fn dropping_the_stream_cancels_the_query() {
    let marker = "d1-drop-marker";
    let endless = source(
        json!({"query": format!(
            "SELECT i, pg_sleep(CASE WHEN i > 20000 THEN 60 END)::text AS z, '{marker}' AS m
             FROM generate_series(1, 1000000) i")}),
        None,
    );
    let mut rows = endless.read(&Bindings::new()).await.unwrap();
    assert_eq!(rows.stream.next().await.unwrap().unwrap().read, 8192);
    let watcher = postgres::connect(&connection(), "test").await.unwrap();
    let count = "SELECT count(*) FROM pg_stat_activity
                 WHERE query LIKE '%d1-drop-marker%' AND pid <> pg_backend_pid()";
    let running = watcher.query_one(count, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(running, 1);
    drop(rows);
    let since = Instant::now();
    while watcher.query_one(count, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "the query goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    watcher.close().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_unavailable() {
    let mut away = connection();
    away.url = "postgres://postgres@127.0.0.1:1/postgres".to_owned();
    let error = postgres::connect(&away, "test").await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    away.url = connection().url.replace("postgres@", "nobody_here@");
    let error = postgres::connect(&away, "test").await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Permanent, "{error}");
}

#[tokio::test]
async fn a_query_that_writes_is_the_querys_fault() {
    let client = postgres::connect(&connection(), "test").await.unwrap();
    let sequence = format!("longshore_test_{}", uuid::Uuid::now_v7().simple());
    client.batch_execute(&format!("CREATE SEQUENCE {sequence}")).await.unwrap();
    let writes = source(json!({"query": format!("SELECT nextval('{sequence}') AS n")}), None);
    let read = async {
        let rows = writes.read(&Bindings::new()).await?;
        rows.stream.try_collect::<Vec<_>>().await
    };
    let error = read.await.unwrap_err();
    client.batch_execute(&format!("DROP SEQUENCE {sequence}")).await.unwrap();
    assert_eq!(error.class(), Class::Permanent, "{error}");
    assert!(error.to_string().contains("25006"), "{error}");
}
