//! Which rows of a table a delivery takes the place of: those of its window, and of its scope.

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::misfit;
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::job::param::Value;
use crate::job::window::{self, Window};

/// The rows that a `replace-window` takes the place of.
#[derive(Debug, Clone)]
pub struct Span {
    /// The column by which a row belongs to the window.
    pub column: String,
    /// The window.
    pub window: Window,
    /// By whose clock columns without a zone are read.
    pub zone: TimeZone,
    /// Columns, and the value that each must have.
    pub scope: Vec<(String, Value)>,
}

/// One condition that the rows of a span meet: a column of theirs, compared with a value.
pub(in crate::sink) struct Term {
    /// The column, as the rows name it.
    pub column: String,
    /// What the rows hold in it.
    pub kind: FieldType,
    /// `>=`, `<` or `=`.
    pub operator: &'static str,
    /// The value. Of a time without a zone, what its clock shows in UTC.
    pub value: Value,
}

impl Span {
    /// Whether rows of `fields`, as a contract promises them, can tell the span.
    ///
    /// # Errors
    /// `contract`, with the column that cannot.
    pub fn check(&self, fields: &[(String, FieldType)]) -> Result<()> {
        self.terms(fields, |one, other| one == other).map(drop)
    }

    /// The conditions for rows of `fields`; `same` tells whether two names are one column's. A
    /// column that is missing, or cannot tell what it is to tell, is a [`misfit`].
    pub(in crate::sink) fn terms(
        &self,
        fields: &[(String, FieldType)],
        same: fn(&str, &str) -> bool,
    ) -> Result<Vec<Term>> {
        let find = |wanted: &str, key: &str| {
            fields.iter().find(|(name, _)| same(name, wanted)).ok_or_else(|| {
                misfit(wanted, "the rows have no such column")
                    .help(format!("Add it to the rows, or correct `{key}` in [sink]."))
            })
        };
        let (column, kind) = find(&self.column, "window-column")?;
        let mut terms = Vec::with_capacity(2 + self.scope.len());
        for (operator, at) in [(">=", self.window.start), ("<", self.window.end)] {
            let value = self.bound(at, column, kind)?;
            terms.push(Term { column: column.clone(), kind: kind.clone(), operator, value });
        }
        for (name, value) in &self.scope {
            let (column, kind) = find(name, "scope")?;
            if !is_of(value, kind) {
                return Err(misfit(column, format!("the param of this name is no {kind}")).help(
                    "Give param and column one type, in [params] or by a cast in the query; a \
                     scope can be of text, whole numbers of up to 64 bits, true and false, dates \
                     and instants.",
                ));
            }
            if let Value::Timestamp(at) = value {
                micros(*at, column)?;
            }
            let (column, kind, value) = (column.clone(), kind.clone(), value.clone());
            terms.push(Term { column, kind, operator: "=", value });
        }
        Ok(terms)
    }

    /// One end of the window, as values of `kind` tell it.
    fn bound(&self, at: Timestamp, column: &str, kind: &FieldType) -> Result<Value> {
        micros(at, column)?;
        let clock = self.zone.to_datetime(at);
        match kind {
            FieldType::Instant => Ok(Value::Timestamp(at)),
            FieldType::Timestamp if self.parts_time(at) => {
                Ok(Value::Timestamp(TimeZone::UTC.to_timestamp(clock).unwrap_or(at)))
            }
            FieldType::Timestamp => {
                Err(misfit(column, "the clock shows the hours at the window's end twice").help(
                    "Give the column a time zone: timestamp(us, UTC), timestamptz in PostgreSQL.",
                ))
            }
            FieldType::Date if window::first_at(clock.date().at(0, 0, 0, 0), &self.zone) == at => {
                Ok(Value::Date(clock.date()))
            }
            FieldType::Date => {
                Err(misfit(column, "dates do not tell where a window ends within a day")
                    .help("Name a column with the time as window-column, or use whole days."))
            }
            other => Err(misfit(column, format!("a {other} does not tell a time")).help(
                "Name a column of type timestamp(us, UTC), timestamp(us) or date as window-column.",
            )),
        }
    }

    /// Whether whatever the clock shows before `at` is less than what it shows from then on: not so
    /// within the hours that it repeats.
    fn parts_time(&self, at: Timestamp) -> bool {
        let clock = self.zone.to_datetime(at);
        let repeats = |clock| {
            let offset = self.zone.to_ambiguous_timestamp(clock).offset();
            matches!(offset, AmbiguousOffset::Fold { .. })
        };
        let before = clock.saturating_sub(jiff::Span::new().microseconds(1));
        !repeats(clock) || (window::first_at(clock, &self.zone) == at && !repeats(before))
    }

    /// The span in words, without the values of params.
    pub(in crate::sink) fn told(&self) -> String {
        let window = format!("the window {}/{}", self.window.start, self.window.end);
        if self.scope.is_empty() {
            return window;
        }
        let names: Vec<&str> = self.scope.iter().map(|(name, _)| name.as_str()).collect();
        format!("{window} or this job's {}", names.join(", "))
    }
}

fn is_of(value: &Value, kind: &FieldType) -> bool {
    matches!(
        (value, kind),
        (Value::String(_), FieldType::String)
            | (Value::Int64(_), FieldType::Int16 | FieldType::Int32 | FieldType::Int64)
            | (Value::Bool(_), FieldType::Bool)
            | (Value::Date(_), FieldType::Date)
            | (Value::Timestamp(_), FieldType::Instant)
    )
}

/// Columns hold microseconds; a finer instant would be rounded in silence.
fn micros(at: Timestamp, column: &str) -> Result<()> {
    if at.subsec_nanosecond() % 1000 == 0 {
        return Ok(());
    }
    Err(Error::permanent("find the rows to replace", "an instant is finer than a microsecond")
        .with("column", column)
        .help("Give the job a window, and params, with at most six digits of a second."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(zone: &str, start: &str, end: &str, kind: FieldType) -> Result<Vec<String>> {
        let window = Window { start: start.parse().unwrap(), end: end.parse().unwrap() };
        let zone = window::zone(zone).unwrap();
        let span = Span { column: "at".to_owned(), window, zone, scope: Vec::new() };
        let terms = span.terms(&[("at".to_owned(), kind)], |one, other| one == other)?;
        Ok(terms.iter().map(|term| term.value.to_string()).collect())
    }

    #[test]
    fn times_without_a_zone_are_read_by_the_exports_clock() {
        let day = ["2026-11-18T23:00:00Z", "2026-11-19T23:00:00Z"];
        let told = |kind| bounds("Europe/Oslo", day[0], day[1], kind).unwrap();
        assert_eq!(told(FieldType::Instant), day);
        assert_eq!(told(FieldType::Timestamp), ["2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z"]);
        assert_eq!(told(FieldType::Date), ["2026-11-19", "2026-11-20"]);
    }

    #[test]
    fn what_cannot_tell_the_window_is_refused() {
        // In Oslo the clock shows 02:00 to 03:00 twice, from 00:00 to 02:00 UTC.
        let hour = |start: &str, end: &str, kind| {
            let [start, end] = [start, end].map(|at| format!("2026-10-25T{at}:00Z"));
            bounds("Europe/Oslo", &start, &end, kind)
        };
        for (start, end) in [("00:00", "01:00"), ("01:00", "02:00"), ("00:00", "00:30")] {
            assert!(hour(start, end, FieldType::Timestamp).is_err(), "{start}");
            hour(start, end, FieldType::Instant).unwrap();
        }
        for (start, end) in [("00:00", "02:00"), ("02:00", "03:00")] {
            hour(start, end, FieldType::Timestamp).unwrap();
        }
        assert!(hour("22:00", "23:00", FieldType::Date).is_err());
        assert!(hour("22:00", "23:00", FieldType::String).is_err());
        let fine = "2026-10-25T02:00:00.0000001Z";
        assert!(bounds("UTC", fine, "2026-10-25T03:00:00Z", FieldType::Instant).is_err());
    }
}
