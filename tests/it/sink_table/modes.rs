//! The modes beyond append, upsert and replace, and what becomes of columns that a table lacks.

use std::sync::Arc;

use arrow::array::*;
use jiff::tz::TimeZone;
use longshore::error::{Class, Error};
use longshore::job::Window;
use longshore::job::param::Value;
use longshore::sink::{Begun, Merge, Mode, NewColumns, Span};

use super::{Target, batch, decision, deliver, first, merge, next, owned, stream};

/// The day of which the tests replace the rows.
const DAY: &str = "2026-11-19";
const NOON: i64 = 1_795_089_600_000_000; // 2026-11-19T12:00Z
const HOUR: i64 = 3_600_000_000;

fn span(column: &str, scope: &[(&str, Value)]) -> Span {
    let at = |day: &str| format!("{day}T00:00:00Z").parse().unwrap();
    let scope = scope.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Span {
        column: column.to_owned(),
        window: Window { start: at(DAY), end: at("2026-11-20") },
        zone: TimeZone::UTC,
        scope,
    }
}

fn replacing(column: &str, scope: &[(&str, Value)]) -> Merge {
    Merge { span: Some(span(column, scope)), ..merge(Mode::ReplaceWindow, &[]) }
}

fn adding(mode: Mode, key: &[&str]) -> Merge {
    Merge { new_columns: NewColumns::Add, ..merge(mode, key) }
}

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn instants(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
}

/// Rows of the window, unless it is said otherwise.
fn orders(rows: &[(i64, Option<i64>, &str)]) -> RecordBatch {
    let (mut ids, mut times, mut countries) = (Vec::new(), Vec::new(), Vec::new());
    for (id, at, country) in rows {
        ids.push(*id);
        times.push(*at);
        countries.push(*country);
    }
    table(vec![("id", numbers(&ids)), ("At", instants(&times)), ("country", texts(&countries))])
}

const ORDERS: &str = "CREATE TABLE {}w (id bigint, \"At\" timestamptz, country varchar(9))";
const IN_ORDER: &str = "SELECT CAST(id AS text) FROM {}w AS w ORDER BY w.id";

async fn contract(target: &dyn Target, how: Merge, rows: RecordBatch) -> Error {
    let (sink, holder) = (target.sink_with("w", how), first());
    let error = deliver(&*sink, &holder, vec![rows]).await.unwrap_err();
    assert_eq!(error.class(), Class::Contract, "{error}");
    assert!(error.advice().is_some(), "{error}");
    assert_eq!(sink.close(&next(&holder)).await.unwrap(), None);
    sink.clean(&next(&holder)).await.unwrap();
    error
}

/// Six rows: of two countries, the day before, at both ends of the day, and at the next midnight.
async fn six_orders(target: &dyn Target) {
    target.execute(ORDERS).await;
    let rows = orders(&[
        (1, Some(NOON - 12 * HOUR - 1), "SE"),
        (2, Some(NOON - 12 * HOUR), "SE"),
        (3, Some(NOON + 12 * HOUR - 1), "SE"),
        (4, Some(NOON + 12 * HOUR), "SE"),
        (5, Some(NOON), "NO"),
        (6, None, "SE"),
    ]);
    deliver(&*target.sink_to("w", Mode::Append, &[]), &first(), vec![rows]).await.unwrap();
}

pub async fn replace_window(target: &dyn Target) {
    six_orders(target).await;
    let sweden = [("country", Value::String("SE".to_owned()))];
    let sink = target.sink_with("w", replacing("At", &sweden));
    sink.fits(&orders(&[]).schema()).await.unwrap();
    let holder = first();
    deliver(&*sink, &holder, vec![orders(&[(10, Some(NOON), "SE")])]).await.unwrap();
    assert_eq!(target.lines(IN_ORDER).await, ["1", "4", "5", "6", "10"]);
    // Repeating it changes nothing, and another delivery takes its place.
    sink.commit(&holder, &decision(1)).await.unwrap();
    deliver(&*sink, &first(), vec![orders(&[(11, Some(NOON), "SE")])]).await.unwrap();
    assert_eq!(target.lines(IN_ORDER).await, ["1", "4", "5", "6", "11"]);
    // An empty window is one too.
    deliver(&*sink, &first(), vec![orders(&[])]).await.unwrap();
    assert_eq!(target.lines(IN_ORDER).await, ["1", "4", "5", "6"]);
    // Without a scope, all of the window gives way.
    let whole = target.sink_with("w", replacing("At", &[]));
    deliver(&*whole, &first(), vec![orders(&[(12, Some(NOON), "DK")])]).await.unwrap();
    assert_eq!(target.lines(IN_ORDER).await, ["1", "4", "6", "12"]);
}

pub async fn windows_of_other_types(target: &dyn Target) {
    let day = 20_776; // 2026-11-19
    let days = Date32Array::from(vec![Some(day - 1), Some(day), Some(day + 1)]);
    let times = TimestampMicrosecondArray::from(vec![
        Some(NOON - 12 * HOUR - 1),
        Some(NOON - 12 * HOUR),
        Some(NOON + 12 * HOUR),
    ]);
    let scope = [
        ("flag", Value::Bool(true)),
        ("n", Value::Int64(7)),
        ("day", Value::Date(DAY.parse().unwrap())),
        ("seen", Value::Timestamp(format!("{DAY}T12:00:00.5Z").parse().unwrap())),
    ];
    let all = table(vec![
        ("id", numbers(&[1, 2, 3])),
        ("day", Arc::new(days)),
        ("civil", Arc::new(times)),
        ("flag", Arc::new(BooleanArray::from(vec![true; 3]))),
        ("n", Arc::new(Int16Array::from(vec![7; 3]))),
        ("seen", instants(&[Some(NOON + 500_000); 3])),
    ]);
    for (column, scope) in [("day", &[][..]), ("civil", &[]), ("civil", &scope)] {
        target
            .execute(
                "DROP TABLE IF EXISTS {}w;
                 CREATE TABLE {}w (id bigint, day date, civil timestamp, flag boolean, n smallint,
                                   seen timestamptz)",
            )
            .await;
        let append = target.sink_to("w", Mode::Append, &[]);
        deliver(&*append, &first(), vec![all.clone()]).await.unwrap();
        let sink = target.sink_with("w", replacing(column, scope));
        deliver(&*sink, &first(), vec![all.slice(1, 1)]).await.unwrap();
        assert_eq!(target.lines(IN_ORDER).await, ["1", "2", "3"], "{column}");
        deliver(&*sink, &first(), vec![all.slice(1, 0)]).await.unwrap();
        assert_eq!(target.lines(IN_ORDER).await, ["1", "3"], "{column}");
    }
}

pub async fn outside_of_the_window(target: &dyn Target) {
    six_orders(target).await;
    let sweden = || replacing("At", &[("country", Value::String("SE".to_owned()))]);
    for (rows, told) in [
        (vec![(10, Some(NOON + 12 * HOUR), "SE")], "1 rows are outside of the window"),
        (vec![(10, Some(NOON - 12 * HOUR - 1), "SE"), (11, None, "SE")], "2 rows are outside"),
        (vec![(10, Some(NOON), "SE"), (11, Some(NOON), "SECRET")], "this job's country"),
    ] {
        let error = contract(target, sweden(), orders(&rows)).await;
        assert!(error.to_string().contains(told), "{error}");
        assert!(!format!("{error} {:?}", error.advice()).contains("SECRET"), "{error}");
        assert_eq!(target.lines(IN_ORDER).await.len(), 6);
    }
    for how in [
        replacing("when", &[]),
        replacing("country", &[]),
        replacing("At", &[("region", Value::Int64(1))]),
        replacing("At", &[("country", Value::Int64(1))]),
    ] {
        let asked = target.sink_with("w", how.clone()).fits(&orders(&[]).schema()).await;
        let error = contract(target, how, orders(&[])).await;
        assert_eq!(asked.unwrap_err().to_string(), error.to_string());
        assert_eq!(target.lines(IN_ORDER).await.len(), 6);
    }
}

/// Rows with a flag that says whether they are gone.
fn flagged(rows: &[(i64, &str, Option<bool>)]) -> RecordBatch {
    let ids: Vec<i64> = rows.iter().map(|(id, ..)| *id).collect();
    let names: Vec<&str> = rows.iter().map(|(_, name, _)| *name).collect();
    let gone: BooleanArray = rows.iter().map(|(.., gone)| *gone).collect();
    table(vec![("id", numbers(&ids)), ("name", texts(&names)), ("gone", Arc::new(gone))])
}

fn upserting(condition: &str) -> Merge {
    Merge { deleted: Some(condition.to_owned()), ..merge(Mode::Upsert, &["id"]) }
}

pub async fn deleted(target: &dyn Target) {
    target.execute("ALTER TABLE {}t ADD COLUMN gone boolean").await;
    target.execute("INSERT INTO {}t (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
    let sink = target.sink_with("t", upserting("gone AND name <> 'keep' -- or so"));
    let rows = flagged(&[
        (1, "new", Some(false)),
        (2, "x", Some(true)),
        (3, "keep", Some(true)),
        (4, "d", None),
        (5, "never there", Some(true)),
    ]);
    sink.fits(&rows.schema()).await.unwrap();
    let holder = first();
    assert_eq!(sink.begin(&holder).await.unwrap(), Begun::Open);
    let staged = sink.stage(&holder, stream(vec![rows])).await.unwrap();
    assert_eq!((staged.counts.written, staged.counts.deleted), (5, 2));
    for _ in 0..2 {
        sink.commit(&holder, &decision(5)).await.unwrap();
        let all = [(1, Some("new")), (3, Some("keep")), (4, Some("d"))];
        assert_eq!(target.rows().await, owned(&all));
    }
    // Which of two rows of one key comes last, nobody knows.
    let twice = flagged(&[(1, "x", Some(true)), (1, "y", Some(false))]);
    let error = deliver(&*sink, &first(), vec![twice]).await.unwrap_err();
    assert!(error.to_string().contains("come more than once"), "{error}");
    assert_eq!(target.rows().await.len(), 3);
    let all = flagged(&[(1, "", Some(true)), (3, "", Some(true)), (4, "", Some(true))]);
    deliver(&*sink, &first(), vec![all]).await.unwrap();
    assert_eq!(target.rows().await, []);
}

pub async fn deleted_is_a_condition(target: &dyn Target) {
    target.execute("ALTER TABLE {}t ADD COLUMN gone boolean").await;
    target.execute("ALTER TABLE {}t ADD COLUMN of_the_table boolean").await;
    for wrong in ["gon", "gone AND", "of_the_table", "gone; DROP TABLE t"] {
        let (sink, holder) = (target.sink_with("t", upserting(wrong)), first());
        sink.begin(&holder).await.unwrap();
        let rows = flagged(&[(1, "a", None)]);
        let asked = sink.fits(&rows.schema()).await.unwrap_err();
        let mut rows = stream(vec![rows]);
        rows.stream = Box::pin(futures::stream::poll_fn(|_| panic!("it was read")));
        let error = sink.stage(&holder, rows).await.unwrap_err();
        assert_eq!(error.class(), Class::Permanent, "{error}");
        assert!(error.advice().unwrap().contains("`deleted` in [sink]"), "{error}");
        assert_eq!(asked.to_string(), error.to_string());
    }
}

/// Rows with two columns that `t` lacks.
fn wider(ids: &[i64]) -> RecordBatch {
    let count = ids.len();
    let amounts = Decimal128Array::from(vec![1250; count]).with_precision_and_scale(15, 2).unwrap();
    table(vec![
        ("id", numbers(ids)),
        ("Order", texts(&vec!["x"; count])),
        ("amount", Arc::new(amounts)),
    ])
}

pub async fn new_columns(target: &dyn Target) {
    target.execute("INSERT INTO {}t VALUES (1, 'old')").await;
    let error = deliver(&*target.sink(Mode::Upsert), &first(), vec![wider(&[2])]).await;
    let error = error.unwrap_err();
    assert_eq!(error.class(), Class::Contract);
    assert!(error.context().contains(&("column", "Order".to_owned())), "{error}");
    assert!(error.advice().unwrap().contains("new-columns = \"add\""), "{error}");
    let sink = target.sink_with("t", adding(Mode::Upsert, &["id"]));
    sink.fits(&wider(&[]).schema()).await.unwrap();
    for round in 0..2 {
        deliver(&*sink, &first(), vec![wider(&[2, 3 + round])]).await.unwrap();
    }
    let all = "SELECT CAST(id AS text) || coalesce(name, '-') || coalesce(\"Order\", '-')
                      || coalesce(CAST(amount AS text), '-') FROM {}t ORDER BY id";
    assert_eq!(target.lines(all).await, ["1old--", "2-x12.50", "3-x12.50", "4-x12.50"]);
    // No column goes, and none gets another type.
    deliver(&*sink, &first(), vec![batch(&[(5, Some("again"))])]).await.unwrap();
    let other = table(vec![("id", numbers(&[6])), ("amount", numbers(&[7]))]);
    let error = deliver(&*sink, &first(), vec![other]).await.unwrap_err();
    assert_eq!(error.class(), Class::Contract);
    assert!(error.context().contains(&("column", "amount".to_owned())), "{error}");
    assert!(error.to_string().contains("int64"), "{error}");
    assert!(error.advice().is_some());
    assert_eq!(target.rows().await.len(), 5);
}

pub async fn new_columns_come_with_the_rows(target: &dyn Target) {
    target.execute("INSERT INTO {}t VALUES (1, 'old')").await;
    let sink = target.sink_with("t", adding(Mode::Append, &[]));
    let has_column = async || {
        let rows = batch(&[]);
        let found = target.sink_to("t", Mode::Append, &[]).fits(&wider(&[]).schema()).await;
        target.sink_to("t", Mode::Append, &[]).fits(&rows.schema()).await.unwrap();
        found.is_ok()
    };
    // A row that is refused, and a worker that was overtaken, add nothing.
    let error = deliver(&*sink, &first(), vec![wider(&[1])]).await.unwrap_err();
    assert_eq!(error.class(), Class::Contract, "{error}");
    assert!(!has_column().await);
    let stalled = first();
    sink.begin(&stalled).await.unwrap();
    sink.stage(&stalled, stream(vec![wider(&[2])])).await.unwrap();
    assert!(!has_column().await);
    let winner = next(&stalled);
    sink.begin(&winner).await.unwrap();
    let error = sink.commit(&stalled, &decision(1)).await.unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
    assert!(!has_column().await);
    sink.stage(&winner, stream(vec![wider(&[3])])).await.unwrap();
    sink.commit(&winner, &decision(1)).await.unwrap();
    assert!(has_column().await);
    sink.clean(&winner).await.unwrap();
    assert_eq!(target.rows().await, owned(&[(1, Some("old")), (3, None)]));
}

pub async fn new_table(target: &dyn Target) {
    for mode in [Mode::Append, Mode::Upsert, Mode::Replace, Mode::ReplaceWindow] {
        target.execute("DROP TABLE IF EXISTS {}w").await;
        let how = Merge {
            span: (mode == Mode::ReplaceWindow).then(|| span("At", &[])),
            ..adding(mode, &["id"])
        };
        let (sink, holder) = (target.sink_with("w", how), first());
        sink.fits(&orders(&[]).schema()).await.unwrap();
        sink.begin(&holder).await.unwrap();
        let row = || vec![orders(&[(1, Some(NOON), "SE")])];
        sink.stage(&holder, stream(row())).await.unwrap();
        // Nothing is there before the commit.
        let fails = target.sink_to("w", Mode::Append, &[]).fits(&orders(&[]).schema()).await;
        assert_eq!(fails.unwrap_err().class(), Class::Permanent);
        sink.commit(&holder, &decision(1)).await.unwrap();
        sink.clean(&holder).await.unwrap();
        deliver(&*sink, &first(), row()).await.unwrap();
        let rows = if mode == Mode::Append { 2 } else { 1 };
        assert_eq!(target.lines(IN_ORDER).await.len(), rows, "{mode:?}");
    }
}

pub async fn many_columns(target: &dyn Target) {
    let names: Vec<String> = (0..1_200).map(|nth| format!("c{nth}")).collect();
    let rows = |value: &str| {
        let array = texts(&[value]);
        table(names.iter().map(|name| (name.as_str(), array.clone())).collect())
    };
    let sink = target.sink_with("wide", adding(Mode::Upsert, &["c0"]));
    deliver(&*sink, &first(), vec![rows("k")]).await.unwrap();
    deliver(&*sink, &first(), vec![rows("k")]).await.unwrap();
    deliver(&*sink, &first(), vec![rows("l")]).await.unwrap();
    let found = "SELECT c0 || c1199 FROM {}wide ORDER BY c0";
    assert_eq!(target.lines(found).await, ["kk", "ll"]);
}

pub async fn names(target: &dyn Target) {
    // 63 bytes, of which some are of characters with two.
    let long = format!("{}{}", "å".repeat(31), "x");
    assert_eq!(long.len(), 63);
    let names = ["select", "Mixed Case", "quo\"te", "semi;colon--", "percent%s", &long];
    let columns = || {
        let values = texts(&["v"]);
        table(names.iter().map(|name| (*name, values.clone())).collect())
    };
    let key = ["Mixed Case", "quo\"te"];
    for mode in [Mode::Upsert, Mode::Upsert, Mode::Replace] {
        let sink = target.sink_with("Group", adding(mode, &key));
        deliver(&*sink, &first(), vec![columns()]).await.unwrap();
        let found = format!("SELECT \"select\" || \"{long}\" FROM {{}}\"Group\"");
        assert_eq!(target.lines(&found).await, ["vv"]);
    }
    let deleted = Some("\"select\" = 'v'".to_owned());
    let how = Merge { deleted, ..merge(Mode::Upsert, &key) };
    deliver(&*target.sink_with("Group", how), &first(), vec![columns()]).await.unwrap();
    assert!(target.lines("SELECT \"select\" FROM {}\"Group\"").await.is_empty());
}
