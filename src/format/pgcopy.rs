//! Record batches → PostgreSQL's binary COPY format (PostgreSQL manual, "COPY", section "Binary
//! Format"; the fields are what each type's `_send` function writes).
//!
//! A stream is [`HEADER`], the rows of any number of [`Encoder`]s, and [`TRAILER`].

use arrow::array::{Array, ArrowPrimitiveType, PrimitiveArray, RecordBatch};
use arrow::datatypes::i256;
use bytes::{BufMut, BytesMut};

use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::format::values::Values;

/// What a stream begins with: the signature, no flags, no extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What a stream ends with.
pub const TRAILER: &[u8] = &[0xff, 0xff];

/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
/// The days that a `date` can hold, counted from 2000 (`IS_VALID_DATE` of PostgreSQL's
/// `datatype/timestamp.h`): 4713 BC up to, not including, the year 5874898.
const DAYS: std::ops::Range<i32> = -2_451_545..2_145_031_949;
/// The microseconds that a `timestamp` can hold, counted from 2000 (`IS_VALID_TIMESTAMP`): 4713 BC
/// up to, not including, the year 294277.
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// The PostgreSQL type that holds every value of `kind` exactly.
pub fn sql_type(kind: &FieldType) -> String {
    match kind {
        FieldType::Bool => "boolean",
        FieldType::Int16 => "smallint",
        FieldType::Int32 => "integer",
        FieldType::Int64 => "bigint",
        FieldType::Float32 => "real",
        FieldType::Float64 => "double precision",
        FieldType::Decimal(p, s) => return format!("numeric({p},{s})"),
        FieldType::String => "text",
        FieldType::Bytes => "bytea",
        FieldType::Date => "date",
        FieldType::Time => "time without time zone",
        FieldType::Timestamp => "timestamp without time zone",
        FieldType::Instant => "timestamp with time zone",
    }
    .to_owned()
}

/// Writes the rows of one batch.
pub struct Encoder<'a> {
    columns: Vec<Column<'a>>,
    fields: i16,
    next: usize,
    rows: usize,
}

struct Column<'a> {
    name: &'a str,
    values: Values<'a>,
}

impl<'a> Encoder<'a> {
    /// An encoder at the first row of `rows`. A column whose type is no [`FieldType`] is an error
    /// of class `contract`.
    pub fn new(rows: &'a RecordBatch) -> Result<Encoder<'a>> {
        let columns = rows
            .schema_ref()
            .fields()
            .iter()
            .zip(rows.columns())
            .map(|(field, array)| {
                let name = field.name().as_str();
                let values = Values::of(array.as_ref()).ok_or_else(|| {
                    refused(name, format!("its type {} has no counterpart", array.data_type()))
                })?;
                Ok(Column { name, values })
            })
            .collect::<Result<Vec<_>>>()?;
        let fields = i16::try_from(columns.len()).map_err(|_| {
            Error::contract("write rows", format!("{} columns are too many", columns.len()))
                .help("A table of PostgreSQL has at most 1600 columns.")
        })?;
        Ok(Encoder { columns, fields, next: 0, rows: rows.num_rows() })
    }

    /// Appends whole rows to `out` until it holds at least `bytes` or no row is left, and tells
    /// whether any are left. A value that PostgreSQL cannot hold is an error of class `contract`
    /// that names its column.
    pub fn fill(&mut self, out: &mut BytesMut, bytes: usize) -> Result<bool> {
        while self.next < self.rows && out.len() < bytes {
            out.put_i16(self.fields);
            for column in &self.columns {
                put(&column.values, self.next, out).map_err(|why| refused(column.name, why))?;
            }
            self.next += 1;
        }
        Ok(self.next < self.rows)
    }
}

fn refused(column: &str, why: impl Into<String>) -> Error {
    Error::contract("write rows", why)
        .with("column", column)
        .help("Refuse such values in the contract, or convert them in the transform.")
}

/// Why PostgreSQL cannot hold the value in `row`, if it cannot.
pub fn unfit(values: &Values<'_>, row: usize) -> Option<&'static str> {
    match values {
        Values::String(array) => {
            let holds = array.is_valid(row) && array.value(row).as_bytes().contains(&0);
            holds.then_some(NUL)
        }
        Values::Date(_) | Values::Time(_) | Values::Timestamp(_) | Values::Instant(_) => {
            put(values, row, &mut BytesMut::new()).err()
        }
        _ => None,
    }
}

const NUL: &str = "a text holds the character NUL, which PostgreSQL cannot store";

/// Appends the length and the bytes of the value in `row`, or says why there are none.
fn put(values: &Values<'_>, row: usize, out: &mut BytesMut) -> Result<(), &'static str> {
    match values {
        Values::Bool(array) if array.is_valid(row) => fixed(out, [array.value(row).into()]),
        Values::Int16(array) => number(array, row, out, i16::to_be_bytes),
        Values::Int32(array) => number(array, row, out, i32::to_be_bytes),
        Values::Int64(array) => number(array, row, out, i64::to_be_bytes),
        Values::Float32(array) => number(array, row, out, f32::to_be_bytes),
        Values::Float64(array) => number(array, row, out, f64::to_be_bytes),
        Values::Decimal(array, scale) if array.is_valid(row) => {
            put_numeric(array.value(row), (*scale).into(), out);
        }
        Values::Wide(array, scale) if array.is_valid(row) => {
            put_wide(array.value(row), (*scale).into(), out);
        }
        Values::String(array) if array.is_valid(row) => {
            let text = array.value(row).as_bytes();
            if text.contains(&0) {
                return Err(NUL);
            }
            return slice(out, text);
        }
        Values::Bytes(array) if array.is_valid(row) => return slice(out, array.value(row)),
        Values::Date(array) if array.is_valid(row) => {
            let days = array.value(row).checked_sub(EPOCH_DAYS);
            match days.filter(|days| DAYS.contains(days)) {
                Some(days) => fixed(out, days.to_be_bytes()),
                None => return Err("a date is beyond those that PostgreSQL can hold"),
            }
        }
        Values::Time(array) if array.is_valid(row) => {
            let micros = array.value(row);
            if !(0..=86_400_000_000).contains(&micros) {
                return Err("a time of day is outside the day");
            }
            fixed(out, micros.to_be_bytes());
        }
        Values::Timestamp(array) | Values::Instant(array) if array.is_valid(row) => {
            let micros = array.value(row).checked_sub(EPOCH_MICROS);
            match micros.filter(|micros| MICROS.contains(micros)) {
                Some(micros) => fixed(out, micros.to_be_bytes()),
                None => return Err("a timestamp is beyond those that PostgreSQL can hold"),
            }
        }
        _ => out.put_i32(-1),
    }
    Ok(())
}

fn fixed<const N: usize>(out: &mut BytesMut, bytes: [u8; N]) {
    out.put_i32(N as i32);
    out.put_slice(&bytes);
}

fn number<T: ArrowPrimitiveType, const N: usize>(
    array: &PrimitiveArray<T>,
    row: usize,
    out: &mut BytesMut,
    bytes: fn(T::Native) -> [u8; N],
) {
    if array.is_valid(row) {
        fixed(out, bytes(array.value(row)));
    } else {
        out.put_i32(-1);
    }
}

fn slice(out: &mut BytesMut, bytes: &[u8]) -> Result<(), &'static str> {
    let length = i32::try_from(bytes.len()).map_err(|_| "a value is longer than 2 GiB")?;
    out.put_i32(length);
    out.put_slice(bytes);
    Ok(())
}

/// Writes `value` × 10^-`scale` as `numeric_send` does: the number of base-10000 digits, the
/// weight of the first, the sign, the digits after the point that are shown, and the digits,
/// whose groups of four meet at the decimal point.
fn put_numeric(value: i128, scale: u32, out: &mut BytesMut) {
    // 39 decimal digits fill at most 11 groups, however they lie around the point.
    let mut groups = [0u16; 12];
    let mut used = 0;
    let mut push = |group: u16| {
        groups[used] = group;
        used += 1;
    };
    let mut rest = value.unsigned_abs();
    let partial = scale % 4;
    if partial > 0 {
        let unit = 10u128.pow(partial);
        push((rest % unit) as u16 * 10u16.pow(4 - partial));
        rest /= unit;
    }
    while rest > u128::from(u64::MAX) {
        push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    // Nearly all values are here at once, and 64-bit division is far cheaper.
    let mut rest = rest as u64;
    while rest > 0 {
        push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    put_groups(&groups[..used], value < 0, scale, out);
}

/// As [`put_numeric`], of more than 38 digits.
fn put_wide(value: i256, scale: u32, out: &mut BytesMut) {
    let text = value.to_string();
    let mut digits = text.strip_prefix('-').unwrap_or(&text).as_bytes().to_vec();
    digits.resize(digits.len() + (scale.next_multiple_of(4) - scale) as usize, b'0');
    let group =
        |digits: &[u8]| digits.iter().fold(0, |group, digit| group * 10 + u16::from(digit - b'0'));
    let groups: Vec<u16> = digits.rchunks(4).map(group).collect();
    put_groups(&groups, value < i256::ZERO, scale, out);
}

/// Writes digits in base 10,000, the lowest first, of which so many as `scale` needs are behind the
/// point.
fn put_groups(digits: &[u16], negative: bool, scale: u32, out: &mut BytesMut) {
    let used = digits.len();
    let weight = used as i16 - scale.div_ceil(4) as i16 - 1;
    let low = digits.iter().take_while(|group| **group == 0).count();
    let high = digits.iter().rev().take_while(|group| **group == 0).count();
    let digits = digits.get(low..used - high).unwrap_or_default();
    out.put_i32(8 + 2 * digits.len() as i32);
    out.put_i16(digits.len() as i16);
    out.put_i16(if digits.is_empty() { 0 } else { weight - high as i16 });
    out.put_u16(if negative { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    for group in digits.iter().rev() {
        out.put_u16(*group);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    };

    use super::*;
    use std::sync::Arc;

    fn numeric(value: i128, scale: u32) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_numeric(value, scale, &mut out);
        out[4..].to_vec()
    }

    #[test]
    fn wide_numerics_are_as_narrow_ones() {
        for value in [0, 1, -1, 50_000, 12_345_678, -99_999, i128::MAX, i128::MIN + 1] {
            for scale in 0..=38 {
                let mut out = BytesMut::new();
                put_wide(i256::from_i128(value), scale, &mut out);
                assert_eq!(out[4..], numeric(value, scale), "{value} of scale {scale}");
            }
        }
    }

    #[test]
    fn numerics_are_grouped_at_the_point() {
        // As `SELECT numeric_send(12345.678)` and so on answer.
        assert_eq!(numeric(12_345_678, 3), [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
        assert_eq!(numeric(0, 2), [0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(numeric(-1, 8), [0, 1, 0xff, 0xfe, 0x40, 0, 0, 8, 0, 1]);
        assert_eq!(numeric(50_000, 0), [0, 1, 0, 1, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn what_would_become_infinity_is_refused() {
        let batch = |array: Arc<dyn Array>| RecordBatch::try_from_iter([("at", array)]).unwrap();
        for (array, word) in [
            (Arc::new(Date32Array::from(vec![i32::MIN + EPOCH_DAYS])) as Arc<dyn Array>, "date"),
            (Arc::new(Date32Array::from(vec![i32::MIN])), "date"),
            (Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN])), "timestamp"),
            (Arc::new(Time64MicrosecondArray::from(vec![-1])), "time"),
            (Arc::new(StringArray::from(vec!["a\0b"])), "NUL"),
        ] {
            let batch = batch(array);
            let error = Encoder::new(&batch)
                .unwrap()
                .fill(&mut BytesMut::new(), usize::MAX)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word) && error.contains("column at"), "{error}");
        }
    }

    #[test]
    fn a_chunk_ends_at_the_row_that_fills_it() {
        let batch = RecordBatch::try_from_iter([(
            "n",
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as Arc<dyn Array>,
        )])
        .unwrap();
        let mut encoder = Encoder::new(&batch).unwrap();
        let mut out = BytesMut::new();
        assert!(encoder.fill(&mut out, 1).unwrap());
        assert_eq!(out.split(), [0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1][..]);
        assert!(!encoder.fill(&mut out, 1000).unwrap());
        assert_eq!(out[..6], [0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(out.len(), 6 + 14);
    }
}
