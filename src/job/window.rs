//! Windows: the spans of time that scheduled exports deliver.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A span of time, its start included and its end not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The first instant that is in it.
    pub start: Timestamp,
    /// The first instant that is not.
    pub end: Timestamp,
}

/// How windows tile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowSpec {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight, 23 to 25 hours.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first of a month to the first of the next.
    Month,
    /// Spans of so many minutes, counted from midnight; a divisor of a day.
    Minutes(u32),
}

impl std::fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WindowSpec::Hour => f.write_str("hour"),
            WindowSpec::Day => f.write_str("day"),
            WindowSpec::Week => f.write_str("week"),
            WindowSpec::Month => f.write_str("month"),
            WindowSpec::Minutes(minutes) => write!(f, "{minutes}m"),
        }
    }
}

impl Serialize for WindowSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WindowSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "hour" => WindowSpec::Hour,
            "day" => WindowSpec::Day,
            "week" => WindowSpec::Week,
            "month" => WindowSpec::Month,
            other => other
                .strip_suffix('m')
                .and_then(|minutes| minutes.parse::<u32>().ok())
                .filter(|minutes| *minutes > 0 && 1440 % minutes == 0)
                .map(WindowSpec::Minutes)
                .ok_or_else(|| {
                    serde::de::Error::custom(format!(
                        "`{text}` is no window; write hour, day, week, month, or minutes that \
                         divide a day, like \"15m\""
                    ))
                })?,
        })
    }
}
