//! Coarser values: multiples of a step, beginnings of years, months, days and hours, first characters.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StringBuilder};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, Date32Type, Decimal128Type, Field, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};

use super::config::{Protection, Unit};
use super::step::Step;
use super::{refuse, unplanned};
use crate::error::Result;
use crate::format::FieldType;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// What the values of a column become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coarse {
    Int16(i16),
    Int32(i32),
    Int64(i64),
    /// The step and the greatest value, in units of the column's scale.
    Decimal(i128, i128),
    Date(Unit),
    /// With a zone (then UTC) or without one.
    Timestamp(Unit),
    Text(usize),
}

impl Coarse {
    pub(super) fn plan(how: &Protection, field: &Field) -> Result<Coarse> {
        let column = field.name();
        let of_type = FieldType::of_arrow(field.data_type());
        let lacks = |what: &str, option: &str| {
            refuse(format!("column `{column}` is {what}, which is generalized by `{option}`"))
                .help(format!("Write `{{ method = \"generalize\", {} }}`.", example(option)))
        };
        let step = || how.step.ok_or_else(|| lacks("a number", "step"));
        match &of_type {
            Some(kind @ FieldType::Int16) => Ok(Coarse::Int16(whole(step()?, column, kind)?)),
            Some(kind @ FieldType::Int32) => Ok(Coarse::Int32(whole(step()?, column, kind)?)),
            Some(kind @ FieldType::Int64) => Ok(Coarse::Int64(whole(step()?, column, kind)?)),
            Some(kind @ FieldType::Decimal(precision, scale))
                if *precision <= DECIMAL128_MAX_PRECISION =>
            {
                // Both fit in so many digits.
                let greatest = 10_i128.checked_pow((*precision).into()).ok_or_else(unplanned)? - 1;
                let scale = u8::try_from(*scale).map_err(|_| unplanned())?;
                let units = units(step()?, column, kind, scale, greatest)?;
                Ok(Coarse::Decimal(units, greatest))
            }
            Some(FieldType::Date) => match how.to.ok_or_else(|| lacks("a date", "to"))? {
                unit @ (Unit::Year | Unit::Month) => Ok(Coarse::Date(unit)),
                Unit::Day | Unit::Hour => {
                    Err(refuse(format!("column `{column}` is a date, and has no part of a day"))
                        .help("Write `to = \"month\"` or `to = \"year\"`."))
                }
            },
            Some(FieldType::Timestamp | FieldType::Instant) => {
                how.to.map(Coarse::Timestamp).ok_or_else(|| lacks("a timestamp", "to"))
            }
            Some(FieldType::String) => {
                how.keep.ok_or_else(|| lacks("text", "keep"))?;
                Ok(Coarse::Text(how.kept()))
            }
            Some(FieldType::Float32 | FieldType::Float64) => {
                Err(refuse(format!("column `{column}` is a float, which has no exact multiples"))
                    .help("CAST it to a decimal in [transform], like decimal(15,2)."))
            }
            _ => Err(refuse(format!(
                "column `{column}` has type {}, which cannot be generalized",
                of_type.map_or_else(|| field.data_type().to_string(), |kind| kind.to_string())
            ))
            .help("Use drop, redact or hash, or CAST it in [transform].")),
        }
    }

    /// The values of a column. `refuse` is told the rows whose value would leave the column's type;
    /// what stands for it there tells nothing.
    pub(super) fn apply(
        self,
        column: &ArrayRef,
        refuse: &mut impl FnMut(usize),
    ) -> Result<ArrayRef> {
        match self {
            Coarse::Int16(step) => {
                floor::<Int16Type>(column, refuse, |v| v.checked_sub(v.rem_euclid(step)))
            }
            Coarse::Int32(step) => {
                floor::<Int32Type>(column, refuse, |v| v.checked_sub(v.rem_euclid(step)))
            }
            Coarse::Int64(step) => {
                floor::<Int64Type>(column, refuse, |v| v.checked_sub(v.rem_euclid(step)))
            }
            Coarse::Decimal(step, greatest) => floor::<Decimal128Type>(column, refuse, |v| {
                v.checked_sub(v.rem_euclid(step)).filter(|v| *v >= -greatest)
            }),
            Coarse::Date(unit) => floor::<Date32Type>(column, refuse, |days| {
                days.checked_sub(i32::try_from(since_beginning(days.into(), unit)).ok()?)
            }),
            Coarse::Timestamp(unit) => {
                floor::<TimestampMicrosecondType>(column, refuse, |micros| {
                    let past = match unit {
                        Unit::Hour => micros.rem_euclid(HOUR),
                        _ => {
                            let days = since_beginning(micros.div_euclid(DAY), unit);
                            days * DAY + micros.rem_euclid(DAY)
                        }
                    };
                    micros.checked_sub(past)
                })
            }
            Coarse::Text(keep) => {
                let values = column.as_string_opt::<i32>().ok_or_else(unplanned)?;
                let mut kept = StringBuilder::with_capacity(values.len(), 4 * values.len());
                for value in values {
                    kept.append_option(value.map(|value| {
                        let end = value.char_indices().nth(keep).map_or(value.len(), |(at, _)| at);
                        value.get(..end).unwrap_or_default()
                    }));
                }
                Ok(Arc::new(kept.finish()))
            }
        }
    }
}

fn example(option: &str) -> &'static str {
    match option {
        "step" => "step = 10",
        "to" => "to = \"month\"",
        _ => "keep = 3",
    }
}

/// The step of a column of whole numbers.
fn whole<T: TryFrom<i128>>(step: Step, column: &str, kind: &FieldType) -> Result<T> {
    let greatest = match kind {
        FieldType::Int16 => i16::MAX.into(),
        FieldType::Int32 => i32::MAX.into(),
        _ => i64::MAX.into(),
    };
    T::try_from(units(step, column, kind, 0, greatest)?).map_err(|_| unplanned())
}

/// The step in units of the column's scale.
fn units(step: Step, column: &str, kind: &FieldType, scale: u8, greatest: i128) -> Result<i128> {
    if step.is_finer_than_scale(scale) {
        return Err(refuse(format!(
            "the step {step} has more digits after the point than column `{column}`, which is {kind}"
        ))
        .help("Write a step that the column can hold, or CAST the column in [transform]."));
    }
    let units = step.at_scale(scale).filter(|units| *units <= greatest).ok_or_else(|| {
        refuse(format!("the step {step} is greater than any value of column `{column}`, {kind}"))
            .help("Write a smaller step, or use redact.")
    })?;
    if units == 1 {
        return Err(refuse(format!(
            "the step {step} leaves every value of column `{column}`, {kind}, as it is"
        ))
        .help("Write a greater step."));
    }
    Ok(units)
}

/// Each value less what it is above its class. Where `below` gives none, the row is refused.
fn floor<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    refuse: &mut impl FnMut(usize),
    below: impl Fn(T::Native) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let values = column.as_primitive_opt::<T>().ok_or_else(unplanned)?;
    let mut floored = Vec::with_capacity(values.len());
    for (row, value) in values.values().iter().enumerate() {
        let class = below(*value);
        // What stands in the place of a NULL has no meaning.
        if class.is_none() && values.is_valid(row) {
            refuse(row);
        }
        floored.push(class.unwrap_or_default());
    }
    let floored = PrimitiveArray::<T>::new(floored.into(), values.nulls().cloned());
    Ok(Arc::new(floored.with_data_type(column.data_type().clone())))
}

/// How many days before `day` its year or month began; none for the other units. Days are counted
/// from 1970-01-01, in the Gregorian calendar however far from today.
fn since_beginning(day: i64, unit: Unit) -> i64 {
    if !matches!(unit, Unit::Year | Unit::Month) {
        return 0;
    }
    // Counted from a first of March, the day of a leap year that is one too many is the last one.
    let from_march = day + 719_468;
    let of_era = from_march.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    if unit == Unit::Month {
        // Months of 31 and 30 days alternate in groups of five, 153 days long.
        let month = (5 * of_year + 2) / 153;
        return of_year - (153 * month + 2) / 5;
    }
    const JANUARY: i64 = 306;
    let leap = year % 4 == 0 && (year % 100 != 0 || year == 0);
    if of_year >= JANUARY { of_year - JANUARY } else { of_year + 59 + i64::from(leap) }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Decimal128Array, Int16Array, Int64Array, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::DataType;
    use jiff::civil::Date;
    use jiff::{Timestamp, tz::TimeZone};
    use proptest::prelude::*;

    use super::*;
    use crate::protect::config::Method;

    fn step(text: &str) -> Protection {
        Protection { step: Step::parse(text), ..Method::Generalize.into() }
    }

    fn to(unit: Unit) -> Protection {
        Protection { to: Some(unit), ..Method::Generalize.into() }
    }

    fn keep(count: u32) -> Protection {
        Protection { keep: Some(count), ..Method::Generalize.into() }
    }

    /// The coarser values, and the rows that are refused.
    fn done(how: &Protection, column: ArrayRef) -> (ArrayRef, Vec<usize>) {
        let field = Field::new("c", column.data_type().clone(), true);
        let mut refused = Vec::new();
        let coarse = Coarse::plan(how, &field).unwrap();
        let array = coarse.apply(&column, &mut |row| refused.push(row)).unwrap();
        assert_eq!(array.data_type(), column.data_type());
        (array, refused)
    }

    fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    }

    #[test]
    fn whole_numbers_become_the_multiple_below() {
        let values = vec![Some(0), Some(9), Some(10), Some(-1), Some(-10), Some(-11), None];
        let below = vec![Some(0), Some(0), Some(10), Some(-10), Some(-10), Some(-20), None];
        let (array, refused) = done(&step("10"), Arc::new(Int64Array::from(values)));
        assert_eq!(
            (array.as_primitive::<Int64Type>(), refused),
            (&Int64Array::from(below), vec![])
        );
        let values = Int16Array::from(vec![i16::MAX, i16::MIN, -32_760]);
        let (array, refused) = done(&step("10"), Arc::new(values));
        assert_eq!(array.as_primitive::<Int16Type>(), &Int16Array::from(vec![32_760, 0, -32_760]));
        assert_eq!(refused, [1]);
        let least = Int64Array::from(vec![i64::MIN]);
        assert_eq!(done(&step("10"), Arc::new(least)).1, [0]);
    }

    #[test]
    fn decimals_become_the_multiple_below_by_all_their_digits() {
        for (how, value, below) in [
            ("0.05", 1234, 1230),
            ("0.5", -1, -50),
            ("1", 199, 100),
            ("100", 12_345, 10_000),
            ("0.02", -7, -8),
        ] {
            let (array, refused) = done(&step(how), decimals(vec![Some(value), None], 9, 2));
            assert_eq!(array.as_primitive::<Decimal128Type>().value(0), below, "{how}");
            assert!(array.is_null(1) && refused.is_empty());
        }
        let greatest = 10_i128.pow(38) - 1;
        let (array, refused) =
            done(&step("10"), decimals(vec![Some(greatest), Some(-greatest), Some(-990)], 38, 0));
        assert_eq!(array.as_primitive::<Decimal128Type>().values()[..], [greatest - 9, 0, -990]);
        assert_eq!(refused, [1]);
        assert_eq!(done(&step("10"), decimals(vec![Some(-991), Some(-990)], 3, 0)).1, [0]);
    }

    #[test]
    fn a_step_that_changes_nothing_is_no_protection() {
        for (how, column) in [
            ("1", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
            ("0.01", decimals(vec![], 9, 2)),
        ] {
            let field = Field::new("c", column.data_type().clone(), true);
            let error = Coarse::plan(&step(how), &field).unwrap_err();
            assert!(error.message().contains("leaves every value"), "{error}");
        }
    }

    #[test]
    fn dates_become_the_first_of_their_month_or_year() {
        let days = |text: &str| {
            let date: Date = text.parse().unwrap();
            date.since(Date::constant(1970, 1, 1)).unwrap().get_days()
        };
        for (value, month, year) in [
            ("2026-11-21", "2026-11-01", "2026-01-01"),
            ("2024-02-29", "2024-02-01", "2024-01-01"),
            ("2024-12-31", "2024-12-01", "2024-01-01"),
            ("1900-03-01", "1900-03-01", "1900-01-01"),
            ("1969-12-31", "1969-12-01", "1969-01-01"),
            ("0001-01-01", "0001-01-01", "0001-01-01"),
        ] {
            for (unit, expected) in [(Unit::Month, month), (Unit::Year, year)] {
                let column = Date32Array::from(vec![Some(days(value)), None]);
                let (array, _) = done(&to(unit), Arc::new(column));
                assert_eq!(array.as_primitive::<Date32Type>().value(0), days(expected), "{value}");
                assert!(array.is_null(1));
            }
        }
        let ends = Date32Array::from(vec![i32::MAX, i32::MIN]);
        assert_eq!(done(&to(Unit::Year), Arc::new(ends)).1, [1]);
    }

    #[test]
    fn times_are_cut_by_the_clock_that_they_have() {
        let micros = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        for (value, unit, expected) in [
            ("2026-11-21T14:59:59.999999Z", Unit::Hour, "2026-11-21T14:00:00Z"),
            ("2026-11-21T14:59:59.999999Z", Unit::Day, "2026-11-21T00:00:00Z"),
            ("2026-11-21T14:59:59.999999Z", Unit::Month, "2026-11-01T00:00:00Z"),
            ("2026-11-21T14:59:59.999999Z", Unit::Year, "2026-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.999999Z", Unit::Hour, "1969-12-31T23:00:00Z"),
            ("1969-12-31T23:59:59.999999Z", Unit::Day, "1969-12-31T00:00:00Z"),
        ] {
            for zone in [None, Some("UTC")] {
                let column = TimestampMicrosecondArray::from(vec![Some(micros(value)), None])
                    .with_timezone_opt(zone);
                let (array, _) = done(&to(unit), Arc::new(column));
                let got = array.as_primitive::<TimestampMicrosecondType>();
                assert_eq!(got.value(0), micros(expected), "{value} {unit:?}");
                assert!(got.is_null(1));
            }
        }
        for unit in [Unit::Hour, Unit::Day, Unit::Month, Unit::Year] {
            let ends = TimestampMicrosecondArray::from(vec![i64::MAX, i64::MIN]);
            assert_eq!(done(&to(unit), Arc::new(ends)).1, [1], "{unit:?}");
        }
    }

    #[test]
    fn texts_keep_their_first_characters() {
        let values = StringArray::from(vec![Some("0150 Oslo"), Some("åé"), Some("👩🚀x"), None]);
        let (array, _) = done(&keep(2), Arc::new(values));
        let kept = StringArray::from(vec![Some("01"), Some("åé"), Some("👩🚀"), None]);
        assert_eq!(array.as_string::<i32>(), &kept);
    }

    #[test]
    fn what_does_not_fit_the_type_is_refused_with_what_does() {
        let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        for (how, kind, said) in [
            (step("10"), DataType::Utf8, "keep = 3"),
            (step("10"), DataType::Date32, "to = \"month\""),
            (step("10"), utc, "to = \"month\""),
            (to(Unit::Month), DataType::Int32, "step = 10"),
            (keep(3), DataType::Decimal128(5, 2), "step = 10"),
            (to(Unit::Day), DataType::Date32, "has no part of a day"),
            (to(Unit::Hour), DataType::Date32, "has no part of a day"),
            (step("10"), DataType::Float64, "decimal(15,2)"),
            (keep(3), DataType::Binary, "type bytes"),
            (to(Unit::Hour), DataType::Time64(arrow::datatypes::TimeUnit::Microsecond), "time(us)"),
            (keep(1), DataType::Boolean, "type bool"),
            (keep(1), DataType::LargeUtf8, "LargeUtf8"),
            (step("0.5"), DataType::Int64, "more digits after the point"),
            (step("0.001"), DataType::Decimal128(9, 2), "more digits after the point"),
            (step("32768"), DataType::Int16, "greater than any value"),
            (step("10"), DataType::Decimal128(3, 2), "greater than any value"),
            (step(&"9".repeat(38)), DataType::Decimal128(38, 2), "greater than any value"),
        ] {
            let error = Coarse::plan(&how, &Field::new("c", kind.clone(), true)).unwrap_err();
            let told = format!("{} {}", error.message(), error.advice().unwrap());
            assert!(told.contains(said) && told.contains("`c`"), "{kind}: {told}");
        }
    }

    proptest! {
        #[test]
        fn a_class_is_the_greatest_multiple_and_stays_what_it_is(
            value in any::<i64>(), units in 1..i64::MAX, digits in -(10_i128.pow(20))..10_i128.pow(20),
        ) {
            let how = step(&units.to_string());
            let (array, refused) = done(&how, Arc::new(Int64Array::from(vec![value])));
            let class = array.as_primitive::<Int64Type>().value(0);
            if refused.is_empty() {
                prop_assert!(class % units == 0 && class <= value);
                prop_assert!(i128::from(value) - i128::from(class) < i128::from(units));
                prop_assert_eq!(done(&how, array).0.as_primitive::<Int64Type>().value(0), class);
            } else {
                prop_assert!(i128::from(value) - i128::from(units) < i128::from(i64::MIN));
            }
            let how = step("0.25");
            let (array, _) = done(&how, decimals(vec![Some(digits)], 30, 4));
            let class = array.as_primitive::<Decimal128Type>().value(0);
            prop_assert!(class % 2500 == 0 && (0..2500).contains(&(digits - class)));
        }

        #[test]
        fn times_begin_where_the_calendar_says(
            seconds in -377_000_000_000_i64..253_000_000_000, micros in 0..1_000_000_i64,
        ) {
            let value = seconds * 1_000_000 + micros;
            let clock = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(value).unwrap());
            let day = clock.date();
            for (unit, expected) in [
                (Unit::Hour, day.at(clock.hour(), 0, 0, 0)),
                (Unit::Day, day.at(0, 0, 0, 0)),
                (Unit::Month, day.first_of_month().at(0, 0, 0, 0)),
                (Unit::Year, day.first_of_year().at(0, 0, 0, 0)),
            ] {
                let expected = TimeZone::UTC.to_timestamp(expected).unwrap().as_microsecond();
                let column = TimestampMicrosecondArray::from(vec![value]);
                let (array, _) = done(&to(unit), Arc::new(column));
                let class = array.as_primitive::<TimestampMicrosecondType>().value(0);
                prop_assert_eq!(class, expected);
                let (again, _) = done(&to(unit), array);
                prop_assert_eq!(again.as_primitive::<TimestampMicrosecondType>().value(0), class);
                let date = Date32Array::from(vec![i32::try_from(value.div_euclid(DAY)).unwrap()]);
                if matches!(unit, Unit::Month | Unit::Year) {
                    let (array, _) = done(&to(unit), Arc::new(date));
                    let days = i64::from(array.as_primitive::<Date32Type>().value(0));
                    prop_assert_eq!(days * DAY, expected);
                }
            }
        }

        #[test]
        fn a_kept_text_begins_the_text(text in ".{0,12}", count in 1..8_u32) {
            let how = keep(count);
            let (array, _) = done(&how, Arc::new(StringArray::from(vec![text.clone()])));
            let kept = array.as_string::<i32>().value(0).to_owned();
            prop_assert!(text.starts_with(&kept));
            prop_assert_eq!(kept.chars().count(), text.chars().count().min(count as usize));
            let (again, _) = done(&how, array);
            prop_assert_eq!(again.as_string::<i32>().value(0), kept);
        }
    }
}
