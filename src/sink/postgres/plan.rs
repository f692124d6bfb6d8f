//! How rows fit a table of PostgreSQL: what is known of the table, which column takes which, and
//! the statements that move staged rows into it.

use tokio_postgres::Transaction;

use super::failed;
use crate::connect::postgres::literal;
use crate::connect::sql::{quote, quote_all};
use crate::error::Result;
use crate::format::{FieldType, pgcopy};
use crate::sink::Mode;
use crate::sink::table::{self, Target, Term, misfit};

/// A table of the target, as its catalogue describes it.
pub(super) struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
}

impl Table {
    /// Schema and name, quoted for SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// A column of a table.
pub(super) struct Column {
    pub name: String,
    /// Its type, as DDL writes it.
    sql: String,
    /// The name of the built-in type below it, or of none.
    base: String,
    typmod: i32,
    is_enum: bool,
    /// citext of the extension of that name.
    is_citext: bool,
    is_domain: bool,
    /// A row must bring a value.
    required: bool,
    generated: bool,
    identity_always: bool,
}

/// The columns of the table `oid`, in their order.
pub(super) async fn columns(tx: &Transaction<'_>, oid: u32) -> Result<Vec<Column>> {
    let rows = tx
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
                    CASE WHEN b.typnamespace = 'pg_catalog'::regnamespace
                         THEN b.typname::text ELSE '' END,
                    CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END,
                    b.typtype = 'e', b.typname = 'citext', t.typtype = 'd',
                    (a.attnotnull OR t.typnotnull) AND NOT a.atthasdef
                        AND t.typdefault IS NULL AND a.attidentity = '',
                    a.attgenerated <> '', a.attidentity = 'a'
             FROM pg_attribute a
             JOIN pg_type t ON t.oid = a.atttypid
             JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
             ORDER BY a.attnum",
            &[&oid],
        )
        .await
        .map_err(|error| failed("read the table's columns", error))?;
    rows.iter()
        .map(|row| {
            Ok(Column {
                name: row.try_get(0)?,
                sql: row.try_get(1)?,
                base: row.try_get(2)?,
                typmod: row.try_get(3)?,
                is_enum: row.try_get(4)?,
                is_citext: row.try_get(5)?,
                is_domain: row.try_get(6)?,
                required: row.try_get(7)?,
                generated: row.try_get(8)?,
                identity_always: row.try_get(9)?,
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| failed("read the table's columns", error))
}

impl Column {
    /// The type of values that this column of a staging table was made for.
    pub fn staged(&self) -> Option<FieldType> {
        Some(match self.base.as_str() {
            "bool" => FieldType::Bool,
            "int2" => FieldType::Int16,
            "int4" => FieldType::Int32,
            "int8" => FieldType::Int64,
            "float4" => FieldType::Float32,
            "float8" => FieldType::Float64,
            "numeric" => {
                let (precision, scale) = self.numeric()?;
                FieldType::Decimal(u8::try_from(precision).ok()?, i8::try_from(scale).ok()?)
            }
            "text" => FieldType::String,
            "bytea" => FieldType::Bytes,
            "date" => FieldType::Date,
            "time" => FieldType::Time,
            "timestamp" => FieldType::Timestamp,
            "timestamptz" => FieldType::Instant,
            _ => return None,
        })
    }

    /// Precision and scale of a numeric that has them (`numerictypmodin` of PostgreSQL's
    /// `numeric.c`: 4 + precision in the upper 16 bits, scale in the lower 11, signed).
    fn numeric(&self) -> Option<(i32, i32)> {
        let packed = self.typmod.checked_sub(4).filter(|packed| *packed >= 0)?;
        Some(((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024))
    }

    /// The type that a value is compared as: without a limit, to which a cast would cut it, and
    /// without the rules of a domain.
    fn compared(&self) -> String {
        match self.base.as_str() {
            "" => self.sql.clone(),
            base => format!("pg_catalog.{}", quote(base)),
        }
    }

    /// A condition that finds staged values which the column would cut, round or guess at, where it
    /// could: an explicit cast cuts in silence, and an assignment cuts blanks.
    fn changes(&self, kind: &FieldType) -> Option<Changed> {
        let staged = quote(&self.name);
        let (condition, what, help) = match (kind, self.base.as_str()) {
            (FieldType::Decimal(..), "money") => (
                format!("{staged}::money::numeric <> {staged}"),
                "values have more digits than the server's currency",
                "Make it a column of type numeric, or refuse or round such values before.",
            ),
            (FieldType::String, "varchar" | "bpchar") if self.typmod > 4 => {
                (format!("char_length({staged}) > {}", self.typmod - 4), TOO_LONG, SHORTEN)
            }
            (FieldType::String, "bit" | "varbit") => {
                let bits = match (self.base.as_str(), self.typmod) {
                    ("bit", most) => format!("{{{}}}", most.max(1)),
                    (_, most @ 1..) => format!("{{0,{most}}}"),
                    _ => "*".to_owned(),
                };
                (
                    format!("{staged} !~ '^[01]{bits}$'"),
                    "texts are not as many bits as their column has",
                    "Refuse such texts before, or make it a column of type bit varying.",
                )
            }
            (FieldType::String, base) => match written(base) {
                Some(pattern) => {
                    (format!("{staged} !~ '{pattern}'"), "texts are not in ISO 8601", ISO)
                }
                None if self.reads_any() => return None,
                None => (
                    format!("format('%s', {staged}::{}) <> {staged}", self.sql),
                    "texts are not as PostgreSQL prints the values of their column's type",
                    "Write them so, as `SELECT value::text` shows; or make it a column of type text.",
                ),
            },
            _ => return None,
        };
        Some(Changed { condition, what, help })
    }

    /// Whether the column's type takes each text as it is, or refuses it.
    fn reads_any(&self) -> bool {
        let base = self.base.as_str();
        matches!(base, "text" | "varchar" | "bpchar" | "uuid" | "json" | "jsonb" | "numeric")
            || self.is_enum
            || self.is_citext
    }

    /// Whether texts go into a column of a type that is none, as far as [`Column::changes`] finds nothing.
    fn takes_text(&self, micros: bool) -> bool {
        match self.base.as_str() {
            "time" | "timestamp" | "timestamptz" | "timetz" => micros,
            "numeric" => self.typmod < 0,
            // What has a counterpart of its own comes as that.
            "bool" | "int2" | "int4" | "int8" | "float4" | "float8" | "bytea" | "oid" | "money" => {
                false
            }
            _ => true,
        }
    }

    /// Whether every value of `kind` arrives exactly. Texts too long for the column, and texts
    /// that are no value of its type, are found when the rows are there.
    fn holds(&self, kind: &FieldType) -> bool {
        let base = self.base.as_str();
        let micros = self.typmod < 0 || self.typmod >= 6;
        let digits = |whole: i32, fraction: i32| match self.numeric() {
            Some((precision, scale)) => precision - scale >= whole && scale >= fraction,
            None => self.typmod < 0,
        };
        match (kind, base) {
            (FieldType::Bool, "bool")
            | (FieldType::Int16, "int2" | "int4" | "int8" | "float4" | "float8")
            | (FieldType::Int32, "int4" | "int8" | "float8")
            | (FieldType::Int64, "int8")
            | (FieldType::Float32, "float4" | "float8")
            | (FieldType::Float64, "float8")
            | (FieldType::String, "text" | "varchar" | "bpchar" | "uuid" | "json" | "jsonb")
            | (FieldType::Bytes, "bytea")
            | (FieldType::Date, "date") => true,
            (FieldType::Int16, "numeric") => digits(5, 0),
            (FieldType::Int32, "numeric") => digits(10, 0),
            (FieldType::Int64, "numeric") => digits(19, 0),
            (FieldType::Decimal(p, s), "numeric") => {
                digits(i32::from(*p) - i32::from(*s), (*s).into())
            }
            (FieldType::Decimal(_, s), "money") => *s <= 3,
            (FieldType::Int64, "oid") => true,
            (FieldType::Decimal(p, 0), "int2") => *p <= 4,
            (FieldType::Decimal(p, 0), "int4") => *p <= 9,
            (FieldType::Decimal(p, 0), "int8") => *p <= 18,
            (FieldType::Time, "time")
            | (FieldType::Timestamp, "timestamp")
            | (FieldType::Instant, "timestamptz") => micros,
            (FieldType::String, _) => self.takes_text(micros),
            _ => false,
        }
    }
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

    fn takes(&self, kind: &FieldType, target: &Target) -> Result<()> {
        if self.identity_always && target.how.mode == Mode::Upsert && !target.has_key(&self.name) {
            return Err(misfit(
                &self.name,
                "the column is GENERATED ALWAYS AS IDENTITY and cannot be updated",
            )
            .help("Leave it out of the rows, or make it part of the primary key."));
        }
        if !self.holds(kind) {
            return Err(misfit(
                &self.name,
                format!("a column of type {} does not hold every {kind} exactly", self.sql),
            )
            .help(format!(
                "Give the table's column the type {}, or cast in the query or the transform.",
                pgcopy::sql_type(kind)
            )));
        }
        Ok(())
    }
}

/// Staged values that their column would change.
pub(super) struct Changed {
    /// Finds them.
    pub condition: String,
    /// What is told of them, behind their number.
    pub what: &'static str,
    pub help: &'static str,
}

const TOO_LONG: &str = "texts are too long for their column";
const SHORTEN: &str = "Widen the column, or refuse or shorten such texts before.";
const ISO: &str = "Write dates like 2026-11-19, times like 05:06:07.000250, and an offset where the \
                   column has a zone.";

/// A regular expression of the server for texts that a column of dates or times takes as they are: in
/// another order of day and month it would guess, an offset that it has no place for it would drop,
/// for one that is missing it would take its own, and a seventh digit it would round.
fn written(base: &str) -> Option<String> {
    const DAY: &str = "[0-9]{4,}-[0-9]{2}-[0-9]{2}";
    const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?";
    const ZONE: &str = "(Z|[+-][0-9]{2}(:[0-9]{2}){0,2}|[+-][0-9]{4})";
    Some(match base {
        "date" => format!("^(-?infinity|{DAY}( BC)?)$"),
        "time" => format!("^({TIME}|24:00(:00)?)$"),
        "timetz" => format!("^({TIME}|24:00(:00)?){ZONE}$"),
        "timestamp" => format!("^(-?infinity|{DAY}[ T]{TIME}( BC)?)$"),
        "timestamptz" => format!("^(-?infinity|{DAY}[ T]{TIME}{ZONE}( BC)?)$"),
        _ => return None,
    })
}

/// How values are to be printed and read where a text is held against what it has become.
pub(super) const PRINTING: &str =
    "SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres';
     SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL array_nulls = on";

/// One column of the rows, with the column of the table that takes it.
pub(super) struct Pair<'a> {
    pub kind: FieldType,
    pub column: &'a Column,
}

/// Finds the column that takes each of `fields`, as [`Target::pair`], of a table that lacks none.
pub(super) fn pair<'a>(
    target: &Target,
    columns: &'a [Column],
    fields: &[(String, FieldType)],
) -> Result<Vec<Pair<'a>>> {
    let pairs = target.pair(columns, fields)?.into_iter().zip(fields);
    pairs
        .map(|(column, (name, kind))| match column {
            Some(column) => Ok(Pair { kind: kind.clone(), column }),
            None => Err(misfit(name, "the table has no such column")),
        })
        .collect()
}

impl Pair<'_> {
    /// The staged value as one of the table's type.
    pub fn cast(&self) -> String {
        format!("{}::{}", quote(&self.column.name), self.column.sql)
    }

    /// What the column would change of staged values, if it could.
    pub fn changes(&self) -> Option<Changed> {
        self.column.changes(&self.kind)
    }

    /// Whether a staged value may turn out to be none of the column's type.
    pub fn may_fail(&self) -> bool {
        self.column.is_domain
            || self.kind == FieldType::String && self.column.base != "text"
            || matches!(self.column.base.as_str(), "oid" | "money")
    }
}

/// The names of columns, for SQL.
pub(super) fn names<'a>(pairs: impl IntoIterator<Item = &'a Pair<'a>>) -> String {
    quote_all(pairs.into_iter().map(|pair| &pair.column.name))
}

/// A condition over staged rows: that they meet all `terms`.
pub(super) fn staged_within(terms: &[Term]) -> Result<String> {
    all(terms, |_| None)
}

/// The same over the rows of the table.
pub(super) fn within(terms: &[Term], pairs: &[Pair<'_>]) -> Result<String> {
    all(terms, |term| pairs.iter().find(|pair| pair.column.name == term.column).map(|p| p.column))
}

fn all<'a>(terms: &[Term], column: impl Fn(&Term) -> Option<&'a Column>) -> Result<String> {
    let mut conditions = Vec::with_capacity(terms.len());
    for term in terms {
        let mut value = literal(&term.value)?;
        if term.kind == FieldType::Timestamp {
            value = format!("({value} AT TIME ZONE 'UTC')");
        }
        // A text is compared as the column compares it, and may be an enum's or a uuid.
        if let Some(column) = column(term).filter(|_| term.kind == FieldType::String) {
            value = format!("{value}::{}", column.compared());
        }
        conditions.push(format!("{} {} {value}", quote(&term.column), term.operator));
    }
    Ok(if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") })
}

/// A statement that the server can prepare where the condition for deleted rows is one, over rows
/// of `fields`.
pub(super) fn condition(target: &Target, fields: &[(String, FieldType)]) -> String {
    let nulls: Vec<String> = fields
        .iter()
        .map(|(name, kind)| format!("NULL::{} AS {}", pgcopy::sql_type(kind), quote(name)))
        .collect();
    format!("SELECT FROM (SELECT {}) AS staged WHERE {}", nulls.join(", "), target.deletes())
}

/// The statement that adds the rows of `stage` to `table`, but for those that remove their key.
pub(super) fn merge(target: &Target, table: &Table, stage: &Table, pairs: &[Pair<'_>]) -> String {
    let names: Vec<&str> = pairs.iter().map(|pair| pair.column.name.as_str()).collect();
    let casts: Vec<String> = pairs.iter().map(Pair::cast).collect();
    let overriding = if pairs.iter().any(|pair| pair.column.identity_always) {
        " OVERRIDING SYSTEM VALUE"
    } else {
        ""
    };
    format!(
        "INSERT INTO {} ({}){overriding} SELECT {} FROM {} WHERE ({}) IS NOT TRUE{}",
        table.sql(),
        quote_all(&names),
        casts.join(", "),
        stage.sql(),
        target.deletes(),
        target.on_conflict(&quote_all(&target.how.key), &names)
    )
}
