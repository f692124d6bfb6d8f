//! Arrays by the types that definitions name, for writers that go value by value.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};

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
    Decimal(&'a Decimal128Array, u32),
    /// `string`
    String(&'a StringArray),
    /// `bytes`
    Bytes(&'a BinaryArray),
    /// `date`
    Date(&'a Date32Array),
    /// `time(us)`
    Time(&'a Time64MicrosecondArray),
    /// `timestamp(us)` and `timestamp(us, UTC)`
    Timestamp(&'a TimestampMicrosecondArray),
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
                Values::Decimal(array.as_primitive_opt()?, u32::try_from(scale).ok()?)
            }
            FieldType::String => Values::String(array.as_string_opt()?),
            FieldType::Bytes => Values::Bytes(array.as_binary_opt()?),
            FieldType::Date => Values::Date(array.as_primitive_opt()?),
            FieldType::Time => Values::Time(array.as_primitive_opt()?),
            FieldType::Timestamp | FieldType::Instant => {
                Values::Timestamp(array.as_primitive_opt()?)
            }
        })
    }
}
