use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Schema, i256};
use proptest::prelude::*;
use serde_json::json;

use super::{BrokenRules, Contract, ContractConfig, Share, check_share};
use crate::error::{Class, Result};
use crate::format::FieldType;
use crate::rows::{Batch, Counts};

fn config(value: serde_json::Value) -> ContractConfig {
    serde_json::from_value(value).unwrap()
}

fn fields(value: serde_json::Value) -> ContractConfig {
    config(json!({ "fields": value }))
}

fn one(name: &str, column: impl Array + 'static) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(name, Arc::new(column) as ArrayRef, true)]).unwrap()
}

fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> Decimal128Array {
    Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
}

fn keep(config: &ContractConfig, rows: RecordBatch) -> Result<Batch> {
    let contract = Contract::plan(config, rows.schema())?;
    let done = contract.apply(Batch::whole(rows))?;
    assert_eq!(done.rows.schema(), contract.schema());
    let accounted = done.rows.num_rows() as u64 + done.filtered + done.refused.len() as u64;
    assert_eq!(done.read, accounted);
    Ok(done)
}

fn rules(batch: &Batch) -> Vec<&str> {
    batch.refused.iter().map(|refused| refused.rule.as_str()).collect()
}

fn said(result: Result<impl Sized>, class: Class) -> String {
    let error = result.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), class, "{error}");
    format!("{error} {}", error.advice().unwrap_or_default())
}

#[test]
fn a_missing_column_is_named_with_the_nearest() {
    let rows = one("custmer_email", StringArray::from(vec!["x"]));
    let config = fields(json!({ "customer_email": { "type": "string" } }));
    let said = said(keep(&config, rows), Class::Contract);
    assert!(said.contains("`customer_email`") && said.contains("`custmer_email`?"), "{said}");
}

#[test]
fn extra_columns_fail_or_are_dropped() {
    let rows = RecordBatch::try_from_iter([
        ("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("b", Arc::new(Int64Array::from(vec![2]))),
        ("c", Arc::new(Int64Array::from(vec![3]))),
    ])
    .unwrap();
    let promised = json!({ "c": { "type": "int64" }, "a": { "type": "int64" } });
    let said = said(keep(&fields(promised.clone()), rows.clone()), Class::Contract);
    assert!(said.contains("`b`") && said.contains("extra-columns = \"drop\""), "{said}");
    let dropped = config(json!({ "extra-columns": "drop", "fields": promised }));
    let done = keep(&dropped, rows).unwrap();
    let names: Vec<_> = done.rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["c", "a"]);
}

#[test]
fn only_conversions_that_keep_every_value_are_planned() {
    let all = [
        "bool",
        "int16",
        "int32",
        "int64",
        "float32",
        "float64",
        "decimal(15,2)",
        "decimal(38,10)",
        "string",
        "bytes",
        "date",
        "time(us)",
        "timestamp(us)",
        "timestamp(us, UTC)",
    ];
    let digits = |kind: &str| kind.starts_with("int") || kind.starts_with("decimal");
    for from in all {
        for to in all {
            let from_type = FieldType::parse(from).unwrap().arrow();
            let rows =
                RecordBatch::new_empty(Arc::new(Schema::new(vec![arrow::datatypes::Field::new(
                    "x", from_type, true,
                )])));
            let planned = keep(&fields(json!({ "x": { "type": to } })), rows);
            let expected = from == to
                || digits(from) && digits(to)
                || matches!(
                    (from, to),
                    ("int16", "float32" | "float64") | ("int32" | "float32", "float64")
                );
            assert_eq!(planned.is_ok(), expected, "{from} to {to}");
            if !expected {
                let said = said(planned, Class::Contract);
                assert!(
                    said.contains(from) && said.contains(to) && said.contains("CAST"),
                    "{said}"
                );
            }
        }
    }
}

#[test]
fn a_value_that_does_not_fit_exactly_refuses_its_row() {
    let rows = one("x", Int64Array::from(vec![Some(1), None, Some(i64::MAX), Some(-2147483648)]));
    let done = keep(&fields(json!({ "x": { "type": "int32" } })), rows).unwrap();
    assert_eq!(rules(&done), ["type int32"]);
    assert_eq!(done.refused[0].row["x"], i64::MAX.to_string());
    assert_eq!(done.refused[0].column.as_deref(), Some("x"));
    let kept = done.rows.column(0).as_primitive::<Int32Type>();
    assert_eq!(kept.iter().collect::<Vec<_>>(), [Some(1), None, Some(i32::MIN)]);

    let nines = 10i128.pow(38) - 1;
    let values =
        vec![Some(12_500_000_000), Some(12_345_000_000), Some(12_345_678_901), Some(nines)];
    let rows = one("x", decimals(values, 38, 10));
    let done = keep(&fields(json!({ "x": { "type": "decimal(15,2)" } })), rows).unwrap();
    assert_eq!(rules(&done), ["type decimal(15,2)"; 3]);
    assert_eq!(done.rows.column(0).as_primitive::<Decimal128Type>().value(0), 125);
    assert_eq!(done.refused[2].row["x"], "9999999999999999999999999999.9999999999");

    let rows = one("x", decimals(vec![Some(nines), Some(-nines)], 38, 0));
    let done = keep(&fields(json!({ "x": { "type": "decimal(38,0)" } })), rows.clone()).unwrap();
    assert_eq!(done.rows.num_rows(), 2);
    let done = keep(&fields(json!({ "x": { "type": "decimal(38,38)" } })), rows).unwrap();
    assert_eq!(done.refused.len(), 2);
}

#[test]
fn null_breaks_required_and_keys_and_nothing_else() {
    let config = config(json!({
        "primary-key": ["k"],
        "fields": {
            "k": { "type": "int64" },
            "r": { "type": "string", "required": true },
            "v": { "type": "int64", "min": 0, "max": 9, "values": [1, 2] },
        }
    }));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(Int64Array::from(vec![None, Some(1), None, Some(2)])) as ArrayRef, true),
        ("r", Arc::new(StringArray::from(vec![Some(""), None, None, Some("")])) as ArrayRef, true),
        ("v", Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(-1), None])) as ArrayRef, true),
    ])
    .unwrap();
    let done = keep(&config, rows).unwrap();
    assert_eq!(rules(&done), ["primary-key", "required", "primary-key"]);
    assert_eq!(done.rows.num_rows(), 1);
    assert!(
        !done.rows.schema().field(0).is_nullable() && done.rows.schema().field(2).is_nullable()
    );
}

#[test]
fn bounds_are_compared_exactly() {
    let big = 9_007_199_254_740_993_i64;
    let rows = one("x", Int64Array::from(vec![big - 1, big, big + 1]));
    let config = fields(json!({ "x": { "type": "int64", "min": big, "max": big } }));
    let done = keep(&config, rows).unwrap();
    assert_eq!(rules(&done), [format!("min {big}"), format!("max {big}")]);

    let rows = one("x", decimals(vec![Some(-1), Some(0), Some(10), Some(11)], 15, 2));
    let config = fields(json!({ "x": { "type": "decimal(15,2)", "min": 0, "max": 0.1 } }));
    assert_eq!(rules(&keep(&config, rows).unwrap()), ["min 0", "max 0.1"]);

    let rows = one("x", Float64Array::from(vec![f64::NAN, -0.0, 1.0, f64::INFINITY]));
    let config = fields(json!({ "x": { "type": "float64", "min": 0, "max": 1 } }));
    assert_eq!(rules(&keep(&config, rows).unwrap()), ["min 0", "max 1"]);

    let rows = one("x", Date32Array::from(vec![-1, 0, 1]));
    let config =
        fields(json!({ "x": { "type": "date", "min": "1970-01-01", "max": "1970-01-01" } }));
    let done = keep(&config, rows).unwrap();
    assert_eq!(rules(&done), ["min 1970-01-01", "max 1970-01-01"]);
    assert_eq!(done.refused[0].row["x"], "1969-12-31");

    let rows = one("x", TimestampMicrosecondArray::from(vec![-1, 0, 1]).with_timezone("UTC"));
    let kind = json!({ "x": { "type": "timestamp(us, UTC)", "min": "1970-01-01T01:00:00+01:00" } });
    assert_eq!(keep(&fields(kind), rows).unwrap().refused.len(), 1);

    let rows = one("x", TimestampMicrosecondArray::from(vec![-1, 0, 1]));
    let kind = json!({ "x": { "type": "timestamp(us)", "max": "1970-01-01T00:00:00" } });
    assert_eq!(keep(&fields(kind), rows).unwrap().refused.len(), 1);

    let rows =
        one("x", arrow::array::Time64MicrosecondArray::from(vec![86_399_999_998, 86_399_999_999]));
    let kind = json!({ "x": { "type": "time(us)", "min": "23:59:59.999999" } });
    assert_eq!(keep(&fields(kind), rows).unwrap().refused.len(), 1);
}

#[test]
fn values_are_compared_as_their_type() {
    let rows = one("x", StringArray::from(vec![Some("NO"), Some("no"), None, Some("SE")]));
    let config = fields(json!({ "x": { "type": "string", "values": ["NO", "SE"] } }));
    assert_eq!(rules(&keep(&config, rows).unwrap()), ["values"]);
    let rows = one("x", decimals(vec![Some(150), Some(151)], 9, 2));
    let config = fields(json!({ "x": { "type": "decimal(9,2)", "values": ["1.5"] } }));
    assert_eq!(rules(&keep(&config, rows).unwrap()), ["values"]);
    let rows = one("x", arrow::array::BooleanArray::from(vec![true, false]));
    let config = fields(json!({ "x": { "type": "bool", "values": [true] } }));
    assert_eq!(rules(&keep(&config, rows).unwrap()), ["values"]);
}

#[test]
fn a_rule_that_is_no_value_of_the_type_is_a_mistake_of_the_definition() {
    for field in [
        json!({ "type": "int16", "min": 40_000 }),
        json!({ "type": "int32", "min": 0.5 }),
        json!({ "type": "int64", "max": "ten" }),
        json!({ "type": "decimal(15,2)", "min": 0.005 }),
        json!({ "type": "decimal(3,2)", "max": 10 }),
        json!({ "type": "decimal(38,20)", "max": 0.123_456_789_012_345_67 }),
        json!({ "type": "string", "min": "a" }),
        json!({ "type": "bytes", "values": ["a"] }),
        json!({ "type": "date", "min": 5 }),
        json!({ "type": "date", "min": "yesterday" }),
        json!({ "type": "timestamp(us)", "min": "2026-01-01T00:00:00Z" }),
        json!({ "type": "timestamp(us, UTC)", "min": "2026-01-01T00:00:00" }),
        json!({ "type": "timestamp(us, UTC)", "min": "2026-01-01T00:00:00.0000001Z" }),
        json!({ "type": "float64", "min": "NaN" }),
        json!({ "type": "int64", "min": 2, "max": 1 }),
        json!({ "type": "int64", "values": [] }),
        json!({ "type": "string", "values": [1] }),
        json!({ "type": "int64", "min": null, "values": [null] }),
    ] {
        let kind: FieldType = serde_json::from_value(field["type"].clone()).unwrap();
        let rows = one("x", new_null_array(&kind.arrow(), 1));
        let said = said(keep(&fields(json!({ "x": field })), rows), Class::Config);
        assert!(said.contains("column x"), "{said}");
    }
    let no_key = config(json!({ "primary-key": ["ix"], "fields": { "id": { "type": "int64" } } }));
    let rows = one("id", Int64Array::from(vec![1]));
    assert!(said(keep(&no_key, rows), Class::Config).contains("`ix`"));
}

#[test]
fn dates_of_toml_are_literals() {
    let config: ContractConfig = toml::from_str(
        "[fields]\nd = { type = \"date\", min = 2026-01-01, values = [2026-01-01, 2026-01-02] }",
    )
    .unwrap();
    let rows = one("d", Date32Array::from(vec![20_453, 20_454, 20_455, 20_456]));
    let done = keep(&config, rows).unwrap();
    assert_eq!(rules(&done), ["min 2026-01-01", "values"]);
}

#[test]
fn earlier_accounts_are_kept() {
    let rows = one("x", Int32Array::from(vec![Some(1), None]));
    let config = fields(json!({ "x": { "type": "int32", "required": true } }));
    let contract = Contract::plan(&config, rows.schema()).unwrap();
    let first = contract.apply(Batch::whole(rows.clone())).unwrap();
    let batch = Batch { read: 8, filtered: 5, refused: first.refused, ..Batch::whole(rows) };
    let done = contract.apply(batch).unwrap();
    assert_eq!((done.read, done.filtered, done.refused.len(), done.rows.num_rows()), (8, 5, 2, 1));
}

#[test]
fn empty_batches_and_columns_of_null_pass() {
    let config = fields(json!({
        "a": { "type": "decimal(15,2)", "min": 0, "values": [1] },
        "b": { "type": "string", "values": ["x"] },
    }));
    for count in [0, 3] {
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("a", new_null_array(&DataType::Int64, count), true),
            ("b", new_null_array(&DataType::Utf8, count), true),
        ])
        .unwrap();
        assert_eq!(keep(&config, rows).unwrap().rows.num_rows(), count);
    }
}

#[test]
fn shares_read_back_and_are_exact() {
    for text in ["0.1%", "0%", "100%", "0.07%", "0.10%", "33.333333333333%", "5%"] {
        let share: Share = serde_json::from_value(json!(text)).unwrap();
        assert_eq!(serde_json::to_value(share).unwrap(), json!(text));
    }
    for bad in
        ["0.1", "-1%", "100.1%", "1e1%", "NaN%", ".5%", "5.%", "%", "+5%", "99999999999999999999%"]
    {
        assert!(serde_json::from_value::<Share>(json!(bad)).is_err(), "{bad}");
    }
    let share = Share::parse("0.1%").unwrap();
    assert!(share.allows(1, 1000) && !share.allows(2, 1999) && share.allows(0, 0));
    assert!(Share::parse("100%").unwrap().allows(u64::MAX, u64::MAX));
}

#[test]
fn too_many_refused_rows_break_the_contract() {
    let mut config = fields(json!({ "a": { "type": "int64" } }));
    let counts = Counts { read: 1000, quarantined: 1, written: 999, ..Counts::default() };
    let broken = BrokenRules::of([("a: required".to_owned(), 1)]);
    let told = said(check_share(&config, &counts, &broken, true), Class::Contract);
    assert!(told.contains("1 of 1000 rows") && told.contains("0%"), "{told}");
    config.max_rejected = Share::parse("0.1%");
    check_share(&config, &counts, &broken, true).unwrap();
    check_share(&config, &Counts { quarantined: 2, ..counts }, &broken, true).unwrap_err();
    config.max_rejected = None;
    check_share(&config, &Counts::default(), &BrokenRules::default(), false).unwrap();
}

#[test]
fn the_worst_rules_are_told_and_no_quarantine_where_there_is_none() {
    let mut config = fields(json!({ "a": { "type": "int64" } }));
    config.max_rejected = Share::parse("0.1%");
    let rules = [("amount: min 1", 700), ("country: values", 49_700), ("b: required", 1)];
    let broken = BrokenRules::of(rules.map(|(rule, rows)| (rule.to_owned(), rows)));
    let counts = Counts { read: 100_000, quarantined: 50_401, ..Counts::default() };
    let error = check_share(&config, &counts, &broken, true).unwrap_err();
    assert_eq!(
        error.message(),
        "50401 of 100000 rows were refused, and max-rejected allows 0.1%: country: values (49700 \
         rows), amount: min 1 (700 rows), b: required (1 row)"
    );
    assert!(error.advice().unwrap().contains("in the quarantine"));
    let error = check_share(&config, &counts, &broken, false).unwrap_err();
    assert!(!error.advice().unwrap().contains("quarantine"), "{error:?}");
    // Where only a place to keep them is missing, that is what is told.
    config.max_rejected = Share::parse("100%");
    check_share(&config, &counts, &broken, true).unwrap();
    let error = check_share(&config, &counts, &broken, false).unwrap_err();
    assert!(error.message().contains("there is no quarantine to keep them in: country"));
    let many = BrokenRules::of((0..12).map(|n| (format!("c{n}: required"), 5)));
    assert!(many.to_string().ends_with("c7: required (5 rows), and 2 more"), "{many}");
}

proptest! {
    #[test]
    fn every_row_is_kept_exactly_or_refused(
        values in prop::collection::vec(prop::option::of(prop_oneof![
            -(10i128.pow(38) - 1)..10i128.pow(38), -2000i128..2000, (-200i128..200).prop_map(|v| v * 100_000),
        ]), 0..50),
        required in any::<bool>(),
        min in -20i64..20,
    ) {
        let rows = one("x", decimals(values.clone(), 38, 5));
        let config = fields(json!({
            "x": { "type": "decimal(9,2)", "required": required, "min": min },
        }));
        let done = keep(&config, rows).unwrap();
        let expected: Vec<Option<i128>> = values.iter().filter_map(|value| match value {
            None => (!required).then_some(None),
            Some(v) => (v % 1000 == 0 && (v / 1000).abs() < 1_000_000_000
                && v / 1000 >= i128::from(min) * 100).then_some(Some(v / 1000)),
        }).collect();
        let got: Vec<_> = done.rows.column(0).as_primitive::<Decimal128Type>().iter().collect();
        prop_assert_eq!(&got, &expected);

        // The same out of a column of more digits, and by way of one.
        let values: Vec<_> = values.into_iter().map(|value| value.map(i256::from_i128)).collect();
        let wide = Decimal256Array::from(values).with_precision_and_scale(60, 5).unwrap();
        let done_wide = keep(&config, one("x", wide)).unwrap();
        let got = done_wide.rows.column(0).as_primitive::<Decimal128Type>();
        prop_assert_eq!(got.iter().collect::<Vec<_>>(), expected);
        let wider = fields(json!({ "x": { "type": "decimal(76,60)" } }));
        let kept = done.rows.clone();
        let there = keep(&wider, kept.clone()).unwrap().rows;
        prop_assert_eq!(there.num_rows(), kept.num_rows());
        let back = keep(&fields(json!({ "x": { "type": "decimal(9,2)" } })), there).unwrap();
        prop_assert_eq!(back.rows.column(0), kept.column(0));
        prop_assert_eq!(done.read, done.rows.num_rows() as u64 + done.refused.len() as u64);
    }
}
