use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::DataType;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use secrecy::SecretString;
use sha2::Sha256;

use super::{Protect, ProtectConfig, Protection};
use crate::error::{Class, Result};
use crate::rows::Batch;

const KEY: &str = "a key of some length";

fn rows() -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![i64::MIN, 2])) as ArrayRef, false),
        ("email", Arc::new(StringArray::from(vec![Some("åse@x.no!"), None])) as ArrayRef, true),
        (
            "amount",
            Arc::new(Decimal128Array::from(vec![1230, -5]).with_precision_and_scale(9, 2).unwrap())
                as ArrayRef,
            false,
        ),
    ])
    .unwrap()
}

fn config(columns: &[(&str, Protection)]) -> ProtectConfig {
    columns.iter().map(|(name, how)| ((*name).to_owned(), *how)).collect()
}

fn protect(columns: &[(&str, Protection)], rows: RecordBatch) -> Result<RecordBatch> {
    let key = SecretString::from(KEY);
    let protect = Protect::plan(&config(columns), rows.schema(), Some(&key))?;
    let batch = Batch { read: 9, filtered: 7, ..Batch::whole(rows) };
    let count = batch.rows.num_rows();
    let done = protect.apply(batch)?;
    assert_eq!(done.rows.schema(), protect.schema());
    assert_eq!((done.read, done.filtered, done.rows.num_rows()), (9, 7, count));
    Ok(done.rows)
}

fn pseudonym(value: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(value);
    hex::encode(mac.finalize().into_bytes())
}

#[test]
fn dropped_columns_are_gone() {
    let done = protect(&[("email", Protection::Drop)], rows()).unwrap();
    assert!(done.column_by_name("email").is_none());
    assert_eq!(done.num_columns(), 2);
}

#[test]
fn masks_go_by_characters() {
    let texts = ["", "short", "åtteåtte", "niniåninå", "0123456789", "👩‍🚀👩‍🚀👩‍🚀x"];
    let column = StringArray::from_iter(texts.iter().map(Some).chain([None]));
    let rows =
        RecordBatch::try_from_iter_with_nullable([("t", Arc::new(column) as ArrayRef, true)]);
    let done = protect(&[("t", Protection::Mask)], rows.unwrap()).unwrap();
    let masked: Vec<_> = done.column(0).as_string::<i32>().iter().collect();
    assert_eq!(
        masked[..5],
        [Some(""), Some("*****"), Some("********"), Some("*****ninå"), Some("******6789")]
    );
    assert_eq!(masked[5].unwrap().chars().count(), texts[5].chars().count());
    assert_eq!(masked[6], None);
}

#[test]
fn redaction_shows_nothing() {
    let columns = [("email", Protection::Redact), ("amount", Protection::Redact)];
    let done = protect(&columns, rows()).unwrap();
    let texts: Vec<_> = done.column(1).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("[redacted]"); 2]);
    assert_eq!(done.column(2).null_count(), 2);
    assert!(done.schema().field(2).is_nullable());
    assert_eq!(*done.column(2).data_type(), DataType::Decimal128(9, 2));
}

#[test]
fn hashes_are_hmacs_of_the_canonical_text() {
    let all = RecordBatch::try_from_iter_with_nullable([
        ("i", Arc::new(Int64Array::from(vec![i64::MIN])) as ArrayRef, true),
        ("s", Arc::new(StringArray::from(vec!["åse"])) as ArrayRef, true),
        ("b", Arc::new(BinaryArray::from(vec![&b"\xff\x00"[..]])) as ArrayRef, true),
        ("t", Arc::new(BooleanArray::from(vec![true])) as ArrayRef, true),
        (
            "d",
            Arc::new(Decimal128Array::from(vec![1230]).with_precision_and_scale(9, 2).unwrap())
                as ArrayRef,
            true,
        ),
        ("f", Arc::new(Float64Array::from(vec![0.1])) as ArrayRef, true),
        ("day", Arc::new(Date32Array::from(vec![0])) as ArrayRef, true),
        ("c", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000])) as ArrayRef, true),
        (
            "u",
            Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")) as ArrayRef,
            true,
        ),
        ("clock", Arc::new(arrow::array::Time64MicrosecondArray::from(vec![1])) as ArrayRef, true),
        ("n", new_null_array(&DataType::Date32, 1), true),
    ])
    .unwrap();
    let names: Vec<String> =
        all.schema().fields().iter().map(|field| field.name().clone()).collect();
    let columns: Vec<_> = names.iter().map(|name| (name.as_str(), Protection::Hash)).collect();
    let done = protect(&columns, all).unwrap();
    for (index, text) in [
        &b"-9223372036854775808"[..],
        "åse".as_bytes(),
        b"\xff\x00",
        b"true",
        b"12.30",
        b"0.1",
        b"1970-01-01",
        b"1970-01-01T00:00:01.500",
        b"1970-01-01T00:00:00.000001Z",
        b"00:00:00.000001",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(done.column(index).as_string::<i32>().value(0), pseudonym(text), "{index}");
    }
    assert!(done.column(10).is_null(0));
}

/// RFC 4231, test case 2.
#[test]
fn a_hash_is_the_published_one() {
    let rows = RecordBatch::try_from_iter([(
        "t",
        Arc::new(StringArray::from(vec!["what do ya want for nothing?"])) as ArrayRef,
    )])
    .unwrap();
    let key = SecretString::from("Jefe");
    let protect =
        Protect::plan(&config(&[("t", Protection::Hash)]), rows.schema(), Some(&key)).unwrap();
    let done = protect.apply(Batch::whole(rows)).unwrap();
    assert_eq!(
        done.rows.column(0).as_string::<i32>().value(0),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn what_cannot_be_protected_is_refused_when_planning() {
    let said = |columns: &[(&str, Protection)], key: Option<&SecretString>| {
        let error = Protect::plan(&config(columns), rows().schema(), key).map(|_| ()).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        format!("{error} {}", error.advice().unwrap_or_default())
    };
    let key = SecretString::from(KEY);
    assert!(said(&[("emial", Protection::Drop)], None).contains("`email`?"));
    assert!(said(&[("amount", Protection::Mask)], None).contains("`amount`"));
    for key in [None, Some(&SecretString::from(""))] {
        let said = said(&[("email", Protection::Hash)], key);
        assert!(said.contains("[keys]") && said.contains("longshore.toml"), "{said}");
    }
    let all = ["id", "email", "amount"].map(|name| (name, Protection::Drop));
    assert!(said(&all, Some(&key)).contains("every column"));
}

#[test]
fn a_date_that_cannot_be_written_is_not_quoted() {
    let rows = RecordBatch::try_from_iter([(
        "d",
        Arc::new(Date32Array::from(vec![i32::MAX])) as ArrayRef,
    )])
    .unwrap();
    let error = protect(&[("d", Protection::Hash)], rows).unwrap_err();
    assert!(!error.chain().contains(&i32::MAX.to_string()), "{}", error.chain());
}

proptest! {
    #[test]
    fn every_row_goes_on_and_no_value_shows(
        texts in prop::collection::vec(prop::option::of(".{9,20}"), 0..20),
    ) {
        let column = StringArray::from(texts.clone());
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("m", Arc::new(column.clone()) as ArrayRef, true),
            ("h", Arc::new(column.clone()) as ArrayRef, true),
        ]).unwrap();
        let done = protect(&[("m", Protection::Mask), ("h", Protection::Hash)], rows).unwrap();
        let masked = done.column(0).as_string::<i32>();
        let hashed = done.column(1).as_string::<i32>();
        for (row, text) in texts.iter().enumerate() {
            prop_assert_eq!(masked.is_null(row), text.is_none());
            let Some(text) = text else { continue };
            prop_assert_eq!(masked.value(row).chars().count(), text.chars().count());
            let tail: String = text.chars().skip(text.chars().count() - 4).collect();
            prop_assert!(masked.value(row).trim_start_matches('*').len() <= tail.len());
            prop_assert!(masked.value(row).ends_with(&tail));
            prop_assert_eq!(hashed.value(row), pseudonym(text.as_bytes()));
        }
    }
}
