//! How rows fit a table of PostgreSQL: what is known of the table, which column takes which, and
//! the statements that move staged rows into it.

use arrow::datatypes::Schema;
use tokio_postgres::Transaction;

use super::failed;
use crate::connect::postgres::quote_ident;
use crate::error::Result;
use crate::format::{FieldType, pgcopy};
use crate::sink::Mode;
use crate::sink::table::{complete, misfit};

/// A table of the target, as its catalogue describes it.
pub(super) struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
}

impl Table {
    /// Schema and name, quoted for SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
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
                    b.typtype = 'e',
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
                required: row.try_get(5)?,
                generated: row.try_get(6)?,
                identity_always: row.try_get(7)?,
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

    /// How many characters a text may have, where the column sets a limit.
    fn characters(&self) -> Option<i32> {
        matches!(self.base.as_str(), "varchar" | "bpchar")
            .then(|| self.typmod - 4)
            .filter(|limit| *limit > 0)
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
            (FieldType::Decimal(p, 0), "int2") => *p <= 4,
            (FieldType::Decimal(p, 0), "int4") => *p <= 9,
            (FieldType::Decimal(p, 0), "int8") => *p <= 18,
            (FieldType::Time, "time")
            | (FieldType::Timestamp, "timestamp")
            | (FieldType::Instant, "timestamptz") => micros,
            (FieldType::String, _) => self.is_enum,
            _ => false,
        }
    }
}

/// One column of the rows, with the column of the table that takes it.
pub(super) struct Pair<'a> {
    pub kind: FieldType,
    pub column: &'a Column,
}

/// The names and types of rows that are to be written. A type without a name in definitions, or
/// two columns of one name, is an error of class `contract`.
pub(super) fn fields(schema: &Schema) -> Result<Vec<(String, FieldType)>> {
    let mut fields: Vec<(String, FieldType)> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if fields.iter().any(|(name, _)| name == field.name()) {
            return Err(misfit(field.name(), "two columns have one name")
                .help("Rename one of them in the query or the transform."));
        }
        let kind = FieldType::of_arrow(field.data_type()).ok_or_else(|| {
            misfit(
                field.name(),
                format!("values of type {} cannot be written to a table", field.data_type()),
            )
            .help("Convert the column in the query or the transform, or leave it out.")
        })?;
        fields.push((field.name().clone(), kind));
    }
    Ok(fields)
}

/// Finds the column that takes each of `fields`, by name. What would lose anything, or leave a
/// required column empty, is an error of class `contract` that names the column.
pub(super) fn pair<'a>(
    table: &'a [Column],
    fields: &[(String, FieldType)],
    mode: Mode,
    key: &[String],
) -> Result<Vec<Pair<'a>>> {
    let pairs = fields
        .iter()
        .map(|(name, kind)| {
            let Some(column) = table.iter().find(|column| column.name == *name) else {
                return Err(misfit(name, "the table has no such column").help(format!(
                    "Add it to the table (ADD COLUMN {} {}), or leave it out of the rows.",
                    quote_ident(name),
                    pgcopy::sql_type(kind)
                )));
            };
            if column.generated {
                return Err(misfit(name, "the table computes this column itself")
                    .help("Leave it out of the rows."));
            }
            if column.identity_always && mode == Mode::Upsert && !key.contains(name) {
                return Err(misfit(
                    name,
                    "the column is GENERATED ALWAYS AS IDENTITY and cannot be updated",
                )
                .help("Leave it out of the rows, or make it part of the primary key."));
            }
            if !column.holds(kind) {
                return Err(misfit(
                    name,
                    format!("a column of type {} does not hold every {kind} exactly", column.sql),
                )
                .help(format!(
                    "Give the table's column the type {}, or cast in the query or the transform.",
                    pgcopy::sql_type(kind)
                )));
            }
            Ok(Pair { kind: kind.clone(), column })
        })
        .collect::<Result<Vec<_>>>()?;
    let given = |name: &str| fields.iter().any(|(field, _)| field == name);
    let required = table.iter().filter(|column| column.required).map(|column| &*column.name);
    complete(required, mode, key, given)?;
    Ok(pairs)
}

/// A statement that makes a table for `fields`, as advice.
pub(super) fn create_table(table: &str, fields: &[(String, FieldType)], key: &[String]) -> String {
    let mut lines: Vec<String> = fields
        .iter()
        .map(|(name, kind)| format!("{} {}", quote_ident(name), pgcopy::sql_type(kind)))
        .collect();
    if !key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", list(key)));
    }
    format!("CREATE TABLE {table} ({})", lines.join(", "))
}

/// Names, quoted, with commas between them.
pub(super) fn list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| quote_ident(name.as_ref())).collect::<Vec<_>>().join(", ")
}

impl Pair<'_> {
    /// The staged value as one of the table's type.
    pub fn cast(&self) -> String {
        format!("{}::{}", quote_ident(&self.column.name), self.column.sql)
    }

    /// A condition that finds staged texts which the column would cut, where it could: an explicit
    /// cast cuts in silence, and an assignment cuts blanks.
    pub fn too_long(&self) -> Option<String> {
        let limit = self.column.characters()?;
        Some(format!("char_length({}) > {limit}", quote_ident(&self.column.name)))
    }

    /// Whether a staged value may turn out to be none of the column's type.
    pub fn may_fail(&self) -> bool {
        self.kind == FieldType::String && self.column.base != "text"
    }
}

/// The statement that adds the rows of `stage` to `table`.
pub(super) fn merge(
    table: &Table,
    stage: &Table,
    pairs: &[Pair<'_>],
    mode: Mode,
    key: &[String],
) -> String {
    let names: Vec<&str> = pairs.iter().map(|pair| pair.column.name.as_str()).collect();
    let casts: Vec<String> = pairs.iter().map(Pair::cast).collect();
    let overriding = if pairs.iter().any(|pair| pair.column.identity_always) {
        " OVERRIDING SYSTEM VALUE"
    } else {
        ""
    };
    let mut sql = format!(
        "INSERT INTO {} ({}){overriding} SELECT {} FROM {}",
        table.sql(),
        list(&names),
        casts.join(", "),
        stage.sql()
    );
    if mode == Mode::Upsert {
        let set: Vec<String> = names
            .iter()
            .filter(|name| !key.iter().any(|part| part == *name))
            .map(|name| format!("{0} = excluded.{0}", quote_ident(name)))
            .collect();
        sql.push_str(&format!(" ON CONFLICT ({}) DO ", list(key)));
        if set.is_empty() {
            sql.push_str("NOTHING");
        } else {
            sql.push_str(&format!("UPDATE SET {}", set.join(", ")));
        }
    }
    sql
}
