//! Reading by a cursor: from where it stands to the greatest value there is, both found and read in
//! one transaction. Whole numbers are compared as such, everything else as the text that it is.

use std::time::Duration;

use jiff::civil::DateTime;
use rusqlite::types::ValueRef;

use super::{READ, bound, plan};
use crate::connect::sql::quote;
use crate::connect::sqlite::classify;
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::job::param::{Bindings, Value};
use crate::source::cursor::{self, CursorConfig, DOING, Nulls, Since};
use crate::source::{SourceConfig, Types, sql};

/// The names by which the bounds of a read are bound.
const BOUNDS: [&str; 2] = ["cursor_from", "cursor_to"];

/// What is read by a cursor.
pub(super) struct Range {
    /// The SELECT of it, with `:name` parameters.
    pub sql: String,
    /// Their values.
    pub bindings: Bindings,
    /// The last value that the rows may have, if there are any.
    pub to: Option<String>,
}

/// A cursor of a source, in the transaction that everything is read in.
pub(super) struct Cursor<'a> {
    database: &'a rusqlite::Connection,
    config: &'a CursorConfig,
    source: &'a SourceConfig,
    /// Its column as SQL text.
    column: String,
    /// Whether its values are whole numbers; else they are text.
    numbers: bool,
}

impl<'a> Cursor<'a> {
    /// Finds the column of the cursor and what it is: what the contract promises of it, else what
    /// the table declares.
    ///
    /// # Errors
    /// `permanent`: there is no such column, its values are neither whole numbers nor text, or
    /// `lookback` has no time to go back from.
    pub fn find(
        database: &'a rusqlite::Connection,
        config: &'a CursorConfig,
        source: &'a SourceConfig,
        types: &Types,
    ) -> Result<Cursor<'a>> {
        let named = |error: Error| error.with("column", &config.column);
        let column = quote(&config.column);
        // A quoted name that is no column's is text to SQLite, so that it has to be looked up.
        let all = sql::select_where(source, Some("*"), &[]);
        let all = database.prepare(&all).map_err(|error| classify(READ, error))?;
        if !all.column_names().any(|name| name.eq_ignore_ascii_case(&config.column)) {
            return Err(named(
                Error::permanent(DOING, "there is no such column")
                    .help("Name a column of the table, or one that the query gives."),
            ));
        }
        let select = sql::select_where(source, Some(&column), &[]);
        let statement = database.prepare(&select).map_err(|error| classify(READ, error))?;
        let kind = plan(&statement, types)?.into_values().next();
        let numbers = match kind {
            Some(FieldType::Int16 | FieldType::Int32 | FieldType::Int64) => true,
            Some(FieldType::String | FieldType::Date | FieldType::Time) => false,
            Some(FieldType::Timestamp | FieldType::Instant) => false,
            _ => {
                return Err(named(
                    Error::permanent(DOING, "in SQLite only whole numbers and text are exact")
                        .help("Take a column of times, days, text or whole numbers as the cursor."),
                ));
            }
        };
        let timed =
            matches!(kind, Some(FieldType::Date | FieldType::Timestamp | FieldType::Instant));
        if config.lookback.is_some() && !timed {
            return Err(cursor::no_time(&config.column));
        }
        Ok(Cursor { database, config, source, column, numbers })
    }

    /// What is to be read.
    ///
    /// # Errors
    /// `contract`: rows without a value, where those are not to be skipped, or with one of another
    /// kind than the column's.
    pub fn range(&self, bindings: &Bindings, since: &Since) -> Result<Range> {
        let (column, [from, to]) = (&self.column, BOUNDS);
        let mut bindings = bindings.clone();
        self.check(&bindings)?;
        let (sign, first) = match &since.from {
            Some(stands) => (">", Some(stands)),
            None => (">=", self.config.start.as_ref()),
        };
        let condition = match first {
            Some(first) => {
                bindings.insert(from.to_owned(), self.value(first)?);
                format!("{column} {sign} :{from}")
            }
            None => format!("{column} IS NOT NULL"),
        };
        let last = match &since.to {
            Some(to) => Some(to.clone()),
            None => self.greatest(&condition, &bindings)?.or_else(|| since.from.clone()),
        };
        if let (Some(stands), Some(length)) = (&since.from, self.config.lookback) {
            bindings.insert(from.to_owned(), Value::String(self.back(stands, length)?));
        }
        let up_to = match &last {
            Some(last) => {
                bindings.insert(to.to_owned(), self.value(last)?);
                format!("{column} <= :{to}")
            }
            None => "false".to_owned(),
        };
        let sql = sql::select_where(self.source, None, &[condition, up_to]);
        Ok(Range { sql, bindings, to: last })
    }

    /// Refuses what would not be read, or be compared by its kind alone.
    fn check(&self, bindings: &Bindings) -> Result<()> {
        let column = &self.column;
        if self.config.nulls == Nulls::Fail {
            match self.count(format!("{column} IS NULL"), bindings)? {
                0 => {}
                count => return Err(cursor::nulls(&self.config.column, count)),
            }
        }
        let (kind, told) =
            if self.numbers { ("integer", "whole numbers") } else { ("text", "text") };
        match self.count(format!("typeof({column}) NOT IN ('null', '{kind}')"), bindings)? {
            0 => Ok(()),
            count => {
                Err(Error::contract(DOING, format!("not all values of its column are {told}"))
                    .with("column", &self.config.column)
                    .with("others", count)
                    .help("SQLite orders values by their kind first; store all of them alike."))
            }
        }
    }

    fn count(&self, condition: String, bindings: &Bindings) -> Result<i64> {
        let sql = sql::select_where(self.source, Some("count(*)"), &[condition]);
        let mut statement = bound(self.database, &sql, bindings)?;
        let mut rows = statement.raw_query();
        let row = rows.next().map_err(|error| classify(READ, error))?;
        row.map_or(Ok(0), |row| row.get(0)).map_err(|error| classify(READ, error))
    }

    /// The greatest value of the rows that meet a condition.
    fn greatest(&self, condition: &str, bindings: &Bindings) -> Result<Option<String>> {
        let column = &self.column;
        let select = sql::select_where(self.source, Some(column), &[condition.to_owned()]);
        let sql = format!("{select} ORDER BY {column} DESC LIMIT 1");
        let mut statement = bound(self.database, &sql, bindings)?;
        let mut rows = statement.raw_query();
        let Some(row) = rows.next().map_err(|error| classify(READ, error))? else {
            return Ok(None);
        };
        match row.get_ref(0).map_err(|error| classify(READ, error))? {
            ValueRef::Integer(number) => Ok(Some(number.to_string())),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(Error::contract(DOING, "its greatest value is no Unicode text")
                    .with("column", &self.config.column)),
            },
            // What is of another kind was refused before.
            _ => Ok(None),
        }
    }

    /// A value out of its text.
    fn value(&self, text: &str) -> Result<Value> {
        if !self.numbers {
            return Ok(Value::String(text.to_owned()));
        }
        text.parse().map(Value::Int64).map_err(|_| {
            Error::permanent(DOING, "a bound is no whole number, as its column's values are")
                .with("column", &self.config.column)
                .with("bound", text)
                .help("Correct `start`, or set the cursor to a whole number.")
        })
    }

    /// So long before a value: a text below those of all times after that. Up to a second more is
    /// read, so that it does not matter how they write their fraction.
    fn back(&self, from: &str, length: Duration) -> Result<String> {
        let unclear = || {
            Error::permanent(DOING, "`lookback` cannot be taken off where the cursor stands")
                .with("column", &self.config.column)
                .with("value", from)
                .help("Store times as 2026-11-19 05:00:00, days as 2026-11-19.")
        };
        let civil = from.strip_suffix('Z').unwrap_or(from);
        let at: DateTime = civil.parse().map_err(|_| unclear())?;
        let back = at.checked_sub(length).map_err(|_| unclear())?;
        let between = match from.as_bytes().get(10) {
            None => return Ok(back.date().to_string()),
            Some(b'T') => "T",
            Some(_) => " ",
        };
        Ok(back.strftime(&format!("%Y-%m-%d{between}%H:%M:%S")).to_string())
    }
}
