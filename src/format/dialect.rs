//! The dialect of CSV: how files of others are to be read, and what theirs expect of ours.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

use super::charset::Charset;
use crate::error::{Error, Result};

const DOING: &str = "understand the dialect of CSV";

/// The dialect of CSV, in the same words for reading (`[source.csv]`) and for writing
/// (`[sink.csv]`). What is written in a dialect reads back in it, value by value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CsvOptions {
    /// Whether the first line names the columns.
    pub header: bool,
    /// One character of ASCII between two fields. Default: `,`.
    pub delimiter: char,
    /// What stands before the fraction of a decimal or a float: `.` or `,`. Default: `.`.
    pub decimal: char,
    /// The encoding, by its name in the Encoding Standard: `utf-8`, `utf-16le`, `windows-1252`, …;
    /// besides, `iso-8859-1` and `us-ascii` are exactly these. A row with a character that cannot
    /// be written in it is refused, and so is one with bytes that mean nothing. Default: `utf-8`.
    pub encoding: String,
    /// Whether a file begins with a byte order mark, as some programs expect of Unicode. In files
    /// that are read it may always be there. Default: false.
    pub bom: bool,
    /// What ends a line that is written: `"\n"` or `"\r\n"`. Read are both. Default: `"\n"`.
    pub newline: String,
    /// Which values stand in quotes (`"`). Default: `needed`. In files that are read any may.
    pub quote: Quote,
    /// What stands for NULL, unquoted. Default: nothing. An empty string is written as `""`.
    pub null: String,
    /// How dates are written: a strftime format. Default: ISO 8601, `%Y-%m-%d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// How times of the day are written: a strftime format. Default: ISO 8601, with the fraction
    /// of a second where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// How timestamps are written, with and without zone: a strftime format. Instants are in UTC,
    /// also where the format does not say so. Default: ISO 8601, instants with `Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Whether `date`, `time` and `timestamp` may cut values. Else a row with a value that does not
    /// read back from what would be written is refused. Default: false.
    pub truncate: bool,
    /// What becomes of text that a spreadsheet would take for a formula. Default: `keep`.
    pub formulas: Formulas,
}

/// Which values stand in quotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Quote {
    /// Those that hold the delimiter, a quote or a line break, or would be taken for NULL.
    #[default]
    Needed,
    /// All but NULL, the names of the columns too.
    Always,
}

/// What becomes of text that a spreadsheet would take for a formula: that begins with `=`, `+`,
/// `-`, `@`, a tab or a carriage return.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Formulas {
    /// It stays as it is.
    #[default]
    Keep,
    /// A `'` is put before it, as OWASP advises; in columns of text alone. One that has such a `'`
    /// already gets another, so that reading, which takes one away, gives what was written.
    Escape,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions {
            header: true,
            delimiter: ',',
            decimal: '.',
            encoding: "utf-8".to_owned(),
            bom: false,
            newline: "\n".to_owned(),
            quote: Quote::Needed,
            null: String::new(),
            date: None,
            time: None,
            timestamp: None,
            truncate: false,
            formulas: Formulas::Keep,
        }
    }
}

impl CsvOptions {
    /// What is wrong with them: the key, and why.
    pub fn mistakes(&self) -> Vec<(&'static str, Error)> {
        let mut found = Vec::new();
        let mut wrong = |key, what: &str, help: &str| {
            found.push((key, Error::config(DOING, what.to_owned()).help(help.to_owned())));
        };
        if !self.delimiter.is_ascii() || "\"\r\n".contains(self.delimiter) {
            wrong(
                "delimiter",
                "this cannot stand between two fields",
                "use one ASCII character that is no quote or line break: \",\", \";\", \"\\t\"",
            );
        }
        if !matches!(self.decimal, '.' | ',') {
            wrong("decimal", "no number has this before its fraction", "use \".\" or \",\"");
        } else if self.decimal == self.delimiter {
            wrong(
                "decimal",
                "this stands between two fields already",
                "use another `delimiter`, like \";\"",
            );
        }
        if !matches!(self.newline.as_str(), "\n" | "\r\n") {
            wrong("newline", "this ends no line", "use \"\\n\" or \"\\r\\n\"");
        }
        if self.null.contains([self.delimiter, '"', '\r', '\n']) {
            wrong(
                "null",
                "the null text holds the delimiter, a quote or a line break",
                "use one like \"\\\\N\", or leave it empty",
            );
        }
        match Charset::named(&self.encoding) {
            Ok(charset) => {
                if self.bom && charset.mark().is_empty() {
                    wrong("bom", "this encoding has no byte order mark", "leave it out");
                }
                if !charset.has(&self.null) {
                    wrong("null", "this cannot be written in the encoding", "use other characters");
                }
            }
            Err(error) => found.push(("encoding", error)),
        }
        let patterns = [
            ("date", &self.date, Kind::Date),
            ("time", &self.time, Kind::Time),
            ("timestamp", &self.timestamp, Kind::Timestamp),
        ];
        for (key, text, kind) in patterns {
            let Some(text) = text else { continue };
            match Pattern::new(text, kind) {
                Err(error) => found.push((key, error)),
                Ok(pattern) if key == "timestamp" && !self.truncate && !pattern.has_clock() => {
                    let error =
                        Error::config(DOING, "it has no time of day, and timestamps have one");
                    let help = "add it, as in \"%d.%m.%Y %H:%M:%S\"; or say by truncate = true that \
                                it may be cut off";
                    found.push((key, error.with("format", text).help(help)));
                }
                Ok(_) => {}
            }
        }
        found
    }
}

/// A dialect, understood.
#[derive(Debug, Clone)]
pub(super) struct Dialect {
    pub header: bool,
    pub delimiter: u8,
    pub decimal: u8,
    pub charset: Charset,
    pub bom: bool,
    pub newline: Vec<u8>,
    pub quote: Quote,
    pub null: Vec<u8>,
    pub date: Option<Pattern>,
    pub time: Option<Pattern>,
    pub timestamp: Option<Pattern>,
    pub truncate: bool,
    pub escape: bool,
}

impl Dialect {
    /// # Errors
    /// `config`: the first of the options' mistakes.
    pub fn new(options: &CsvOptions) -> Result<Dialect> {
        if let Some((key, error)) = options.mistakes().into_iter().next() {
            return Err(error.with("csv", key));
        }
        let pattern = |text: &Option<String>, kind| {
            text.as_ref().map(|text| Pattern::new(text, kind)).transpose()
        };
        Ok(Dialect {
            header: options.header,
            delimiter: options.delimiter as u8,
            decimal: options.decimal as u8,
            charset: Charset::named(&options.encoding)?,
            bom: options.bom,
            newline: options.newline.clone().into_bytes(),
            quote: options.quote,
            null: options.null.clone().into_bytes(),
            date: pattern(&options.date, Kind::Date)?,
            time: pattern(&options.time, Kind::Time)?,
            timestamp: pattern(&options.timestamp, Kind::Timestamp)?,
            truncate: options.truncate,
            escape: options.formulas == Formulas::Escape,
        })
    }
}

/// Whether a spreadsheet would take the text for a formula, were it not for quotes before it.
pub(super) fn is_formula(text: &[u8]) -> bool {
    let quotes = text.iter().take_while(|byte| **byte == b'\'').count();
    matches!(text.get(quotes), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r'))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Date,
    Time,
    Timestamp,
}

/// A format of dates and times that reads what it writes.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    /// Whether it can write what has no zone.
    pub civil: bool,
}

impl Pattern {
    fn new(text: &str, kind: Kind) -> Result<Pattern> {
        let wrong = |what: String, help: &str| {
            Err(Error::config(DOING, what).with("format", text).help(help.to_owned()))
        };
        let mut pattern = Pattern { text: text.to_owned(), civil: true };
        let sample = jiff::civil::date(2026, 11, 19);
        let broken = match kind {
            Kind::Date => BrokenDownTime::from(sample),
            Kind::Time => BrokenDownTime::from(Time::midnight()),
            Kind::Timestamp => {
                let civil = BrokenDownTime::from(sample.at(0, 0, 0, 0));
                pattern.civil = civil.to_string(text).is_ok();
                BrokenDownTime::from(Timestamp::UNIX_EPOCH)
            }
        };
        let words = "use strftime's words: \"%d.%m.%Y %H:%M:%S\"";
        let written = match broken.to_string(text) {
            Ok(_) if text.is_empty() => return wrong("this is no format of it".to_owned(), words),
            Ok(written) => written,
            Err(cause) => return wrong(format!("this is no format of it: {cause}"), words),
        };
        let is_read = match kind {
            Kind::Date => pattern.read_date(&pattern.write(sample)) == Some(DAY_2026),
            Kind::Time => pattern.read_time(&pattern.write(Time::midnight())) == Some(0),
            Kind::Timestamp => {
                pattern.read_instant(&pattern.write(Timestamp::UNIX_EPOCH)) == Some(0)
            }
        };
        if !is_read {
            let (sample, needs) = match kind {
                Kind::Date => ("2026-11-19", "a date needs year, month and day: \"%Y-%m-%d\""),
                Kind::Time => ("00:00:00", "a time needs hours and minutes: \"%H:%M:%S\""),
                Kind::Timestamp => (
                    "1970-01-01T00:00:00Z",
                    "a timestamp needs year, month, day, hours and minutes: \"%Y-%m-%d %H:%M:%S\"",
                ),
            };
            let what = "what it writes does not tell the value";
            return wrong(format!("{what}: for {sample} it is `{written}`"), needs);
        }
        Ok(pattern)
    }

    /// Whether what it writes of a timestamp tells the time of the day.
    fn has_clock(&self) -> bool {
        let hours = [0, 12].map(|hour| Timestamp::from_second(hour * 3600));
        let [Ok(midnight), Ok(noon)] = hours else { return true };
        self.write(midnight) != self.write(noon)
    }

    fn write(&self, value: impl Into<BrokenDownTime>) -> String {
        let broken: BrokenDownTime = value.into();
        broken.to_string(&self.text).unwrap_or_default()
    }

    /// What it writes for a day, if it can, and whether that reads back.
    pub fn date(&self, days: i32) -> Option<(String, bool)> {
        let text = self.write(civil(i64::from(days).checked_mul(DAY)?)?.date());
        let exact = self.read_date(&text) == Some(days);
        (!text.is_empty()).then_some((text, exact))
    }

    /// What it writes for a time of the day in microseconds.
    pub fn time(&self, micros: i64) -> Option<(String, bool)> {
        if !(0..DAY).contains(&micros) {
            return None;
        }
        let text = self.write(civil(micros)?.time());
        let exact = self.read_time(&text) == Some(micros);
        (!text.is_empty()).then_some((text, exact))
    }

    /// What it writes for a civil time in microseconds since 1970.
    pub fn timestamp(&self, micros: i64) -> Option<(String, bool)> {
        let text = self.write(civil(micros)?);
        let exact = self.read_timestamp(&text) == Some(micros);
        (!text.is_empty()).then_some((text, exact))
    }

    /// What it writes for an instant in microseconds since 1970.
    pub fn instant(&self, micros: i64) -> Option<(String, bool)> {
        let text = self.write(Timestamp::from_microsecond(micros).ok()?);
        let exact = self.read_instant(&text) == Some(micros);
        (!text.is_empty()).then_some((text, exact))
    }

    fn parse(&self, text: &str) -> Option<BrokenDownTime> {
        BrokenDownTime::parse(&self.text, text).ok()
    }

    /// The 60th second, which is read as the 59th, is none here.
    fn is_leap(&self, text: &str, back: impl Into<BrokenDownTime>) -> bool {
        text.contains("60") && self.write(back) != text
    }

    /// Days since 1970.
    pub fn read_date(&self, text: &str) -> Option<i32> {
        let date = self.parse(text)?.to_date().ok()?;
        i32::try_from(micros(date.at(0, 0, 0, 0))? / DAY).ok()
    }

    /// Microseconds since midnight.
    pub fn read_time(&self, text: &str) -> Option<i64> {
        let broken = self.parse(text)?;
        broken.hour()?;
        let time = broken.to_time().ok()?;
        if self.is_leap(text, time) {
            return None;
        }
        micros(Date::new(1970, 1, 1).ok()?.to_datetime(time))
    }

    /// Microseconds since 1970 of a civil time; one with a zone is none.
    pub fn read_timestamp(&self, text: &str) -> Option<i64> {
        let broken = self.parse(text)?;
        if broken.offset().is_some() {
            return None;
        }
        let civil = broken.to_datetime().ok()?;
        if self.is_leap(text, civil) {
            return None;
        }
        micros(civil)
    }

    /// Microseconds since 1970 UTC of an instant; without a zone it is in UTC.
    pub fn read_instant(&self, text: &str) -> Option<i64> {
        let broken = self.parse(text)?;
        let at = match broken.to_timestamp() {
            Ok(at) => at,
            Err(_) if broken.offset().is_none() => {
                Offset::UTC.to_timestamp(broken.to_datetime().ok()?).ok()?
            }
            Err(_) => return None,
        };
        if text.contains("60") {
            let shown = broken.offset().map_or_else(
                || self.write(at),
                |offset| self.write(&at.to_zoned(offset.to_time_zone())),
            );
            if shown != text {
                return None;
            }
        }
        whole(at)
    }
}

const DAY: i64 = 86_400_000_000;
/// 2026-11-19.
const DAY_2026: i32 = 20_776;

fn civil(micros: i64) -> Option<DateTime> {
    Some(Offset::UTC.to_datetime(Timestamp::from_microsecond(micros).ok()?))
}

fn micros(civil: DateTime) -> Option<i64> {
    whole(Offset::UTC.to_timestamp(civil).ok()?)
}

/// The microseconds, where there is nothing beyond them.
fn whole(at: Timestamp) -> Option<i64> {
    (at.subsec_nanosecond() % 1000 == 0).then(|| at.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_by_their_keys() {
        let with = |key: &str, value: serde_json::Value| -> Vec<&'static str> {
            let options: CsvOptions =
                serde_json::from_value(serde_json::json!({ key: value })).unwrap();
            options.mistakes().into_iter().map(|(key, _)| key).collect()
        };
        for (key, value) in [
            ("delimiter", "\""),
            ("delimiter", "→"),
            ("decimal", "x"),
            ("decimal", ","),
            ("newline", "\r"),
            ("null", "a,b"),
            ("encoding", "windows-1525"),
            ("date", "%Y-%m"),
            ("date", "%H"),
            ("date", "%!"),
            ("date", ""),
            ("time", "%d"),
            ("timestamp", "%H:%M"),
            ("timestamp", "%m/%d"),
            ("timestamp", "%d.%m.%Y"),
            ("timestamp", "%Q"),
        ] {
            assert_eq!(with(key, value.into()), [key], "{key} {value}");
        }
        assert_eq!(with("encoding", "windows-1252".into()), Vec::<&str>::new());
        for (key, value) in [
            ("date", "%d.%m.%y"),
            ("time", "%H%M"),
            ("timestamp", "%d.%m.%Y %H:%M:%S"),
            ("timestamp", "%Y-%m-%dT%H:%M:%S%.f%z"),
            ("timestamp", "%s"),
        ] {
            assert_eq!(with(key, value.into()), Vec::<&str>::new(), "{key} {value}");
        }
        let both = CsvOptions {
            encoding: "windows-1252".to_owned(),
            bom: true,
            null: "Ω".to_owned(),
            ..CsvOptions::default()
        };
        assert_eq!(
            both.mistakes().iter().map(|(key, _)| *key).collect::<Vec<_>>(),
            ["bom", "null"]
        );
    }

    #[test]
    fn what_is_wrong_with_a_format_is_told() {
        let told = |options: CsvOptions| match options.mistakes().as_slice() {
            [(_, error)] => format!("{error}. {}", error.advice().unwrap_or_default()),
            other => panic!("{other:?}"),
        };
        let with =
            |text: &str| CsvOptions { timestamp: Some(text.to_owned()), ..CsvOptions::default() };
        assert!(told(with("%d.%m.%Y")).contains("no time of day"));
        let cut = CsvOptions { truncate: true, ..with("%d.%m.%Y") };
        assert!(cut.mistakes().is_empty());
        let told = told(with("%Q"));
        assert!(told.contains("for 1970-01-01T00:00:00Z it is `"), "{told}");
        assert!(told.contains("hours and minutes"), "{told}");
    }

    #[test]
    fn a_value_that_a_format_cuts_does_not_read_back() {
        let german = Pattern::new("%d.%m.%Y %H:%M:%S", Kind::Timestamp).unwrap();
        let at = 1_795_046_400_000_000;
        assert_eq!(german.timestamp(at), Some(("19.11.2026 00:00:00".to_owned(), true)));
        assert_eq!(german.instant(at + 1), Some(("19.11.2026 00:00:00".to_owned(), false)));
        assert_eq!(german.timestamp(i64::MAX), None);
        let day = Pattern::new("%d.%m.%Y", Kind::Timestamp).unwrap();
        assert!(day.timestamp(at).unwrap().1 && !day.timestamp(at + 1_000_000).unwrap().1);
        let short = Pattern::new("%d.%m.%y", Kind::Date).unwrap();
        assert_eq!(short.date(DAY_2026), Some(("19.11.26".to_owned(), true)));
        assert!(!short.date(-20_000).unwrap().1);
        let zoned = Pattern::new("%F %T%.f %z", Kind::Timestamp).unwrap();
        assert!(!zoned.civil && german.civil);
        assert_eq!(zoned.instant(at + 1).unwrap().0, "2026-11-19 00:00:00.000001 +0000");
        assert_eq!(zoned.read_instant("2026-11-19 01:00:00 +0100"), Some(at));
        assert_eq!(zoned.read_instant("2026-11-19 01:00:00.0000001 +0100"), None);
        assert_eq!(zoned.read_timestamp("2026-11-19 01:00:00 +0100"), None);
        assert_eq!(german.read_timestamp("30.06.2015 23:59:60"), None);
        assert!(german.read_timestamp("30.06.1960 23:59:59").is_some());
        assert_eq!(german.read_instant("30.06.2015 23:59:60"), None);
        let time = Pattern::new("%H:%M", Kind::Time).unwrap();
        assert_eq!(time.time(60_000_000), Some(("00:01".to_owned(), true)));
        assert!(!time.time(1).unwrap().1);
        assert_eq!((time.time(DAY), time.read_time("24:00")), (None, None));
    }

    #[test]
    fn formulas_are_known_behind_their_escape() {
        for text in ["=1", "+1", "-1", "@x", "\tx", "\rx", "'=1", "''=1"] {
            assert!(is_formula(text.as_bytes()), "{text}");
        }
        for text in ["", "1", "'", "'x", " =1", "x=1"] {
            assert!(!is_formula(text.as_bytes()), "{text}");
        }
    }
}
