//! The canonical text of values: what is hashed, made a token, or encrypted. docs/reference/types.md
//! says what it is.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{refuse, unplanned};
use crate::error::{Error, Result};
use crate::format::FieldType;

/// Refuses a column whose values have none.
pub(super) fn expect(field: &Field) -> Result<()> {
    if FieldType::of_arrow(field.data_type()).is_some() {
        return Ok(());
    }
    let (column, kind) = (field.name(), field.data_type());
    Err(refuse(format!("column `{column}` has type {kind}, which has no canonical text"))
        .help("CAST it to varchar in [transform]."))
}

/// Gives `take` the text of each row, or none for NULL. Nothing is allocated for a value.
pub(super) fn each(
    column: &ArrayRef,
    mut take: impl FnMut(Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 => {
            column.as_string::<i32>().iter().try_for_each(|value| take(value.map(str::as_bytes)))
        }
        DataType::Binary => column.as_binary::<i32>().iter().try_for_each(take),
        DataType::Int16 => shown::<Int16Type>(column, take),
        DataType::Int32 => shown::<Int32Type>(column, take),
        DataType::Int64 => shown::<Int64Type>(column, take),
        DataType::Float32 => shown::<Float32Type>(column, take),
        DataType::Float64 => shown::<Float64Type>(column, take),
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options).map_err(unshown)?;
            let mut text = String::with_capacity(64);
            for row in 0..column.len() {
                if column.is_null(row) {
                    take(None)?;
                    continue;
                }
                text.clear();
                formatter.value(row).write(&mut text).map_err(unshown)?;
                take(Some(text.as_bytes()))?;
            }
            Ok(())
        }
    }
}

fn shown<T>(column: &ArrayRef, mut take: impl FnMut(Option<&[u8]>) -> Result<()>) -> Result<()>
where
    T: ArrowPrimitiveType,
    T::Native: std::fmt::Display,
{
    let mut text = String::with_capacity(32);
    for value in column.as_primitive_opt::<T>().ok_or_else(unplanned)? {
        let Some(value) = value else {
            take(None)?;
            continue;
        };
        text.clear();
        write!(text, "{value}").map_err(unshown)?;
        take(Some(text.as_bytes()))?;
    }
    Ok(())
}

/// The cause is left out: it may quote the value that is to be protected.
fn unshown<E>(_: E) -> Error {
    Error::permanent("protect rows", "a value has no canonical text")
        .help("Its date is beyond what can be written; correct it in the source's query.")
}
