//! Rows as CSV: RFC 4180 in UTF-8, with lines that end in LF.
//!
//! NULL is the null text without quotes; an empty string is `""`. A value is quoted where it holds
//! the delimiter, a quote or a line break, or would be taken for NULL. Bytes are written as `\x`
//! and hex digits, instants in UTC with `Z`, NaN and the infinities as `NaN`, `Infinity` and
//! `-Infinity`.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{columns, text, types};
use crate::error::{Error, Result};
use crate::format::values::Values;
use crate::format::{CsvOptions, FieldType};

/// Writes batches as lines.
pub struct CsvWriter {
    kinds: Vec<FieldType>,
    header: Option<Vec<u8>>,
    delimiter: Vec<u8>,
    null: Vec<u8>,
    /// Whether a number or a date could hold the delimiter or be taken for NULL.
    careful: bool,
}

impl CsvWriter {
    /// A writer of rows of `schema`.
    ///
    /// # Errors
    /// `config` where what is written could not be read back; `permanent` for a column whose type
    /// cannot be written.
    pub fn new(schema: &SchemaRef, options: &CsvOptions) -> Result<CsvWriter> {
        let refuse = |what: &str, help: &str| {
            Err(Error::config("write CSV", what.to_owned()).help(help.to_owned()))
        };
        if matches!(options.delimiter, '"' | '\r' | '\n') {
            return refuse("the delimiter is a quote or a line break", "Use one like `,` or `;`.");
        }
        if options.null.contains([options.delimiter, '"', '\r', '\n']) {
            return refuse(
                "the null text holds the delimiter, a quote or a line break",
                "Use one like `\\N`, or leave it empty.",
            );
        }
        let in_plain = |c: char| c.is_ascii_alphanumeric() || "+-.:\\".contains(c);
        let mut writer = CsvWriter {
            kinds: types(schema)?,
            header: None,
            delimiter: options.delimiter.to_string().into_bytes(),
            null: options.null.clone().into_bytes(),
            careful: in_plain(options.delimiter)
                || (!options.null.is_empty() && options.null.chars().all(in_plain)),
        };
        if options.header {
            let mut line = Vec::new();
            for (index, field) in schema.fields().iter().enumerate() {
                writer.separate(&mut line, index);
                writer.string(&mut line, field.name().as_bytes());
            }
            line.push(b'\n');
            writer.header = Some(line);
        }
        Ok(writer)
    }

    /// The header, the first time it is asked for.
    pub fn header(&mut self) -> Vec<u8> {
        self.header.take().unwrap_or_default()
    }

    /// Appends the lines of a batch.
    ///
    /// # Errors
    /// `contract` where a line would be empty: a NULL in the only column, with an empty null text.
    pub fn write(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let columns = columns(&self.kinds, rows)?;
        let alone = columns.len() == 1 && self.null.is_empty();
        let mut scratch = Vec::new();
        for row in 0..rows.num_rows() {
            for (index, column) in columns.iter().enumerate() {
                self.separate(out, index);
                if column.is_null(row) {
                    if alone {
                        return Err(Error::contract(
                            "write CSV",
                            "a NULL in the only column would be an empty line, which readers skip",
                        )
                        .help("Set `null` in [sink.csv] to a text like `\\N`."));
                    }
                    out.extend_from_slice(&self.null);
                } else if let Values::String(array) = column {
                    self.string(out, array.value(row).as_bytes());
                } else if self.careful {
                    scratch.clear();
                    plain(&mut scratch, column, row);
                    self.string(out, &scratch);
                } else {
                    plain(out, column, row);
                }
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn separate(&self, out: &mut Vec<u8>, index: usize) {
        if index > 0 {
            out.extend_from_slice(&self.delimiter);
        }
    }

    fn string(&self, out: &mut Vec<u8>, value: &[u8]) {
        let special = |byte: &u8| matches!(byte, b'"' | b'\r' | b'\n');
        let quoted = value.is_empty()
            || value == self.null
            || match self.delimiter.as_slice() {
                [one] => value.iter().any(|byte| byte == one || special(byte)),
                more => value.iter().any(special) || value.windows(more.len()).any(|at| at == more),
            };
        if !quoted {
            out.extend_from_slice(value);
            return;
        }
        out.push(b'"');
        for (index, piece) in value.split(|byte| *byte == b'"').enumerate() {
            if index > 0 {
                out.extend_from_slice(b"\"\"");
            }
            out.extend_from_slice(piece);
        }
        out.push(b'"');
    }
}

/// A value that is neither NULL nor a string.
fn plain(out: &mut Vec<u8>, column: &Values<'_>, row: usize) {
    match column {
        Values::Bool(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
        Values::Int16(a) => text::int(out, a.value(row).into()),
        Values::Int32(a) => text::int(out, a.value(row).into()),
        Values::Int64(a) => text::int(out, a.value(row)),
        Values::Float32(a) => text::float(out, a.value(row)),
        Values::Float64(a) => text::float(out, a.value(row)),
        Values::Decimal(a, scale) => text::decimal(out, a.value(row), *scale),
        Values::String(a) => out.extend_from_slice(a.value(row).as_bytes()),
        Values::Bytes(a) => {
            let value = a.value(row);
            out.extend_from_slice(b"\\x");
            let from = out.len();
            out.resize(from + 2 * value.len(), 0);
            // The slice is as long as the digits: it cannot fail.
            let _ = hex::encode_to_slice(value, &mut out[from..]);
        }
        Values::Date(a) => text::date(out, a.value(row).into()),
        Values::Time(a) => text::time(out, a.value(row)),
        Values::Timestamp(a) => text::timestamp(out, a.value(row)),
        Values::Instant(a) => {
            text::timestamp(out, a.value(row));
            out.push(b'Z');
        }
    }
}
