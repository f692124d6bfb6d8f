//! COPY's binary format → Arrow
//! (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"; the values as the
//! types' send functions write them).
//!
//! The hot path of every export out of PostgreSQL: nothing is allocated per row or per field but
//! the growth of the columns. Text is checked as UTF-8 once a batch.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array,
    Decimal256Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    NullBufferBuilder, RecordBatch, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, SchemaRef, i256};
use serde_json::Value as Json;

use super::numeric;
use crate::budget::{Budget, Charge, Use};
use crate::error::{Error, Result};
use crate::format::{FieldType, row_json};
use crate::rows::{BATCH_BYTES, BATCH_ROWS, Batch, Breach, Refused, batch_bytes, width};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// From 1970-01-01 to 2000-01-01, where PostgreSQL's times begin.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// How the bytes of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `bool`.
    Bool,
    /// `smallint`.
    Int16,
    /// `integer`.
    Int32,
    /// `bigint`.
    Int64,
    /// `oid`, which has no sign.
    Oid,
    /// `real`.
    Float32,
    /// `double precision`.
    Float64,
    /// `numeric`, of this precision and scale.
    Decimal(u8, i8),
    /// Text of the database's encoding, which is asked for as UTF-8.
    Text,
    /// `jsonb`: a version byte, then text.
    Jsonb,
    /// `uuid`.
    Uuid,
    /// `bytea`.
    Bytes,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timestamp`.
    Timestamp,
    /// `timestamptz`.
    Instant,
}

impl Wire {
    /// The type that the values have from here on.
    pub fn field_type(self) -> FieldType {
        match self {
            Wire::Bool => FieldType::Bool,
            Wire::Int16 => FieldType::Int16,
            Wire::Int32 => FieldType::Int32,
            Wire::Int64 | Wire::Oid => FieldType::Int64,
            Wire::Float32 => FieldType::Float32,
            Wire::Float64 => FieldType::Float64,
            Wire::Decimal(precision, scale) => FieldType::Decimal(precision, scale),
            Wire::Text | Wire::Jsonb | Wire::Uuid => FieldType::String,
            Wire::Bytes => FieldType::Bytes,
            Wire::Date => FieldType::Date,
            Wire::Time => FieldType::Time,
            Wire::Timestamp => FieldType::Timestamp,
            Wire::Instant => FieldType::Instant,
        }
    }
}

/// Why a field could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The bytes are not what the server promised.
    Malformed,
    /// Arrow has no infinite time.
    Infinity,
    /// The value does not fit its column's type.
    Type,
}

enum Values {
    Bool(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    Wide(Vec<i256>),
    Bytes { ends: Vec<i32>, bytes: Vec<u8> },
}

struct Column {
    wire: Wire,
    values: Values,
    nulls: NullBufferBuilder,
}

/// A value that its column could not hold, and that made its row a refused one.
struct Misfit {
    row: usize,
    column: usize,
    rule: String,
    text: String,
}

/// Takes COPY's messages, one or more rows each, and gives batches.
pub struct Decoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    misfits: Vec<Misfit>,
    rows: usize,
    bytes: usize,
    /// How many bytes a row takes in the columns even if all of it is NULL.
    width: usize,
    started: bool,
    /// How many bytes of rows make a batch.
    full: usize,
    charge: Charge,
}

impl Decoder {
    /// `schema` has one field for each of `wires`.
    pub fn new(schema: SchemaRef, wires: &[Wire]) -> Decoder {
        let columns = wires.iter().map(|wire| Column::new(*wire)).collect();
        // A UUID has 36 characters, and 16 bytes on the wire.
        let uuids = wires.iter().filter(|wire| **wire == Wire::Uuid).count();
        Decoder {
            width: width(&schema) + 36 * uuids,
            schema,
            columns,
            misfits: Vec::new(),
            rows: 0,
            bytes: 0,
            started: false,
            full: BATCH_BYTES,
            charge: Charge::default(),
        }
    }

    /// Charges what is gathered to a budget, and makes batches of a size that fits it.
    ///
    /// # Errors
    /// Those of the budget.
    pub(super) fn within(mut self, budget: &Budget) -> Result<Decoder> {
        self.full = batch_bytes(budget);
        // The columns of a batch, which grow by doubling.
        self.charge = budget.charge(Use::Reading, 2 * self.full)?;
        Ok(self)
    }

    /// Whether it is time for [`Decoder::finish`].
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= self.full
    }

    /// Whether there is nothing to finish.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Takes one message. A row never spans two (protocol chapter, "COPY Operations").
    /// The driver holds a message whole, so that a large one is charged only when it is there.
    pub fn take(&mut self, message: &[u8]) -> Result<()> {
        if message.len() > self.full {
            self.charge.cover(2 * self.full + 3 * message.len())?;
        }
        self.take_rows(message).ok_or_else(|| {
            Error::transient("read from PostgreSQL", "the server sent something unexpected")
        })
    }

    fn take_rows(&mut self, message: &[u8]) -> Option<()> {
        let mut data = message;
        if !self.started {
            let flags;
            data = data.strip_prefix(SIGNATURE)?;
            (flags, data) = data.split_first_chunk::<4>()?;
            let extension;
            (extension, data) = data.split_first_chunk::<4>()?;
            if *flags != [0; 4] {
                return None;
            }
            data = data.get(u32::from_be_bytes(*extension) as usize..)?;
            self.started = true;
        }
        while !data.is_empty() {
            let count;
            (count, data) = data.split_first_chunk::<2>()?;
            let count = i16::from_be_bytes(*count);
            if count == -1 {
                return data.is_empty().then_some(());
            }
            if usize::try_from(count) != Ok(self.columns.len()) {
                return None;
            }
            let before = data.len();
            for (index, column) in self.columns.iter_mut().enumerate() {
                let length;
                (length, data) = data.split_first_chunk::<4>()?;
                let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                    column.push_null();
                    continue;
                };
                let field;
                (field, data) = data.split_at_checked(length)?;
                if let Err(trouble) = column.push(field) {
                    let rule = match trouble {
                        Trouble::Malformed => return None,
                        Trouble::Infinity => "infinity".to_owned(),
                        Trouble::Type => format!("type {}", column.wire.field_type()),
                    };
                    column.push_null();
                    let text = shown(column.wire, field);
                    self.misfits.push(Misfit { row: self.rows, column: index, rule, text });
                }
            }
            self.bytes += (before - data.len()).max(self.width);
            self.rows += 1;
        }
        Some(())
    }

    /// The rows taken since the last time, and those that had to be refused.
    pub fn finish(&mut self) -> Result<Batch> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter_mut().enumerate() {
            arrays.push(column.finish(index, &mut self.misfits)?);
        }
        let rows = RecordBatch::try_new(self.schema.clone(), arrays).map_err(impossible)?;
        let read = rows.num_rows() as u64;
        (self.rows, self.bytes) = (0, 0);
        self.charge.set(2 * self.full)?;
        if self.misfits.is_empty() {
            return Ok(Batch::whole(rows));
        }
        let mut misfits = std::mem::take(&mut self.misfits);
        misfits.sort_by_key(|misfit| (misfit.row, misfit.column));
        let mut keep = vec![true; rows.num_rows()];
        let mut refused = Vec::new();
        for group in misfits.chunk_by(|one, other| one.row == other.row) {
            let Some(first) = group.first() else { continue };
            if let Some(keep) = keep.get_mut(first.row) {
                *keep = false;
            }
            let mut row = row_json(&rows, first.row);
            for misfit in group {
                let name = self.schema.field(misfit.column).name();
                row.insert(name.clone(), Json::from(misfit.text.as_str()));
            }
            let broke = group.iter().map(|misfit| Breach {
                rule: misfit.rule.clone(),
                column: Some(self.schema.field(misfit.column).name().clone()),
                why: None,
            });
            refused.push(Refused::of(broke, row));
        }
        let rows = arrow::compute::filter_record_batch(&rows, &BooleanArray::from(keep))
            .map_err(impossible)?;
        Ok(Batch { read, refused, ..Batch::whole(rows) })
    }
}

fn impossible(cause: arrow::error::ArrowError) -> Error {
    Error::permanent("read from PostgreSQL", "the columns do not make a batch").caused_by(cause)
}

impl Column {
    fn new(wire: Wire) -> Column {
        let values = match wire {
            Wire::Bool => Values::Bool(BooleanBufferBuilder::new(0)),
            Wire::Int16 => Values::Int16(Vec::new()),
            Wire::Int32 | Wire::Date => Values::Int32(Vec::new()),
            Wire::Int64 | Wire::Oid | Wire::Time | Wire::Timestamp | Wire::Instant => {
                Values::Int64(Vec::new())
            }
            Wire::Float32 => Values::Float32(Vec::new()),
            Wire::Float64 => Values::Float64(Vec::new()),
            Wire::Decimal(precision, _) if precision > DECIMAL128_MAX_PRECISION => {
                Values::Wide(Vec::new())
            }
            Wire::Decimal(..) => Values::Decimal(Vec::new()),
            Wire::Text | Wire::Jsonb | Wire::Uuid | Wire::Bytes => {
                Values::Bytes { ends: Vec::new(), bytes: Vec::new() }
            }
        };
        Column { wire, values, nulls: NullBufferBuilder::new(0) }
    }

    fn push_null(&mut self) {
        self.nulls.append_null();
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            Values::Wide(values) => values.push(i256::ZERO),
            Values::Bytes { ends, .. } => {
                let end = ends.last().copied().unwrap_or(0);
                ends.push(end);
            }
        }
    }

    #[inline]
    fn push(&mut self, field: &[u8]) -> Result<(), Trouble> {
        match &mut self.values {
            Values::Bool(values) => match field {
                [flag] => values.append(*flag != 0),
                _ => return Err(Trouble::Malformed),
            },
            Values::Int16(values) => values.push(i16::from_be_bytes(exactly(field)?)),
            Values::Int32(values) => {
                let number = i32::from_be_bytes(exactly(field)?);
                values.push(if self.wire == Wire::Date { date(number)? } else { number });
            }
            Values::Int64(values) if self.wire == Wire::Oid => {
                values.push(u32::from_be_bytes(exactly(field)?).into());
            }
            Values::Int64(values) => {
                let number = i64::from_be_bytes(exactly(field)?);
                values.push(match self.wire {
                    Wire::Timestamp | Wire::Instant => timestamp(number)?,
                    // PostgreSQL has 24:00:00, Arrow does not.
                    Wire::Time if number >= DAY_MICROS => return Err(Trouble::Type),
                    _ => number,
                });
            }
            Values::Float32(values) => values.push(f32::from_be_bytes(exactly(field)?)),
            Values::Float64(values) => values.push(f64::from_be_bytes(exactly(field)?)),
            Values::Decimal(values) => {
                let Wire::Decimal(precision, scale) = self.wire else {
                    return Err(Trouble::Malformed);
                };
                values.push(numeric::decimal(field, precision, scale)?);
            }
            Values::Wide(values) => {
                let Wire::Decimal(precision, scale) = self.wire else {
                    return Err(Trouble::Malformed);
                };
                values.push(numeric::wide(field, precision, scale)?);
            }
            Values::Bytes { ends, bytes } => {
                match self.wire {
                    Wire::Jsonb => match field {
                        [1, text @ ..] => bytes.extend_from_slice(text),
                        _ => return Err(Trouble::Malformed),
                    },
                    Wire::Uuid => push_uuid(bytes, &exactly(field)?),
                    _ => bytes.extend_from_slice(field),
                }
                ends.push(i32::try_from(bytes.len()).map_err(|_| Trouble::Malformed)?);
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn finish(&mut self, index: usize, misfits: &mut Vec<Misfit>) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int16(values) => Arc::new(Int16Array::new(taken(values), nulls)),
            Values::Int32(values) if self.wire == Wire::Date => {
                Arc::new(Date32Array::new(taken(values), nulls))
            }
            Values::Int32(values) => Arc::new(Int32Array::new(taken(values), nulls)),
            Values::Int64(values) => match self.wire {
                Wire::Time => Arc::new(Time64MicrosecondArray::new(taken(values), nulls)),
                Wire::Timestamp => Arc::new(TimestampMicrosecondArray::new(taken(values), nulls)),
                Wire::Instant => Arc::new(
                    TimestampMicrosecondArray::new(taken(values), nulls).with_timezone("UTC"),
                ),
                _ => Arc::new(Int64Array::new(taken(values), nulls)),
            },
            Values::Float32(values) => Arc::new(Float32Array::new(taken(values), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(taken(values), nulls)),
            Values::Decimal(values) => {
                let Wire::Decimal(precision, scale) = self.wire else {
                    return Err(Error::permanent("read from PostgreSQL", "no type of decimal"));
                };
                Arc::new(
                    Decimal128Array::new(taken(values), nulls)
                        .with_precision_and_scale(precision, scale)
                        .map_err(impossible)?,
                )
            }
            Values::Wide(values) => {
                let Wire::Decimal(precision, scale) = self.wire else {
                    return Err(Error::permanent("read from PostgreSQL", "no type of decimal"));
                };
                Arc::new(
                    Decimal256Array::new(taken(values), nulls)
                        .with_precision_and_scale(precision, scale)
                        .map_err(impossible)?,
                )
            }
            Values::Bytes { ends, bytes } => {
                let ends = taken_vec(ends);
                let bytes = taken_vec(bytes);
                let mut offsets = Vec::with_capacity(ends.len() + 1);
                offsets.push(0);
                offsets.extend_from_slice(&ends);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let bytes = Buffer::from_vec(bytes);
                if self.wire == Wire::Bytes {
                    return Ok(Arc::new(
                        BinaryArray::try_new(offsets, bytes, nulls).map_err(impossible)?,
                    ));
                }
                match StringArray::try_new(offsets.clone(), bytes.clone(), nulls.clone()) {
                    Ok(array) => Arc::new(array),
                    // Only a database in SQL_ASCII can hold such text.
                    Err(_) => {
                        let raw =
                            BinaryArray::try_new(offsets, bytes, nulls).map_err(impossible)?;
                        Arc::new(without_bad_text(&raw, index, misfits))
                    }
                }
            }
        })
    }
}

/// The texts that are UTF-8; the others become NULL and misfits.
fn without_bad_text(raw: &BinaryArray, column: usize, misfits: &mut Vec<Misfit>) -> StringArray {
    let texts = raw.iter().enumerate().map(|(row, bytes)| {
        let text = std::str::from_utf8(bytes?);
        if text.is_err() {
            let text = format!("\\x{}", hex::encode(bytes?));
            misfits.push(Misfit { row, column, rule: "type string".to_owned(), text });
        }
        text.ok()
    });
    texts.collect()
}

/// Takes what was gathered and leaves room for as much again.
fn taken_vec<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len();
    std::mem::replace(values, Vec::with_capacity(room))
}

fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(taken_vec(values))
}

#[inline]
fn exactly<const N: usize>(field: &[u8]) -> Result<[u8; N], Trouble> {
    field.try_into().map_err(|_| Trouble::Malformed)
}

#[inline]
fn date(days: i32) -> Result<i32, Trouble> {
    match days {
        i32::MAX | i32::MIN => Err(Trouble::Infinity),
        days => days.checked_add(EPOCH_DAYS).ok_or(Trouble::Type),
    }
}

#[inline]
fn timestamp(micros: i64) -> Result<i64, Trouble> {
    match micros {
        i64::MAX | i64::MIN => Err(Trouble::Infinity),
        // The last years that PostgreSQL knows lie beyond what Arrow counts from 1970.
        micros => micros.checked_add(EPOCH_MICROS).ok_or(Trouble::Type),
    }
}

fn push_uuid(bytes: &mut Vec<u8>, uuid: &[u8; 16]) {
    let mut text = [0; 36];
    uuid::Uuid::from_bytes_ref(uuid).hyphenated().encode_lower(&mut text);
    bytes.extend_from_slice(&text);
}

/// A value that did not fit, as PostgreSQL would print it, for quarantine.
fn shown(wire: Wire, field: &[u8]) -> String {
    let infinity = |negative: bool| if negative { "-infinity" } else { "infinity" }.to_owned();
    match (wire, field.first_chunk::<8>()) {
        (Wire::Decimal(..), _) => numeric::text(field),
        (Wire::Date, _) => infinity(field.first().is_some_and(|byte| byte & 0x80 != 0)),
        (Wire::Time, _) => "24:00:00".to_owned(),
        (Wire::Timestamp | Wire::Instant, Some(micros)) => match i64::from_be_bytes(*micros) {
            i64::MAX => infinity(false),
            i64::MIN => infinity(true),
            micros => format!("{micros} microseconds after 2000"),
        },
        _ => format!("\\x{}", hex::encode(field)),
    }
}
