//! Rows as JSON lines: one object a line, its members in the order of the columns.
//!
//! Whole numbers and decimals are JSON numbers with all their digits, floats in the fewest digits
//! that read back; bytes are base64 (RFC 4648, padded); dates and times are ISO 8601 strings,
//! instants in UTC with `Z`; NULL is `null`.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{columns, text, types};
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::format::values::Values;

/// Writes batches as lines.
pub struct JsonlWriter {
    kinds: Vec<FieldType>,
    names: Vec<String>,
    /// What stands before each value: `{"id":` and `,"name":`.
    leads: Vec<Vec<u8>>,
}

impl JsonlWriter {
    /// A writer of rows of `schema`.
    ///
    /// # Errors
    /// `permanent`, naming the column: two of one name, or a type that cannot be written.
    pub fn new(schema: &SchemaRef) -> Result<JsonlWriter> {
        let mut writer = JsonlWriter { kinds: types(schema)?, names: vec![], leads: vec![] };
        for field in schema.fields() {
            if writer.names.contains(field.name()) {
                return Err(Error::permanent("write JSON lines", "two columns have one name")
                    .with("column", field.name())
                    .help("Rename one of them in the query or the transform."));
            }
            let mut lead = vec![if writer.names.is_empty() { b'{' } else { b',' }];
            string(&mut lead, field.name());
            lead.push(b':');
            writer.leads.push(lead);
            writer.names.push(field.name().clone());
        }
        Ok(writer)
    }

    /// Appends the lines of a batch.
    ///
    /// # Errors
    /// `contract`, naming the column, for NaN and the infinities, which JSON does not have.
    pub fn write(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let columns = columns(&self.kinds, rows)?;
        for row in 0..rows.num_rows() {
            if columns.is_empty() {
                out.push(b'{');
            }
            for ((column, lead), name) in columns.iter().zip(&self.leads).zip(&self.names) {
                out.extend_from_slice(lead);
                if column.is_null(row) {
                    out.extend_from_slice(b"null");
                } else {
                    value(out, column, row, name)?;
                }
            }
            out.extend_from_slice(b"}\n");
        }
        Ok(())
    }
}

fn value(out: &mut Vec<u8>, column: &Values<'_>, row: usize, name: &str) -> Result<()> {
    match column {
        Values::Bool(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
        Values::Int16(a) => text::int(out, a.value(row).into()),
        Values::Int32(a) => text::int(out, a.value(row).into()),
        Values::Int64(a) => text::int(out, a.value(row)),
        Values::Float32(a) => {
            finite(a.value(row).is_finite(), name)?;
            text::float(out, a.value(row));
        }
        Values::Float64(a) => {
            finite(a.value(row).is_finite(), name)?;
            text::float(out, a.value(row));
        }
        Values::Decimal(a, scale) => text::decimal(out, a.value(row), *scale),
        Values::Wide(a, scale) => text::wide(out, a.value(row), *scale),
        Values::String(a) => string(out, a.value(row)),
        Values::Bytes(a) => quoted(out, |out| {
            let value = a.value(row);
            let from = out.len();
            out.resize(from + value.len().div_ceil(3) * 4, 0);
            // The slice is as long as the digits: it cannot fail.
            let _ = STANDARD.encode_slice(value, &mut out[from..]);
        }),
        Values::Date(a) => quoted(out, |out| text::date(out, a.value(row).into())),
        Values::Time(a) => quoted(out, |out| text::time(out, a.value(row))),
        Values::Timestamp(a) => quoted(out, |out| text::timestamp(out, a.value(row))),
        Values::Instant(a) => quoted(out, |out| {
            text::timestamp(out, a.value(row));
            out.push(b'Z');
        }),
    }
    Ok(())
}

fn finite(finite: bool, name: &str) -> Result<()> {
    if finite {
        return Ok(());
    }
    Err(Error::contract("write JSON lines", "JSON has no number for NaN and the infinities")
        .with("column", name)
        .help("Make it NULL or text in the query or the transform, or deliver Parquet or CSV."))
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// A string with the escapes that RFC 8259 asks for, and no others.
fn string(out: &mut Vec<u8>, value: &str) {
    quoted(out, |out| {
        let bytes = value.as_bytes();
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 => b"",
                _ => continue,
            };
            out.extend_from_slice(&bytes[from..at]);
            if escape.is_empty() {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            } else {
                out.extend_from_slice(escape);
            }
            from = at + 1;
        }
        out.extend_from_slice(&bytes[from..]);
    });
}
