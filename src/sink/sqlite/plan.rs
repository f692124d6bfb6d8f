//! How rows fit a table of SQLite: what is known of the table, which column takes which, and how
//! values are stored.
//!
//! SQLite converts what is stored by the column's *affinity* (SQLite manual, "Datatypes In SQLite",
//! section 3), so a column takes only what its affinity leaves as it is.

use arrow::array::Array;
use rusqlite::types::Value as Stored;
use rusqlite::{OptionalExtension, Statement, Transaction};

use super::failed;
use crate::connect::sql::{quote, quote_all};
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::format::values::Values;
use crate::job::param::Value;
use crate::sink::table::{self, Fields, Target, Term, misfit};

/// What SQLite makes of values in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Affinity {
    Integer,
    Numeric,
    Real,
    Text,
    /// Everything stays as it is.
    Any,
    /// Everything but bytes is refused: BLOB in a STRICT table.
    Bytes,
}

impl Affinity {
    /// The rules of the manual's section 3.1, and those of STRICT tables.
    fn of(declared: &str, strict: bool) -> Affinity {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if strict && declared == "ANY" {
            Affinity::Any
        } else if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if has(&["BLOB"]) {
            if strict { Affinity::Bytes } else { Affinity::Any }
        } else if declared.is_empty() {
            Affinity::Any
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }

    /// Whether every value of `kind` stays as it was bound.
    fn holds(self, kind: &FieldType) -> bool {
        use Affinity::{Any, Bytes, Integer, Numeric, Real, Text};
        match kind {
            FieldType::Bool | FieldType::Int16 | FieldType::Int32 | FieldType::Int64 => {
                matches!(self, Integer | Numeric | Any)
            }
            FieldType::Float32 | FieldType::Float64 => matches!(self, Real | Any),
            FieldType::Decimal(..) => matches!(self, Text | Any) || self.whole(kind),
            FieldType::String => matches!(self, Text | Any),
            FieldType::Bytes => matches!(self, Bytes | Any),
            // No such text looks like a number, which alone NUMERIC would convert.
            FieldType::Date | FieldType::Time | FieldType::Timestamp | FieldType::Instant => {
                matches!(self, Text | Any | Numeric)
            }
        }
    }

    /// Whether a decimal is stored as a whole number.
    fn whole(self, kind: &FieldType) -> bool {
        matches!(self, Affinity::Integer | Affinity::Numeric)
            && matches!(kind, FieldType::Decimal(..=18, 0))
    }
}

/// The type that `CREATE TABLE` gives a column for values of `kind`.
pub(super) fn sql_type(kind: &FieldType) -> String {
    match kind {
        FieldType::Bool | FieldType::Int16 | FieldType::Int32 | FieldType::Int64 => "INTEGER",
        FieldType::Float32 | FieldType::Float64 => "REAL",
        FieldType::Bytes => "BLOB",
        _ => "TEXT",
    }
    .to_owned()
}

#[cfg(test)]
#[test]
fn the_page_of_types_says_what_is_made() {
    for row in crate::format::types::page::rows("Column types") {
        let kind = FieldType::parse(row[0][0]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(sql_type(&kind), row[3][0], "{kind}");
    }
}

/// A column of the target.
pub(super) struct Column {
    name: String,
    declared: String,
    affinity: Affinity,
    required: bool,
    generated: bool,
    /// The table's row number under this name.
    rowid: bool,
}

impl table::Column for Column {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_required(&self) -> bool {
        self.required
    }

    fn is_generated(&self) -> bool {
        self.generated
    }

    fn takes(&self, kind: &FieldType, _: &Target) -> Result<()> {
        if self.affinity.holds(kind) {
            return Ok(());
        }
        let declared = &self.declared;
        Err(misfit(
            &self.name,
            format!("a column declared {declared} does not keep every {kind} as it is"),
        )
        .help(format!(
            "Declare the table's column {}, or cast in the query or the transform.",
            sql_type(kind)
        )))
    }
}

/// The columns of `table`, or `None` where there is no such table.
pub(super) fn columns(tx: &Transaction<'_>, table: &str) -> Result<Option<Vec<Column>>> {
    let doing = "find the table";
    let found: Option<(String, bool, bool)> = tx
        .query_row(
            "SELECT type, strict, wr FROM pragma_table_list
             WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
            [table],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(|error| failed(doing, error))?;
    let Some((kind, strict, without_rowid)) = found else { return Ok(None) };
    if kind != "table" {
        return Err(Error::permanent(doing, format!("this is a {kind}, no ordinary table"))
            .with("table", table)
            .help("Name an ordinary table."));
    }
    let mut statement = tx
        .prepare(
            "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden,
                    sum(pk > 0) OVER () FROM pragma_table_xinfo(?1)",
        )
        .map_err(|error| failed(doing, error))?;
    let columns = statement
        .query_map([table], |row| {
            let declared: String = row.get(1)?;
            let (not_null, default): (bool, bool) = (row.get(2)?, row.get(3)?);
            let (key, hidden, keys): (i64, i64, i64) = (row.get(4)?, row.get(5)?, row.get(6)?);
            let rowid =
                !without_rowid && key == 1 && keys == 1 && declared.eq_ignore_ascii_case("INTEGER");
            Ok(Column {
                name: row.get(0)?,
                affinity: Affinity::of(&declared, strict),
                declared,
                required: not_null && !default && !rowid,
                generated: hidden != 0,
                rowid,
            })
        })
        .and_then(Iterator::collect)
        .map_err(|error| failed(doing, error))?;
    Ok(Some(columns))
}

/// The terms of a unique index over exactly `key`, as `ON CONFLICT` names them; `None` where there
/// is no such index.
pub(super) fn unique_index(
    tx: &Transaction<'_>,
    table: &str,
    columns: &[Column],
    key: &[String],
) -> Result<Option<Vec<String>>> {
    let is_key = |names: &[&str]| {
        names.len() == key.len()
            && key.iter().all(|part| names.iter().any(|name| name.eq_ignore_ascii_case(part)))
    };
    if let Some(rowid) = columns.iter().find(|column| column.rowid)
        && is_key(&[&rowid.name])
    {
        return Ok(Some(vec![quote(&rowid.name)]));
    }
    let read = || {
        let mut statement = tx.prepare(
            "SELECT i.name, c.name, c.coll FROM pragma_index_list(?1) i, pragma_index_xinfo(i.name) c
             WHERE i.\"unique\" AND NOT i.partial AND c.key ORDER BY i.name, c.seqno",
        )?;
        let terms = statement.query_map([table], |row| {
            Ok((row.get(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default(), row.get(2)?))
        })?;
        terms.collect::<Result<Vec<(String, String, String)>, _>>()
    };
    let terms = read().map_err(|error| failed("find the table's indexes", error))?;
    for index in terms.chunk_by(|one, next| one.0 == next.0) {
        let names: Vec<&str> = index.iter().map(|(_, column, _)| column.as_str()).collect();
        if is_key(&names) {
            // Without its collation, ON CONFLICT would not find the index.
            let term = |(_, column, collation): &(String, String, String)| {
                format!("{} COLLATE {}", quote(column), quote(collation))
            };
            return Ok(Some(index.iter().map(term).collect()));
        }
    }
    Ok(None)
}

/// One column of the rows, and how it is stored.
#[derive(Clone)]
pub(super) struct Pair {
    /// The name that the rows give it.
    pub name: String,
    kind: FieldType,
    whole: bool,
}

impl Pair {
    /// The column of a staging table: its name, and what tells [`staged`] its type. BLOB in that
    /// keeps values as they are bound, and so does INT, which SQLite sees before it in the names of
    /// whole numbers.
    pub fn staged(&self) -> String {
        format!("{} {}", quote(&self.name), quote(&format!("{STAGED}{}", self.kind)))
    }
}

/// What the types of staged columns begin with.
const STAGED: &str = "BLOB ";

/// Names and types of what is staged in the table `stage`; none where there is no such table.
pub(super) fn staged(tx: &Transaction<'_>, stage: &str) -> Result<Fields> {
    let doing = "find the staged rows";
    let mut statement = tx
        .prepare("SELECT name, type FROM pragma_table_info(?1)")
        .map_err(|error| failed(doing, error))?;
    let rows: Vec<(String, String)> = statement
        .query_map([stage], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(|error| failed(doing, error))?;
    rows.into_iter()
        .map(|(name, kind)| Ok((name, FieldType::parse(kind.trim_start_matches(STAGED))?)))
        .collect()
}

/// Finds the column that takes each of `fields` (the case of names does not matter, as everywhere
/// in SQLite), as [`Target::pair`].
pub(super) fn pair(
    target: &Target,
    columns: &[Column],
    fields: &[(String, FieldType)],
) -> Result<Vec<Pair>> {
    let pairs = target.pair(columns, fields)?.into_iter().zip(fields);
    Ok(pairs
        .map(|(column, (name, kind))| Pair {
            name: name.clone(),
            kind: kind.clone(),
            // A column that is to be added keeps decimals as text.
            whole: column.is_some_and(|column| column.affinity.whole(kind)),
        })
        .collect())
}

/// The statement that adds the rows of `stage` to the table, but for those that remove their key.
/// `terms` are those of the unique index, for an upsert.
pub(super) fn merge(target: &Target, stage: &str, fields: &Fields, terms: &[String]) -> String {
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let list = quote_all(&names);
    // Without WHERE, SQLite would take ON CONFLICT for a join's ON.
    format!(
        "INSERT INTO {} ({list}) SELECT {list} FROM {} WHERE ({}) IS NOT TRUE{}",
        target.sql(),
        quote(stage),
        target.deletes(),
        target.on_conflict(&terms.join(", "), &names)
    )
}

/// A condition over rows of the table: that a staged row removes their key.
pub(super) fn removed(target: &Target, stage: &str, columns: &[Column]) -> String {
    let key =
        quote_all(columns.iter().map(|column| &column.name).filter(|name| target.has_key(name)));
    format!("({key}) IN (SELECT {key} FROM {stage} WHERE {})", target.deletes())
}

/// A condition that rows of the span meet, with the values of its parameters. Staged rows and those
/// of the table hold the same.
pub(super) fn within(terms: &[Term]) -> Result<(String, Vec<Stored>)> {
    let mut conditions = vec!["true".to_owned()];
    let mut values = Vec::with_capacity(terms.len());
    for (index, term) in terms.iter().enumerate() {
        conditions.push(format!("{} {} ?{}", quote(&term.column), term.operator, index + 1));
        values.push(stored(term)?);
    }
    Ok((conditions.join(" AND "), values))
}

/// The value that a column is compared with, as [`bind`] stores it.
fn stored(term: &Term) -> Result<Stored> {
    let micros = |at: &jiff::Timestamp, zone| moment(at.as_microsecond(), zone);
    let text = match &term.value {
        Value::Int64(number) => return Ok(Stored::Integer(*number)),
        Value::Bool(flag) => return Ok(Stored::Integer(i64::from(*flag))),
        Value::String(text) => Some(text.clone()),
        Value::Date(day) => (day.year() >= 0).then(|| day.to_string()),
        Value::Timestamp(at) if term.kind == FieldType::Timestamp => micros(at, ""),
        Value::Timestamp(at) => micros(at, "Z"),
    };
    text.map(Stored::Text).ok_or_else(|| misfit(&term.column, YEAR))
}

/// A condition that SQLite can prepare where the one for deleted rows can be read, over rows of
/// `fields`.
pub(super) fn condition(target: &Target, fields: &[(String, FieldType)]) -> String {
    let nulls: Vec<String> =
        fields.iter().map(|(name, _)| format!("NULL AS {}", quote(name))).collect();
    format!("SELECT 1 FROM (SELECT {}) AS staged WHERE {}", nulls.join(", "), target.deletes())
}

/// Binds the value in `row` to parameter `index`, as it is to be stored: decimals as text with all
/// their digits (whole ones as numbers where the column has those), dates and times as SQLite
/// writes them, with microseconds, instants in UTC with a Z.
pub(super) fn bind(
    statement: &mut Statement<'_>,
    index: usize,
    pair: &Pair,
    values: &Values<'_>,
    row: usize,
) -> Result<()> {
    let refused = |why: &str| {
        Error::contract("write rows", why)
            .with("column", &pair.name)
            .help("Refuse such values in the contract, or convert them in the transform.")
    };
    if let Some(why) = unfit(values, row) {
        return Err(refused(why));
    }
    let bound = match values {
        Values::Bool(a) if a.is_valid(row) => statement.raw_bind_parameter(index, a.value(row)),
        Values::Int16(a) if a.is_valid(row) => statement.raw_bind_parameter(index, a.value(row)),
        Values::Int32(a) if a.is_valid(row) => statement.raw_bind_parameter(index, a.value(row)),
        Values::Int64(a) if a.is_valid(row) => statement.raw_bind_parameter(index, a.value(row)),
        Values::Float32(a) if a.is_valid(row) => {
            statement.raw_bind_parameter(index, f64::from(a.value(row)))
        }
        Values::Float64(a) if a.is_valid(row) => statement.raw_bind_parameter(index, a.value(row)),
        Values::Decimal(a, _) if a.is_valid(row) && pair.whole => {
            let whole = i64::try_from(a.value(row))
                .map_err(|_| refused("a number has more digits than its type"))?;
            statement.raw_bind_parameter(index, whole)
        }
        Values::Decimal(a, _) if a.is_valid(row) => {
            statement.raw_bind_parameter(index, a.value_as_string(row))
        }
        Values::Wide(a, _) if a.is_valid(row) => {
            statement.raw_bind_parameter(index, a.value_as_string(row))
        }
        Values::String(a) if a.is_valid(row) => statement.raw_bind_parameter(index, a.value(row)),
        Values::Bytes(a) if a.is_valid(row) => statement.raw_bind_parameter(index, a.value(row)),
        Values::Date(a) if a.is_valid(row) => {
            let day = date(a.value(row).into()).ok_or_else(|| refused(YEAR))?;
            statement.raw_bind_parameter(index, day)
        }
        Values::Time(a) if a.is_valid(row) => {
            statement.raw_bind_parameter(index, time(a.value(row)))
        }
        Values::Timestamp(a) | Values::Instant(a) if a.is_valid(row) => {
            let zone = if matches!(values, Values::Instant(_)) { "Z" } else { "" };
            let text = moment(a.value(row), zone).ok_or_else(|| refused(YEAR))?;
            statement.raw_bind_parameter(index, text)
        }
        _ => statement.raw_bind_parameter(index, rusqlite::types::Null),
    };
    bound.map_err(|error| failed("write rows", error))
}

/// Why SQLite cannot hold the value in `row`, if it cannot.
pub(super) fn unfit(values: &Values<'_>, row: usize) -> Option<&'static str> {
    if values.is_null(row) {
        return None;
    }
    let days = |days: i64| (!DAYS.contains(&days)).then_some(YEAR);
    match values {
        Values::Float32(a) => a.value(row).is_nan().then_some(NAN),
        Values::Float64(a) => a.value(row).is_nan().then_some(NAN),
        Values::Date(a) => days(a.value(row).into()),
        Values::Time(a) => {
            let inside = (0..=MICROS_A_DAY).contains(&a.value(row));
            (!inside).then_some("a time of day is outside the day")
        }
        Values::Timestamp(a) | Values::Instant(a) => days(a.value(row).div_euclid(MICROS_A_DAY)),
        _ => None,
    }
}

const NAN: &str = "a value is NaN, which SQLite would turn into NULL";
/// From the year 0 to the end of 9999, counted from 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;
/// What is told of a year that SQLite cannot write.
const YEAR: &str = "a date is outside the years 0 to 9999";
const MICROS_A_DAY: i64 = 86_400_000_000;

/// `2026-11-19`, of a day counted from 1970.
fn date(days: i64) -> Option<String> {
    let span = jiff::Span::new().try_days(days).ok()?;
    let date = jiff::civil::date(1970, 1, 1).checked_add(span).ok()?;
    (date.year() >= 0).then(|| format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()))
}

/// `2026-11-19 05:00:00.000000`, of microseconds since 1970, with `zone` behind it.
fn moment(micros: i64, zone: &str) -> Option<String> {
    let day = date(micros.div_euclid(MICROS_A_DAY))?;
    Some(format!("{day} {}{zone}", time(micros.rem_euclid(MICROS_A_DAY))))
}

/// `05:00:00.000000`, of microseconds since midnight.
fn time(micros: i64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}")
}
