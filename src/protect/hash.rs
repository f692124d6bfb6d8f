//! Pseudonyms: HMAC-SHA-256 (RFC 2104, FIPS 180-4) of a value's canonical text.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::{refuse, unplanned};
use crate::error::{Error, Result};
use crate::format::FieldType;

/// The key, taken in once: what is kept is the state of the two hashes after it.
pub(super) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    pub(super) fn new(key: Option<&SecretString>, field: &Field) -> Result<Pseudonyms> {
        let column = field.name();
        if FieldType::of_arrow(field.data_type()).is_none() {
            return Err(refuse(format!(
                "column `{column}` has type {}, which has no canonical text",
                field.data_type()
            ))
            .help("CAST it to varchar in [transform]."));
        }
        let key = key.map(ExposeSecret::expose_secret).filter(|key| !key.is_empty());
        key.and_then(|key| Hmac::new_from_slice(key.as_bytes()).ok()).map(Pseudonyms).ok_or_else(
            || {
                refuse(format!("column `{column}` is to be hashed, and there is no key"))
                    .help("Set `pseudonyms` under [keys] in longshore.toml.")
            },
        )
    }

    /// The pseudonyms of a column. Nothing is allocated for a value but its place in the result.
    pub(super) fn apply(&self, column: &ArrayRef) -> Result<StringArray> {
        let mut to = Pseudonymized {
            mac: &self.0,
            builder: StringBuilder::with_capacity(column.len(), 64 * column.len()),
            digits: [0; 64],
            text: String::with_capacity(64),
        };
        match column.data_type() {
            DataType::Utf8 => {
                for value in column.as_string::<i32>() {
                    to.append(value.map(str::as_bytes))?;
                }
            }
            DataType::Binary => {
                for value in column.as_binary::<i32>() {
                    to.append(value)?;
                }
            }
            DataType::Int16 => to.append_shown::<Int16Type>(column)?,
            DataType::Int32 => to.append_shown::<Int32Type>(column)?,
            DataType::Int64 => to.append_shown::<Int64Type>(column)?,
            DataType::Float32 => to.append_shown::<Float32Type>(column)?,
            DataType::Float64 => to.append_shown::<Float64Type>(column)?,
            _ => {
                let options = FormatOptions::default();
                let formatter = ArrayFormatter::try_new(column, &options).map_err(unshown)?;
                for row in 0..column.len() {
                    if column.is_null(row) {
                        to.append(None)?;
                    } else {
                        to.append_text(|text| formatter.value(row).write(text).map_err(unshown))?;
                    }
                }
            }
        }
        Ok(to.builder.finish())
    }
}

struct Pseudonymized<'a> {
    mac: &'a Hmac<Sha256>,
    builder: StringBuilder,
    digits: [u8; 64],
    text: String,
}

impl Pseudonymized<'_> {
    fn append(&mut self, value: Option<&[u8]>) -> Result<()> {
        let Some(value) = value else {
            self.builder.append_null();
            return Ok(());
        };
        let mut mac = self.mac.clone();
        mac.update(value);
        let digest = mac.finalize().into_bytes();
        hex::encode_to_slice(digest, &mut self.digits).map_err(unshown)?;
        self.builder.append_value(std::str::from_utf8(&self.digits).map_err(unshown)?);
        Ok(())
    }

    fn append_text(&mut self, write: impl FnOnce(&mut String) -> Result<()>) -> Result<()> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        write(&mut text)?;
        let done = self.append(Some(text.as_bytes()));
        self.text = text;
        done
    }

    fn append_shown<T>(&mut self, column: &ArrayRef) -> Result<()>
    where
        T: ArrowPrimitiveType,
        T::Native: std::fmt::Display,
    {
        for value in column.as_primitive_opt::<T>().ok_or_else(unplanned)? {
            match value {
                None => self.append(None)?,
                Some(value) => {
                    self.append_text(|text| write!(text, "{value}").map_err(unshown))?;
                }
            }
        }
        Ok(())
    }
}

/// The cause is left out: it may quote the value that is to be protected.
fn unshown<E>(_: E) -> Error {
    Error::permanent("protect rows", "a value has no canonical text")
        .help("Its date is beyond what can be written; correct it in the source's query.")
}
