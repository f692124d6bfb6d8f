//! Rows as CSV, in a [dialect](CsvOptions): RFC 4180 in UTF-8, with lines that end in LF, where it
//! says nothing else.
//!
//! NULL is the null text without quotes; an empty string is `""`. A value is quoted where it holds
//! the delimiter, a quote or a line break, or would be taken for NULL. Bytes are written as `\x`
//! and hex digits, instants in UTC with `Z`, NaN and the infinities as `NaN`, `Infinity` and
//! `-Infinity`.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{columns, text, types};
use crate::error::{Error, Result};
use crate::format::dialect::{Dialect, Pattern, Quote, is_formula};
use crate::format::values::Values;
use crate::format::{CsvOptions, FieldType};

/// Writes batches as lines.
pub struct CsvWriter {
    kinds: Vec<FieldType>,
    names: Vec<String>,
    header: Option<Vec<u8>>,
    dialect: Dialect,
    /// Whether a number or a date could hold the delimiter or be taken for NULL.
    careful: bool,
    /// Lines in UTF-8, on their way into another encoding.
    unicode: Vec<u8>,
}

impl CsvWriter {
    /// A writer of rows of `schema`.
    ///
    /// # Errors
    /// `config` where what is written could not be read back; `permanent` for a column whose type
    /// or name cannot be written.
    pub fn new(schema: &SchemaRef, options: &CsvOptions) -> Result<CsvWriter> {
        let dialect = Dialect::new(options)?;
        let in_plain = |c: u8| c.is_ascii_alphanumeric() || b"+-.:\\".contains(&c);
        let patterned = [&dialect.date, &dialect.time, &dialect.timestamp];
        let mut writer = CsvWriter {
            kinds: types(schema)?,
            names: schema.fields().iter().map(|field| field.name().clone()).collect(),
            header: None,
            careful: in_plain(dialect.delimiter)
                || dialect.decimal != b'.'
                || dialect.quote == Quote::Always
                || patterned.iter().any(|pattern| pattern.is_some())
                || (!dialect.null.is_empty() && dialect.null.iter().all(|c| in_plain(*c))),
            dialect,
            unicode: Vec::new(),
        };
        for (kind, name) in writer.kinds.iter().zip(&writer.names) {
            if *kind == FieldType::Timestamp
                && writer.dialect.timestamp.as_ref().is_some_and(|pattern| !pattern.civil)
            {
                return Err(Error::permanent(
                    "write CSV",
                    "the format of timestamps tells a zone, and the column has none",
                )
                .with("column", name)
                .with("type", kind)
                .help(
                    "Take the zone out of `timestamp` in [sink.csv], or make the column a \
                     timestamp(us, UTC) in the query or the transform.",
                ));
            }
            if !writer.dialect.charset.has(name) {
                return Err(Error::permanent(
                    "write CSV",
                    "the column's name cannot be written in the encoding",
                )
                .with("column", name)
                .with("encoding", writer.dialect.charset.name())
                .help("Rename it in the query or the transform, or choose another `encoding`."));
            }
        }
        let mut start = Vec::new();
        if writer.dialect.bom {
            start.extend_from_slice(writer.dialect.charset.mark());
        }
        if writer.dialect.header {
            let mut line = Vec::new();
            for (index, name) in writer.names.iter().enumerate() {
                writer.separate(&mut line, index);
                writer.string(&mut line, name.as_bytes());
            }
            line.extend_from_slice(&writer.dialect.newline);
            writer.unicode = line;
            writer.convert(&mut start)?;
        }
        writer.header = Some(start);
        Ok(writer)
    }

    /// What stands before all rows, the first time it is asked for.
    pub fn header(&mut self) -> Vec<u8> {
        self.header.take().unwrap_or_default()
    }

    /// Appends the lines of a batch.
    ///
    /// # Errors
    /// `contract` where a line would be empty: a NULL in the only column, with an empty null text;
    /// and where a value cannot be written, which [`Fit`](super::Fit) finds before.
    pub fn write(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        if self.dialect.charset.is_utf8() {
            return self.lines(rows, out);
        }
        let mut unicode = std::mem::take(&mut self.unicode);
        self.lines(rows, &mut unicode)?;
        self.unicode = unicode;
        self.convert(out)
    }

    /// Appends the lines that wait, in the encoding of the dialect.
    fn convert(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let fine = std::str::from_utf8(&self.unicode)
            .is_ok_and(|text| self.dialect.charset.encode(text, out));
        self.unicode.clear();
        if fine {
            return Ok(());
        }
        Err(Error::contract("write CSV", "a character cannot be written in the encoding")
            .with("encoding", self.dialect.charset.name()))
    }

    fn lines(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let columns = columns(&self.kinds, rows)?;
        let alone = columns.len() == 1 && self.dialect.null.is_empty();
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
                    out.extend_from_slice(&self.dialect.null);
                } else if let Values::String(array) = column {
                    let value = array.value(row).as_bytes();
                    if self.dialect.escape && is_formula(value) {
                        scratch.clear();
                        scratch.push(b'\'');
                        scratch.extend_from_slice(value);
                        self.string(out, &scratch);
                    } else {
                        self.string(out, value);
                    }
                } else if self.careful {
                    scratch.clear();
                    if !self.special(&mut scratch, column, row) {
                        return Err(Error::contract("write CSV", "a value has no such form")
                            .with("column", self.names.get(index).map_or("", String::as_str)));
                    }
                    self.string(out, &scratch);
                } else {
                    plain(out, column, row);
                }
            }
            out.extend_from_slice(&self.dialect.newline);
        }
        Ok(())
    }

    /// A value as the dialect has it; whether there is such a form.
    fn special(&self, out: &mut Vec<u8>, column: &Values<'_>, row: usize) -> bool {
        let dialect = &self.dialect;
        let Some((_, shown)) = timed(dialect, column, row) else {
            plain(out, column, row);
            let is_number = matches!(
                column,
                Values::Decimal(..) | Values::Wide(..) | Values::Float32(_) | Values::Float64(_)
            );
            if is_number
                && dialect.decimal != b'.'
                && let Some(point) = out.iter().position(|byte| *byte == b'.')
            {
                out[point] = dialect.decimal;
            }
            return true;
        };
        let shown = shown.filter(|(_, exact)| *exact || dialect.truncate);
        shown.is_some_and(|(text, _)| {
            out.extend_from_slice(text.as_bytes());
            true
        })
    }

    fn separate(&self, out: &mut Vec<u8>, index: usize) {
        if index > 0 {
            out.push(self.dialect.delimiter);
        }
    }

    fn string(&self, out: &mut Vec<u8>, value: &[u8]) {
        let dialect = &self.dialect;
        let special =
            |byte: &u8| matches!(byte, b'"' | b'\r' | b'\n') || *byte == dialect.delimiter;
        let quoted = dialect.quote == Quote::Always
            || value.is_empty()
            || value == dialect.null
            || value.iter().any(special);
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
        Values::Wide(a, scale) => text::wide(out, a.value(row), *scale),
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

/// Finds the values of a batch that the dialect cannot write.
pub(super) struct Cannot {
    dialect: Dialect,
}

impl Cannot {
    /// `None` where the dialect can write everything.
    pub fn new(options: &CsvOptions, kinds: &[FieldType]) -> Result<Option<Cannot>> {
        let dialect = Dialect::new(options)?;
        let texts = kinds.contains(&FieldType::String) && !dialect.charset.is_whole();
        let of = |kinds_of: &[FieldType], pattern: &Option<Pattern>| {
            pattern.is_some() && kinds.iter().any(|kind| kinds_of.contains(kind))
        };
        let times = of(&[FieldType::Date], &dialect.date)
            || of(&[FieldType::Time], &dialect.time)
            || of(&[FieldType::Timestamp, FieldType::Instant], &dialect.timestamp);
        Ok((texts || times).then_some(Cannot { dialect }))
    }

    /// Why the value in `row` cannot be written, if it cannot.
    pub fn rule(&self, column: &Values<'_>, row: usize) -> Option<String> {
        let dialect = &self.dialect;
        if let Values::String(a) = column {
            let fine = dialect.charset.has(a.value(row));
            return (!fine).then(|| format!("encoding {}", dialect.charset.name()));
        }
        let (name, shown) = timed(dialect, column, row)?;
        let fine = shown.is_some_and(|(_, exact)| exact || dialect.truncate);
        (!fine).then(|| format!("format of {name}"))
    }

    /// A date or a time as the dialect writes it, where it has a format for such.
    pub fn spelling(&self, column: &Values<'_>, row: usize) -> Option<String> {
        timed(&self.dialect, column, row)?.1.map(|(text, _)| text)
    }
}

/// Of a date or time for which the dialect has a format: the format's name, what it writes, if it can,
/// and whether that reads back.
fn timed(
    dialect: &Dialect,
    column: &Values<'_>,
    row: usize,
) -> Option<(&'static str, Option<(String, bool)>)> {
    Some(match (column, &dialect.date, &dialect.time, &dialect.timestamp) {
        (Values::Date(a), Some(pattern), ..) => ("date", pattern.date(a.value(row))),
        (Values::Time(a), _, Some(pattern), _) => ("time", pattern.time(a.value(row))),
        (Values::Timestamp(a), .., Some(pattern)) => ("timestamp", pattern.timestamp(a.value(row))),
        (Values::Instant(a), .., Some(pattern)) => ("timestamp", pattern.instant(a.value(row))),
        _ => return None,
    })
}
