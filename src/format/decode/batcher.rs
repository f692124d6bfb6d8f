//! Batches from loose values: what CSV, JSON lines and SQLite have in common.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Builder, Decimal128Builder,
    Decimal256Builder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
    RecordBatch, RecordBatchOptions, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use super::exact;
use crate::budget::{Budget, Charge, Use};
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::rows::{
    At, BATCH_BYTES, BATCH_ROWS, Batch, Breach, Origin, Places, RULES_TOLD, Refused, batch_bytes,
    width,
};

/// How often a large record is held while a row is made of it: as it was read, without its escapes,
/// and in the columns.
const RECORD: usize = 3;

/// The schema of columns with these names and types, all of which may be NULL.
pub fn schema(types: &IndexMap<String, FieldType>) -> SchemaRef {
    let fields = types.iter().map(|(name, kind)| Field::new(name, kind.arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Gathers rows value by value into a batch, and refuses rows whose values do not fit.
pub struct Batcher {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// For each row in the columns, whether all of its values fit.
    keep: Vec<bool>,
    refused: Vec<Refused>,
    /// Rows refused before they reached the columns.
    broken: u64,
    bytes: usize,
    /// How many bytes a row takes in the columns even if all of it is NULL.
    width: usize,
    /// The columns of the row at hand whose values did not fit, and why, where that is known.
    misfits: Vec<(usize, Option<String>)>,
    /// The line of the row at hand, and of each in the columns, where there are lines.
    line: Option<u64>,
    lines: Vec<u64>,
    /// How many bytes of rows make a batch.
    full: usize,
    charge: Charge,
}

impl Batcher {
    /// A batcher for columns of these types.
    pub fn new(types: &IndexMap<String, FieldType>) -> Batcher {
        let schema = schema(types);
        Batcher {
            width: width(&schema),
            schema,
            columns: types.values().map(Column::new).collect(),
            keep: Vec::new(),
            refused: Vec::new(),
            broken: 0,
            bytes: 0,
            misfits: Vec::new(),
            line: None,
            lines: Vec::new(),
            full: BATCH_BYTES,
            charge: Charge::default(),
        }
    }

    /// Charges what is gathered to a budget, and makes batches of a size that fits it.
    ///
    /// # Errors
    /// Those of the budget.
    pub fn within(mut self, budget: &Budget) -> Result<Batcher> {
        self.full = batch_bytes(budget);
        // The columns of a batch, which grow by doubling.
        self.charge = budget.charge(Use::Reading, 2 * self.full)?;
        Ok(self)
    }

    /// How many bytes a record may have, so that the budget allows for the row that is made of it,
    /// too.
    pub fn room(&self) -> usize {
        self.charge.room() / RECORD
    }

    /// The error that a record is of which more than [`Batcher::room`] was read.
    pub fn beyond(&self, record: usize) -> Error {
        self.charge.beyond(2 * self.full + record * RECORD)
    }

    /// Charges a record that is held while a row is made of it. Cheap, for all but large ones.
    ///
    /// # Errors
    /// Those of the budget.
    pub fn hold(&mut self, record: usize) -> Result<()> {
        match record * RECORD <= self.full {
            true => Ok(()),
            false => self.charge.cover(2 * self.full + record * RECORD),
        }
    }

    /// Says on which line the row at hand begins: once for each row, or for none.
    pub fn begin_row(&mut self, line: u64) {
        self.line = Some(line);
    }

    /// Puts the row's value into `column`: `put` appends exactly one value and says so, or
    /// appends none, and the row will be refused. Called once for each column of each row.
    pub fn value(&mut self, column: usize, put: impl FnOnce(&mut Column) -> bool) {
        self.value_or(column, put, |_| None);
    }

    /// As [`Batcher::value`]; `why` tells what is wrong with a value that does not fit, and never the
    /// value.
    pub fn value_or(
        &mut self,
        column: usize,
        put: impl FnOnce(&mut Column) -> bool,
        why: impl FnOnce(&FieldType) -> Option<String>,
    ) {
        let Some(slot) = self.columns.get_mut(column) else { return };
        if !put(slot) {
            slot.null();
            if self.misfits.len() < RULES_TOLD {
                self.misfits.push((column, why(&slot.kind)));
            }
        }
    }

    /// Ends the row, which took `bytes`. `raw` gives it as it was, for quarantine.
    pub fn end_row(&mut self, bytes: usize, raw: impl FnOnce() -> Map<String, Json>) {
        self.bytes += bytes.max(self.width);
        self.keep.push(self.misfits.is_empty());
        let line = self.line.take();
        self.lines.extend(line);
        if self.misfits.is_empty() {
            return;
        }
        let (columns, schema) = (&self.columns, &self.schema);
        // In the order of the columns, whatever that of the file is.
        self.misfits.sort_unstable_by_key(|(column, _)| *column);
        let broke = self.misfits.drain(..).map(|(column, why)| Breach {
            rule: columns
                .get(column)
                .map_or_else(String::new, |slot| format!("type {}", slot.kind)),
            column: schema.fields().get(column).map(|field| field.name().clone()),
            why,
        });
        let refused = Refused { origin: line.map(here), ..Refused::of(broke, raw()) };
        self.bytes += refused.held();
        self.refused.push(refused);
    }

    /// Counts a row that is too broken to have values.
    pub fn refuse(&mut self, bytes: usize, refused: Refused) {
        self.bytes += bytes.max(refused.held());
        self.broken += 1;
        let line = self.line.take();
        self.refused.push(Refused { origin: line.map(here), ..refused });
    }

    /// Whether it is time for [`Batcher::finish`].
    pub fn is_full(&self) -> bool {
        self.keep.len() + self.refused.len() >= BATCH_ROWS || self.bytes >= self.full
    }

    /// The rows since the last time; `None` when there are none.
    ///
    /// # Errors
    /// None that input could cause.
    pub fn finish(&mut self) -> Result<Option<Batch>> {
        let keep = std::mem::take(&mut self.keep);
        let read = keep.len() as u64 + std::mem::take(&mut self.broken);
        self.bytes = 0;
        self.charge.set(2 * self.full)?;
        if read == 0 {
            return Ok(None);
        }
        let impossible = |cause| {
            Error::permanent("make a batch", "the columns do not fit together").caused_by(cause)
        };
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        let mut places = (!self.lines.is_empty()).then(|| Places {
            file: Arc::default(),
            at: At::Line,
            numbers: std::mem::take(&mut self.lines).into(),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(keep.len()));
        let mut rows = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(impossible)?;
        if keep.contains(&false) {
            let keep = BooleanArray::from(keep);
            rows = arrow::compute::filter_record_batch(&rows, &keep).map_err(impossible)?;
            places = places.map(|one| one.filter(&keep)).transpose().map_err(impossible)?;
        }
        let refused = std::mem::take(&mut self.refused);
        Ok(Some(Batch { read, refused, places, ..Batch::whole(rows) }))
    }
}

/// A line of the file at hand, whose name its reader does not know.
fn here(line: u64) -> Origin {
    Origin { file: String::new(), at: At::Line(line) }
}

/// One column under construction. Every method but [`Column::null`] appends the value if it is
/// exactly one of the column's type, and else appends nothing and says `false`.
pub struct Column {
    kind: FieldType,
    values: Values,
}

enum Values {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Wide(Decimal256Builder, u8, i8),
    String(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Instant(TimestampMicrosecondBuilder),
}

macro_rules! push {
    ($values:expr, $value:expr) => {
        match $value {
            Some(value) => {
                $values.append_value(value);
                true
            }
            None => false,
        }
    };
}

impl Column {
    fn new(kind: &FieldType) -> Column {
        let values = match kind {
            FieldType::Bool => Values::Bool(BooleanBuilder::new()),
            FieldType::Int16 => Values::Int16(Int16Builder::new()),
            FieldType::Int32 => Values::Int32(Int32Builder::new()),
            FieldType::Int64 => Values::Int64(Int64Builder::new()),
            FieldType::Float32 => Values::Float32(Float32Builder::new()),
            FieldType::Float64 => Values::Float64(Float64Builder::new()),
            FieldType::Decimal(precision, scale) => match kind.arrow() {
                wide @ DataType::Decimal256(..) => {
                    Values::Wide(Decimal256Builder::new().with_data_type(wide), *precision, *scale)
                }
                narrow => Values::Decimal(
                    Decimal128Builder::new().with_data_type(narrow),
                    *precision,
                    *scale,
                ),
            },
            FieldType::String => Values::String(StringBuilder::new()),
            FieldType::Bytes => Values::Bytes(BinaryBuilder::new()),
            FieldType::Date => Values::Date(Date32Builder::new()),
            FieldType::Time => Values::Time(Time64MicrosecondBuilder::new()),
            FieldType::Timestamp => Values::Timestamp(TimestampMicrosecondBuilder::new()),
            FieldType::Instant => {
                Values::Instant(TimestampMicrosecondBuilder::new().with_data_type(kind.arrow()))
            }
        };
        Column { kind: kind.clone(), values }
    }

    /// The column's type.
    pub fn kind(&self) -> &FieldType {
        &self.kind
    }

    /// Appends NULL.
    pub fn null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append_null(),
            Values::Int16(values) => values.append_null(),
            Values::Int32(values) => values.append_null(),
            Values::Int64(values) => values.append_null(),
            Values::Float32(values) => values.append_null(),
            Values::Float64(values) => values.append_null(),
            Values::Decimal(values, ..) => values.append_null(),
            Values::Wide(values, ..) => values.append_null(),
            Values::String(values) => values.append_null(),
            Values::Bytes(values) => values.append_null(),
            Values::Date(values) => values.append_null(),
            Values::Time(values) => values.append_null(),
            Values::Timestamp(values) | Values::Instant(values) => values.append_null(),
        }
    }

    /// A truth value.
    pub fn flag(&mut self, flag: bool) -> bool {
        match &mut self.values {
            Values::Bool(values) => values.append_value(flag),
            _ => return false,
        }
        true
    }

    /// A whole number; into text it goes as its digits, into bool as 0 or 1.
    pub fn integer(&mut self, number: i64) -> bool {
        match &mut self.values {
            Values::Bool(values) => push!(values, (0..=1).contains(&number).then_some(number == 1)),
            Values::Int16(values) => push!(values, number.try_into().ok()),
            Values::Int32(values) => push!(values, number.try_into().ok()),
            Values::Int64(values) => push!(values, Some(number)),
            Values::Float32(values) => {
                push!(values, (number.unsigned_abs() <= 1 << 24).then_some(number as f32))
            }
            Values::Float64(values) => {
                push!(values, (number.unsigned_abs() <= 1 << 53).then_some(number as f64))
            }
            Values::Decimal(..) | Values::Wide(..) | Values::String(_) => {
                self.text(&number.to_string())
            }
            _ => false,
        }
    }

    /// A binary floating-point number; into a decimal it goes by its shortest exact writing.
    pub fn real(&mut self, number: f64) -> bool {
        match &mut self.values {
            Values::Float64(values) => push!(values, Some(number)),
            Values::Float32(values) => {
                let narrow = number as f32;
                push!(values, (f64::from(narrow).to_bits() == number.to_bits()).then_some(narrow))
            }
            Values::Decimal(..)
            | Values::Wide(..)
            | Values::Int16(_)
            | Values::Int32(_)
            | Values::Int64(_) => self.text(&number.to_string()),
            _ => false,
        }
    }

    /// Bytes, into a column of bytes alone.
    pub fn bytes(&mut self, bytes: &[u8]) -> bool {
        match &mut self.values {
            Values::Bytes(values) => values.append_value(bytes),
            _ => return false,
        }
        true
    }

    /// The value that `text` writes: ISO dates and times, `\x` and hex for bytes, `true` and
    /// `false` (or `t`, `f`, `1`, `0`) for bool. A float is the one nearest to the decimal.
    pub fn text(&mut self, text: &str) -> bool {
        match &mut self.values {
            Values::Bool(values) => push!(
                values,
                match text {
                    "true" | "t" | "1" | "True" | "TRUE" => Some(true),
                    "false" | "f" | "0" | "False" | "FALSE" => Some(false),
                    _ => None,
                }
            ),
            Values::Int16(values) => push!(values, text.parse().ok()),
            Values::Int32(values) => push!(values, text.parse().ok()),
            Values::Int64(values) => push!(values, text.parse().ok()),
            Values::Float32(values) => {
                let number = text.parse::<f32>().ok();
                push!(values, number.filter(|number| number.is_finite() || is_word(text)))
            }
            Values::Float64(values) => {
                let number = text.parse::<f64>().ok();
                push!(values, number.filter(|number| number.is_finite() || is_word(text)))
            }
            Values::Decimal(values, precision, scale) => {
                push!(values, exact::decimal(text, *precision, *scale))
            }
            Values::Wide(values, precision, scale) => {
                push!(values, exact::wide(text, *precision, *scale))
            }
            Values::String(values) => push!(values, Some(text)),
            Values::Bytes(values) => push!(values, exact::bytes(text)),
            Values::Date(values) => push!(values, exact::date(text)),
            Values::Time(values) => push!(values, exact::time(text)),
            Values::Timestamp(values) => push!(values, exact::timestamp(text)),
            Values::Instant(values) => push!(values, exact::instant(text)),
        }
    }

    /// Days since 1970, into a column of dates alone.
    pub fn days(&mut self, days: Option<i32>) -> bool {
        match &mut self.values {
            Values::Date(values) => push!(values, days),
            _ => false,
        }
    }

    /// Microseconds, since midnight or since 1970, into a column of times or timestamps.
    pub fn micros(&mut self, micros: Option<i64>) -> bool {
        match &mut self.values {
            Values::Time(values) => push!(values, micros),
            Values::Timestamp(values) | Values::Instant(values) => push!(values, micros),
            _ => false,
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Bool(values) => Arc::new(values.finish()),
            Values::Int16(values) => Arc::new(values.finish()),
            Values::Int32(values) => Arc::new(values.finish()),
            Values::Int64(values) => Arc::new(values.finish()),
            Values::Float32(values) => Arc::new(values.finish()),
            Values::Float64(values) => Arc::new(values.finish()),
            Values::Decimal(values, ..) => Arc::new(values.finish()),
            Values::Wide(values, ..) => Arc::new(values.finish()),
            Values::String(values) => Arc::new(values.finish()),
            Values::Bytes(values) => Arc::new(values.finish()),
            Values::Date(values) => Arc::new(values.finish()),
            Values::Time(values) => Arc::new(values.finish()),
            Values::Timestamp(values) | Values::Instant(values) => Arc::new(values.finish()),
        }
    }
}

/// Whether an infinite or undefined float was written as such, and is no overflow of digits.
fn is_word(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Size;

    #[test]
    fn only_exact_values_enter() {
        let mut batcher = Batcher::new(&IndexMap::from([
            ("a".to_owned(), FieldType::Int16),
            ("b".to_owned(), FieldType::Decimal(5, 2)),
        ]));
        for (a, b) in [("1", 1.25), ("2", 1.255), ("32768", 1.0)] {
            batcher.value(0, |column| column.text(a));
            batcher.value(1, |column| column.real(b));
            batcher.end_row(10, || Map::from_iter([("a".to_owned(), a.into())]));
        }
        let batch = batcher.finish().unwrap().unwrap();
        assert_eq!((batch.read, batch.rows.num_rows()), (3, 1));
        let rules: Vec<_> = batch.refused.iter().map(|refused| refused.rule.as_str()).collect();
        assert_eq!(rules, ["type decimal(5,2)", "type int16"]);
        assert_eq!(batch.refused[1].row["a"], "32768");
        assert!(batcher.finish().unwrap().is_none());
    }

    #[test]
    fn a_batch_is_no_larger_than_it_should_be_where_lines_are_shorter_than_rows() {
        let types = |kind: FieldType| (0..250).map(move |n| (format!("c{n}"), kind.clone()));
        let budget = Budget::new(Size(64 << 20));
        for kind in [FieldType::Int64, FieldType::Decimal(38, 2), FieldType::String] {
            let types = types(kind).collect();
            let mut batcher = Batcher::new(&types).within(&budget).unwrap();
            let full = batch_bytes(&budget);
            // Of each line a few values are told, or what is told does not fit.
            for misfit in [false, true] {
                while !batcher.is_full() {
                    for column in 0..250 {
                        batcher.value(column, |column| {
                            column.null();
                            true
                        });
                    }
                    if misfit {
                        batcher.misfits.push((0, None));
                    }
                    let raw = || (0..250).map(|n| (format!("c{n}"), Json::Null)).collect();
                    batcher.end_row(30, raw);
                }
                let batch = batcher.finish().unwrap().unwrap().charged(&budget).unwrap();
                let held = budget.held() - 2 * full;
                assert!(held > full / 2 && held < full + full / 8, "{held} of {} rows", batch.read);
            }
        }
    }

    #[test]
    fn floats_neither_overflow_nor_lose_digits() {
        let mut single = Column::new(&FieldType::Float32);
        assert!(!single.text("1e40") && single.text("-inf") && single.text("NaN"));
        assert!(!single.real(0.1) && single.real(0.5) && !single.integer((1 << 24) + 1));
        let mut double = Column::new(&FieldType::Float64);
        assert!(!double.text("1e400") && !double.integer((1 << 53) + 1));
        let mut whole = Column::new(&FieldType::Int64);
        assert!(whole.real(3.0) && !whole.real(3.5) && !whole.real(1e30));
    }
}
