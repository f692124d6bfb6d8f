//! Arrays by the types that definitions name, found once, so that writers which go value by value
//! only read.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;

use super::FieldType;

/// An array, as the type that it is one of.
pub enum Values<'a> {
    /// `bool`
    Bool(&'a BooleanArray),
    /// `int16`
    Int16(&'a Int16Array),
    /// `int32`
    Int32(&'a Int32Array),
    /// `int64`
    Int64(&'a Int64Array),
    /// `float32`
    Float32(&'a Float32Array),
    /// `float64`
    Float64(&'a Float64Array),
    /// `decimal(p,s)`, with its scale
    Decimal(&'a Decimal128Array, u8),
    /// `decimal(p,s)` of more than 38 digits, with its scale
    Wide(&'a Decimal256Array, u8),
    /// `string`
    String(&'a StringArray),
    /// `bytes`
    Bytes(&'a BinaryArray),
    /// `date`
    Date(&'a Date32Array),
    /// `time(us)`
    Time(&'a Time64MicrosecondArray),
    /// `timestamp(us)`
    Timestamp(&'a TimestampMicrosecondArray),
    /// `timestamp(us, UTC)`
    Instant(&'a TimestampMicrosecondArray),
}

impl<'a> Values<'a> {
    /// `None`, if its type is no [`FieldType`].
    pub fn of(array: &'a dyn Array) -> Option<Values<'a>> {
        Some(match FieldType::of_arrow(array.data_type())? {
            FieldType::Bool => Values::Bool(array.as_boolean_opt()?),
            FieldType::Int16 => Values::Int16(array.as_primitive_opt()?),
            FieldType::Int32 => Values::Int32(array.as_primitive_opt()?),
            FieldType::Int64 => Values::Int64(array.as_primitive_opt()?),
            FieldType::Float32 => Values::Float32(array.as_primitive_opt()?),
            FieldType::Float64 => Values::Float64(array.as_primitive_opt()?),
            FieldType::Decimal(_, scale) => {
                let scale = u8::try_from(scale).ok()?;
                match array.data_type() {
                    DataType::Decimal256(..) => Values::Wide(array.as_primitive_opt()?, scale),
                    _ => Values::Decimal(array.as_primitive_opt()?, scale),
                }
            }
            FieldType::String => Values::String(array.as_string_opt()?),
            FieldType::Bytes => Values::Bytes(array.as_binary_opt()?),
            FieldType::Date => Values::Date(array.as_primitive_opt()?),
            FieldType::Time => Values::Time(array.as_primitive_opt()?),
            FieldType::Timestamp => Values::Timestamp(array.as_primitive_opt()?),
            FieldType::Instant => Values::Instant(array.as_primitive_opt()?),
        })
    }

    /// Whether the value in `row` is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Values::Bool(array) => array.is_null(row),
            Values::Int16(array) => array.is_null(row),
            Values::Int32(array) => array.is_null(row),
            Values::Int64(array) => array.is_null(row),
            Values::Float32(array) => array.is_null(row),
            Values::Float64(array) => array.is_null(row),
            Values::Decimal(array, _) => array.is_null(row),
            Values::Wide(array, _) => array.is_null(row),
            Values::String(array) => array.is_null(row),
            Values::Bytes(array) => array.is_null(row),
            Values::Date(array) => array.is_null(row),
            Values::Time(array) => array.is_null(row),
            Values::Timestamp(array) | Values::Instant(array) => array.is_null(row),
        }
    }
}
