//! CSV → batches, in a [dialect](CsvOptions), with an own reader, since it must tell an empty field
//! (NULL) from an empty string in quotes.
//!
//! Another encoding is turned into UTF-8 first. Bytes that mean nothing in it become one that UTF-8
//! does not have, so that their row is known and refused.

#[cfg(test)]
mod tests;

use std::io::{BufRead, Chain, Cursor, Read};

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use super::batcher::{Batcher, Column};
use super::unicode::Unicode;
use super::why::why;
use super::{MAX_RECORD, damaged, header, too_long};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format::dialect::{Dialect, is_formula};
use crate::format::{CsvOptions, FieldType};
use crate::rows::{BATCH_BYTES, Batch, Refused};

const READ: &str = "read CSV";

/// Reads batches out of one file.
pub struct CsvReader<R> {
    /// The first bytes, which were read to look for a byte order mark, and the rest.
    input: Chain<Cursor<Vec<u8>>, Unicode<R>>,
    options: Dialect,
    types: IndexMap<String, FieldType>,
    /// For each field of a line, its column, or none where it is left out.
    columns: Vec<Option<usize>>,
    /// Whether columns that are not declared are left out.
    drop: bool,
    batcher: Batcher,
    record: Record,
    started: bool,
    /// The line on which the next record starts.
    line: u64,
}

/// One record: its fields' bytes, one after the other, without quotes.
#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
    /// For each field, where it ends, and whether it was quoted.
    fields: Vec<(usize, bool)>,
    /// Something stood between a closing quote and the delimiter.
    broken: bool,
    /// It is longer than it may be, and was not read to its end.
    cut: bool,
    /// The line on which it starts, and that on which it ends.
    first: u64,
    last: u64,
}

impl Record {
    fn iter(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let starts = std::iter::once(0).chain(self.fields.iter().map(|(end, _)| *end));
        let fields = starts.zip(&self.fields);
        fields.map(|(start, (end, quoted))| {
            (self.bytes.get(start..*end).unwrap_or_default(), *quoted)
        })
    }
}

impl<R: BufRead> CsvReader<R> {
    /// A reader of fields of `types`, in the order of the header, or in their own without one. Columns
    /// of the header that are not among them are left out if `drop` says so, else they are an error.
    ///
    /// # Errors
    /// `config` for options that make no dialect.
    pub fn new(
        input: R,
        options: &CsvOptions,
        types: &IndexMap<String, FieldType>,
        drop: bool,
    ) -> Result<Self> {
        let options = Dialect::new(options)?;
        let input = Unicode::new(input, &options.charset);
        Ok(CsvReader {
            input: Cursor::new(Vec::new()).chain(input),
            options,
            types: types.clone(),
            columns: (0..types.len()).map(Some).collect(),
            drop,
            batcher: Batcher::new(types),
            record: Record::default(),
            started: false,
            line: 1,
        })
    }

    /// Charges what is held to a budget.
    ///
    /// # Errors
    /// Those of the budget.
    pub fn within(self, budget: &Budget) -> Result<Self> {
        Ok(CsvReader { batcher: self.batcher.within(budget)?, ..self })
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// `contract` when the header has other names than the fields, or is not there, and for quotes that
    /// rows could hide behind; `permanent` for a record of more than [`super::MAX_RECORD`] bytes, or
    /// than the budget has; whatever reading the input gives.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.start()?;
        while !self.batcher.is_full() && self.next_record()? {
            self.take_record()?;
        }
        // A long record leaves no buffer of its length behind.
        self.record.bytes.clear();
        self.record.fields.clear();
        self.record.bytes.shrink_to(BATCH_BYTES);
        self.batcher.finish()
    }

    /// Reads the header, where there is to be one, unless it was read before.
    ///
    /// # Errors
    /// As [`CsvReader::next_batch`].
    pub fn start(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let (first, rest) = self.input.get_mut();
        let mark = rest.take(3).read_to_end(first.get_mut());
        mark.map_err(|cause| damaged(READ, cause))?;
        if first.get_ref() == b"\xef\xbb\xbf" {
            first.get_mut().clear();
        }
        if self.options.header {
            // Files without rows still have it; one that is cut off at its very start has not.
            if !self.next_record()? {
                return Err(Error::contract(READ, "the file is empty: it has no header")
                    .help("Where files come without a header, write header = false under csv."));
            }
            let names: Vec<_> = self.record.iter().collect();
            if self.record.broken {
                return Err(hidden("the header", &self.record));
            }
            self.columns = header::columns(&names, &self.types, &self.options, self.drop)?;
        }
        Ok(())
    }

    fn take_record(&mut self) -> Result<()> {
        let (record, types, null) = (&self.record, &self.types, &self.options.null);
        let size = record.bytes.len() + 8 * record.fields.len();
        self.batcher.begin_row(record.first);
        let rule = if record.broken {
            Some("quotes")
        } else {
            (record.fields.len() != self.columns.len()).then_some("columns")
        };
        if let Some(rule) = rule {
            if record.first != record.last {
                return Err(hidden("a record", record));
            }
            let raw = record.iter().map(|(field, _)| raw(field)).collect();
            let row = Map::from_iter([
                ("line".to_owned(), record.first.into()),
                ("fields".to_owned(), Json::Array(raw)),
            ]);
            let why = (rule == "columns")
                .then(|| format!("values {}, columns {}", record.fields.len(), self.columns.len()));
            let rule = rule.to_owned();
            self.batcher.refuse(size, Refused { rule, why, row, ..Refused::default() });
            return Ok(());
        }
        let taken = || {
            let fields = record.iter().zip(&self.columns);
            fields.filter_map(|((field, quoted), column)| {
                let is_null = !quoted && field == null;
                Some(((*column)?, (!is_null).then_some(field)))
            })
        };
        let named = || {
            let named = taken().filter_map(|(column, field)| {
                Some((types.get_index(column)?.0.clone(), field.map_or(Json::Null, raw)))
            });
            named.collect::<Map<String, Json>>()
        };
        let mut unread = taken()
            .filter(|(_, field)| field.is_some_and(|field| std::str::from_utf8(field).is_err()));
        if let Some((column, _)) = unread.next() {
            let refused = Refused {
                rule: format!("encoding {}", self.options.charset.name()),
                column: types.get_index(column).map(|(name, _)| name.clone()),
                row: named(),
                ..Refused::default()
            };
            self.batcher.refuse(size, refused);
            return Ok(());
        }
        let mut hides = false;
        for (column, field) in taken() {
            // What is no UTF-8 was refused above.
            let text = field.map(|field| std::str::from_utf8(field).unwrap_or_default());
            self.batcher.value_or(
                column,
                |column| match text {
                    None => {
                        column.null();
                        true
                    }
                    Some(text) => {
                        let fits = put(&self.options, column, text);
                        hides |= !fits && text.contains('\n');
                        fits
                    }
                },
                |kind| text.map(|text| why_not(&self.options, kind, text)),
            );
        }
        if hides {
            return Err(hidden("a value", record));
        }
        self.batcher.end_row(size, named);
        Ok(())
    }

    /// Reads the next record; `false` at the end. Empty lines are no records, unless there is
    /// one column, whose NULL they are.
    fn next_record(&mut self) -> Result<bool> {
        loop {
            let most = MAX_RECORD.min(self.batcher.room());
            let more =
                self.record.read(&mut self.input, self.options.delimiter, self.line, most)?;
            let size = self.record.bytes.len();
            let held = match self.record.cut {
                true => Err(self.batcher.beyond(size)),
                false => self.batcher.hold(size),
            };
            held.map_err(|error| error.with("line", self.line))?;
            self.line = self.record.last + 1;
            let empty = matches!(self.record.fields[..], [(0, false)]);
            if !more || !empty || self.columns.len() == 1 {
                return Ok(more);
            }
        }
    }
}

/// The error about quotes that do not fit, in what goes over several lines: how many rows it was
/// cannot be told, so that setting it aside as one would lose some without counting them.
fn hidden(what: &str, record: &Record) -> Error {
    Error::contract(READ, format!("{what} goes over several lines, and its quotes do not fit"))
        .with("first line", record.first)
        .with("last line", record.last)
        .help(
            "Rows may hide in it, so that it is not set aside, whatever max-rejected allows. Correct \
             the file: a quote within a value is doubled and its value stands in quotes.",
        )
}

/// What keeps `text` from being a value in the dialect.
fn why_not(dialect: &Dialect, kind: &FieldType, text: &str) -> String {
    let of_pattern = match kind {
        FieldType::Decimal(..) | FieldType::Float32 | FieldType::Float64
            if dialect.decimal == b',' =>
        {
            return match text.contains('.') {
                true => "a point, where the dialect writes a comma".to_owned(),
                false => why(kind, &text.replace(',', ".")),
            };
        }
        FieldType::Date => dialect.date.is_some(),
        FieldType::Time => dialect.time.is_some(),
        FieldType::Timestamp | FieldType::Instant => dialect.timestamp.is_some(),
        _ => false,
    };
    match of_pattern {
        true if !text.is_empty() && text.trim() == text => {
            "not written as the dialect says".to_owned()
        }
        _ => why(kind, text),
    }
}

/// Puts the value that `text` writes in the dialect into its column, if it is one.
fn put(dialect: &Dialect, column: &mut Column, text: &str) -> bool {
    match column.kind() {
        FieldType::String if dialect.escape && is_formula(text.as_bytes()) => {
            column.text(text.strip_prefix('\'').unwrap_or(text))
        }
        FieldType::Decimal(..) | FieldType::Float32 | FieldType::Float64
            if dialect.decimal == b',' =>
        {
            !text.contains('.') && column.text(&text.replace(',', "."))
        }
        FieldType::Date if dialect.date.is_some() => {
            column.days(dialect.date.as_ref().and_then(|pattern| pattern.read_date(text)))
        }
        FieldType::Time if dialect.time.is_some() => {
            column.micros(dialect.time.as_ref().and_then(|pattern| pattern.read_time(text)))
        }
        FieldType::Timestamp if dialect.timestamp.is_some() => column
            .micros(dialect.timestamp.as_ref().and_then(|pattern| pattern.read_timestamp(text))),
        FieldType::Instant if dialect.timestamp.is_some() => {
            column.micros(dialect.timestamp.as_ref().and_then(|pattern| pattern.read_instant(text)))
        }
        _ => column.text(text),
    }
}

fn raw(field: &[u8]) -> Json {
    match std::str::from_utf8(field) {
        Ok(text) => text.into(),
        Err(_) => format!("\\x{}", hex::encode(field)).into(),
    }
}

fn open_quote(line: u64) -> Error {
    Error::contract(READ, "a quote is never closed: everything behind it would be one value")
        .with("line of the opening quote", line)
        .help(
            "Close it, or double it where it belongs to the value. Rows may hide behind it, so that \
             max-rejected does not set it aside.",
        )
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before the first byte of a field.
    Start,
    Plain,
    Quoted,
    /// After a quote within quotes: the end, or the first half of a doubled one.
    Closing,
}

impl Record {
    /// Reads one record, up to its line break, which is LF or CRLF. `line` is that on which it starts.
    /// One that is longer than `most` is not read to its end.
    fn read(
        &mut self,
        input: &mut impl BufRead,
        delimiter: u8,
        line: u64,
        most: usize,
    ) -> Result<bool> {
        self.bytes.clear();
        self.fields.clear();
        (self.broken, self.cut, self.first, self.last) = (false, false, line, line);
        let mut state = State::Start;
        // Where the field starts, where its closing quote stood, and whether there is a record.
        let (mut start, mut closed, mut any) = (0, 0, false);
        // The line of the quote that was opened last.
        let mut opened = line;
        loop {
            let buffer = input.fill_buf().map_err(|cause| damaged(READ, cause))?;
            if buffer.is_empty() {
                if state == State::Quoted {
                    return Err(open_quote(opened));
                }
                if any {
                    self.end_field(state, closed);
                }
                return Ok(any);
            }
            any = true;
            let mut used = 0;
            let mut ended = false;
            for &byte in buffer {
                used += 1;
                state = match (state, byte) {
                    (State::Quoted, b'"') => {
                        closed = self.bytes.len();
                        State::Closing
                    }
                    (State::Quoted, byte) => {
                        self.last += u64::from(byte == b'\n');
                        self.bytes.push(byte);
                        State::Quoted
                    }
                    (State::Closing, b'"') if self.bytes.len() == closed => {
                        self.bytes.push(b'"');
                        State::Quoted
                    }
                    (State::Start, b'"') => {
                        opened = self.last;
                        State::Quoted
                    }
                    (_, b'\n') => {
                        ended = true;
                        state
                    }
                    (state, byte) if byte == delimiter => {
                        self.end_field(state, closed);
                        start = self.bytes.len();
                        State::Start
                    }
                    (state, byte) => {
                        self.bytes.push(byte);
                        // Behind a quote it is part of CRLF, or out of place: the end of the field
                        // tells.
                        if state == State::Closing { State::Closing } else { State::Plain }
                    }
                };
                if ended {
                    break;
                }
            }
            input.consume(used);
            if ended {
                let content = if state == State::Closing { closed } else { start };
                if self.bytes.len() > content && self.bytes.last() == Some(&b'\r') {
                    self.bytes.pop();
                }
                self.end_field(state, closed);
                return Ok(true);
            }
            if self.bytes.len() > most && most < MAX_RECORD {
                self.cut = true;
                return Ok(true);
            }
            if self.bytes.len() > MAX_RECORD {
                return Err(match state {
                    State::Quoted => too_long(READ).with("line of the opening quote", opened),
                    _ => too_long(READ).with("line", line),
                });
            }
        }
    }

    fn end_field(&mut self, state: State, closed: usize) {
        self.broken |= state == State::Closing && self.bytes.len() != closed;
        self.fields.push((self.bytes.len(), state == State::Closing));
    }
}
