//! What is wrong with a text that is no value of its column's type, in words that never tell it.

use crate::format::FieldType;

/// As many digits are told; that there are more is.
const TOLD: usize = 99;

/// What keeps `text` from being a value of `kind`, as it is written where no dialect says otherwise.
pub(super) fn why(kind: &FieldType, text: &str) -> String {
    if text.is_empty() {
        return "it is empty".to_owned();
    }
    if text.trim() != text {
        return "spaces around it".to_owned();
    }
    match kind {
        FieldType::Bool => "not true or false".to_owned(),
        FieldType::Int16 | FieldType::Int32 | FieldType::Int64 => match Digits::of(text) {
            Some(_) if text.contains(['.', 'e', 'E']) => "not a whole number".to_owned(),
            Some(_) => format!("too large for {kind}"),
            None => "not a number".to_owned(),
        },
        FieldType::Float32 | FieldType::Float64 => match Digits::of(text) {
            Some(_) => format!("too large for {kind}"),
            None => "not a number".to_owned(),
        },
        FieldType::Decimal(precision, scale) => {
            let scale = usize::try_from(*scale).unwrap_or(0);
            match Digits::of(text) {
                None => "not a number".to_owned(),
                Some(Digits { after, .. }) if after > scale => {
                    let more = if after > TOLD { "more than " } else { "" };
                    format!("{more}{} digits after the point, {scale} allowed", after.min(TOLD))
                }
                Some(_) => {
                    let before = usize::from(*precision).saturating_sub(scale);
                    format!("too many digits before the point, {before} allowed")
                }
            }
        }
        FieldType::String => "not text".to_owned(),
        FieldType::Bytes => "not \\x and hex digits".to_owned(),
        FieldType::Date => "not a date".to_owned(),
        FieldType::Time => "not a time of day".to_owned(),
        FieldType::Timestamp => match super::exact::instant(text) {
            Some(_) => "an offset, where the type has no zone".to_owned(),
            None => "not a day and a time".to_owned(),
        },
        FieldType::Instant => match super::exact::timestamp(text) {
            Some(_) => "no offset".to_owned(),
            None => "not a day, a time and an offset".to_owned(),
        },
    }
}

/// How a number is written.
struct Digits {
    /// Digits that count behind the point.
    after: usize,
}

impl Digits {
    fn of(text: &str) -> Option<Digits> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !plain(whole) || !plain(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let zeros = match fraction {
            "" => whole.len() - whole.trim_end_matches('0').len(),
            _ => 0,
        };
        let length = |count: usize| i64::try_from(count).ok();
        let after = length(fraction.len())?.checked_sub(length(zeros)?)?.checked_sub(exponent)?;
        Some(Digits { after: usize::try_from(after.max(0)).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_without_the_value() {
        let money = FieldType::Decimal(15, 2);
        for (kind, text, expected) in [
            (money.clone(), "1.234", "3 digits after the point, 2 allowed"),
            (money.clone(), "1.2345000", "4 digits after the point, 2 allowed"),
            (money.clone(), "5e-3", "3 digits after the point, 2 allowed"),
            (money.clone(), "12345678901234", "too many digits before the point, 13 allowed"),
            (money.clone(), "1,234.50", "not a number"),
            (money.clone(), "n/a", "not a number"),
            (money.clone(), " 1.20", "spaces around it"),
            (money.clone(), "", "it is empty"),
            (money, "1e-9999999", "more than 99 digits after the point, 2 allowed"),
            (FieldType::Int16, "32768", "too large for int16"),
            (FieldType::Int64, "1.5", "not a whole number"),
            (FieldType::Int64, "x", "not a number"),
            (FieldType::Float64, "1e999", "too large for float64"),
            (FieldType::Bool, "yes", "not true or false"),
            (FieldType::Date, "2026-02-30", "not a date"),
            (FieldType::Timestamp, "2026-02-03T00:00:00Z", "an offset, where the type has no zone"),
            (FieldType::Instant, "2026-02-03T00:00:00", "no offset"),
        ] {
            assert_eq!(why(&kind, text), expected, "{text}");
        }
    }
}
