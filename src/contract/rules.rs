//! The rules of one column: `min`, `max` and `values`, typed once and checked on whole columns.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type,
    Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use serde_json::Value;

use super::convert::power;
use super::{ContractConfig, ContractField};
use crate::error::{Error, Result};
use crate::format::FieldType;

/// A rule of a column, besides its type and whether it may be NULL. NULL breaks none.
#[derive(Debug)]
pub(super) struct Rule {
    /// As quarantine names it: `min 0`.
    pub(super) name: String,
    check: Check,
}

/// Integers, decimals, dates and times are compared as the whole numbers that they are kept as.
#[derive(Debug)]
enum Check {
    Least(i128),
    Most(i128),
    LeastFloat(f64),
    MostFloat(f64),
    Whole(Vec<i128>),
    Floats(Vec<f64>),
    Texts(HashSet<String>),
    Bool(bool),
}

/// The rules of a field, in the order in which they are checked.
pub(super) fn plan(config: &ContractConfig, column: &str) -> Result<Vec<Rule>> {
    let Some(field) = config.fields.get(column) else { return Ok(Vec::new()) };
    let (rules, mistakes) = read(column, field);
    match mistakes.into_iter().next() {
        None => Ok(rules),
        Some((_, error)) => Err(error),
    }
}

/// What is wrong with the rules of a field, each with the key that it stands under.
pub(crate) fn mistakes(column: &str, field: &ContractField) -> Vec<(&'static str, Error)> {
    read(column, field).1
}

fn read(column: &str, field: &ContractField) -> (Vec<Rule>, Vec<(&'static str, Error)>) {
    let (mut rules, mut mistakes) = (Vec::new(), Vec::new());
    for (word, literal) in [("min", &field.min), ("max", &field.max)] {
        let Some(literal) = literal else { continue };
        match bound(field, column, word, literal) {
            Ok(check) => rules.push(Rule { name: format!("{word} {}", shown(literal)), check }),
            Err(error) => mistakes.push((word, error)),
        }
    }
    if let [Rule { check: low, .. }, Rule { check: high, .. }] = rules.as_slice() {
        let empty = match (low, high) {
            (Check::Least(low), Check::Most(high)) => low > high,
            (Check::LeastFloat(low), Check::MostFloat(high)) => low > high,
            _ => false,
        };
        if empty {
            let error = Error::config("plan the contract", "min is greater than max")
                .with("column", column)
                .help("Exchange them, or every row would be refused.");
            mistakes.push(("min", error));
        }
    }
    if let Some(values) = &field.values {
        match allowed(field, column, values) {
            Ok(check) => {
                let name = "values".to_owned();
                rules.extend(check.map(|check| Rule { name, check }));
            }
            Err(error) => mistakes.push(("values", error)),
        }
    }
    (rules, mistakes)
}

fn bound(field: &ContractField, column: &str, word: &str, literal: &Value) -> Result<Check> {
    let unordered = || {
        wrong(field, column, word)
            .help("min and max are for numbers, dates and times; use values instead.")
    };
    if matches!(field.kind, FieldType::String | FieldType::Bool) {
        return Err(unordered());
    }
    Ok(match (typed(field, column, word, literal)?, word) {
        (Literal::Whole(bound), "min") => Check::Least(bound),
        (Literal::Whole(bound), _) => Check::Most(bound),
        (Literal::Float(bound), "min") => Check::LeastFloat(bound),
        (Literal::Float(bound), _) => Check::MostFloat(bound),
        _ => return Err(unordered()),
    })
}

/// `None` where all values that there are are allowed.
fn allowed(field: &ContractField, column: &str, values: &[Value]) -> Result<Option<Check>> {
    if values.is_empty() {
        return Err(Error::config("plan the contract", "values is an empty list")
            .with("column", column)
            .help("Name the values that are allowed, or leave `values` out."));
    }
    let mut whole = Vec::new();
    let mut floats = Vec::new();
    let mut texts = HashSet::new();
    let mut bools = Vec::new();
    for value in values {
        match typed(field, column, "values", value)? {
            Literal::Whole(value) => whole.push(value),
            Literal::Float(value) => floats.push(value),
            Literal::Text(value) => drop(texts.insert(value)),
            Literal::Bool(value) => bools.push(value),
        }
    }
    whole.sort_unstable();
    Ok(match field.kind {
        FieldType::String => Some(Check::Texts(texts)),
        FieldType::Float32 | FieldType::Float64 => Some(Check::Floats(floats)),
        FieldType::Bool => match bools.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => {
                Some(Check::Bool(*first))
            }
            _ => None,
        },
        _ => Some(Check::Whole(whole)),
    })
}

impl Rule {
    /// Which values break the rule; NULL where the value is.
    pub(super) fn broken(&self, column: &ArrayRef) -> Option<BooleanArray> {
        match &self.check {
            Check::Least(bound) => whole(column, |value| value < *bound),
            Check::Most(bound) => whole(column, |value| value > *bound),
            Check::Whole(allowed) => whole(column, |value| allowed.binary_search(&value).is_err()),
            // NaN is neither above a bound nor below it, and so breaks both.
            Check::LeastFloat(bound) => floats(column, |value| value < *bound || value.is_nan()),
            Check::MostFloat(bound) => floats(column, |value| value > *bound || value.is_nan()),
            Check::Floats(allowed) => floats(column, |value| !allowed.contains(&value)),
            Check::Texts(allowed) => column.as_string_opt::<i32>().map(|values| {
                values.iter().map(|value| value.map(|value| !allowed.contains(value))).collect()
            }),
            Check::Bool(allowed) => column.as_boolean_opt().map(|values| {
                values.iter().map(|value| value.map(|value| value != *allowed)).collect()
            }),
        }
    }
}

fn whole(column: &ArrayRef, broken: impl Fn(i128) -> bool) -> Option<BooleanArray> {
    fn each<T>(column: &ArrayRef, broken: impl Fn(i128) -> bool) -> Option<BooleanArray>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i128>,
    {
        let values: &PrimitiveArray<T> = column.as_primitive_opt()?;
        Some(BooleanArray::from_unary(values, |value| broken(value.into())))
    }
    match column.data_type() {
        DataType::Int16 => each::<Int16Type>(column, broken),
        DataType::Int32 => each::<Int32Type>(column, broken),
        DataType::Int64 => each::<Int64Type>(column, broken),
        DataType::Date32 => each::<Date32Type>(column, broken),
        DataType::Time64(_) => each::<Time64MicrosecondType>(column, broken),
        DataType::Timestamp(..) => each::<TimestampMicrosecondType>(column, broken),
        DataType::Decimal128(..) => each::<Decimal128Type>(column, broken),
        // What has more digits lies beyond every bound on the same side.
        DataType::Decimal256(..) => {
            let values = column.as_primitive_opt::<Decimal256Type>()?;
            Some(BooleanArray::from_unary(values, |value| {
                let beyond = if value.is_negative() { i128::MIN } else { i128::MAX };
                broken(value.to_i128().unwrap_or(beyond))
            }))
        }
        _ => None,
    }
}

fn floats(column: &ArrayRef, broken: impl Fn(f64) -> bool) -> Option<BooleanArray> {
    match column.data_type() {
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            Some(BooleanArray::from_unary(values, |value| broken(f64::from(value))))
        }
        DataType::Float64 => {
            Some(BooleanArray::from_unary(column.as_primitive::<Float64Type>(), broken))
        }
        _ => None,
    }
}

enum Literal {
    Whole(i128),
    Float(f64),
    Text(String),
    Bool(bool),
}

/// A literal as a value of the field's type; class `config` if it is none exactly.
fn typed(field: &ContractField, column: &str, word: &str, literal: &Value) -> Result<Literal> {
    let text = shown(literal);
    let native = literal.is_string() || literal.is_object();
    let numeric = || {
        // A number of the file that has a point went through a double.
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        if literal.is_f64() && digits > 15 { None } else { digits_of(&text) }
    };
    let within = |value: i128, low: i64, high: i64| {
        (i128::from(low)..=i128::from(high)).contains(&value).then_some(Literal::Whole(value))
    };
    let found = match &field.kind {
        FieldType::Bool => literal.as_bool().map(Literal::Bool),
        FieldType::String => literal.as_str().map(|text| Literal::Text(text.to_owned())),
        FieldType::Int16 => numeric()
            .and_then(|number| at_scale(number, 0))
            .and_then(|value| within(value, i16::MIN.into(), i16::MAX.into())),
        FieldType::Int32 => numeric()
            .and_then(|number| at_scale(number, 0))
            .and_then(|value| within(value, i32::MIN.into(), i32::MAX.into())),
        FieldType::Int64 => numeric()
            .and_then(|number| at_scale(number, 0))
            .and_then(|value| within(value, i64::MIN, i64::MAX)),
        FieldType::Decimal(precision, scale) => numeric()
            .and_then(|number| at_scale(number, i32::from(*scale)))
            .filter(|value| {
                // Of a wider decimal too, no more digits are compared.
                let digits = (*precision).min(DECIMAL128_MAX_PRECISION);
                power(digits.into()).is_some_and(|limit| value.abs() < limit)
            })
            .map(Literal::Whole),
        FieldType::Float32 | FieldType::Float64 => digits_of(&text)
            .and_then(|_| text.parse().ok())
            .filter(|value: &f64| value.is_finite())
            .map(Literal::Float),
        FieldType::Date if native => text
            .parse::<jiff::civil::Date>()
            .ok()
            .and_then(|date| jiff::civil::date(1970, 1, 1).until(date).ok())
            .map(|span| Literal::Whole(span.get_days().into())),
        FieldType::Time if native => text
            .parse::<jiff::civil::Time>()
            .ok()
            .and_then(|time| jiff::civil::Time::midnight().until(time).ok())
            .and_then(|span| span.total(jiff::Unit::Nanosecond).ok())
            // Below 2^53, so that the total is exact.
            .and_then(|nanoseconds| microseconds(nanoseconds as i128)),
        FieldType::Timestamp if native => text
            .parse::<jiff::civil::DateTime>()
            .ok()
            .filter(|_| !has_zone(&text))
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .and_then(|time| microseconds(time.timestamp().as_nanosecond())),
        FieldType::Instant if native => {
            text.parse::<jiff::Timestamp>().ok().and_then(|time| microseconds(time.as_nanosecond()))
        }
        FieldType::Bytes
        | FieldType::Date
        | FieldType::Time
        | FieldType::Timestamp
        | FieldType::Instant => None,
    };
    found.ok_or_else(|| {
        wrong(field, column, word).help(match field.kind {
            FieldType::Date => "Write a date like \"2026-01-31\".",
            FieldType::Time => "Write a time like \"23:59:00\".",
            FieldType::Timestamp => "Write a time without zone like \"2026-01-31T23:59:00\".",
            FieldType::Instant => "Write an instant like \"2026-01-31T23:59:00Z\".",
            FieldType::Decimal(..) => {
                "Write no more digits than the type has, and more than 15 digits in quotes. With all \
                 zeros of the type's scale it may have 38."
            }
            FieldType::Bytes => "There are no such rules for bytes.",
            _ => "Write a value of the column's own type.",
        })
    })
}

/// A zone in a civil time would be ignored by the parser.
fn has_zone(text: &str) -> bool {
    let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
    time.contains(['Z', 'z', '+', '-', '['])
}

fn microseconds(nanoseconds: i128) -> Option<Literal> {
    (nanoseconds % 1000 == 0).then_some(Literal::Whole(nanoseconds / 1000))
}

fn wrong(field: &ContractField, column: &str, word: &str) -> Error {
    Error::config("plan the contract", format!("`{word}` is no value of type {}", field.kind))
        .with("column", column)
}

/// A literal as text. A date of TOML arrives here as a map with one entry.
fn shown(literal: &Value) -> String {
    match literal {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.len() == 1 => match map.get("$__toml_private_datetime") {
            Some(Value::String(text)) => text.clone(),
            _ => literal.to_string(),
        },
        other => other.to_string(),
    }
}

/// The digits of a decimal number, and the power of ten that they are to be divided by.
fn digits_of(text: &str) -> Option<(i128, i32)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    Some((if negative { -digits } else { digits }, scale))
}

/// The number in units of 10^-`scale`, if it is a whole number of them.
fn at_scale((digits, from): (i128, i32), scale: i32) -> Option<i128> {
    if digits == 0 {
        return Some(0);
    }
    let step = scale.checked_sub(from)?;
    let factor = power(step.unsigned_abs())?;
    if step >= 0 {
        digits.checked_mul(factor)
    } else {
        (digits % factor == 0).then(|| digits / factor)
    }
}
