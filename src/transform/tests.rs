mod lookups;
mod words;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Decimal256Array, Float64Array, Int16Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    new_null_array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Int64Type, SchemaRef, TimeUnit, i256,
};
use proptest::prelude::*;

use super::{Tables, Transform, TransformConfig};
use crate::error::{Class, Result};
use crate::rows::{At, Batch, Places};

fn rows() -> RecordBatch {
    let amounts = Decimal128Array::from(vec![Some(1000), Some(-250), None, Some(7)]);
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, i64::MAX])) as ArrayRef, false),
        ("small", Arc::new(Int16Array::from(vec![1, 2, i16::MIN, 4])) as ArrayRef, false),
        ("amount", Arc::new(amounts.with_precision_and_scale(15, 2).unwrap()) as ArrayRef, true),
        ("ratio", Arc::new(Float64Array::from(vec![0.5, 1.5, -2.0, 0.0])) as ArrayRef, true),
        (
            "name",
            Arc::new(StringArray::from(vec![Some("Åse"), None, Some(""), Some("x")])) as ArrayRef,
            true,
        ),
        (
            "made",
            Arc::new(
                TimestampMicrosecondArray::from(vec![0, 1, 253_402_300_799_999_999, 3])
                    .with_timezone("UTC"),
            ) as ArrayRef,
            true,
        ),
        (
            "civil",
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 253_402_300_799_999_999, 3]))
                as ArrayRef,
            true,
        ),
    ])
    .unwrap()
}

fn plan(sql: &str, input: SchemaRef) -> Result<Transform> {
    Transform::plan(&TransformConfig { sql: sql.to_owned() }, input, &Tables::new())
}

fn run(sql: &str) -> Batch {
    run_on(sql, rows())
}

fn run_on(sql: &str, rows: RecordBatch) -> Batch {
    let transform = plan(sql, rows.schema()).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let done = transform.apply(Batch::whole(rows)).unwrap();
    assert_eq!(done.rows.schema(), transform.schema(), "{sql}");
    assert_eq!(
        done.read,
        done.rows.num_rows() as u64 + done.filtered + done.refused.len() as u64,
        "{sql}"
    );
    done
}

/// The message and help of the refusal.
fn refusal(sql: &str) -> String {
    let error = plan(sql, rows().schema()).map(|t| t.schema()).expect_err(sql);
    assert_eq!(error.class(), Class::Config, "{sql}");
    format!("{error} {}", error.advice().unwrap_or_default())
}

fn kind(batch: &Batch, column: &str) -> DataType {
    batch.rows.schema().field_with_name(column).unwrap().data_type().clone()
}

#[test]
fn it_projects_and_filters_and_keeps_the_accounts() {
    let done = run("SELECT *, amount * 0.25 AS vat FROM input WHERE amount > 0");
    assert_eq!((done.read, done.filtered, done.rows.num_rows()), (4, 2, 2));
    assert_eq!(kind(&done, "vat"), DataType::Decimal128(18, 4));
    let vat = done.rows.column_by_name("vat").unwrap();
    assert_eq!(vat.as_primitive::<Decimal128Type>().value(0), 25_000);
}

#[test]
fn earlier_accounts_are_kept() {
    let batch = Batch { read: 9, filtered: 5, ..Batch::whole(rows()) };
    let done = plan("SELECT id FROM input WHERE id < 3", rows().schema()).unwrap().apply(batch);
    let done = done.unwrap();
    assert_eq!((done.read, done.filtered, done.rows.num_rows()), (9, 7, 2));
}

#[test]
fn rows_keep_their_places_through_filters_and_past_rows_that_cannot_be_evaluated() {
    // The row in the middle of the eight overflows; every other is left out.
    let numbers = vec![1, 2, 3, 4, i64::MAX, 6, 7, 8];
    let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(numbers)) as ArrayRef)]);
    let numbers = vec![3, 4, 5, 6, 9, 10, 11, 12];
    let places = Places { file: "a.csv".into(), at: At::Line, numbers: numbers.into() };
    let batch = Batch { places: Some(places), ..Batch::whole(rows.unwrap()) };
    let schema = batch.rows.schema();
    let transform = plan("SELECT n + 1 AS m FROM input WHERE n % 2 = 1", schema).unwrap();
    let done = transform.apply(batch).unwrap();
    let lines = (0..done.rows.num_rows()).map(|row| done.origin(row).unwrap().at);
    assert_eq!(lines.collect::<Vec<_>>(), [At::Line(3), At::Line(5), At::Line(11)]);
    let [refused] = done.refused.as_slice() else { panic!("{:?}", done.refused) };
    assert_eq!(refused.place().unwrap(), "a.csv line 9");
}

#[test]
fn nested_selects_aliases_and_common_tables_are_row_wise() {
    let done = run("WITH a AS (SELECT id AS b, amount FROM input i WHERE i.small > 0) \
         SELECT c.b + 1 AS d FROM (SELECT b FROM a WHERE amount IS NOT NULL) AS c WHERE c.b = 1");
    assert_eq!(done.rows.column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(done.filtered, 3);
}

#[test]
fn what_is_not_row_wise_is_refused_and_told_where_it_belongs() {
    for (sql, word) in [
        ("SELECT id FROM input ORDER BY id", "ORDER BY"),
        ("SELECT id FROM input LIMIT 1", "LIMIT"),
        ("SELECT id FROM input OFFSET 1", "LIMIT"),
        ("SELECT DISTINCT id FROM input", "DISTINCT"),
        ("SELECT id FROM input GROUP BY id", "GROUP BY"),
        ("SELECT sum(id) AS s FROM input", "an aggregate function"),
        ("SELECT count(*) AS n FROM input", "an aggregate function"),
        ("SELECT id FROM input HAVING max(id) > 1", "an aggregate function"),
        ("SELECT row_number() OVER () AS n FROM input", "a window function"),
        ("SELECT sum(id) OVER (PARTITION BY name) AS n FROM input", "a window function"),
        ("SELECT a.id FROM input a, input b", "a join"),
        ("SELECT a.id FROM input a JOIN input b ON a.id = b.id", "a join"),
        ("SELECT id FROM input WHERE id IN (SELECT id FROM input)", "a subquery"),
        ("SELECT (SELECT id FROM input) AS x FROM input", "a subquery"),
        ("SELECT id FROM input WHERE EXISTS (SELECT 1 FROM input)", "a subquery"),
        ("SELECT id FROM input UNION ALL SELECT id FROM input", "UNION"),
        ("SELECT 1 AS one", "rows that are not input's"),
        ("SELECT * FROM (VALUES (1), (2)) AS t", "rows that are not input's"),
    ] {
        let said = refusal(sql);
        assert!(said.contains(word), "{sql}: {said}");
        assert!(said.contains("belongs into the source's query"), "{sql}: {said}");
    }
}

#[test]
fn hostile_sql_is_refused() {
    for sql in [
        "",
        ";",
        "SELECT",
        "SELECT id FROM input; DROP TABLE input",
        "DROP TABLE input",
        "COPY input TO '/tmp/x'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "EXPLAIN SELECT id FROM input",
        "INSERT INTO input VALUES (1)",
        "SELECT id INTO x FROM input",
        "SET a = 1",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM x.input",
        "SELECT id FROM input WHERE id = $1",
        "SELECT id FROM input WHERE id = ?",
        "SELECT @@version AS v FROM input",
        "SELECT random() AS r FROM input",
        "SELECT uuid() AS r FROM input",
        "SELECT now() AS r FROM input",
        "SELECT current_date AS r FROM input",
        "SELECT id FROM input WHERE made < current_timestamp",
        "SELECT unnest([1, 2]) AS r FROM input",
        "SELECT id, id FROM input",
        "SELECT id + 1 FROM input",
        "SELECT nothing FROM input",
        "SELECT sin(id, 2, 3) AS x FROM input",
        "SELECT id FROM input WHERE id",
        "WITH RECURSIVE r AS (SELECT id FROM input UNION ALL SELECT id FROM r) SELECT id FROM r",
    ] {
        refusal(sql);
    }
}

#[test]
fn deep_and_long_sql_ends_in_an_error() {
    refusal(&format!("SELECT id{} AS x FROM input", " + 1".repeat(5_000)));
    refusal(&format!("SELECT id FROM input WHERE {}true", "NOT ".repeat(10_000)));
    refusal(&format!("SELECT {}id{} AS x FROM input", "(".repeat(9_000), ")".repeat(9_000)));
    refusal(&format!("SELECT {}id AS x FROM input", "- ".repeat(20_000)));
    refusal(&"x".repeat(100_000));
}

#[test]
fn a_clock_is_refused_with_the_reason() {
    assert!(refusal("SELECT now() AS r FROM input").contains("the same row must give the same"));
}

#[test]
fn literals_with_a_point_are_decimals() {
    let done = run("SELECT 0.1 AS a, 12345678901234567890123456789012345.678 AS b FROM input");
    assert_eq!(kind(&done, "a"), DataType::Decimal128(1, 1));
    assert_eq!(kind(&done, "b"), DataType::Decimal128(38, 3));
    let done = run("SELECT 1234567890123456789012345678901234567890.5 AS a FROM input");
    assert_eq!(kind(&done, "a"), DataType::Decimal256(41, 1));
}

#[test]
fn integer_overflow_refuses_its_row_alone() {
    for sql in [
        "SELECT id + 1 AS x FROM input",
        "SELECT id * 2 AS x FROM input",
        "SELECT -2 - id AS x FROM input",
        "SELECT x FROM (SELECT id + 1 AS x FROM input)",
        "SELECT id FROM input WHERE id + 1 > 0",
        "SELECT CASE WHEN id > 0 THEN coalesce(id + 1, 0) END AS x FROM input",
    ] {
        let done = run(sql);
        assert_eq!(done.rows.num_rows(), 3, "{sql}");
        let (rule, column) = match sql.contains("WHERE") {
            true => ("WHERE: overflow", None),
            false => ("overflow", Some("x")),
        };
        let refused = &done.refused[0];
        assert_eq!((refused.rule.as_str(), refused.column.as_deref()), (rule, column), "{sql}");
        assert_eq!(refused.row["id"], i64::MAX.to_string(), "{sql}");
    }
    for sql in ["SELECT -small AS x FROM input", "SELECT abs(small) AS x FROM input"] {
        let done = run(sql);
        assert_eq!((done.rows.num_rows(), done.refused.len()), (3, 1), "{sql}");
        assert_eq!(done.refused[0].row["small"], i16::MIN, "{sql}");
    }
}

#[test]
fn constants_do_not_wrap_around() {
    let sql = "SELECT 9223372036854775807 + 1 AS x FROM input";
    let refused_all = |sql: &str| match plan(sql, rows().schema()) {
        Err(error) => assert_eq!(error.class(), Class::Config),
        Ok(transform) => {
            let done = transform.apply(Batch::whole(rows())).unwrap();
            assert_eq!((done.rows.num_rows(), done.refused.len()), (0, 4), "{sql}");
        }
    };
    refused_all(sql);
    refused_all("SELECT id FROM input WHERE id < 9223372036854775807 * 3");
    refused_all("SELECT -(-9223372036854775807 - 1) AS x FROM input");
}

#[test]
fn decimals_of_38_digits_are_exact_or_refused() {
    let nines = 10i128.pow(38) - 1;
    let values = Decimal128Array::from(vec![nines, -nines, nines / 2, 1]);
    let big = RecordBatch::try_from_iter([(
        "d",
        Arc::new(values.with_precision_and_scale(38, 0).unwrap()) as ArrayRef,
    )])
    .unwrap();
    let done = run_on("SELECT d FROM input", big.clone());
    assert_eq!(done.rows.column(0).as_primitive::<Decimal128Type>().value(0), nines);
    for sql in ["SELECT d + 1 AS x FROM input", "SELECT d + d AS x FROM input"] {
        let done = run_on(sql, big.clone());
        for refused in &done.refused {
            assert_eq!(refused.rule, "overflow", "{sql}");
        }
        assert!(!done.refused.is_empty(), "{sql}");
        let exact = done.rows.column(0).as_primitive::<Decimal128Type>();
        assert!(exact.values().iter().all(|value| value.abs() <= nines), "{sql}");
        assert_eq!(exact.value(exact.len() - 1), 2, "{sql}");
    }
    let done = run_on("SELECT d * 0.1 AS x FROM input", big.clone());
    assert_eq!(done.refused.len(), 0);
    assert_eq!(done.rows.column(0).as_primitive::<Decimal128Type>().value(0), nines);
    let done = run_on("SELECT d * 10 AS x FROM input", big.clone());
    assert_eq!((done.rows.num_rows(), done.refused.len()), (1, 3));
    let done = run_on("SELECT -d AS x FROM input", big);
    assert_eq!(done.rows.column(0).as_primitive::<Decimal128Type>().value(0), -nines);
}

#[test]
fn decimals_of_76_digits_are_exact_or_refused() {
    let nines = i256::from_string(&"9".repeat(76)).unwrap();
    let two = i256::from_i128(2);
    let values = Decimal256Array::from(vec![nines, -nines, nines / two, i256::ONE]);
    let big = RecordBatch::try_from_iter([(
        "d",
        Arc::new(values.with_precision_and_scale(76, 0).unwrap()) as ArrayRef,
    )])
    .unwrap();
    for sql in ["SELECT d + 1 AS x FROM input", "SELECT d + d AS x FROM input"] {
        let done = run_on(sql, big.clone());
        assert!(!done.refused.is_empty(), "{sql}");
        assert!(done.refused.iter().all(|refused| refused.rule == "overflow"), "{sql}");
        let exact = done.rows.column(0).as_primitive::<Decimal256Type>();
        assert!(exact.values().iter().all(|value| *value <= nines && *value >= -nines), "{sql}");
        assert_eq!(exact.value(exact.len() - 1), two, "{sql}");
    }
    let done = run_on("SELECT -d AS x FROM input WHERE d > 1", big);
    assert_eq!(done.rows.column(0).as_primitive::<Decimal256Type>().value(0), -nines);
}

/// arrow-cast says of such conversions that they cannot fail, and wraps around.
#[test]
fn what_would_wrap_around_in_a_wide_decimal_is_refused() {
    let wide = |scale| {
        let values = Decimal256Array::from(vec![i256::from_i128(1) << 196]);
        let values = values.with_precision_and_scale(76, scale).unwrap();
        RecordBatch::try_from_iter([
            ("d", Arc::new(values) as ArrayRef),
            ("t", Arc::new(StringArray::from(vec!["1"])) as ArrayRef),
        ])
        .unwrap()
    };
    for sql in [
        "SELECT CAST(d AS decimal(76, 60)) AS x FROM input",
        "SELECT CAST(t AS decimal(76, 60)) AS x FROM input",
    ] {
        let error = plan(sql, wide(0).schema()).map(|t| t.schema()).unwrap_err();
        assert!(error.to_string().contains("without a word"), "{sql}: {error}");
    }
    let compared = "SELECT t FROM input WHERE d = CAST(0 AS decimal(76, 60))";
    assert!(plan(compared, wide(0).schema()).is_err());
    let done = run_on("SELECT CAST(d AS decimal(76, 10)) AS x FROM input", wide(10));
    assert_eq!(done.refused.len(), 0);
    let done = run_on("SELECT CAST(d AS decimal(76, 30)) AS x FROM input", wide(0));
    assert_eq!(done.refused.len(), 1, "it has too many digits");
}

#[test]
fn quotients_of_decimals_want_their_digits_said() {
    for sql in [
        "SELECT amount / 3 AS x FROM input",
        "SELECT id / 0.3 AS x FROM input",
        "SELECT id FROM input WHERE amount / 3 > 1",
        "SELECT CAST(amount / 3 AS decimal(30, 20)) AS x FROM input",
        "SELECT CAST(amount / 3 AS varchar) AS x FROM input",
        "SELECT CAST(amount / 3 / 2 AS decimal(18, 2)) AS x FROM input",
    ] {
        assert!(refusal(sql).contains("CAST(a / b AS decimal"), "{sql}");
    }
    let done = run("SELECT CAST(amount / 3 AS decimal(18, 2)) AS x FROM input");
    assert_eq!(done.rows.column(0).as_primitive::<Decimal128Type>().value(0), 333);
    let done = run("SELECT 7 / small AS x FROM input WHERE small > 1");
    assert_eq!(done.rows.column(0).as_primitive::<Int64Type>().value(0), 3);
}

#[test]
fn division_by_zero_refuses_its_row() {
    let done = run("SELECT 1 / (id - 2) AS x FROM input");
    assert_eq!(done.refused.len(), 1);
    assert_eq!(
        (done.refused[0].rule.as_str(), &done.refused[0].row["id"]),
        ("division by zero", &2.into())
    );
    let done = run("SELECT 1 / (id - 2) AS x FROM input WHERE id <> 2");
    assert_eq!((done.refused.len(), done.filtered), (0, 1));
}

#[test]
fn what_would_become_a_float_in_silence_is_refused() {
    for sql in [
        "SELECT id + ratio AS x FROM input",
        "SELECT amount * ratio AS x FROM input",
        "SELECT id FROM input WHERE id = ratio",
        "SELECT id FROM input WHERE amount > ratio",
        "SELECT power(amount, 2) AS x FROM input",
        "SELECT sqrt(id) AS x FROM input",
        "SELECT coalesce(amount, ratio) AS x FROM input",
        "SELECT CASE WHEN id > 1 THEN amount ELSE ratio END AS x FROM input",
    ] {
        assert!(refusal(sql).contains("CAST"), "{sql}");
    }
    for sql in [
        "SELECT CAST(id AS double) + ratio AS x FROM input",
        "SELECT ratio * 2 AS x, ratio * 0.25 AS y FROM input",
        "SELECT sqrt(CAST(id AS double)) AS x FROM input",
    ] {
        assert_eq!(kind(&run(sql), "x"), DataType::Float64, "{sql}");
    }
}

#[test]
fn instants_and_civil_times_are_not_mixed() {
    assert!(refusal("SELECT id FROM input WHERE made = civil").contains("zone"));
    let done = run("SELECT id FROM input WHERE civil > TIMESTAMP '2026-01-01 00:00:00'");
    assert_eq!((done.rows.num_rows(), done.refused.len()), (1, 0));
    let done = run("SELECT id FROM input WHERE made > '2026-01-01T00:00:00Z'");
    assert_eq!((done.rows.num_rows(), done.refused.len()), (1, 0));
    let done = run("SELECT TIMESTAMP '2026-01-01 00:00:00' AS x FROM input");
    assert_eq!(kind(&done, "x"), DataType::Timestamp(TimeUnit::Microsecond, None));
}

#[test]
fn outputs_have_types_of_definitions_or_are_refused() {
    for (sql, expected) in [
        ("SELECT upper(name) AS x FROM input", DataType::Utf8),
        ("SELECT arrow_cast(name, 'Utf8View') AS x FROM input", DataType::Utf8),
        ("SELECT arrow_cast(small, 'UInt32') AS x FROM input WHERE small > 0", DataType::Int64),
        ("SELECT arrow_cast(name, 'Dictionary(Int32, Utf8)') AS x FROM input", DataType::Utf8),
        ("SELECT coalesce(name, 'none') AS x FROM input", DataType::Utf8),
        ("SELECT nullif(id, 1) AS x FROM input", DataType::Int64),
        ("SELECT CAST(NULL AS varchar) AS x FROM input", DataType::Utf8),
        (
            "SELECT date_trunc('day', civil) AS x FROM input",
            DataType::Timestamp(TimeUnit::Microsecond, None),
        ),
        ("SELECT substring(name FROM 1 FOR 2) AS x FROM input", DataType::Utf8),
        ("SELECT id > 1 AS x FROM input", DataType::Boolean),
        ("SELECT CAST(1 AS decimal(50, 2)) AS x FROM input", DataType::Decimal256(50, 2)),
    ] {
        assert_eq!(kind(&run(sql), "x"), expected, "{sql}");
    }
    for sql in [
        "SELECT NULL AS x FROM input",
        "SELECT arrow_cast(1, 'UInt64') AS x FROM input",
        "SELECT civil - civil AS x FROM input",
        "SELECT [1, 2] AS x FROM input",
        "SELECT CAST(1 AS decimal(77, 2)) AS x FROM input",
    ] {
        refusal(sql);
    }
    let said = refusal("SELECT NULL AS x FROM input");
    assert!(said.contains("`x`") && said.contains("CAST"), "{said}");
}

#[test]
fn nanoseconds_that_would_be_cut_refuse_their_row() {
    let times = RecordBatch::try_from_iter([(
        "t",
        Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001, 2_000])) as ArrayRef,
    )])
    .unwrap();
    let done = run_on("SELECT t FROM input", times);
    assert_eq!((done.rows.num_rows(), done.refused.len()), (2, 1));
    assert_eq!(kind(&done, "t"), DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(done.refused[0].column.as_deref(), Some("t"));
}

#[test]
fn a_value_that_cannot_be_cast_refuses_its_row_and_is_not_named_in_the_rule() {
    let done = run("SELECT CAST(name AS bigint) AS x FROM input");
    assert_eq!(done.refused.len(), 3);
    for refused in &done.refused {
        let told = (refused.rule.as_str(), refused.column.as_deref());
        assert_eq!(told, ("a value cannot be cast", Some("x")));
    }
    assert_eq!(done.refused[0].row["name"], "Åse");
    assert_eq!(run("SELECT TRY_CAST(name AS bigint) AS x FROM input").refused.len(), 0);
}

#[test]
fn empty_batches_and_columns_of_null_pass() {
    let schema = rows().schema();
    let sql = "SELECT id + 1 AS a, amount * 2 AS b, upper(name) AS c FROM input WHERE id > 0";
    assert_eq!(run_on(sql, RecordBatch::new_empty(schema)).rows.num_rows(), 0);
    let nulls = RecordBatch::try_from_iter_with_nullable([
        ("id", new_null_array(&DataType::Int64, 5), true),
        ("amount", new_null_array(&DataType::Decimal128(15, 2), 5), true),
        ("name", new_null_array(&DataType::Utf8, 5), true),
    ])
    .unwrap();
    assert_eq!(run_on(sql, nulls.clone()).filtered, 5);
    let done = run_on("SELECT id + 1 AS a, amount * 2 AS b, name || 'x' AS c FROM input", nulls);
    assert!(done.rows.columns().iter().all(|column| column.null_count() == 5));
}

proptest! {
    #[test]
    fn every_row_is_accounted_for_and_sums_are_exact(
        values in prop::collection::vec(prop::option::of(prop_oneof![
            any::<i64>(), Just(i64::MAX), Just(i64::MIN), -3i64..3,
        ]), 0..60),
        other in -3i64..3,
    ) {
        let rows = RecordBatch::try_from_iter_with_nullable(
            [("id", Arc::new(Int64Array::from(values.clone())) as ArrayRef, true)]
        ).unwrap();
        let sql = format!("SELECT id + id + {other} AS x FROM input WHERE id <> {other}");
        let done = run_on(&sql, rows);
        let kept: Vec<i64> = values.iter().flatten().filter(|v| **v != other).copied().collect();
        let expected: Vec<i64> = kept.iter()
            .filter_map(|v| v.checked_add(*v)?.checked_add(other)).collect();
        prop_assert_eq!(done.filtered as usize, values.len() - kept.len());
        prop_assert_eq!(done.refused.len(), kept.len() - expected.len());
        let got = done.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        prop_assert_eq!(got, expected);
    }
}
