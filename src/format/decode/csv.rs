//! CSV → batches, in a [dialect](CsvOptions), with an own reader, since it must tell an empty field
//! (NULL) from an empty string in quotes.
//!
//! Another encoding is turned into UTF-8 first. Bytes that mean nothing in it become one that UTF-8
//! does not have, so that their row is known and refused.

use std::io::{BufRead, Chain, Cursor, Read};

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use super::batcher::{Batcher, Column};
use super::unicode::Unicode;
use super::{damaged, too_long};
use crate::error::{Error, Result};
use crate::format::dialect::{Dialect, is_formula};
use crate::format::{CsvOptions, FieldType};
use crate::rows::{Batch, Refused};

const READ: &str = "read CSV";

/// Reads batches out of one file.
pub struct CsvReader<R> {
    /// The first bytes, which were read to look for a byte order mark, and the rest.
    input: Chain<Cursor<Vec<u8>>, Unicode<R>>,
    options: Dialect,
    types: IndexMap<String, FieldType>,
    /// For each field of a line, its column.
    columns: Vec<usize>,
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
    /// Something stood between a closing quote and the delimiter, or a quote was never closed.
    broken: bool,
    /// Line breaks that it took.
    lines: u64,
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
    /// A reader of fields of `types`, in the order of the header, or in their own without one.
    ///
    /// # Errors
    /// `config` for options that make no dialect.
    pub fn new(
        input: R,
        options: &CsvOptions,
        types: &IndexMap<String, FieldType>,
    ) -> Result<Self> {
        let options = Dialect::new(options)?;
        let input = Unicode::new(input, &options.charset);
        Ok(CsvReader {
            input: Cursor::new(Vec::new()).chain(input),
            options,
            types: types.clone(),
            columns: (0..types.len()).collect(),
            batcher: Batcher::new(types),
            record: Record::default(),
            started: false,
            line: 1,
        })
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// `contract` when the header has other names than the fields, or is not there; `permanent` for a record of
    /// more than [`super::MAX_RECORD`] bytes; whatever reading the input gives.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        if !self.started {
            self.start()?;
        }
        while !self.batcher.is_full() {
            let line = self.line;
            if !self.next_record()? {
                break;
            }
            self.take_record(line);
        }
        self.batcher.finish()
    }

    fn start(&mut self) -> Result<()> {
        self.started = true;
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
            self.columns = self.match_header()?;
        }
        Ok(())
    }

    fn match_header(&self) -> Result<Vec<usize>> {
        if let Some(other) = self.other_delimiter() {
            return Err(Error::contract(READ, "the header has one column, and more are declared")
                .help(format!(
                    "Its names seem to be separated by {other:?}: write delimiter = {other:?} under \
                     csv."
                )));
        }
        let drift = |message: &str, name: &str| {
            Error::contract(READ, message.to_owned()).with("column", name).help(
                "The header must have the names of [source.fields] or [contract.fields], in any \
                 order.",
            )
        };
        let mut columns = Vec::with_capacity(self.types.len());
        for (name, _) in self.record.iter() {
            let name = String::from_utf8_lossy(name);
            match self.types.get_index_of(&*name) {
                Some(column) if columns.contains(&column) => {
                    return Err(drift("the header has a name twice", &name));
                }
                Some(column) => columns.push(column),
                None => return Err(drift("the header has a column that is not declared", &name)),
            }
        }
        match self.types.keys().enumerate().find(|(column, _)| !columns.contains(column)) {
            Some((_, name)) => Err(drift("the header misses a column", name)),
            None => Ok(columns),
        }
    }

    /// What separates the names of a header that is read as one name, if that is a usual delimiter.
    fn other_delimiter(&self) -> Option<char> {
        let mut names = self.record.iter();
        let (Some((only, _)), None) = (names.next(), names.next()) else { return None };
        if self.types.len() < 2 {
            return None;
        }
        let usual = [';', ',', '\t', '|'];
        usual.into_iter().find(|other| only.contains(&(*other as u8)))
    }

    fn take_record(&mut self, line: u64) {
        let (record, types) = (&self.record, &self.types);
        let size = record.bytes.len() + 8 * record.fields.len();
        let rule = if record.broken {
            Some("quotes")
        } else {
            (record.fields.len() != self.columns.len()).then_some("columns")
        };
        if let Some(rule) = rule {
            let raw = record.iter().map(|(field, _)| raw(field)).collect();
            let row = Map::from_iter([
                ("line".to_owned(), line.into()),
                ("fields".to_owned(), Json::Array(raw)),
            ]);
            self.batcher
                .refuse(size, Refused { rule: rule.to_owned(), column: None, row, schema: None });
            return;
        }
        if let Some((_, column)) = record
            .iter()
            .zip(&self.columns)
            .find(|((field, _), _)| std::str::from_utf8(field).is_err())
        {
            let names = self.columns.iter().filter_map(|column| types.get_index(*column));
            let row =
                names.zip(record.iter()).map(|((name, _), (field, _))| (name.clone(), raw(field)));
            let refused = Refused {
                rule: format!("encoding {}", self.options.charset.name()),
                column: types.get_index(*column).map(|(name, _)| name.clone()),
                row: row.collect(),
                schema: None,
            };
            self.batcher.refuse(size, refused);
            return;
        }
        for ((field, quoted), column) in record.iter().zip(&self.columns) {
            let null = !quoted && field == self.options.null;
            self.batcher.value(*column, |column| {
                if null {
                    column.null();
                    return true;
                }
                std::str::from_utf8(field).is_ok_and(|text| put(&self.options, column, text))
            });
        }
        self.batcher.end_row(size, || {
            let fields = record.iter().zip(&self.columns);
            let named = fields.filter_map(|((field, quoted), column)| {
                let null = !quoted && field == self.options.null;
                let value = if null { Json::Null } else { raw(field) };
                Some((types.get_index(*column)?.0.clone(), value))
            });
            named.collect()
        });
    }

    /// Reads the next record; `false` at the end. Empty lines are no records, unless there is
    /// one column, whose NULL they are.
    fn next_record(&mut self) -> Result<bool> {
        loop {
            let more = self.record.read(&mut self.input, self.options.delimiter)?;
            self.line += self.record.lines;
            let empty = matches!(self.record.fields[..], [(0, false)]);
            if !more || !empty || self.types.len() == 1 {
                return Ok(more);
            }
        }
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
    /// Reads one record, up to its line break, which is LF or CRLF.
    fn read(&mut self, input: &mut impl BufRead, delimiter: u8) -> Result<bool> {
        self.bytes.clear();
        self.fields.clear();
        (self.broken, self.lines) = (false, 0);
        let mut state = State::Start;
        // Where the field starts, where its closing quote stood, and whether there is a record.
        let (mut start, mut closed, mut any) = (0, 0, false);
        loop {
            let buffer = input.fill_buf().map_err(|cause| damaged(READ, cause))?;
            if buffer.is_empty() {
                if any {
                    self.broken |= state == State::Quoted;
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
                        self.lines += u64::from(byte == b'\n');
                        self.bytes.push(byte);
                        State::Quoted
                    }
                    (State::Closing, b'"') if self.bytes.len() == closed => {
                        self.bytes.push(b'"');
                        State::Quoted
                    }
                    (State::Start, b'"') => State::Quoted,
                    (_, b'\n') => {
                        self.lines += 1;
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
            if self.bytes.len() > super::MAX_RECORD {
                return Err(too_long(READ));
            }
        }
    }

    fn end_field(&mut self, state: State, closed: usize) {
        self.broken |= state == State::Closing && self.bytes.len() != closed;
        self.fields.push((self.bytes.len(), state == State::Closing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    fn types(fields: &[(&str, FieldType)]) -> IndexMap<String, FieldType> {
        fields.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect()
    }

    /// Reads through buffers of every small size, so that each border is crossed.
    fn read(bytes: &[u8], options: &CsvOptions, fields: &[(&str, FieldType)]) -> Batch {
        let results = [1, 2, 3, 7, 1000].map(|size| {
            let input = std::io::BufReader::with_capacity(size, bytes);
            let mut reader = CsvReader::new(input, options, &types(fields)).unwrap();
            let batch = reader.next_batch().unwrap().unwrap();
            assert!(reader.next_batch().unwrap().is_none());
            batch
        });
        assert!(results.iter().all(|one| one.rows == results[0].rows
            && one.refused == results[0].refused
            && one.read == results[0].read));
        results[0].clone()
    }

    fn column(batch: &Batch, index: usize) -> Vec<Option<&str>> {
        batch.rows.column(index).as_string::<i32>().iter().collect()
    }

    #[test]
    fn null_and_the_empty_string_are_told_apart() {
        let text = "\u{feff}b,a\r\n,\"\"\r\n\"x, \"\"y\"\"\r\n\",é\r\n\r\n\"z\r\",\"w\"";
        let fields = [("a", FieldType::String), ("b", FieldType::String)];
        let batch = read(text.as_bytes(), &CsvOptions::default(), &fields);
        assert_eq!(column(&batch, 0), [Some(""), Some("é"), Some("w")]);
        assert_eq!(column(&batch, 1), [None, Some("x, \"y\"\r\n"), Some("z\r")]);
        assert!(batch.refused.is_empty());
    }

    #[test]
    fn another_dialect_without_header() {
        let options = CsvOptions {
            header: false,
            delimiter: '|',
            null: "\\N".to_owned(),
            ..CsvOptions::default()
        };
        let fields = [("a", FieldType::String), ("b", FieldType::Int64)];
        let batch = read("\\N|1\n|\\N\n\"\\N\"|\"3\"\nx|\n".as_bytes(), &options, &fields);
        assert_eq!(column(&batch, 0), [None, Some(""), Some("\\N")]);
        let numbers: Vec<_> = batch.rows.column(1).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(numbers, [Some(1), None, Some(3)]);
        assert_eq!(batch.refused[0].row["b"], "");
    }

    #[test]
    fn broken_rows_are_refused_with_their_rule() {
        let text = b"a,b\n1,x\n2\nxx,y\n\"3\"q,z\n4,\xff\n5,\"open\n";
        let fields = [("a", FieldType::Int64), ("b", FieldType::String)];
        let batch = read(text, &CsvOptions::default(), &fields);
        assert_eq!((batch.read, batch.rows.num_rows()), (6, 1));
        let mut rules: Vec<_> = batch.refused.iter().map(|one| one.rule.as_str()).collect();
        rules.sort_unstable();
        assert_eq!(rules, ["columns", "encoding UTF-8", "quotes", "quotes", "type int64"]);
        let columns = batch.refused.iter().find(|one| one.rule == "columns").unwrap();
        assert_eq!(columns.row["line"], 3);
        let text = batch.refused.iter().find(|one| one.rule == "encoding UTF-8").unwrap();
        assert_eq!(text.row["b"], "\\xff");
    }

    #[test]
    fn values_are_read_in_their_dialect() {
        let options: CsvOptions = serde_json::from_value(serde_json::json!({
            "delimiter": ";", "decimal": ",", "encoding": "utf-16le", "formulas": "escape",
            "timestamp": "%d.%m.%Y %H:%M:%S", "date": "%d.%m.%Y", "time": "%H.%M",
        }))
        .unwrap();
        let fields = [
            ("d", FieldType::Decimal(10, 2)),
            ("f", FieldType::Float64),
            ("s", FieldType::String),
            ("at", FieldType::Instant),
            ("day", FieldType::Date),
            ("t", FieldType::Time),
        ];
        let text = "\u{feff}d;f;s;at;day;t\r\n-1,50;1,5e3;'=1\u{1f600};19.11.2026 01:02:03;19.11.2026;23.59\r\n\
                    1.5;1;x;;;\r\n;;'x;19.11.2026;;\r\n;;;;;24.00\r\n";
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut bytes = bytes;
        bytes.extend(b";\0;\0\0\xd8;\0;\0;\0");
        let batch = read(&bytes, &options, &fields);
        assert_eq!((batch.read, batch.rows.num_rows()), (5, 1));
        assert_eq!(column(&batch, 2), [Some("=1\u{1f600}")]);
        let shown = crate::format::row_json(&batch.rows, 0);
        assert_eq!(shown["d"], "-1.50");
        assert_eq!(shown["f"], 1500.0);
        assert_eq!(shown["at"], "2026-11-19T01:02:03Z");
        assert_eq!((&shown["day"], &shown["t"]), (&"2026-11-19".into(), &"23:59:00".into()));
        let mut rules: Vec<_> = batch.refused.iter().map(|one| one.rule.as_str()).collect();
        rules.sort_unstable();
        assert_eq!(
            rules,
            ["encoding UTF-16LE", "type decimal(10,2)", "type time(us)", "type timestamp(us, UTC)"]
        );
    }

    #[test]
    fn an_empty_line_is_a_null_of_the_only_column() {
        let batch = read(b"a\nx\n\n\"\"\n", &CsvOptions::default(), &[("a", FieldType::String)]);
        assert_eq!(column(&batch, 0), [Some("x"), None, Some("")]);
    }

    #[test]
    fn a_header_that_drifted_is_an_error_of_the_contract() {
        let fields = types(&[("a", FieldType::Int64), ("b", FieldType::String)]);
        for (text, name) in [("a\n", "b"), ("a,b,c\n", "c"), ("a,a,b\n", "a")] {
            let mut reader =
                CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields).unwrap();
            let error = reader.next_batch().unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Contract);
            assert!(error.to_string().contains(&format!("column {name}")), "{error}");
        }
    }

    #[test]
    fn a_header_that_is_not_there_or_of_another_delimiter_is_told() {
        let fields = types(&[("a", FieldType::Int64), ("b", FieldType::String)]);
        let fails = |text: &str| {
            let mut reader =
                CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields).unwrap();
            let error = reader.next_batch().unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Contract);
            format!("{error}. {}", error.advice().unwrap_or_default())
        };
        for empty in ["", "\n", "\u{feff}"] {
            assert!(fails(empty).contains("it has no header"), "{empty:?}");
        }
        assert!(fails("a;b\n1;x\n").contains("write delimiter = ';' under csv"));
        assert!(fails("a\tb\n").contains("write delimiter = '\\t' under csv"));
    }

    #[test]
    fn no_rows_are_no_batch() {
        for text in ["a\n", "a"] {
            let mut reader = CsvReader::new(
                text.as_bytes(),
                &CsvOptions::default(),
                &types(&[("a", FieldType::Int64)]),
            )
            .unwrap();
            assert!(reader.next_batch().unwrap().is_none());
        }
    }
}
