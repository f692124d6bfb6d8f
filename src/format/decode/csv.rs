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
use super::why::why;
use super::{damaged, header, too_long};
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

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// `contract` when the header has other names than the fields, or is not there, and for quotes that
    /// rows could hide behind; `permanent` for a record of more than [`super::MAX_RECORD`] bytes;
    /// whatever reading the input gives.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.start()?;
        while !self.batcher.is_full() && self.next_record()? {
            self.take_record()?;
        }
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
                .then(|| format!("{} values, {} columns", record.fields.len(), self.columns.len()));
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
                    Some(text) => put(&self.options, column, text),
                },
                |kind| {
                    let text = text.unwrap_or_default();
                    hides |= text.contains('\n');
                    Some(why_not(&self.options, kind, text))
                },
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
            let more = self.record.read(&mut self.input, self.options.delimiter, self.line)?;
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
    fn read(&mut self, input: &mut impl BufRead, delimiter: u8, line: u64) -> Result<bool> {
        self.bytes.clear();
        self.fields.clear();
        (self.broken, self.first, self.last) = (false, line, line);
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
            if self.bytes.len() > super::MAX_RECORD {
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
            let mut reader = CsvReader::new(input, options, &types(fields), false).unwrap();
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
        let text = b"a,b\n1,x\n2\nxx,y\n\"3\"q,z\n4,\xff\n";
        let fields = [("a", FieldType::Int64), ("b", FieldType::String)];
        let batch = read(text, &CsvOptions::default(), &fields);
        assert_eq!((batch.read, batch.rows.num_rows()), (5, 1));
        let mut rules: Vec<_> = batch.refused.iter().map(|one| one.rule.as_str()).collect();
        rules.sort_unstable();
        assert_eq!(rules, ["columns", "encoding UTF-8", "quotes", "type int64"]);
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
                CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields, false).unwrap();
            let error = reader.next_batch().unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Contract);
            assert!(error.to_string().contains(&format!("column `{name}`")), "{error}");
        }
    }

    #[test]
    fn a_header_that_is_not_there_or_of_another_delimiter_is_told() {
        let fields = types(&[("a", FieldType::Int64), ("b", FieldType::String)]);
        let fails = |text: &str| {
            let mut reader =
                CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields, false).unwrap();
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
                false,
            )
            .unwrap();
            assert!(reader.next_batch().unwrap().is_none());
        }
    }

    fn fails(text: &str, fields: &IndexMap<String, FieldType>, drop: bool) -> String {
        let errors = [1, 3, 1000].map(|size| {
            let input = std::io::BufReader::with_capacity(size, text.as_bytes());
            let mut reader = CsvReader::new(input, &CsvOptions::default(), fields, drop).unwrap();
            let error = loop {
                match reader.next_batch() {
                    Ok(batch) => assert!(batch.is_some(), "{text:?} is read"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.class(), crate::error::Class::Contract, "{error}");
            format!("{error}. {}", error.advice().unwrap_or_default())
        });
        assert!(errors.iter().all(|one| *one == errors[0]));
        errors[0].clone()
    }

    #[test]
    fn no_row_hides_behind_a_quote() {
        let fields = types(&[("id", FieldType::Int64), ("name", FieldType::String)]);
        let rows = |from: u32, to: u32| -> String {
            (from..to).map(|id| format!("{id},n{id}\n")).collect()
        };
        // Open to the end of the file; the header is the first line.
        let open = format!("id,name\n{}5,\"n5\n{}", rows(1, 5), rows(6, 20));
        let told = fails(&open, &fields, false);
        assert!(told.contains("never closed") && told.contains("quote 6"), "{told}");
        // Closed by the quote of another row.
        let closed = format!("id,name\n{}5,\"n5\n{}9,\"n9\"\n", rows(1, 5), rows(6, 9));
        let told = fails(&closed, &fields, false);
        assert!(told.contains("first line 6, last line 10"), "{told}");
        // Closed at an end, so that only the number of fields tells.
        let ended = format!("id,name\n5,\"n5\n{}9,\",x\n", rows(6, 9));
        assert!(fails(&ended, &fields, false).contains("first line 2, last line 6"));
        // In a value that has no lines.
        let number = format!("id,name\n\"5,n5\n{}\",n9\n", rows(6, 9));
        assert!(fails(&number, &fields, false).contains("a value goes over several lines"));
        assert!(fails("id,\"na\nme\"x\n1,2\n", &fields, false).contains("the header goes over"));
        // A text of several lines is one, and a bad number beside it hides nothing.
        let sound = "id,name\n1,\"a\nb\"\nx,\"a\nb\"\n3,\"a\"b\n";
        let batch = read(
            sound.as_bytes(),
            &CsvOptions::default(),
            &[("id", FieldType::Int64), ("name", FieldType::String)],
        );
        assert_eq!((batch.read, batch.rows.num_rows(), batch.refused.len()), (3, 1, 2));
    }

    #[test]
    fn refused_rows_and_those_that_are_kept_know_their_lines() {
        let text = "id,d\n\n1,\"1\"\n\nx,1.234\n2,0\n3\n";
        let fields = [("id", FieldType::Int64), ("d", FieldType::Decimal(5, 2))];
        let batch = read(text.as_bytes(), &CsvOptions::default(), &fields);
        let batch = batch.of_file(&"in/a.csv".into());
        let kept = (0..2).map(|row| batch.origin(row).unwrap().to_string());
        assert_eq!(kept.collect::<Vec<_>>(), ["in/a.csv line 3", "in/a.csv line 6"]);
        let [first, second] = batch.refused.as_slice() else { panic!("{:?}", batch.refused) };
        assert_eq!(first.place().unwrap(), "in/a.csv line 5 (id: not a number)");
        let [also] = first.also.as_slice() else { panic!("{first:?}") };
        assert_eq!((also.rule.as_str(), also.column.as_deref()), ("type decimal(5,2)", Some("d")));
        assert_eq!(also.why.as_deref(), Some("3 digits after the point, 2 allowed"));
        assert_eq!(second.place().unwrap(), "in/a.csv line 7 (1 values, 2 columns)");
    }

    #[test]
    fn columns_that_are_not_declared_are_left_out_where_that_is_said() {
        let fields = types(&[("id", FieldType::Int64)]);
        let text = "foo,id,\n\"x\ny\",1,\n,z,\n";
        let mut reader =
            CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields, true).unwrap();
        let batch = reader.next_batch().unwrap().unwrap();
        assert_eq!(batch.rows.num_columns(), 1);
        assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().values()[..], [1]);
        assert_eq!(
            batch.refused[0].row,
            serde_json::json!({"id": "z"}).as_object().unwrap().clone()
        );
        assert!(fails("foo\n1\n", &fields, true).contains("misses a column"));
        assert!(fails("id,id\n1,1\n", &fields, true).contains("a name twice"));
        assert!(fails("id;foo\n1;1\n", &fields, true).contains("delimiter = ';'"));
    }

    #[test]
    fn what_a_header_lacks_is_told_with_what_is_there() {
        let fields = types(&[("id", FieldType::Int64), ("amount", FieldType::String)]);
        let told = fails("ID,amount\n", &fields, false);
        assert!(told.contains("column `ID`") && told.contains("Did you mean `id`? "), "{told}");
        assert!(told.contains("Expected are `id`, `amount`"), "{told}");
        assert!(told.contains("found are `ID`, `amount`"), "{told}");
        let told = fails("id, amount \n", &fields, false);
        assert!(told.contains("column ` amount `"), "{told}");
        assert!(told.contains("Did you mean `amount`, without the spaces around it?"), "{told}");
        let told = fails("ID,amount\n", &fields, true);
        assert!(told.contains("column `id`") && told.contains("Is it `ID` in the file?"), "{told}");
        assert!(fails("id,amount\r1,2\r", &fields, false).contains("carriage return alone"));
        let told = fails("id,a\u{1b}[31m\n", &fields, false);
        assert!(!told.contains('\u{1b}'), "{told}");
    }

    #[test]
    fn a_file_in_another_encoding_is_told() {
        let fields = types(&[("id", FieldType::Int64), ("å", FieldType::String)]);
        let wide = |swap: bool| -> Vec<u8> {
            let bytes = |unit: u16| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() };
            "id,å\n1,x\n".encode_utf16().flat_map(bytes).collect()
        };
        let marked = [&b"\xff\xfe"[..], &wide(false)].concat();
        for (bytes, help) in [
            (wide(false), "encoding = \"utf-16le\""),
            (marked, "encoding = \"utf-16le\""),
            (wide(true), "encoding = \"utf-16be\""),
            (b"id,\xe5\n".to_vec(), "windows-1252"),
        ] {
            let mut reader =
                CsvReader::new(bytes.as_slice(), &CsvOptions::default(), &fields, false).unwrap();
            let error = reader.next_batch().unwrap_err();
            assert!(error.advice().unwrap().contains(help), "{error}");
            assert!(error.to_string().is_ascii(), "{error}");
        }
    }
}
