//! A refused row as JSON: the one place where values are copied out of their columns.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine;
use serde_json::{Map, Value};

/// Integers beyond this are not exact in readers that take every number for a double.
const EXACT: i64 = 1 << 53;

/// Row `row` of `rows`, column by column, as it was: decimals, integers beyond 2^53, NaN and the
/// infinities as strings, bytes in Base64, dates and times in ISO 8601.
pub fn row_json(rows: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = rows.schema_ref();
    let named = schema.fields().iter().zip(rows.columns());
    named.map(|(field, column)| (field.name().clone(), value(column.as_ref(), row))).collect()
}

/// A whole number in such a row.
pub fn integer_json(number: i64) -> Value {
    match number {
        exact if (-EXACT..=EXACT).contains(&exact) => Value::from(exact),
        large => Value::from(large.to_string()),
    }
}

/// A floating number in such a row, from its own shortest digits.
pub fn float_json(digits: String) -> Value {
    match digits.parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::from(digits),
    }
}

/// Bytes in such a row.
pub fn bytes_json(bytes: &[u8]) -> Value {
    Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn value(column: &dyn Array, row: usize) -> Value {
    if row >= column.len() || column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        DataType::Binary => bytes_json(column.as_binary::<i32>().value(row)),
        DataType::Int16 | DataType::Int32 => {
            text(column, row).parse::<i64>().map_or(Value::Null, Value::from)
        }
        DataType::Int64 => integer_json(column.as_primitive::<Int64Type>().value(row)),
        // A float32's own shortest digits, not those of the double it would become.
        DataType::Float32 => {
            float_json(column.as_primitive::<Float32Type>().value(row).to_string())
        }
        DataType::Float64 => {
            float_json(column.as_primitive::<Float64Type>().value(row).to_string())
        }
        _ => Value::from(text(column, row)),
    }
}

/// What Arrow shows for a value; a date beyond what it can show is written as its raw number.
fn text(column: &dyn Array, row: usize) -> String {
    ArrayFormatter::try_new(column, &FormatOptions::default())
        .and_then(|formatter| formatter.value(row).try_to_string())
        .unwrap_or_else(|_| match arrow::compute::cast(&column.slice(row, 1), &DataType::Int64) {
            Ok(raw) if raw.is_valid(0) => raw.as_primitive::<Int64Type>().value(0).to_string(),
            _ => "(cannot be shown)".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        Int16Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_row_is_exact_json() {
        let decimals = Decimal128Array::from(vec![-1230]).with_precision_and_scale(38, 3).unwrap();
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("i", Arc::new(Int64Array::from(vec![i64::MIN])) as ArrayRef, true),
            ("e", Arc::new(Int64Array::from(vec![1 << 53])) as ArrayRef, true),
            ("s", Arc::new(Int16Array::from(vec![-5])) as ArrayRef, true),
            ("d", Arc::new(decimals) as ArrayRef, true),
            ("b", Arc::new(BinaryArray::from(vec![&b"\xff\x00"[..]])) as ArrayRef, true),
            ("f", Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef, true),
            ("g", Arc::new(Float32Array::from(vec![0.1])) as ArrayRef, true),
            (
                "t",
                Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")) as ArrayRef,
                true,
            ),
            ("c", Arc::new(TimestampMicrosecondArray::from(vec![1])) as ArrayRef, true),
            ("n", Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef, true),
            ("far", Arc::new(Date32Array::from(vec![i32::MAX])) as ArrayRef, true),
        ])
        .unwrap();
        assert_eq!(
            Value::Object(row_json(&rows, 0)),
            json!({
                "i": "-9223372036854775808", "e": 9_007_199_254_740_992_i64, "s": -5,
                "d": "-1.230", "b": "/wA=", "f": "NaN", "g": 0.1,
                "t": "1970-01-01T00:00:00.000001Z", "c": "1970-01-01T00:00:00.000001",
                "n": null, "far": "2147483647",
            })
        );
    }
}
