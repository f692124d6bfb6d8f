//! Durations (`10m`), sizes (`256 MiB`), rates (`50/s`) and the range of a backoff (`5s..10m`), as
//! configuration writes them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Understands `500ms`, `30s`, `10m`, `2h`, `400d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let millis = match text[split..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// The shortest exact writing: `90s`, `2h`.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(length) {
            return format!("{}{unit}", millis / length);
        }
    }
    format!("{millis}ms")
}

const DURATION_HELP: &str =
    "write a whole number and a unit: \"500ms\", \"30s\", \"10m\", \"2h\", \"7d\"";

/// serde of a [`Duration`] as text.
pub mod duration {
    use super::*;

    /// Reads `"10m"`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is no duration; {DURATION_HELP}"))
        })
    }

    /// Writes `"10m"`.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&show_duration(*duration))
    }
}

/// A number of bytes, written `256 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(
    /// Bytes.
    pub u64,
);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// Understands `256 MiB`, `64 KiB`, `2 GiB`, `100 B`.
    pub fn parse(text: &str) -> Option<Size> {
        SIZES.iter().find_map(|(unit, length)| {
            let number = text.trim().strip_suffix(unit)?.trim().parse::<u64>().ok()?;
            number.checked_mul(*length).map(Size)
        })
    }

    /// For people: one digit after the point, in the largest unit that leaves a whole part.
    pub fn human(self) -> String {
        match SIZES.iter().find(|(_, length)| self.0 >= *length) {
            Some((unit, length)) if *length > 1 => {
                format!("{:.1} {unit}", self.0 as f64 / *length as f64)
            }
            _ => format!("{} B", self.0),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, length) in SIZES {
            if self.0 > 0 && self.0.is_multiple_of(length) {
                return write!(f, "{} {unit}", self.0 / length);
            }
        }
        f.write_str("0 B")
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Size::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no size; write a whole number and a unit: \"64 KiB\", \"256 MiB\", \"2 GiB\""
            ))
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How often something may be done: `50/s`, `600/m`, `1000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many times, at least once.
    pub count: u32,
    /// In how long: a second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    /// How a rate is written, for whoever wrote none.
    pub const HELP: &str =
        "write how many times and in how long: \"50/s\", \"600/m\" or \"1000/h\"";

    /// Understands `50/s`, `600/m` and `1000/h`.
    pub fn parse(text: &str) -> Option<Rate> {
        let (count, unit) = text.split_once('/')?;
        let per = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.trim().parse::<u32>().ok().filter(|count| *count > 0)?;
        Some(Rate { count, per: Duration::from_secs(per) })
    }

    /// How long after one another two of them are, when spread evenly.
    pub fn interval(&self) -> Duration {
        self.per / self.count
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Rate::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no rate; {}", Rate::HELP)))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The range of a backoff, written `5s..10m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub first: Duration,
    /// The bound that later waits do not pass.
    pub last: Duration,
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.split_once("..")
            .and_then(|(first, last)| Some((parse_duration(first)?, parse_duration(last)?)))
            .filter(|(first, last)| first <= last && !first.is_zero())
            .map(|(first, last)| Backoff { first, last })
            .ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "`{text}` is no backoff; write the shortest and the longest wait: \"5s..10m\""
                ))
            })
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!(
            "{}..{}",
            show_duration(self.first),
            show_duration(self.last)
        ))
    }
}

/// What stands in the schemas of the configuration for values that are text there, and for other
/// types in the program.
#[cfg(test)]
pub(crate) mod written {
    /// A duration, `10m`.
    pub struct Length;
    /// A day, `2026-11-01`.
    pub struct Day;
    /// A text with placeholders.
    pub struct Template;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for text in ["500ms", "90s", "10m", "2h", "400d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["1 GiB", "256 MiB", "3 B"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Size(50_436_505).human(), "48.1 MiB");
        for bad in ["10", "m", "-1s", "1.5h", ""] {
            assert!(parse_duration(bad).is_none(), "{bad}");
        }
        assert!(Size::parse("256").is_none());
        for text in ["50/s", "600/m", "1000/h"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
        for bad in ["50", "0/s", "5/d", "/s", "-1/s"] {
            assert!(Rate::parse(bad).is_none(), "{bad}");
        }
    }
}
