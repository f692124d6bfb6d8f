//! Values from their texts, exactly or not at all.

use arrow::datatypes::i256;
use jiff::civil::Time;

/// The decimal that `text` writes, in units of 10^-`scale`; `None` when it is no decimal, or one
/// with more digits than `precision` and `scale` have room for.
pub fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (mut total, mut zeros, mut behind, mut any) = (0_u128, 0_u32, 0_i64, false);
    let mut point = false;
    for byte in digits.bytes() {
        match byte {
            b'.' if !point => {
                point = true;
                continue;
            }
            // Zeros count only once another digit follows them.
            b'0' if total == 0 => {}
            b'0' => zeros += 1,
            b'1'..=b'9' => {
                let room = 10_u128.checked_pow(zeros + 1)?;
                total = total.checked_mul(room)?.checked_add(u128::from(byte - b'0'))?;
                zeros = 0;
            }
            _ => return None,
        }
        any = true;
        behind += i64::from(point);
    }
    if !any {
        return None;
    }
    if total == 0 {
        return Some(0);
    }
    let power = i64::from(zeros) - behind + i64::from(exponent) + i64::from(scale);
    let power = u32::try_from(power).ok().filter(|power| *power <= 38)?;
    let total = total.checked_mul(10_u128.pow(power))?;
    if total >= 10_u128.pow(u32::from(precision)) {
        return None;
    }
    let total = i128::try_from(total).ok()?;
    Some(if negative { -total } else { total })
}

/// As [`decimal`], of up to 76 digits.
pub fn wide(text: &str, precision: u8, scale: i8) -> Option<i256> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let counted = all.trim_end_matches('0');
    let zeros = i64::try_from(all.len() - counted.len()).ok()?;
    let counted = counted.trim_start_matches('0');
    if counted.is_empty() {
        return Some(i256::ZERO);
    }
    let power =
        zeros - i64::try_from(fraction.len()).ok()? + i64::from(exponent) + i64::from(scale);
    let power = usize::try_from(power).ok().filter(|power| *power <= usize::from(precision))?;
    if counted.len() + power > usize::from(precision) {
        return None;
    }
    i256::from_string(&format!("{sign}{counted}{}", "0".repeat(power)))
}

/// Days since 1970-01-01 of a date, `2026-11-19`. A year outside 0 to 9999 has a sign and at least six
/// digits: `-004712-01-01`.
pub fn date(text: &str) -> Option<i32> {
    let (negative, plain) = match text.as_bytes() {
        [b'+', rest @ ..] => (false, rest),
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (year, rest) = plain.split_at(plain.iter().position(|byte| *byte == b'-')?);
    let signed = plain.len() < text.len();
    let [b'-', m0, m1, b'-', d0, d1] = rest else { return None };
    if !(if signed { (6..=7).contains(&year.len()) } else { year.len() == 4 }) {
        return None;
    }
    let year = i64::from(number(year)?);
    let (month, day) = (number(&[*m0, *m1])?, number(&[*d0, *d1])?);
    days(if negative { -year } else { year }, month.into(), day.into())
}

/// Days since 1970-01-01 of a day in the proleptic Gregorian calendar, if there is such a day: Howard
/// Hinnant's `days_from_civil`, <https://howardhinnant.github.io/date_algorithms.html>.
fn days(year: i64, month: i64, day: i64) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    i32::try_from(era * 146_097 + of_era - 719_468).ok()
}

/// Microseconds since midnight of a time, `05:00:00` with up to six digits of a second.
pub fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, micros(fraction)?),
        None => (text, 0),
    };
    let [h0, h1, b':', m0, m1, rest @ ..] = clock.as_bytes() else { return None };
    let second = match rest {
        [] if fraction == 0 => 0,
        [b':', s0, s1] => number(&[*s0, *s1])?,
        _ => return None,
    };
    let (hour, minute) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
    // A leap second has no place in a day of 86,400.
    let time = Time::new(
        hour.try_into().ok()?,
        minute.try_into().ok()?,
        second.try_into().ok()?,
        i32::try_from(fraction * 1000).ok()?,
    )
    .ok()?;
    Some(time.duration_since(Time::midnight()).as_micros() as i64)
}

/// Microseconds since 1970 of a civil time, `2026-11-19 05:00:00`; a zone is refused.
pub fn timestamp(text: &str) -> Option<i64> {
    let (day, clock) = text.split_once([' ', 'T', 't'])?;
    i64::from(date(day)?).checked_mul(86_400_000_000)?.checked_add(time(clock)?)
}

/// Microseconds since 1970 UTC of an instant, `2026-11-19T05:00:00+01:00`; without a zone it is
/// none.
pub fn instant(text: &str) -> Option<i64> {
    if let Some(civil) = text.strip_suffix(['Z', 'z']) {
        return timestamp(civil);
    }
    let (day, _) = text.split_once([' ', 'T', 't'])?;
    let at = text.rfind(['+', '-']).filter(|at| *at > day.len())?;
    let (civil, zone) = text.split_at_checked(at)?;
    let minutes = match zone.as_bytes() {
        [_, h0, h1] => number(&[*h0, *h1])? * 60,
        [_, h0, h1, b':', m0, m1] | [_, h0, h1, m0, m1] => {
            let (hours, minutes) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
            (minutes < 60).then_some(hours * 60 + minutes)?
        }
        _ => return None,
    };
    let ahead = i64::from(minutes) * 60_000_000;
    timestamp(civil)?.checked_sub(if zone.starts_with('-') { -ahead } else { ahead })
}

/// The bytes that `\x` and hex digits write, as PostgreSQL writes them.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("\\x")?).ok()
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |total, digit| {
        digit.is_ascii_digit().then(|| total * 10 + u32::from(digit - b'0'))
    })
}

/// A fraction of a second; digits behind the sixth must be zeros.
fn micros(fraction: &str) -> Option<u32> {
    let (shown, rest) = fraction.split_at_checked(6).unwrap_or((fraction, ""));
    if shown.is_empty() || rest.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let missing = u32::try_from(6_usize.checked_sub(shown.len())?).ok()?;
    Some(number(shown.as_bytes())? * 10_u32.pow(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        let nines = "9".repeat(38);
        for (text, precision, scale, expected) in [
            ("1.25", 15, 2, Some(125)),
            ("-1.250000", 15, 2, Some(-125)),
            ("1.255", 15, 2, None),
            ("0", 1, 0, Some(0)),
            ("-0.000", 1, 0, Some(0)),
            ("+7", 1, 0, Some(7)),
            ("10", 1, 0, None),
            ("1e2", 3, 0, Some(100)),
            ("125e-2", 15, 2, Some(125)),
            ("1e400", 38, 0, None),
            ("1e-400", 38, 38, None),
            (".5", 2, 1, Some(5)),
            ("5.", 2, 1, Some(50)),
            (nines.as_str(), 38, 0, Some(10_i128.pow(38) - 1)),
            ("", 2, 1, None),
            (".", 2, 1, None),
            ("-", 2, 1, None),
            ("1.2.3", 5, 2, None),
            ("NaN", 5, 2, None),
            (" 1", 5, 2, None),
        ] {
            assert_eq!(decimal(text, precision, scale), expected, "{text}");
            let expected = expected.map(i256::from_i128);
            assert_eq!(wide(text, precision, scale), expected, "{text}, wide");
        }
        assert_eq!(decimal(&format!("1.{}", "0".repeat(500)), 3, 1), Some(10));
        let nines = "9".repeat(76);
        let most = i256::from_string(&nines);
        assert!(most.is_some());
        assert_eq!(wide(&nines, 76, 0), most);
        assert_eq!(wide(&format!("{}.{}", &nines[..40], &nines[40..]), 76, 36), most);
        assert_eq!(wide(&format!("{nines}e-76"), 76, 76), most);
        assert_eq!(wide(&format!("1{}", "0".repeat(76)), 76, 0), None);
        assert_eq!(wide("1e2147483647", 76, 0), None);
    }

    #[test]
    fn days_and_times_are_exact() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("1969-12-31"), Some(-1));
        assert_eq!(date("2000-02-29"), Some(11_016));
        assert_eq!(date("1900-02-29"), None);
        assert_eq!(date("2026-1-1"), None);
        assert_eq!(date("-004712-01-01"), Some(-2_440_550));
        assert_eq!(date("+5874897-12-31"), Some(2_145_042_905));
        assert_eq!(date("-000001-12-31"), Some(-719_529));
        for none in ["10000-01-01", "+2026-01-01", "-00470-01-01", "--04712-01-01", "+026-01-01"] {
            assert_eq!(date(none), None, "{none}");
        }
        for day in
            [-2_440_550, -719_529, -719_469, -719_468, -1, 0, 11_016, 2_932_897, 2_145_042_905]
        {
            let mut text = Vec::new();
            crate::format::encode::text::date(&mut text, day.into());
            assert_eq!(date(std::str::from_utf8(&text).unwrap()), Some(day));
        }
        assert_eq!(timestamp("-004712-01-01T00:00:00"), Some(-2_440_550 * 86_400_000_000));
        assert_eq!(time("23:59:59.999999"), Some(86_399_999_999));
        assert_eq!(time("05:00"), Some(18_000_000_000));
        assert_eq!(time("00:00:00.5000000"), Some(500_000));
        assert_eq!(time("00:00:00.0000001"), None);
        assert_eq!(time("24:00:00"), None);
        assert_eq!(timestamp("1969-12-31T23:59:59.999999"), Some(-1));
        assert_eq!(timestamp("2026-11-19 05:00:00Z"), None);
        assert_eq!(timestamp("2026-11-19 05:00:00+01"), None);
        assert_eq!(timestamp("2026-11-19"), None);
    }

    #[test]
    fn an_instant_has_a_zone() {
        assert_eq!(instant("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(instant("1970-01-01 01:00:00+01:00"), Some(0));
        assert_eq!(instant("1969-12-31 18:30:00.000001-0530"), Some(1));
        assert_eq!(instant("1970-01-01 00:00:00"), None);
        assert_eq!(instant("1970-01-01"), None);
        assert_eq!(instant("\u{fc}970-01-01 0:00:00+01"), None);
    }
}
