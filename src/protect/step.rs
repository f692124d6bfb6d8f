//! How wide the classes of numbers are.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most digits that a number read as a float is sure to have as they were written.
const EXACT: usize = 15;

/// An exact decimal above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The digits without their point; the last one after a point is no zero.
    digits: i128,
    /// How many of them stand after the point.
    scale: u8,
}

impl Step {
    /// Understands digits, with or without a point between them: at most 38, not all of them zero.
    pub fn parse(text: &str) -> Option<Step> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        if whole.len() + fraction.len() > 38 {
            return None;
        }
        let digits = format!("0{whole}{fraction}").parse().ok()?;
        let scale = u8::try_from(fraction.len()).ok()?;
        (digits > 0).then_some(Step { digits, scale })
    }

    /// How many units of a decimal of this scale it is. `None` where it is no whole number of them,
    /// or more than can be counted.
    pub(super) fn at_scale(self, scale: u8) -> Option<i128> {
        let missing = scale.checked_sub(self.scale)?;
        self.digits.checked_mul(10_i128.checked_pow(missing.into())?)
    }

    /// Whether it has more digits after the point than a decimal of this scale.
    pub(super) fn is_finer_than_scale(self, scale: u8) -> bool {
        self.scale > scale
    }

    /// Whether it is smaller.
    pub(super) fn is_finer_than(self, other: Step) -> bool {
        let scale = self.scale.max(other.scale);
        match (self.at_scale(scale), other.at_scale(scale)) {
            (Some(one), Some(other)) => one < other,
            // What cannot be counted at the finer one's scale is the larger one.
            (one, _) => one.is_some(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = format!("{:0width$}", self.digits, width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        f.write_str(whole)?;
        if !fraction.is_empty() {
            write!(f, ".{fraction}")?;
        }
        Ok(())
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Step, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Step;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number above zero")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Step, E> {
                Step::parse(text).ok_or_else(|| {
                    E::custom(format!(
                        "`{text}` is no step; write a number above zero, like 10 or \"0.5\""
                    ))
                })
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Step, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Step, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Step, E> {
                let text = number.to_string();
                if text.bytes().filter(u8::is_ascii_digit).count() > EXACT {
                    return Err(E::custom(
                        "the step has too many digits for a plain number; write it in quotes",
                    ));
                }
                self.visit_str(&text)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_exact_and_have_one_form() {
        for (text, shown) in [
            ("10", "10"),
            ("010.50", "10.5"),
            ("1.000", "1"),
            ("0.05", "0.05"),
            ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
            (
                "0.00000000000000000000000000000000000001",
                "0.00000000000000000000000000000000000001",
            ),
        ] {
            let step = Step::parse(text).unwrap();
            assert_eq!(step.to_string(), shown);
            assert_eq!(Step::parse(shown), Some(step));
        }
        for text in ["", "0", "0.0", "-1", "+1", "1.", ".5", "1e3", " 1", "1,5", "NaN"] {
            assert_eq!(Step::parse(text), None, "{text}");
        }
        assert_eq!(Step::parse(&"9".repeat(39)), None);
    }

    #[test]
    fn what_is_written_as_a_number_is_what_is_read() {
        let read = |json: &str| serde_json::from_str::<Step>(json);
        for (json, shown) in [("10", "10"), ("0.1", "0.1"), ("2.50", "2.5"), ("\"1000.0\"", "1000")]
        {
            assert_eq!(read(json).unwrap().to_string(), shown);
        }
        for json in ["0", "-5", "0.0", "1e300", "0.12345678901234567", "true", "\"ten\"", "null"] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn steps_compare_by_their_size() {
        let finer = |one: &str, other: &str| {
            Step::parse(one).unwrap().is_finer_than(Step::parse(other).unwrap())
        };
        assert!(finer("0.5", "1") && finer("9", "10") && finer("0.01", "0.1"));
        assert!(!finer("1", "0.5") && !finer("10", "10.0"));
        let (small, large) = ("0.00000000000000000000000000000000000001", "9".repeat(38));
        assert!(finer(small, &large) && !finer(&large, small));
    }

    #[test]
    fn a_step_fits_a_scale_or_does_not() {
        let step = Step::parse("2.5").unwrap();
        assert_eq!(step.at_scale(0), None);
        assert_eq!(step.at_scale(1), Some(25));
        assert_eq!(step.at_scale(3), Some(2500));
        assert_eq!(Step::parse(&"9".repeat(38)).unwrap().at_scale(38), None);
    }
}
