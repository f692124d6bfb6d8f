//! The sink of PostgreSQL: what all sinks of tables must do, and what is its own.

mod refusals;
mod rights;
mod waits;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::*;
use async_trait::async_trait;
use futures::FutureExt;
use longshore::connect::{Connection, postgres};
use longshore::error::{Class, Error};
use longshore::sink::postgres::PostgresSink;
use longshore::sink::{Begun, Merge, Mode, Sink};

use crate::sink_table::{self, Target, batch, decision, deliver, first, next, stream};
use crate::support::servers;

/// A schema, dropped when the test is over.
struct Postgres {
    schema: String,
    client: postgres::Client,
}

fn connection() -> Connection {
    let json = serde_json::json!({"type": "postgres", "url": servers::postgres().as_str()});
    let mut connection: Connection = serde_json::from_value(json).unwrap();
    connection.name = "warehouse".to_owned();
    connection
}

impl Postgres {
    async fn value(&self, sql: &str) -> String {
        let sql = sql.replace("{}", &format!("{}.", self.schema));
        self.client.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// As which user the sink connects.
    fn sink_as(&self, user: &str, table: &str, how: Merge) -> PostgresSink {
        let mut connection = connection();
        let mut url = url::Url::parse(&connection.url).unwrap();
        url.set_username(user).unwrap();
        connection.url = url.into();
        let table = format!("{}.{table}", self.schema);
        PostgresSink::new(&connection, &table, how).unwrap()
    }
}

#[async_trait]
impl Target for Postgres {
    fn sink_with(&self, table: &str, how: Merge) -> Box<dyn Sink> {
        let table = format!("{}.{table}", self.schema);
        Box::new(PostgresSink::new(&connection(), &table, how).unwrap())
    }

    async fn execute(&self, sql: &str) {
        let sql = sql.replace("{}", &format!("{}.", self.schema));
        self.client.batch_execute(&sql).await.unwrap();
    }

    async fn lines(&self, sql: &str) -> Vec<String> {
        let sql = sql.replace("{}", &format!("{}.", self.schema));
        let rows = self.client.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn rows(&self) -> Vec<(i64, Option<String>)> {
        let sql = format!("SELECT id, name FROM {}.t ORDER BY id", self.schema);
        let rows = self.client.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn stages(&self) -> Vec<String> {
        let sql = "SELECT schemaname || '.' || tablename FROM pg_tables
                   WHERE schemaname = $1 AND tablename LIKE 'longshore_stage_%'";
        let rows = self.client.query(sql, &[&self.schema]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

async fn with(test: impl AsyncFnOnce(&Postgres)) {
    let schema = format!("sink_{}", uuid::Uuid::now_v7().simple());
    let target =
        Postgres { schema, client: postgres::connect(&connection(), "test").await.unwrap() };
    let create = "CREATE TABLE {}t (id bigint PRIMARY KEY, name text)";
    target.execute(&format!("CREATE SCHEMA {}; {create}", target.schema)).await;
    let outcome = AssertUnwindSafe(test(&target)).catch_unwind().await;
    target.execute(&format!("DROP SCHEMA {} CASCADE", target.schema)).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

sink_table::cases!(with);

fn one(name: &str, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(name, array, true)]).unwrap()
}

#[tokio::test]
async fn every_type_arrives_exactly() {
    with(async |target| {
        target
            .execute(
                "CREATE TABLE {}every (b boolean, i2 smallint, i4 integer, i8 bigint, f4 real,
                     f8 double precision, d numeric(38,10), s text, x bytea, day date, clock time,
                     civil timestamp, instant timestamptz)",
            )
            .await;
        let nines = 10_i128.pow(38) - 1;
        let decimals = Decimal128Array::from(vec![Some(-nines), Some(1), None]);
        let hostile = "a\tb\r\n\\.\\N'\";--\u{1f980}";
        let times = vec![Some(86_400_000_000), Some(1), None];
        // 9999-12-31 23:59:59.999999, and 4713-01-01 BC.
        let micros = vec![Some(253_402_300_799_999_999), Some(-210_863_520_000_000_000), None];
        let columns: [(&str, ArrayRef); 13] = [
            ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("i2", Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), None]))),
            ("i4", Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None]))),
            ("i8", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None]))),
            ("f4", Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::NAN), None]))),
            ("f8", Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NEG_INFINITY), None]))),
            ("d", Arc::new(decimals.with_precision_and_scale(38, 10).unwrap())),
            ("s", Arc::new(StringArray::from(vec![Some(hostile), Some(""), None]))),
            ("x", Arc::new(BinaryArray::from(vec![Some(&[0, 92, 255][..]), Some(&[]), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(2_932_896), Some(-719_529), None]))),
            ("clock", Arc::new(Time64MicrosecondArray::from(times))),
            ("civil", Arc::new(TimestampMicrosecondArray::from(micros.clone()))),
            ("instant", Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns.map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        let sink = target.sink_to("every", Mode::Append, &[]);
        deliver(&*sink, &first(), vec![rows]).await.unwrap();
        target.execute("SET TimeZone = 'UTC'").await;
        let expected = target
            .client
            .query_one(
                "SELECT ROW(true, -32768, -2147483648, -9223372036854775808, 0.1::real, '-0'::float8,
                            -9999999999999999999999999999.9999999999, $1::text, '\\x005cff'::bytea,
                            date '9999-12-31', time '24:00', timestamp '9999-12-31 23:59:59.999999',
                            timestamptz '9999-12-31 23:59:59.999999Z')::text",
                &[&hostile],
            )
            .await
            .unwrap()
            .get::<_, String>(0);
        let found = async |nth: u8| {
            target.value(&format!("SELECT e::text FROM {{}}every e OFFSET {nth} LIMIT 1")).await
        };
        assert_eq!(found(0).await, expected);
        let expected = target
            .value(
                "SELECT ROW(false, 32767, 2147483647, 9223372036854775807, 'NaN'::real,
                            '-infinity'::float8, 0.0000000001, '', ''::bytea, date '0002-12-31 BC',
                            time '00:00:00.000001', timestamp '4713-01-01 BC',
                            timestamptz '4713-01-01 00:00Z BC')::text",
            )
            .await;
        assert_eq!(found(1).await, expected);
        assert_eq!(found(2).await, "(,,,,,,,,,,,,)");
    })
    .await;
}

#[tokio::test]
async fn decimals_keep_every_digit_at_every_scale() {
    with(async |target| {
        let mut values: Vec<i128> = vec![0];
        for power in 0..38 {
            let unit = 10_i128.pow(power);
            values.extend([unit, unit - 1, unit + 1, -unit, 7 * unit - 3, unit / 3 * 2]);
        }
        values.retain(|value| value.abs() < 10_i128.pow(38));
        let arrays: Vec<Decimal128Array> = (0..=38)
            .map(|scale| {
                Decimal128Array::from(values.clone()).with_precision_and_scale(38, scale).unwrap()
            })
            .collect();
        let names: Vec<String> = (0..=38).map(|scale| format!("d{scale}")).collect();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        let columns = names.iter().map(String::as_str).zip(&arrays);
        let columns = columns.map(|(name, array)| (name, Arc::new(array.clone()) as ArrayRef));
        let columns = std::iter::once(("n", numbers)).chain(columns);
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let types = names.join(" numeric, ");
        target.execute(&format!("CREATE TABLE {{}}d (n bigint, {types} numeric)")).await;
        let sink = target.sink_to("d", Mode::Append, &[]);
        deliver(&*sink, &first(), vec![rows]).await.unwrap();
        for (name, array) in names.iter().zip(&arrays) {
            let sql = format!("SELECT {name}::text FROM {}.d ORDER BY n", target.schema);
            let found = target.client.query(&sql, &[]).await.unwrap();
            assert_eq!(found.len(), values.len());
            for (row, found) in found.iter().enumerate() {
                assert_eq!(found.get::<_, String>(0), array.value_as_string(row), "{name}");
            }
        }
    })
    .await;
}

fn decimal(value: i128, precision: u8, scale: i8) -> ArrayRef {
    let array = Decimal128Array::from(vec![value]);
    Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

/// Types that a database adds to those of PostgreSQL.
const TYPES: &str = "CREATE TYPE {}mood AS ENUM ('sad', 'ok');
                     CREATE DOMAIN {}code AS varchar(3) CHECK (VALUE <> 'bad')";

/// Delivers a column to a new table `v`, the only column of which is of a type.
async fn deliver_as(target: &Postgres, kind: &str, array: ArrayRef) -> Result<(), Error> {
    target.execute(&format!("DROP TABLE IF EXISTS {{}}v; CREATE TABLE {{}}v (v {kind})")).await;
    deliver(&*target.sink_to("v", Mode::Append, &[]), &first(), vec![one("v", array)]).await
}

#[tokio::test]
async fn values_become_the_types_of_the_table() {
    with(async |target| {
        target.execute(TYPES).await;
        let uuid = "5ac2dbd1-53b5-4f8c-a4d0-5b8ab9a2e0a4";
        for (kind, array, expected) in [
            ("uuid", text(uuid), uuid),
            ("json", text("{\"b\": 9007199254740993}"), "{\"b\": 9007199254740993}"),
            ("jsonb", text("{\"b\": 9007199254740993}"), "{\"b\": 9007199254740993}"),
            ("{}mood", text("ok"), "ok"),
            ("{}code", text("abc"), "abc"),
            ("varchar(3)", text("æøå"), "æøå"),
            ("char(4)", text("NO"), "NO"),
            ("numeric(5,0)", Arc::new(Int16Array::from(vec![i16::MIN])), "-32768"),
            ("numeric(12,4)", decimal(-123_456_789, 10, 2), "-1234567.8900"),
            ("bigint", decimal(999_999_999_999_999_999, 18, 0), "999999999999999999"),
            ("integer", Arc::new(Int16Array::from(vec![-1])), "-1"),
            ("double precision", Arc::new(Float32Array::from(vec![0.5])), "0.5"),
            ("double precision", Arc::new(Int32Array::from(vec![i32::MAX])), "2147483647"),
        ] {
            deliver_as(target, kind, array).await.unwrap();
            assert_eq!(target.value("SELECT v::text FROM {}v").await, expected, "{kind}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_would_lose_something_is_refused() {
    with(async |target| {
        target.execute(TYPES).await;
        let stamp = || Arc::new(TimestampMicrosecondArray::from(vec![1])) as ArrayRef;
        for (kind, array) in [
            ("numeric(10,1)", decimal(1, 10, 2)),
            ("numeric(9,2)", decimal(1, 10, 2)),
            ("double precision", decimal(1, 10, 2)),
            ("bigint", decimal(1, 19, 0)),
            ("integer", Arc::new(Int64Array::from(vec![1]))),
            ("real", Arc::new(Int32Array::from(vec![1]))),
            ("real", Arc::new(Float64Array::from(vec![1.0]))),
            ("numeric", Arc::new(Float64Array::from(vec![1.0]))),
            ("timestamp(3)", stamp()),
            ("timestamptz", stamp()),
            ("text", Arc::new(Int64Array::from(vec![1]))),
            ("bytea", text("SECRET")),
            ("varchar(3)", text("SECRET")),
            ("varchar(3)", text("abc ")),
            ("char(3)", text("SECRET")),
            ("{}code", text("SECRET")),
            ("text", text("SECRET\0")),
            ("{}code", text("bad")),
            ("uuid", text("SECRET")),
            ("json", text("SECRET")),
            ("jsonb", text("\"SECRET \\u0000\"")),
            ("{}mood", text("SECRET")),
        ] {
            let error = deliver_as(target, kind, array).await.unwrap_err();
            assert_eq!(error.class(), Class::Contract, "{kind}: {error}");
            let shown = format!("{error} {:?}", error.advice());
            assert!(!shown.contains("SECRET"), "{shown}");
            assert!(shown.contains("column v") || shown.contains("code_check"), "{kind}: {shown}");
            assert_eq!(target.value("SELECT count(*)::text FROM {}v").await, "0");
        }
    })
    .await;
}

/// Each text would be cut, rounded, padded, completed or guessed at by a cast.
const CHANGED: [(&str, &str); 42] = [
    ("date", "01/02/2026"),
    ("date", "today"),
    ("date", "2026-11-19 05:00:00"),
    ("time", "12:30:60"),
    ("time", "12:00:00.0000001"),
    ("time", "12:00:00+02"),
    ("timetz", "12:00:00"),
    ("timetz", "12:00:00+001530"),
    ("timestamp", "2026-11-19 05:00:00+02"),
    ("timestamp", "2026-11-19 05:00:00.1234567"),
    ("timestamp", "2026-11-19 24:00:00"),
    ("timestamptz", "2026-11-19 05:00:00"),
    ("timestamptz", "2026-11-19 05:00:00 CET"),
    ("timestamptz", "now"),
    ("interval", "0.5 us"),
    ("interval", "1.55 years"),
    ("interval(3)", "00:00:01.123456"),
    ("interval year to month", "3 days 04:05:06"),
    ("bit(6)", "10101"),
    ("bit(5)", "X1234"),
    ("bit varying(5)", "XFF"),
    ("bit varying", "B10101"),
    ("\"char\"", "\\abc"),
    ("name", "a name of more than sixty-three bytes, of which a cast would cut those behind"),
    ("numeric(5,2)[]", "{1.239}"),
    ("varchar(3)[]", "{abcdef}"),
    ("character(3)[]", "{ab}"),
    ("timestamp[]", "{\"2026-11-19 05:00:00+02\"}"),
    ("date[]", "{01/02/2026,today}"),
    ("real[]", "{0.123456789}"),
    ("{}cents2", "1.239"),
    ("{}cents[]", "{1.239}"),
    ("{}of_all", "(1.239,abcdef,ab)"),
    ("numrange", "[ 1.0 , 2 )"),
    ("daterange", "[2026-11-19,2026-11-20]"),
    ("xid", "abc"),
    ("macaddr8", "08:00:2b:01:02:03"),
    ("cidr", "10"),
    ("inet", "10.0.0.1/32"),
    ("tsvector", "a a"),
    ("integer[]", "{1, 2}"),
    ("{}hstore_like", "(1)"),
];

#[tokio::test]
async fn a_text_that_its_column_would_change_is_refused() {
    with(async |target| {
        target
            .execute(
                "CREATE DOMAIN {}cents AS numeric(5,2); CREATE DOMAIN {}cents2 AS {}cents;
                 CREATE TYPE {}of_all AS (n numeric(5,2), v varchar(3), c character(3));
                 CREATE TYPE {}hstore_like AS (a varchar(1), b varchar(1));",
            )
            .await;
        for (kind, value) in CHANGED {
            let error = deliver_as(target, kind, text(value)).await.err();
            let error = error.unwrap_or_else(|| panic!("{kind} takes {value:?}"));
            assert_eq!(error.class(), Class::Contract, "{kind}, {value:?}: {error}");
            assert!(error.context().contains(&("column", "v".to_owned())), "{kind}: {error}");
            // A short one may well be in the schema's random name.
            assert!(!error.message().contains(value), "{kind}: {error}");
            assert_eq!(target.value("SELECT count(*)::text FROM {}v").await, "0");
        }
        // Digits that the server's currency has not, and more than it holds.
        for amount in [decimal(1_005, 38, 3), decimal(10_i128.pow(30), 38, 2)] {
            let error = deliver_as(target, "money", amount).await.unwrap_err();
            assert_eq!(error.class(), Class::Contract, "{error}");
            assert!(error.context().contains(&("column", "v".to_owned())), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_that_cannot_be_cast_names_its_column_and_not_itself() {
    with(async |target| {
        target.execute("CREATE TABLE {}v (a uuid, b uuid PRIMARY KEY)").await;
        let good = "5ac2dbd1-53b5-4f8c-a4d0-5b8ab9a2e0a4";
        let rows = RecordBatch::try_from_iter([("a", text(good)), ("b", text("SECRET"))]).unwrap();
        for mode in [Mode::Append, Mode::Upsert] {
            let sink = target.sink_to("v", mode, &["b"]);
            let error = deliver(&*sink, &first(), vec![rows.clone()]).await.unwrap_err();
            assert_eq!(error.class(), Class::Contract, "{error}");
            assert!(error.context().contains(&("column", "b".to_owned())), "{error}");
            assert!(!error.to_string().contains("SECRET"));
        }
    })
    .await;
}

#[tokio::test]
async fn generated_and_identity_columns() {
    with(async |target| {
        target
            .execute(
                "CREATE TABLE {}g (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text,
                                   twice text GENERATED ALWAYS AS (name || name) STORED);
                 CREATE TABLE {}w (name text PRIMARY KEY, id bigint GENERATED ALWAYS AS IDENTITY)",
            )
            .await;
        for mode in [Mode::Append, Mode::Upsert] {
            let sink = target.sink_to("g", mode, &["id"]);
            let id = if mode == Mode::Append { 7 } else { 8 };
            deliver(&*sink, &first(), vec![batch(&[(id, Some("a"))])]).await.unwrap();
        }
        let names = batch(&[(0, Some("b"))]).project(&[1]).unwrap();
        deliver(&*target.sink_to("g", Mode::Append, &[]), &first(), vec![names]).await.unwrap();
        let found = "SELECT string_agg(id || twice, ',' ORDER BY id) FROM {}g";
        assert_eq!(target.value(found).await, "1bb,7aa,8aa");
        let sink = target.sink_to("g", Mode::Append, &[]);
        let error = deliver(&*sink, &first(), vec![one("twice", text("x"))]).await.unwrap_err();
        assert!(error.to_string().contains("computes this column itself"), "{error}");
        let sink = target.sink_to("w", Mode::Upsert, &["name"]);
        let error = deliver(&*sink, &first(), vec![batch(&[(1, Some("a"))])]).await.unwrap_err();
        assert!(error.to_string().contains("cannot be updated"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn partitions_take_rows_and_views_and_triggers_are_told() {
    with(async |target| {
        target
            .execute(
                "CREATE TABLE {}p (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id);
                 CREATE TABLE {}p1 PARTITION OF {}p FOR VALUES FROM (0) TO (10);
                 CREATE VIEW {}v AS SELECT * FROM {}t;
                 CREATE FUNCTION {}skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                 CREATE TABLE {}k (id bigint, name text);
                 CREATE TRIGGER keeps BEFORE INSERT ON {}k
                     FOR EACH ROW EXECUTE FUNCTION {}skip()",
            )
            .await;
        let sink = target.sink_to("p", Mode::Upsert, &["id"]);
        deliver(&*sink, &first(), vec![batch(&[(1, Some("a"))])]).await.unwrap();
        deliver(&*sink, &first(), vec![batch(&[(1, Some("b"))])]).await.unwrap();
        assert_eq!(target.value("SELECT name FROM {}p").await, "b");
        for (table, word) in [("v", "no table"), ("k", "0 of 1 rows")] {
            let sink = target.sink_to(table, Mode::Append, &[]);
            let error = deliver(&*sink, &first(), vec![batch(&[(1, None)])]).await.unwrap_err();
            assert_eq!(error.class(), Class::Permanent, "{error}");
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(sink.close(&next(&first())).await.unwrap(), None);
        }
    })
    .await;
}

#[tokio::test]
async fn one_of_many_at_once_commits() {
    with(async |target| {
        let holder = first();
        let sinks: Vec<_> = (0..8).map(|_| target.sink(Mode::Append)).collect();
        let begun = futures::future::join_all(sinks.iter().map(|sink| sink.begin(&holder))).await;
        assert!(begun.into_iter().all(|begun| begun.unwrap() == Begun::Open));
        sinks[0].stage(&holder, stream(vec![batch(&[(1, None)])])).await.unwrap();
        let decision = decision(1);
        let commits = sinks.iter().map(|sink| sink.commit(&holder, &decision));
        for outcome in futures::future::join_all(commits).await {
            outcome.unwrap();
        }
        assert_eq!(target.rows().await, [(1, None)]);
    })
    .await;
}

#[tokio::test]
async fn large_rows_come_in_chunks() {
    with(async |target| {
        let wide = "x".repeat(100_000);
        let batches = (0..20).map(|nth| {
            let rows: Vec<_> = (0..50).map(|row| (nth * 50 + row, Some(wide.as_str()))).collect();
            batch(&rows)
        });
        deliver(&*target.sink(Mode::Append), &first(), batches.collect()).await.unwrap();
        let found = "SELECT count(*) || ' ' || sum(length(name)) FROM {}t";
        assert_eq!(target.value(found).await, "1000 100000000");
    })
    .await;
}
