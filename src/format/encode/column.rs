//! A column of a batch with its type found once, so that the loop over rows only reads.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{self, SchemaRef};

use crate::error::{Error, Result};
use crate::format::FieldType;

/// A column, by type.
pub enum Column<'a> {
    Bool(&'a BooleanArray),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    String(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray),
    Instant(&'a TimestampMicrosecondArray),
}

impl<'a> Column<'a> {
    fn of(kind: &FieldType, array: &'a ArrayRef) -> Option<Column<'a>> {
        Some(match kind {
            FieldType::Bool => Column::Bool(array.as_boolean_opt()?),
            FieldType::Int16 => Column::Int16(array.as_primitive_opt()?),
            FieldType::Int32 => Column::Int32(array.as_primitive_opt()?),
            FieldType::Int64 => Column::Int64(array.as_primitive_opt()?),
            FieldType::Float32 => Column::Float32(array.as_primitive_opt()?),
            FieldType::Float64 => Column::Float64(array.as_primitive_opt()?),
            FieldType::Decimal(_, scale) => Column::Decimal(
                array.as_primitive_opt::<datatypes::Decimal128Type>()?,
                scale.unsigned_abs(),
            ),
            FieldType::String => Column::String(array.as_string_opt()?),
            FieldType::Bytes => Column::Bytes(array.as_binary_opt()?),
            FieldType::Date => Column::Date(array.as_primitive_opt()?),
            FieldType::Time => Column::Time(array.as_primitive_opt()?),
            FieldType::Timestamp => Column::Timestamp(array.as_primitive_opt()?),
            FieldType::Instant => Column::Instant(array.as_primitive_opt()?),
        })
    }

    /// Whether the value in `row` is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Bool(a) => a.is_null(row),
            Column::Int16(a) => a.is_null(row),
            Column::Int32(a) => a.is_null(row),
            Column::Int64(a) => a.is_null(row),
            Column::Float32(a) => a.is_null(row),
            Column::Float64(a) => a.is_null(row),
            Column::Decimal(a, _) => a.is_null(row),
            Column::String(a) => a.is_null(row),
            Column::Bytes(a) => a.is_null(row),
            Column::Date(a) => a.is_null(row),
            Column::Time(a) => a.is_null(row),
            Column::Timestamp(a) | Column::Instant(a) => a.is_null(row),
        }
    }
}

/// The types of a schema's fields.
///
/// # Errors
/// `permanent`, naming the column whose type has no name here.
pub fn types(schema: &SchemaRef) -> Result<Vec<FieldType>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            FieldType::of_arrow(field.data_type()).ok_or_else(|| {
                Error::permanent("encode the rows", "the column's type cannot be written")
                    .with("column", field.name())
                    .with("type", field.data_type())
                    .help("Cast it in the query or the transform.")
            })
        })
        .collect()
}

/// The columns of a batch, as the schema that was begun with types them.
///
/// # Errors
/// `contract` when the batch has other columns.
pub fn columns<'a>(kinds: &[FieldType], rows: &'a RecordBatch) -> Result<Vec<Column<'a>>> {
    let drifted = || {
        Error::contract("encode the rows", "a batch has other columns than the first")
            .help("The source changed while it was read; run the job again.")
    };
    if kinds.len() != rows.num_columns() {
        return Err(drifted());
    }
    kinds
        .iter()
        .zip(rows.columns())
        .map(|(kind, array)| {
            (*array.data_type() == kind.arrow())
                .then(|| Column::of(kind, array))
                .flatten()
                .ok_or_else(drifted)
        })
        .collect()
}
