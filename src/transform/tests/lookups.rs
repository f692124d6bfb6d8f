//! Lookups in references.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, UInt32Array,
};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use futures::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;

use super::super::{Table, Tables, Transform, TransformConfig, cost};
use crate::error::{Class, Result};
use crate::rows::{At, Batch, Places, Rows};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns.into_iter().map(|(name, values)| (name, values, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    let values = Decimal128Array::from(values.to_vec());
    Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
}

fn orders() -> RecordBatch {
    batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5_000_000_000])) as ArrayRef),
        (
            "country",
            Arc::new(StringArray::from(vec![Some("NO"), Some("SE"), None, Some("XX"), Some("NO")])),
        ),
        ("kind", Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(1), None, Some(2)]))),
        ("amount", decimals(&[150, 250, 350, 450, 550], 10, 2)),
        ("day", Arc::new(Date32Array::from(vec![1, 2, 3, 4, 5]))),
    ])
}

fn table(name: &str, key: &[&str], rows: RecordBatch) -> Result<Table> {
    let key: Vec<String> = key.iter().map(|&one| one.to_owned()).collect();
    Table::new(name, &rows.schema(), &key, &[rows])
}

fn tables() -> Tables {
    let countries = batch(vec![
        ("code", Arc::new(StringArray::from(vec![Some("SE"), None, Some("NO"), None])) as ArrayRef),
        ("name", Arc::new(StringArray::from(vec![Some("Sverige"), Some("?"), None, Some("?")]))),
        ("vat", decimals(&[25, 0, 24, 0], 4, 2)),
    ]);
    let kinds = batch(vec![
        ("kind", Arc::new(Int64Array::from(vec![1, 2, i64::MAX])) as ArrayRef),
        ("code", Arc::new(StringArray::from(vec!["NO", "NO", "SE"]))),
        ("word", Arc::new(StringArray::from(vec!["small", "large", "none"]))),
    ]);
    let numbers = batch(vec![
        ("small", Arc::new(Int32Array::from(vec![1, 2, 705_032_704])) as ArrayRef),
        ("exact", decimals(&[1_500, 2_505, 5_500], 12, 3)),
        ("whole", decimals(&[1, 2, 3], 5, 0)),
        ("ratio", Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5]))),
        ("note", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
    ]);
    let of = |name: &str, key: &[&str], rows: &RecordBatch| {
        (name.to_owned(), Arc::new(table(name, key, rows.clone()).unwrap()))
    };
    [
        of("countries", &["code"], &countries),
        of("kinds", &["kind", "code"], &kinds),
        of("by_small", &["small"], &numbers),
        of("by_exact", &["exact"], &numbers),
        of("by_whole", &["whole"], &numbers),
    ]
    .into()
}

fn plan(sql: &str) -> Result<Transform> {
    Transform::plan(&TransformConfig { sql: sql.to_owned() }, orders().schema(), &tables())
}

fn run(sql: &str) -> Batch {
    let transform = plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let done = transform.apply(Batch::whole(orders())).unwrap();
    assert_eq!(done.rows.schema(), transform.schema(), "{sql}");
    let refused = done.refused.len() as u64;
    assert_eq!(done.read, done.rows.num_rows() as u64 + done.filtered + refused, "{sql}");
    done
}

/// The values of a column of text or numbers, as text.
fn values(done: &Batch, column: &str) -> Vec<String> {
    let column = done.rows.column_by_name(column).unwrap();
    (0..column.len())
        .map(|row| arrow::util::display::array_value_to_string(column, row).unwrap())
        .collect()
}

fn refusal(sql: &str) -> String {
    let error = plan(sql).map(|transform| transform.schema()).expect_err(sql);
    assert_eq!(error.class(), Class::Config, "{sql}");
    format!("{error} {}", error.advice().unwrap_or_default())
}

#[test]
fn a_left_join_keeps_every_row_and_an_inner_one_those_that_are_found() {
    let sql = "SELECT o.id, c.name, c.vat FROM input o LEFT JOIN countries c ON o.country = c.code";
    let done = run(sql);
    assert_eq!((done.read, done.filtered, done.rows.num_rows()), (5, 0, 5));
    assert_eq!(values(&done, "vat"), ["0.24", "0.25", "", "", "0.24"]);
    assert_eq!(values(&done, "name"), ["", "Sverige", "", "", ""]);
    assert!(done.rows.schema().field_with_name("vat").unwrap().is_nullable());

    let done = run(&sql.replace("LEFT JOIN", "JOIN"));
    assert_eq!((done.read, done.filtered, done.rows.num_rows()), (5, 2, 3));
    assert_eq!(values(&done, "id"), ["1", "2", "5000000000"]);
    assert_eq!(values(&done, "vat"), ["0.24", "0.25", "0.24"]);
}

#[test]
fn nothing_is_nullable_that_was_not_but_by_a_left_join() {
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![
        arrow::datatypes::Field::new("code", DataType::Utf8, false),
        arrow::datatypes::Field::new("name", DataType::Utf8, false),
    ]));
    let one = Table::new("c", &schema, &["code".to_owned()], &[]).unwrap();
    let tables: Tables = [("c".to_owned(), Arc::new(one))].into();
    for (join, nullable) in [("LEFT JOIN", true), ("JOIN", false), ("INNER JOIN", false)] {
        let sql = format!("SELECT c.name FROM input o {join} c ON o.country = c.code");
        let transform =
            Transform::plan(&TransformConfig { sql }, orders().schema(), &tables).unwrap();
        assert_eq!(transform.schema().field(0).is_nullable(), nullable, "{join}");
        // A reference without rows finds none.
        let done = transform.apply(Batch::whole(orders())).unwrap();
        assert_eq!(done.rows.num_rows(), if nullable { 5 } else { 0 });
    }
}

#[test]
fn several_are_joined_in_a_row_and_one_may_be_joined_twice() {
    let done = run("SELECT o.id, k.word, c.name AS a, d.vat AS b FROM input o \
         JOIN countries c ON c.code = o.country \
         LEFT JOIN kinds k ON k.code = c.code AND o.kind = k.kind \
         LEFT JOIN countries d ON d.code = CASE WHEN o.kind = 1 THEN 'SE' ELSE upper('no') END \
         WHERE c.vat > 0.1");
    assert_eq!(values(&done, "id"), ["1", "2", "5000000000"]);
    assert_eq!(values(&done, "word"), ["small", "", "large"]);
    assert_eq!(values(&done, "a"), ["", "Sverige", ""]);
    assert_eq!(values(&done, "b"), ["0.25", "0.24", "0.24"]);
    assert_eq!(done.filtered, 2);
}

#[test]
fn lookups_stand_in_subqueries_and_common_tables() {
    let done = run("WITH known AS (SELECT o.id, o.country, c.vat FROM input o \
         JOIN countries c ON o.country = c.code) \
         SELECT x.id, x.vat * 2 AS double, k.word FROM (SELECT * FROM known WHERE id < 10) x \
         LEFT JOIN kinds k ON x.id = k.kind AND x.country = k.code WHERE k.word IS NOT NULL");
    assert_eq!(values(&done, "id"), ["1"]);
    assert_eq!(values(&done, "double"), ["0.48"]);
    assert_eq!(values(&done, "word"), ["small"]);
    assert_eq!(done.filtered, 4);
    let done = run("SELECT x.* FROM (input o LEFT JOIN countries c ON o.country = c.code) AS x");
    assert_eq!(done.rows.num_columns(), 8);
    assert_eq!(values(&done, "code"), ["NO", "SE", "", "", "NO"]);
}

#[test]
fn a_row_that_is_not_found_is_told_by_its_key() {
    let done = run("SELECT o.id FROM input o LEFT JOIN countries c ON o.country = c.code \
         WHERE c.code IS NULL");
    assert_eq!(values(&done, "id"), ["3", "4"]);
}

#[test]
fn values_are_compared_exactly_whatever_their_types() {
    // 5,000,000,000 is 705,032,704 in 32 bits.
    let done = run("SELECT o.id, n.note FROM input o LEFT JOIN by_small n ON o.id = n.small");
    assert_eq!(values(&done, "note"), ["a", "b", "", "", ""]);
    // 2.50 is not 2.505.
    let done = run("SELECT o.id, n.note FROM input o LEFT JOIN by_exact n ON o.amount = n.exact");
    assert_eq!(values(&done, "note"), ["a", "", "", "", "c"]);
    let done = run("SELECT n.note FROM input o LEFT JOIN by_whole n ON o.id = n.whole");
    assert_eq!(values(&done, "note"), ["a", "b", "c", "", ""]);
    let done = run("SELECT n.note FROM input o LEFT JOIN by_small n ON o.kind + 1 = n.small");
    assert_eq!(values(&done, "note"), ["b", "", "b", "", ""]);
    let sql = "SELECT n.note FROM input o LEFT JOIN by_small n \
        ON CAST(o.amount AS decimal(10, 0)) = n.small";
    assert_eq!(values(&run(sql), "note"), ["b", "", "", "", ""]);
}

#[test]
fn a_comparison_that_would_lose_something_asks_for_a_cast() {
    for (on, table, words) in [
        (
            "o.amount = n.whole",
            "by_whole",
            "o.amount is decimal(10,2), and n.whole is decimal(5,0)",
        ),
        ("o.amount = n.small", "by_small", "CAST(o.amount AS bigint)"),
        ("o.country = n.small", "by_small", "o.country is string, and n.small is int32"),
        ("o.day = n.small", "by_small", "o.day is date"),
        ("o.id = c.code", "countries", "CAST(o.id AS varchar)"),
        ("c.code = NULL", "countries", "c.code is string"),
        ("CAST(o.id AS double) = n.small", "by_small", "is float64"),
    ] {
        let alias = if table == "countries" { "c" } else { "n" };
        let said = refusal(&format!("SELECT o.id FROM input o JOIN {table} {alias} ON {on}"));
        assert!(said.contains(words) && said.contains("CAST("), "{on}: {said}");
    }
}

#[test]
fn every_other_join_is_refused_with_what_to_write() {
    let from = "SELECT o.id FROM input o";
    for (rest, words) in [
        ("RIGHT JOIN countries c ON o.country = c.code", "Write FROM input LEFT JOIN countries ON"),
        ("FULL JOIN countries c ON o.country = c.code", "a FULL JOIN is no lookup"),
        ("LEFT SEMI JOIN countries c ON o.country = c.code", "JOIN countries ON … keeps the rows"),
        ("LEFT ANTI JOIN countries c ON o.country = c.code", "WHERE c.column IS NULL"),
        ("CROSS JOIN countries c", "nothing says which row of `c` is meant"),
        (", countries c WHERE o.country = c.code", "ON … = c.code"),
        ("JOIN countries c USING (id)", "ON"),
        ("JOIN kinds k USING (kind)", "by ON which values are compared"),
        ("NATURAL JOIN kinds k", "by ON which values are compared"),
        (
            "JOIN countries c ON o.country <> c.code",
            "does not compare a value of the row with a key",
        ),
        ("JOIN countries c ON o.country = c.code OR o.id = 1", "found by its whole key"),
        (
            "JOIN countries c ON o.country = c.code AND o.id > 1",
            "Other conditions belong into WHERE",
        ),
        ("JOIN countries c ON o.country = upper(c.code)", "with a key"),
        ("JOIN countries c ON c.name = c.code", "with a key"),
        ("JOIN countries c ON o.country = c.name", "`name` is not in the key of `c`"),
        ("JOIN countries c ON true", "with a key"),
        ("JOIN countries c ON o.country IS NOT DISTINCT FROM c.code", "with a key"),
        ("JOIN countries c ON o.country = c.code AND 'NO' = c.code", "`c.code` is compared twice"),
        ("JOIN kinds k ON o.kind = k.kind", "nothing is compared with `k.code`"),
        ("JOIN input i ON o.id = i.id", "a join with anything but a reference"),
        ("JOIN (SELECT * FROM countries) c ON o.country = c.code", "anything but a reference"),
        (
            "JOIN contries c ON o.country = c.code",
            "no table `contries`; the tables are `input`, `by_exact`",
        ),
        ("JOIN countries c ON o.country = (SELECT max(code) FROM countries)", "aggregate"),
        ("WHERE country IN (SELECT code FROM countries)", "a subquery"),
        ("LEFT JOIN countries c ON random() = c.code", "the same row must give the same"),
        ("JOIN countries c ON CAST(o.amount / 3 AS varchar) = c.code", "would be cut off"),
    ] {
        let said = refusal(&format!("{from} {rest}"));
        assert!(said.contains(words), "{rest}: {said}");
    }
    for sql in [
        "SELECT code FROM countries",
        "SELECT c.code FROM countries c JOIN input o ON o.country = c.code",
        "SELECT c.code FROM countries c LEFT JOIN kinds k ON k.code = c.code AND k.kind = 1",
    ] {
        let said = refusal(sql);
        assert!(said.contains("Begin with"), "{sql}: {said}");
    }
    let said = refusal("SELECT code FROM countries");
    assert!(said.contains("SELECT … FROM input LEFT JOIN countries ON …"), "{said}");
    let said = refusal("SELECT * FROM input o JOIN kinds k ON o.kind = k.kind AND k.code = 'NO'");
    assert!(said.contains("two columns are called `kind`"), "{said}");
}

#[test]
fn what_cannot_be_looked_up_refuses_its_row() {
    let done = run("SELECT o.id FROM input o LEFT JOIN by_small n ON 4 / (o.id - 2) = n.small");
    assert_eq!((done.rows.num_rows(), done.refused.len()), (4, 1));
    assert_eq!(done.refused[0].rule, "ON: division by zero");
    assert_eq!(done.refused[0].row["id"], 2);
}

#[test]
fn rows_with_one_key_are_refused_without_their_values() {
    let rows = batch(vec![
        ("a", Arc::new(StringArray::from(vec!["x", "secret", "secret", "secret"])) as ArrayRef),
        ("b", Arc::new(UInt32Array::from(vec![Some(1), Some(7), Some(7), None]))),
    ]);
    let error = table("pairs", &["a", "b"], rows.clone()).unwrap_err();
    assert_eq!(error.class(), Class::Contract);
    let told = format!("{error} {}", error.advice().unwrap());
    assert!(told.contains("1 row has a key that a row before it has"), "{told}");
    assert!(told.contains("pairs") && told.contains("a, b"), "{told}");
    assert!(!told.contains("secret") && !told.contains('7'), "{told}");
    let error = table("pairs", &["a"], rows.clone()).unwrap_err();
    assert!(error.to_string().contains("2 rows have a key"), "{error}");

    let error = table("pairs", &["c"], rows.clone()).unwrap_err();
    assert_eq!(error.class(), Class::Config);
    assert_eq!(error.advice(), Some("Its columns are: a, b."));
    assert!(table("pairs", &[], rows).unwrap_err().to_string().contains("no key"));
    let ratio = batch(vec![("r", Arc::new(Float64Array::from(vec![0.5])) as ArrayRef)]);
    assert!(table("ratios", &["r"], ratio).unwrap_err().to_string().contains("a float"));
}

#[test]
fn what_the_sql_does_not_use_is_not_taken() {
    let transform =
        plan("SELECT o.id, c.vat FROM input o JOIN countries c ON o.country = c.code").unwrap();
    let taken: Vec<_> = transform
        .stages
        .iter()
        .filter_map(|stage| match stage {
            super::super::Stage::Lookup(lookup) => Some(lookup.taken.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(taken, [vec![2]]);
    assert!(plan("SELECT 1 AS x FROM input o JOIN countries c ON o.country = c.code").is_ok());
}

#[test]
fn parsing_alone_tells_which_are_used() {
    let config = |sql: &str| TransformConfig { sql: sql.to_owned() };
    let known = ["countries", "kinds"].into();
    let used = Transform::parse(
        &config("WITH x AS (SELECT * FROM input) SELECT x.id FROM x JOIN Countries c ON 1 = 1"),
        &known,
    );
    assert_eq!(used.unwrap(), ["countries".to_owned()].into());
    for sql in ["SELECT id FROM inptu", "SELECT id FROM x.input", "SELECT id FROM \"Countries\""] {
        let error = Transform::parse(&config(sql), &known).unwrap_err();
        assert!(error.to_string().contains("the tables are `input`, `countries`"), "{error}");
    }
}

#[tokio::test]
async fn wide_values_make_batches_of_few_rows() {
    let wide = "x".repeat(1 << 20);
    let rows = batch(vec![
        ("code", Arc::new(StringArray::from(vec!["NO", "SE"])) as ArrayRef),
        ("text", Arc::new(StringArray::from(vec![wide.as_str(), "short"]))),
    ]);
    assert!(cost(&rows, &["code".to_owned()]) > 1 << 20);
    let tables: Tables =
        [("wide".to_owned(), Arc::new(table("wide", &["code"], rows).unwrap()))].into();
    let many = RecordBatch::try_from_iter([(
        "country",
        // Of every five one is not found.
        Arc::new(StringArray::from(["NO", "NO", "??", "NO", "NO"].repeat(5))) as ArrayRef,
    )])
    .unwrap();
    let sql = "SELECT w.text FROM input o JOIN wide w ON o.country = w.code".to_owned();
    let transform = Transform::plan(&TransformConfig { sql }, many.schema(), &tables).unwrap();
    let schema = many.schema();
    let places = Places { file: "a".into(), at: At::Row, numbers: (1..=25_u64).collect() };
    let first = Batch { read: 30, filtered: 5, places: Some(places), ..Batch::whole(many) };
    let rows = Rows { schema, stream: stream::iter([Ok(first)]).boxed(), snapshot: None };
    let done: Vec<Batch> = transform.rows(rows).stream.try_collect().await.unwrap();
    let sum = |of: fn(&Batch) -> u64| done.iter().map(of).sum::<u64>();
    assert_eq!(sum(|batch| batch.rows.num_rows() as u64), 20);
    assert_eq!((sum(|batch| batch.read), sum(|batch| batch.filtered)), (30, 10));
    let places = done.iter().flat_map(|batch| {
        (0..batch.rows.num_rows()).map(|row| batch.origin(row).unwrap().at).collect::<Vec<_>>()
    });
    let expected = (1..=25).filter(|row| row % 5 != 3).map(At::Row);
    assert_eq!(places.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert!(done.len() > 3, "{}", done.len());
    for batch in &done {
        assert_eq!(batch.read, batch.rows.num_rows() as u64 + batch.filtered);
        assert!(batch.rows.get_array_memory_size() < 6 << 20);
    }
}

proptest! {
    /// Each row finds what a search through the reference finds.
    #[test]
    fn lookups_find_what_a_search_finds(
        keys in prop::collection::btree_set((0_i64..20, 0_u8..3), 0..20),
        rows in prop::collection::vec((prop::option::of(0_i64..20), prop::option::of(0_u8..3)), 1..50),
    ) {
        let keys: Vec<(i64, String)> =
            keys.into_iter().map(|(number, letter)| (number, format!("k{letter}"))).collect();
        let reference = RecordBatch::try_from_iter_with_nullable([
            ("n", Arc::new(keys.iter().map(|(n, _)| Some(*n)).collect::<Int64Array>()) as ArrayRef, true),
            ("t", Arc::new(keys.iter().map(|(_, t)| Some(t)).collect::<StringArray>()) as _, true),
            ("at", Arc::new((0..keys.len() as i64).map(Some).collect::<Int64Array>()) as _, true),
        ]).unwrap();
        let tables: Tables =
            [("r".to_owned(), Arc::new(table("r", &["t", "n"], reference).unwrap()))].into();
        let texts: Vec<Option<String>> =
            rows.iter().map(|(_, letter)| letter.map(|letter| format!("k{letter}"))).collect();
        let numbers: Vec<i128> = rows.iter().map(|(n, _)| i128::from(n.unwrap_or(-1))).collect();
        let input = RecordBatch::try_from_iter_with_nullable([
            ("n", decimals(&numbers, 9, 0), true),
            ("t", Arc::new(texts.iter().cloned().collect::<StringArray>()) as _, true),
        ]).unwrap();
        let sql = "SELECT r.at FROM input i LEFT JOIN r ON r.n = i.n AND i.t = r.t".to_owned();
        let transform = Transform::plan(&TransformConfig { sql }, input.schema(), &tables).unwrap();
        let done = transform.apply(Batch::whole(input)).unwrap();
        let found = done.rows.column(0).as_primitive::<Int64Type>();
        for (row, (number, _)) in rows.iter().enumerate() {
            let wanted = keys.iter().position(|(n, t)| {
                Some(*n) == *number && Some(t) == texts[row].as_ref()
            });
            let there = found.is_valid(row).then(|| found.value(row) as usize);
            prop_assert_eq!(there, wanted);
        }
    }
}

#[test]
fn decimals_of_a_reference_come_as_they_are() {
    let done = run("SELECT c.vat FROM input o JOIN countries c ON o.country = c.code");
    assert_eq!(done.rows.column(0).data_type(), &DataType::Decimal128(4, 2));
    assert_eq!(done.rows.column(0).as_primitive::<Decimal128Type>().value(0), 24);
}
