//! From the types that DataFusion gives to those that rows have on their way.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatchOptions;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, Schema, SchemaRef, Time64NanosecondType, TimeUnit, TimestampNanosecondType,
};
use arrow::error::ArrowError;

use super::plan::refuse;
use super::{At, Failure};
use crate::error::Result;
use crate::format::FieldType;

/// The schema that rows of `schema` are given, or why a column has no exact type.
pub(super) fn schema(schema: &Schema) -> Result<SchemaRef> {
    let mut names = HashSet::new();
    if let Some(field) = schema.fields().iter().find(|field| !names.insert(field.name())) {
        let name = field.name();
        return Err(refuse(format!("two columns are called `{name}`")).help(format!(
            "Name the columns that are wanted, instead of `*`, and one of these by another name: … \
             AS other_{name}."
        )));
    }
    let fields = schema
        .fields()
        .iter()
        .map(|field| {
            let name = field.name();
            let kind = target(field.data_type()).ok_or_else(|| {
                let found = field.data_type();
                let refusal =
                    refuse(format!("column `{name}` has type {found}, which cannot be delivered"));
                refusal.help(format!(
                    "Say which type is meant: CAST(… AS bigint) AS {name}, or \
                     decimal(38, 0), varchar, timestamp, double."
                ))
            })?;
            Ok(Field::new(name, kind, field.is_nullable()))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// The type of a definition that holds every value of `found`. Where finer times are given, the
/// values that microseconds cannot hold are refused one by one.
fn target(found: &DataType) -> Option<DataType> {
    if FieldType::of_arrow(found).is_some() {
        return Some(found.clone());
    }
    let target = match found {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) if *s >= 0 => {
            DataType::Decimal128(*p, *s)
        }
        DataType::Decimal256(p, s) if *s >= 0 => DataType::Decimal128(*p, *s),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Dictionary(_, values) => target(values)?,
        _ => return None,
    };
    Some(target)
}

/// Gives the columns the types of `schema`. A failure means that a value does not fit.
pub(super) fn convert(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Failure> {
    let columns = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            exact(column, field.data_type()).map_err(|cause| Failure::of(field.name(), cause))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|cause| Failure { at: At::Where, cause: cause.into() })
}

fn exact(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == target {
        return Ok(column.clone());
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            whole_microseconds(column.as_primitive::<TimestampNanosecondType>())?;
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            whole_microseconds(column.as_primitive::<Time64NanosecondType>())?;
        }
        _ => {}
    }
    cast_with_options(column, target, &CastOptions { safe: false, ..CastOptions::default() })
}

fn whole_microseconds<T>(values: &PrimitiveArray<T>) -> Result<(), ArrowError>
where
    T: ArrowPrimitiveType<Native = i64>,
{
    if values.iter().flatten().all(|value| value % 1000 == 0) {
        Ok(())
    } else {
        Err(ArrowError::CastError("a time has nanoseconds".to_owned()))
    }
}
