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
pub(crate) fn refused_row(rows: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = rows.schema_ref();
    let named = schema.fields().iter().zip(rows.columns());
    named.map(|(field, column)| (field.name().clone(), value(column.as_ref(), row))).collect()
}

fn value(column: &dyn Array, row: usize) -> Value {
    if row >= column.len() || column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(row);
            Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        DataType::Int16 | DataType::Int32 => {
            text(column, row).parse::<i64>().map_or(Value::Null, Value::from)
        }
        DataType::Int64 => match column.as_primitive::<Int64Type>().value(row) {
            exact if (-EXACT..=EXACT).contains(&exact) => Value::from(exact),
            large => Value::from(large.to_string()),
        },
        // A float32's own shortest digits, not those of the double it would become.
        DataType::Float32 => {
            let float = column.as_primitive::<Float32Type>().value(row).to_string();
            number(float)
        }
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row).to_string()),
        _ => Value::from(text(column, row)),
    }
}

fn number(text: String) -> Value {
    match text.parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::from(text),
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
