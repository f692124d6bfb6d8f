//! Rows out of the JSON that [`row_json`](crate::format::row_json) made of them, exactly as they
//! were.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::batcher::{Batcher, Column};
use super::exact;
use super::jsonl::{Object, put, raw};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::rows::Batch;

const DOING: &str = "read a refused row";
/// After so many years the calendar begins anew, and after so many days.
const CYCLE: (i64, i64) = (400, 146_097);
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Gathers rows into batches.
pub struct RefusedRows {
    types: IndexMap<String, FieldType>,
    batcher: Batcher,
}

impl RefusedRows {
    /// For rows with columns of these types.
    pub fn new(types: &IndexMap<String, FieldType>) -> RefusedRows {
        RefusedRows { types: types.clone(), batcher: Batcher::new(types) }
    }

    /// Charges what is gathered to a budget.
    ///
    /// # Errors
    /// Those of the budget.
    pub fn within(self, budget: &Budget) -> Result<RefusedRows> {
        Ok(RefusedRows { batcher: self.batcher.within(budget)?, ..self })
    }

    /// Adds a row. Columns that are not among the types are passed over.
    ///
    /// # Errors
    /// `permanent`, naming the column, where it is no such row; those of the budget.
    pub fn add(&mut self, row: &str) -> Result<()> {
        self.batcher.hold(row.len())?;
        let object: Object<'_> = serde_json::from_str(row)
            .map_err(|_| Error::permanent(DOING, "it is no JSON object"))?;
        let mut values = vec![None; self.types.len()];
        for (name, value) in &object.0 {
            let slot = self.types.get_index_of(&**name).and_then(|column| values.get_mut(column));
            if let Some(slot) = slot {
                *slot = Some(value.get());
            }
        }
        let mut wrong = None;
        for (index, value) in values.into_iter().enumerate() {
            self.batcher.value(index, |column| {
                let fits = value.is_some_and(|value| put(column, value) || put_far(column, value));
                if !fits {
                    wrong = Some(index);
                }
                fits
            });
        }
        self.batcher.end_row(row.len(), Map::new);
        match wrong.and_then(|index| self.types.get_index(index)) {
            None => Ok(()),
            Some((name, kind)) => Err(Error::permanent(DOING, "a value is none of its type")
                .with("column", name)
                .with("type", kind)),
        }
    }

    /// Whether it is time for [`RefusedRows::finish`].
    pub fn is_full(&self) -> bool {
        self.batcher.is_full()
    }

    /// The rows since the last time; `None` when there are none.
    ///
    /// # Errors
    /// None that input could cause.
    pub fn finish(&mut self) -> Result<Option<Batch>> {
        self.batcher.finish()
    }
}

/// A row that has no types, as it was: a number that JSON's readers would cut is its text.
///
/// # Errors
/// `permanent` where it is no JSON object.
pub fn raw_row(row: &str) -> Result<Map<String, Value>> {
    let object: Object<'_> =
        serde_json::from_str(row).map_err(|_| Error::permanent(DOING, "it is no JSON object"))?;
    Ok(object.0.iter().map(|(name, value)| (name.to_string(), raw(value.get()))).collect())
}

/// A date or time that no calendar of four digits holds: with a longer year, or, where it cannot be
/// shown at all, as its number.
fn put_far(column: &mut Column, value: &str) -> bool {
    let Ok(text) = serde_json::from_str::<String>(value) else { return false };
    let number = text.parse::<i64>().ok();
    match column.kind() {
        FieldType::Date => {
            let days = number.or_else(|| far(&text, 1, |text| exact::date(text).map(i64::from)));
            column.days(days.and_then(|days| days.try_into().ok()))
        }
        FieldType::Time => column.micros(number),
        FieldType::Timestamp => column.micros(number.or_else(|| far(&text, DAY, exact::timestamp))),
        FieldType::Instant => column.micros(number.or_else(|| far(&text, DAY, exact::instant))),
        _ => false,
    }
}

/// What `text` is with its year in another round of the calendar, moved by the rounds between.
fn far(text: &str, day: i64, near: impl Fn(&str) -> Option<i64>) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (digits, rest) = unsigned.split_once('-')?;
    let year: i64 = digits.parse().ok()?;
    let year = if text.starts_with('-') { -year } else { year };
    let (years, days) = CYCLE;
    let same = 2000 + year.rem_euclid(years);
    let rounds = (year - same) / years;
    near(&format!("{same}-{rest}"))?.checked_add(rounds.checked_mul(days)?.checked_mul(day)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
        Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
        Time64MicrosecondArray, TimestampMicrosecondArray,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::format::row_json;

    /// The rows by way of their JSON's text.
    fn there_and_back(rows: &RecordBatch) -> RecordBatch {
        let types = rows
            .schema()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), FieldType::of_arrow(field.data_type()).unwrap()))
            .collect();
        let mut back = RefusedRows::new(&types);
        for row in 0..rows.num_rows() {
            back.add(&serde_json::to_string(&row_json(rows, row)).unwrap()).unwrap();
        }
        let batch = back.finish().unwrap().unwrap();
        assert_eq!((batch.read, batch.refused.len()), (rows.num_rows() as u64, 0));
        batch.rows
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    #[test]
    fn every_value_comes_back_as_it_was() {
        let most = 10_i128.pow(38) - 1;
        let decimals = Decimal128Array::from(vec![Some(most), Some(-1), Some(0), None]);
        let instants = vec![Some(i64::MAX), Some(i64::MIN), Some(-62_135_596_800_000_001), None];
        let rows = batch(vec![
            ("bool", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None]))),
            (
                "i16",
                Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), None, Some(0)])),
            ),
            (
                "i32",
                Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None, Some(0)])),
            ),
            (
                "i64",
                Arc::new(Int64Array::from(vec![
                    Some(i64::MIN),
                    Some((1 << 53) + 1),
                    Some(i64::MAX),
                    None,
                ])),
            ),
            (
                "f32",
                Arc::new(Float32Array::from(vec![
                    Some(f32::INFINITY),
                    Some(0.1),
                    Some(f32::MIN_POSITIVE / 3.0),
                    None,
                ])),
            ),
            (
                "f64",
                Arc::new(Float64Array::from(vec![
                    Some(f64::NEG_INFINITY),
                    Some(f64::MAX),
                    Some(5e-324),
                    Some(0.1 + 0.2),
                ])),
            ),
            ("decimal", Arc::new(decimals.with_precision_and_scale(38, 10).unwrap())),
            (
                "text",
                Arc::new(StringArray::from(vec![Some(""), None, Some("NULL"), Some("ø\u{1}\"\n")])),
            ),
            (
                "bytes",
                Arc::new(BinaryArray::from(vec![
                    Some(&b""[..]),
                    None,
                    Some(b"\xff\x00"),
                    Some(b"x"),
                ])),
            ),
            (
                "day",
                Arc::new(Date32Array::from(vec![
                    Some(i32::MAX),
                    Some(i32::MIN),
                    Some(3_000_000),
                    Some(-800_000),
                ])),
            ),
            (
                "clock",
                Arc::new(Time64MicrosecondArray::from(vec![
                    Some(86_400_000_000),
                    Some(86_399_999_999),
                    Some(0),
                    None,
                ])),
            ),
            ("civil", Arc::new(TimestampMicrosecondArray::from(instants.clone()))),
            ("instant", Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC"))),
        ]);
        assert_eq!(there_and_back(&rows), rows);
        let nothing = batch(vec![("f", Arc::new(Float64Array::from(vec![f64::NAN, -0.0])))]);
        let back = there_and_back(&nothing);
        let column = back.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
        assert!(column.value(0).is_nan());
        assert_eq!(column.value(1).to_bits(), (-0.0_f64).to_bits());
    }

    proptest! {
        #[test]
        fn whatever_they_are(
            floats in proptest::collection::vec(any::<f64>(), 4),
            singles in proptest::collection::vec(any::<f32>(), 4),
            days in proptest::collection::vec(any::<i32>(), 4),
            micros in proptest::collection::vec(any::<i64>(), 4),
            texts in proptest::collection::vec(any::<Option<String>>(), 4),
        ) {
            let rows = batch(vec![
                ("floats", Arc::new(Float64Array::from(floats))),
                ("singles", Arc::new(Float32Array::from(singles))),
                ("days", Arc::new(Date32Array::from(days))),
                ("civil", Arc::new(TimestampMicrosecondArray::from(micros.clone()))),
                ("clock", Arc::new(Time64MicrosecondArray::from(micros))),
                ("texts", Arc::new(StringArray::from(texts))),
            ]);
            // By their words, since NaN equals nothing.
            prop_assert_eq!(format!("{:?}", there_and_back(&rows)), format!("{rows:?}"));
        }
    }

    #[test]
    fn what_is_no_such_row_is_told() {
        let types = IndexMap::from([("day".to_owned(), FieldType::Date)]);
        for row in ["7", "{\"day\": \"hunter2\"}", "{\"day\": 5}", "{}"] {
            let error = RefusedRows::new(&types).add(row).unwrap_err();
            assert!(!error.chain().contains("hunter2"), "{error}");
        }
    }
}
