//! Values as text, the same in CSV and in JSON lines: every digit, nothing rounded.

use std::io::Write;

use arrow::datatypes::i256;

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Appends the digits of `number`, with zeros before it up to `width` digits.
fn digits(out: &mut Vec<u8>, mut number: u128, width: usize) {
    // u128 has 39 digits at the most; widths are 38 and less.
    let mut buffer = [b'0'; 40];
    let mut at = buffer.len();
    while number > u128::from(u64::MAX) {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let mut small = number as u64;
    while small >= 100 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[(small % 100) as usize]);
        small /= 100;
    }
    if small >= 10 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[small as usize]);
    } else {
        at -= 1;
        buffer[at] = b'0' + small as u8;
    }
    at = at.min(buffer.len() - width.min(buffer.len()));
    out.extend_from_slice(&buffer[at..]);
}

/// A whole number.
pub fn int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    digits(out, value.unsigned_abs().into(), 1);
}

/// A decimal with all the digits of its scale: 1230 of scale 2 is `12.30`.
pub fn decimal(out: &mut Vec<u8>, value: i128, scale: u8) {
    if value < 0 {
        out.push(b'-');
    }
    let scale = usize::from(scale);
    digits(out, value.unsigned_abs(), scale + 1);
    if scale > 0 {
        let point = out.len() - scale;
        out.insert(point, b'.');
    }
}

/// As [`decimal`], of more than 38 digits.
pub fn wide(out: &mut Vec<u8>, value: i256, scale: u8) {
    let text = value.to_string();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.as_str()),
    };
    let scale = usize::from(scale);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{sign}{digits:0>width$}", width = scale + 1);
    if scale > 0 {
        out.insert(out.len() - scale, b'.');
    }
}

/// A float in the fewest digits that read back as the same value: `0.1`, `1.0`, `1e300`, `-0.0`.
/// What is no number is `NaN`, `Infinity` or `-Infinity`.
pub fn float<F: std::fmt::Debug + Into<f64> + Copy>(out: &mut Vec<u8>, value: F) {
    let wide: f64 = value.into();
    if wide.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if wide.is_infinite() {
        out.extend_from_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{value:?}");
    }
}

/// A day, `2026-11-19`. Years outside 0 to 9999 have a sign and at least six digits.
pub fn date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    if (0..=9999).contains(&year) {
        digits(out, year.unsigned_abs().into(), 4);
    } else {
        out.push(if year < 0 { b'-' } else { b'+' });
        digits(out, year.unsigned_abs().into(), 6);
    }
    out.push(b'-');
    out.extend_from_slice(&PAIRS[month]);
    out.push(b'-');
    out.extend_from_slice(&PAIRS[day]);
}

/// Year, month and day of a day counted from 1970-01-01 in the proleptic Gregorian calendar:
/// Howard Hinnant's `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>.
fn civil(days: i64) -> (i64, usize, usize) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as usize, day as usize)
}

const DAY: i64 = 86_400_000_000;

/// A time of day in microseconds, `05:06:07` or `05:06:07.000250`; 24:00:00 is allowed.
pub fn time(out: &mut Vec<u8>, micros: i64) {
    let micros = micros.clamp(0, DAY);
    let seconds = micros / 1_000_000;
    out.extend_from_slice(&PAIRS[(seconds / 3600) as usize]);
    out.push(b':');
    out.extend_from_slice(&PAIRS[(seconds / 60 % 60) as usize]);
    out.push(b':');
    out.extend_from_slice(&PAIRS[(seconds % 60) as usize]);
    let rest = micros % 1_000_000;
    if rest != 0 {
        out.push(b'.');
        digits(out, rest.unsigned_abs().into(), 6);
    }
}

/// A civil time in microseconds since 1970, `2026-11-19T05:06:07`.
pub fn timestamp(out: &mut Vec<u8>, micros: i64) {
    date(out, micros.div_euclid(DAY));
    out.push(b'T');
    time(out, micros.rem_euclid(DAY));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_keep_every_digit() {
        for (value, scale, text) in [
            (1230, 2, "12.30"),
            (-5, 3, "-0.005"),
            (0, 0, "0"),
            (0, 2, "0.00"),
            (10i128.pow(38) - 1, 38, "0.99999999999999999999999999999999999999"),
            (-(10i128.pow(38) - 1), 0, "-99999999999999999999999999999999999999"),
        ] {
            assert_eq!(shown(|out| decimal(out, value, scale)), text);
            assert_eq!(shown(|out| wide(out, i256::from_i128(value), scale)), text);
        }
        assert_eq!(shown(|out| int(out, i64::MIN)), i64::MIN.to_string());
        for (value, text) in [
            (0.1, "0.1"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e300, "1e300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(shown(|out| float(out, value)), text);
        }
        assert_eq!(shown(|out| float(out, 0.1f32)), "0.1");
        for (micros, text) in [
            (0, "1970-01-01T00:00:00"),
            (-1, "1969-12-31T23:59:59.999999"),
            (951_782_400_000_250, "2000-02-29T00:00:00.000250"),
        ] {
            assert_eq!(shown(|out| timestamp(out, micros)), text);
        }
        assert_eq!(shown(|out| date(out, -719_529)), "-000001-12-31");
        assert_eq!(shown(|out| date(out, 2_932_897)), "+010000-01-01");
        assert_eq!(shown(|out| time(out, DAY)), "24:00:00");
    }

    proptest! {
        #[test]
        fn numbers_read_back(whole: i64, wide: i128, real: f64, days in -719_528i64..2_932_897) {
            prop_assert_eq!(shown(|out| int(out, whole)), whole.to_string());
            prop_assert_eq!(shown(|out| decimal(out, wide, 0)), wide.to_string());
            if real.is_finite() {
                let back: f64 = shown(|out| float(out, real)).parse().unwrap();
                prop_assert_eq!(back.to_bits(), real.to_bits());
            }
            let epoch = jiff::civil::date(1970, 1, 1);
            let day = epoch.checked_add(jiff::Span::new().days(days)).unwrap();
            prop_assert_eq!(shown(|out| date(out, days)), day.to_string());
        }
    }
}
