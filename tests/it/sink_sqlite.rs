//! The sink of SQLite: what all sinks of tables must do, and what is its own.

use std::sync::Arc;

use arrow::array::*;
use async_trait::async_trait;
use longshore::connect::Connection;
use longshore::error::Class;
use longshore::sink::sqlite::SqliteSink;
use longshore::sink::{Merge, Mode, NewColumns, Sink};
use rusqlite::types::Value;
use tempfile::TempDir;

use crate::sink_table::{self, Target, deliver, first};

struct Sqlite {
    dir: TempDir,
}

impl Sqlite {
    fn connection(&self) -> Connection {
        let url = format!("sqlite:{}", self.dir.path().join("target.db").display());
        let json = serde_json::json!({"type": "sqlite", "url": url});
        let mut connection: Connection = serde_json::from_value(json).unwrap();
        connection.name = "warehouse".to_owned();
        connection
    }

    fn open(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.dir.path().join("target.db")).unwrap()
    }
}

#[async_trait]
impl Target for Sqlite {
    fn sink_with(&self, table: &str, how: Merge) -> Box<dyn Sink> {
        Box::new(SqliteSink::new(&self.connection(), table, how).unwrap())
    }

    async fn execute(&self, sql: &str) {
        self.open().execute_batch(&sql.replace("{}", "")).unwrap();
    }

    async fn lines(&self, sql: &str) -> Vec<String> {
        let database = self.open();
        let mut statement = database.prepare(&sql.replace("{}", "")).unwrap();
        let lines = statement.query_map([], |row| row.get(0)).unwrap();
        lines.map(Result::unwrap).collect()
    }

    async fn rows(&self) -> Vec<(i64, Option<String>)> {
        let database = self.open();
        let mut statement = database.prepare("SELECT id, name FROM t ORDER BY id").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    async fn stages(&self) -> Vec<String> {
        let database = self.open();
        let mut statement = database
            .prepare("SELECT name FROM sqlite_schema WHERE name LIKE 'longshore_stage_%'")
            .unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }
}

async fn with(test: impl AsyncFnOnce(&Sqlite)) {
    let target = Sqlite { dir: tempfile::tempdir().unwrap() };
    target.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)").await;
    test(&target).await;
}

sink_table::cases!(with);

#[tokio::test]
async fn every_type_is_stored_exactly() {
    with(async |target| {
        target
            .execute(
                "CREATE TABLE every (b BOOLEAN, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE,
                     d38 TEXT, whole INTEGER, s VARCHAR(9), x BLOB, day DATE, clock TIME,
                     civil DATETIME, instant TIMESTAMP)",
            )
            .await;
        let nines = 10_i128.pow(38) - 1;
        let decimals = Decimal128Array::from(vec![Some(-nines), Some(1), None]);
        let whole = Decimal128Array::from(vec![Some(-10_i128.pow(18) + 1), Some(0), None]);
        let end = 253_402_300_799_999_999; // 9999-12-31 23:59:59.999999
        let micros = vec![Some(end), Some(-1), None];
        let columns: [(&str, ArrayRef); 14] = [
            ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("i2", Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), None]))),
            ("i4", Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None]))),
            ("i8", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None]))),
            ("f4", Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::INFINITY), None]))),
            ("f8", Arc::new(Float64Array::from(vec![Some(5e-324), Some(f64::MIN), None]))),
            ("d38", Arc::new(decimals.with_precision_and_scale(38, 10).unwrap())),
            ("whole", Arc::new(whole.with_precision_and_scale(18, 0).unwrap())),
            ("s", Arc::new(StringArray::from(vec![Some("0012'; DROP"), Some(""), None]))),
            ("x", Arc::new(BinaryArray::from(vec![Some(&[0, 255][..]), Some(&[]), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(2_932_896), Some(-719_528), None]))),
            (
                "clock",
                Arc::new(Time64MicrosecondArray::from(vec![Some(86_399_999_999), Some(0), None])),
            ),
            ("civil", Arc::new(TimestampMicrosecondArray::from(micros.clone()))),
            ("instant", Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns.map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        let sink = target.sink_to("every", Mode::Append, &[]);
        deliver(&*sink, &first(), vec![rows]).await.unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            vec![
                Value::Integer(1),
                Value::Integer(i16::MIN.into()),
                Value::Integer(i32::MIN.into()),
                Value::Integer(i64::MIN),
                Value::Real(0.1_f32.into()),
                Value::Real(5e-324),
                text("-9999999999999999999999999999.9999999999"),
                Value::Integer(-999_999_999_999_999_999),
                text("0012'; DROP"),
                Value::Blob(vec![0, 255]),
                text("9999-12-31"),
                text("23:59:59.999999"),
                text("9999-12-31 23:59:59.999999"),
                text("9999-12-31 23:59:59.999999Z"),
            ],
            vec![
                Value::Integer(0),
                Value::Integer(i16::MAX.into()),
                Value::Integer(i32::MAX.into()),
                Value::Integer(i64::MAX),
                Value::Real(f64::INFINITY),
                Value::Real(f64::MIN),
                text("0.0000000001"),
                Value::Integer(0),
                text(""),
                Value::Blob(vec![]),
                text("0000-01-01"),
                text("00:00:00.000000"),
                text("1969-12-31 23:59:59.999999"),
                text("1969-12-31 23:59:59.999999Z"),
            ],
            vec![Value::Null; 14],
        ];
        let database = target.open();
        let mut statement = database.prepare("SELECT * FROM every ORDER BY rowid").unwrap();
        let found: Vec<Vec<Value>> = statement
            .query_map([], |row| (0..14).map(|index| row.get(index)).collect())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(found, expected);
    })
    .await;
}

#[tokio::test]
async fn what_sqlite_would_change_is_refused() {
    with(async |target| {
        let cases: [(&str, ArrayRef); 8] = [
            (
                "DECIMAL(10,2)",
                Arc::new(Decimal128Array::from(vec![1]).with_precision_and_scale(10, 2).unwrap()),
            ),
            (
                "INTEGER",
                Arc::new(Decimal128Array::from(vec![1]).with_precision_and_scale(19, 0).unwrap()),
            ),
            ("UUID", Arc::new(StringArray::from(vec!["1e5"]))),
            ("INTEGER", Arc::new(Float64Array::from(vec![1.0]))),
            ("TEXT", Arc::new(Int64Array::from(vec![1]))),
            ("TEXT", Arc::new(BinaryArray::from(vec![&[0][..]]))),
            ("REAL", Arc::new(Float64Array::from(vec![f64::NAN]))),
            ("TEXT", Arc::new(Date32Array::from(vec![i32::MAX]))),
        ];
        for (index, (declared, array)) in cases.into_iter().enumerate() {
            let table = format!("t{index}");
            target.execute(&format!("CREATE TABLE {table} (v {declared})")).await;
            let rows = RecordBatch::try_from_iter([("v", array)]).unwrap();
            let sink = target.sink_to(&table, Mode::Append, &[]);
            let error = deliver(&*sink, &first(), vec![rows]).await.unwrap_err();
            assert_eq!(error.class(), Class::Contract, "{declared}: {error}");
            assert!(error.context().contains(&("column", "v".to_owned())), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn keys_are_compared_as_the_table_compares_them() {
    with(async |target| {
        target.execute("CREATE TABLE n (Name TEXT COLLATE NOCASE PRIMARY KEY, v INT) STRICT").await;
        target.execute("INSERT INTO n VALUES ('a', 1)").await;
        let sink = target.sink_to("n", Mode::Upsert, &["name"]);
        let rows = |names: Vec<&str>| {
            let values: ArrayRef = Arc::new(Int64Array::from(vec![2; names.len()]));
            let names: ArrayRef = Arc::new(StringArray::from(names));
            RecordBatch::try_from_iter([("name", names), ("v", values)]).unwrap()
        };
        deliver(&*sink, &first(), vec![rows(vec!["A", "b"])]).await.unwrap();
        let total: i64 =
            target.open().query_row("SELECT sum(v) FROM n", [], |row| row.get(0)).unwrap();
        assert_eq!(total, 4);
        let error = deliver(&*sink, &first(), vec![rows(vec!["c", "C"])]).await.unwrap_err();
        assert!(error.to_string().contains("come more than once"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn generated_columns_views_and_triggers_are_told() {
    with(async |target| {
        target
            .execute(
                "CREATE TABLE g (id INTEGER, name TEXT AS ('x'));
                 CREATE VIEW v AS SELECT * FROM t;
                 CREATE TABLE k (id INTEGER, name TEXT);
                 CREATE TRIGGER keeps BEFORE INSERT ON k BEGIN SELECT RAISE(IGNORE); END;",
            )
            .await;
        for (table, class, word) in [
            ("g", Class::Contract, "computes"),
            ("v", Class::Permanent, "view"),
            ("k", Class::Permanent, "0 of 1 rows"),
        ] {
            let rows = sink_table::batch(&[(1, Some("secret"))]);
            let sink = target.sink_to(table, Mode::Append, &[]);
            let error = deliver(&*sink, &first(), vec![rows]).await.unwrap_err();
            assert_eq!(error.class(), class, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_busy_database_is_waited_for() {
    with(async |target| {
        let other = target.open();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let sink = target.sink(Mode::Append);
        let (delivered, ()) = tokio::join!(
            async { deliver(&*sink, &first(), vec![sink_table::batch(&[(1, None)])]).await },
            async {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                other.execute_batch("COMMIT").unwrap();
            }
        );
        delivered.unwrap();
        assert_eq!(target.rows().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_the_table_refuses_is_told_by_its_names() {
    with(async |target| {
        target.execute("CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
        for (columns, told) in [
            ("id INTEGER, name TEXT, CONSTRAINT small CHECK (id < 10)", "small"),
            ("id INTEGER, name TEXT NOT NULL", "c.name"),
            ("id INTEGER, name TEXT, UNIQUE (id)", "c.id"),
            ("id INTEGER REFERENCES p, name TEXT", "FOREIGN KEY"),
            ("id INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED, name TEXT", "FOREIGN KEY"),
        ] {
            target.execute(&format!("DROP TABLE IF EXISTS c; CREATE TABLE c ({columns})")).await;
            let name = if columns.contains("NOT NULL") { None } else { Some("SECRET") };
            let rows = sink_table::batch(&[(4_242_424_242, Some("SECRET")), (4_242_424_242, name)]);
            let sink = target.sink_to("c", Mode::Append, &[]);
            let error = deliver(&*sink, &first(), vec![rows]).await.unwrap_err();
            assert_eq!(error.class(), Class::Contract, "{columns}: {error}");
            let shown = format!("{error} {:?}", error.advice());
            assert!(shown.contains(told), "{columns}: {shown}");
            assert!(!shown.contains("SECRET") && !shown.contains("4242424242"), "{shown}");
            assert!(target.lines("SELECT name FROM c").await.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_trigger_that_keeps_rows_is_told() {
    with(async |target| {
        target
            .execute(
                "INSERT INTO t VALUES (1, 'a');
                 CREATE TRIGGER keeps BEFORE DELETE ON t BEGIN SELECT RAISE(IGNORE); END;",
            )
            .await;
        let sink = target.sink(Mode::Replace);
        let error = deliver(&*sink, &first(), vec![sink_table::batch(&[(2, None)])]).await;
        let error = error.unwrap_err();
        assert!(error.to_string().contains("still there"), "{error}");
        assert_eq!(target.rows().await, [(1, Some("a".to_owned()))]);
    })
    .await;
}

#[tokio::test]
async fn columns_are_added_to_strict_tables() {
    with(async |target| {
        target.execute("CREATE TABLE s (id INTEGER PRIMARY KEY) STRICT").await;
        let decimals = Decimal128Array::from(vec![125]).with_precision_and_scale(5, 0).unwrap();
        let columns: [(&str, ArrayRef); 5] = [
            ("ID", Arc::new(Int32Array::from(vec![1]))),
            ("whole", Arc::new(decimals)),
            ("bytes", Arc::new(BinaryArray::from(vec![&[0, 255][..]]))),
            ("rate", Arc::new(Float64Array::from(vec![2.0]))),
            ("day", Arc::new(Date32Array::from(vec![0]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let how =
            Merge { new_columns: NewColumns::Add, ..sink_table::merge(Mode::Upsert, &["id"]) };
        let sink = target.sink_with("s", how);
        for _ in 0..2 {
            deliver(&*sink, &first(), vec![rows.clone()]).await.unwrap();
        }
        let found = "SELECT id || ' ' || whole || ' ' || hex(bytes) || ' ' || rate || ' ' || day
                            || ' ' || typeof(whole) FROM s";
        assert_eq!(target.lines(found).await, ["1 125 00FF 2.0 1970-01-01 text"]);
    })
    .await;
}
