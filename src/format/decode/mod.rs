//! Bytes → record batches.
//!
//! CSV and JSON lines are read by blocking iterators over any reader, Parquet by a stream over
//! ranges of a file. A value that is not exactly of its declared type makes its row a refused
//! one.

pub mod batcher;
pub mod csv;
pub mod exact;
pub mod jsonl;
pub mod parquet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use serde_json::{Map, Value as Json};

use crate::error::Error;

/// How many bytes one record of CSV or one line of JSON may have.
pub const MAX_RECORD: usize = 64 << 20;

fn too_long(operation: &'static str) -> Error {
    Error::permanent(operation, format!("a record has more than {} MiB", MAX_RECORD >> 20))
        .help("Check the quotes and line breaks of the file.")
}

/// The error that stopped a reader: the store's own, where one lies behind it.
fn damaged(operation: &'static str, cause: std::io::Error) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(cause) => Error::permanent(operation, "the compressed data is damaged or cut off")
            .help("Check that the file is complete and compressed as its name says.")
            .caused_by(cause),
    }
}

/// A row of a batch as it is written to quarantine: numbers as such where JSON holds them
/// exactly, bytes in hex, all else as text.
pub fn row_json(batch: &RecordBatch, row: usize) -> Map<String, Json> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    fields.map(|(field, column)| (field.name().clone(), value_json(column, row))).collect()
}

fn value_json(column: &dyn Array, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float32 => float_json(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => float_json(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => {
            column.as_primitive::<Decimal128Type>().value_as_string(row).into()
        }
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Binary => hex::encode(column.as_binary::<i32>().value(row)).into(),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let date = jiff::civil::date(1970, 1, 1)
                .checked_add(jiff::Span::new().try_days(days).unwrap_or_default());
            date.map_or_else(|_| format!("day {days}"), |date| date.to_string()).into()
        }
        DataType::Time64(_) => {
            let micros = column.as_primitive::<Time64MicrosecondType>().value(row);
            let at = jiff::Timestamp::from_microsecond(micros);
            at.map_or_else(|_| micros.to_string(), |at| civil(at).time().to_string()).into()
        }
        DataType::Timestamp(_, zone) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            match jiff::Timestamp::from_microsecond(micros) {
                Ok(at) if zone.is_some() => at.to_string().into(),
                Ok(at) => civil(at).to_string().into(),
                Err(_) => format!("{micros} microseconds after 1970").into(),
            }
        }
        // No source gives other types.
        other => format!("({other})").into(),
    }
}

fn civil(at: jiff::Timestamp) -> jiff::civil::DateTime {
    at.to_zoned(jiff::tz::TimeZone::UTC).datetime()
}

fn float_json(number: impl Into<f64> + std::fmt::Display + Copy) -> Json {
    // As text where JSON has no such number; f32 by its own shortest digits.
    let text = number.to_string();
    match serde_json::from_str::<serde_json::Number>(&text) {
        Ok(exact) => exact.into(),
        Err(_) => text.into(),
    }
}
