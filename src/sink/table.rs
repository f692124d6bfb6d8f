//! What the sinks that write to tables have in common: which column takes which, what is known of
//! a run's fence, and what is told of both.

use arrow::datatypes::Schema;

use super::{Begun, Holder, Mode, Staged};
use crate::connect::Connection;
use crate::connect::sql::{quote, quote_all};
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::job::RunId;
use crate::job::decision::Decision;
use crate::rows::Counts;

/// The table in which each target keeps what was committed there.
pub(super) const MARKER: &str = "longshore_deliveries";

/// The name and type of each column of the rows, in their order.
pub(super) type Fields = Vec<(String, FieldType)>;

/// In what the databases differ.
pub(super) struct Dialect {
    /// The name of a table as SQL text.
    pub quote: fn(&str) -> String,
    /// Whether two names are one column's.
    pub same: fn(&str, &str) -> bool,
    /// The type that DDL gives a column for such values.
    pub sql_type: fn(&FieldType) -> String,
}

/// A column of a target.
pub(super) trait Column {
    /// Its name.
    fn name(&self) -> &str;
    /// Whether a row must bring a value.
    fn is_required(&self) -> bool;
    /// Whether the table computes it.
    fn is_generated(&self) -> bool;
    /// Whether it takes every such value as it is: else an error of class `contract`.
    fn takes(&self, kind: &FieldType, target: &Target) -> Result<()>;
}

/// The table that a sink writes to, and how.
pub(super) struct Target {
    /// Where it is.
    pub connection: Connection,
    /// The table, as the definition has it.
    pub table: String,
    /// How rows meet those that are there.
    pub mode: Mode,
    /// The contract's primary key.
    pub key: Vec<String>,
    /// Connection and table: the name of what is written to.
    pub name: String,
    dialect: Dialect,
}

impl Target {
    /// `table` of `connection`. An upsert without a primary key is an error of class `config`.
    pub fn new(
        connection: &Connection,
        table: &str,
        mode: Mode,
        key: Vec<String>,
        dialect: Dialect,
    ) -> Result<Target> {
        if mode == Mode::Upsert && key.is_empty() {
            return Err(Error::config("write to the table", "an upsert needs a primary key")
                .help("Name its columns: primary-key = [\"id\"] in [contract]."));
        }
        let name = format!("{}/{table}", connection.name);
        let (connection, table) = (connection.clone(), table.to_owned());
        Ok(Target { connection, table, mode, key, name, dialect })
    }

    /// The table as SQL text.
    pub fn sql(&self) -> String {
        (self.dialect.quote)(&self.table)
    }

    fn has_key(&self, name: &str) -> bool {
        self.key.iter().any(|part| (self.dialect.same)(part, name))
    }

    /// The names and types of rows that are to be written. A type without a name in definitions, or
    /// two columns of one name, is a [`misfit`].
    pub fn fields(&self, schema: &Schema) -> Result<Fields> {
        let mut fields = Fields::with_capacity(schema.fields().len());
        for field in schema.fields() {
            if fields.iter().any(|(name, _)| (self.dialect.same)(name, field.name())) {
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

    /// The column of the table that takes each of `fields`, by name. What would lose anything, or
    /// leave a required column or one of an upsert's key empty, is a [`misfit`].
    pub fn pair<'a, C: Column>(
        &self,
        columns: &'a [C],
        fields: &[(String, FieldType)],
    ) -> Result<Vec<&'a C>> {
        let same = self.dialect.same;
        let mut pairs = Vec::with_capacity(fields.len());
        for (name, kind) in fields {
            let Some(column) = columns.iter().find(|column| same(column.name(), name)) else {
                return Err(misfit(name, "the table has no such column").help(format!(
                    "Add it to the table (ADD COLUMN {} {}), or leave it out of the rows.",
                    quote(name),
                    (self.dialect.sql_type)(kind)
                )));
            };
            if column.is_generated() {
                return Err(misfit(name, "the table computes this column itself")
                    .help("Leave it out of the rows."));
            }
            column.takes(kind, self)?;
            pairs.push(column);
        }
        let given = |name: &str| fields.iter().any(|(field, _)| same(field, name));
        if let Some(column) = columns.iter().find(|one| one.is_required() && !given(one.name())) {
            return Err(misfit(
                column.name(),
                "the table requires a value, and the rows have no such column",
            )
            .help("Add it to the rows, or give the table's column a default."));
        }
        if let Some(name) = self.key.iter().find(|name| self.mode == Mode::Upsert && !given(name)) {
            return Err(misfit(name, "the rows lack a column of the primary key")
                .help("Add it to the rows, or correct primary-key in [contract]."));
        }
        Ok(pairs)
    }

    /// How an upsert goes on after its INSERT of the columns `names`; nothing for other modes.
    /// `terms` are those of the unique index.
    pub fn on_conflict(&self, terms: &str, names: &[&str]) -> String {
        if self.mode != Mode::Upsert {
            return String::new();
        }
        let set: Vec<String> = names
            .iter()
            .filter(|name| !self.has_key(name))
            .map(|name| format!("{0} = excluded.{0}", quote(name)))
            .collect();
        if set.is_empty() {
            format!(" ON CONFLICT ({terms}) DO NOTHING")
        } else {
            format!(" ON CONFLICT ({terms}) DO UPDATE SET {}", set.join(", "))
        }
    }

    /// A condition that finds rows without a value in a key column.
    pub fn lacks_key(&self) -> String {
        let parts = self.key.iter().map(|name| format!("{} IS NULL", quote(name)));
        parts.collect::<Vec<_>>().join(" OR ")
    }

    /// `rows` without a value in a key column, and `keys` that come more than once, are errors of
    /// class `contract`.
    pub fn keys_hold(&self, rows: u64, keys: u64) -> Result<()> {
        let names = self.key.join(", ");
        let message = match (rows, keys) {
            (0, 0) => return Ok(()),
            (0, keys) => format!("{keys} values of the primary key ({names}) come more than once"),
            (rows, _) => format!("{rows} rows lack a value of the primary key ({names})"),
        };
        Err(Error::contract("merge the rows", message).with("table", &self.table).help(
            "Make the query give one row for each key, or correct primary-key in [contract].",
        ))
    }

    /// Whether the table took all rows that were staged, of so many columns. Rows of an upsert that
    /// are nothing but their key stay as they are, and do not count.
    pub fn took(&self, taken: u64, written: u64, columns: usize) -> Result<()> {
        let all_key = self.mode == Mode::Upsert && columns == self.key.len();
        if taken == written || all_key {
            return Ok(());
        }
        Err(self.refused(format!("it took {taken} of {written} rows")).help(
            "A trigger or a rule of the table keeps rows out. Remove it, or filter in the \
             transform.",
        ))
    }

    /// Whether the run's row has this fence or is committed, with which an attempt may go on. A
    /// higher fence there is an error.
    pub fn held(&self, marker: Option<Marker>, holder: &Holder) -> Result<Marker> {
        match marker {
            Some(marker) if marker.fence > holder.fence => Err(self.overtaken(holder)),
            Some(marker) if marker.decision.is_some() || marker.fence == holder.fence => Ok(marker),
            _ => Err(self.unknown()),
        }
    }

    /// What an attempt begins with, of the run's row with its fence raised.
    pub fn begun(&self, marker: Marker, holder: &Holder) -> Result<Begun> {
        if marker.fence > holder.fence {
            return Err(self.overtaken(holder));
        }
        Ok(marker.decision.map_or(Begun::Open, Begun::Committed))
    }

    /// What is there at the run's close, of its row with its fence raised.
    pub fn closed(&self, marker: Marker, holder: &Holder) -> Result<Option<Box<Decision>>> {
        if marker.decision.is_none() && marker.fence > holder.fence {
            return Err(self.overtaken(holder));
        }
        Ok(marker.decision)
    }

    fn overtaken(&self, holder: &Holder) -> Error {
        Error::fenced("write to the table", "a later attempt holds the run")
            .with("table", &self.table)
            .with("fence", holder.fence)
    }

    /// The error where the run has no row with this fence.
    pub fn unknown(&self) -> Error {
        Error::transient("check the fence", "the target does not know this fence")
            .with("table", &self.table)
            .help("The row of the run was removed; the next attempt makes it anew.")
    }

    /// The error where what was staged has gone.
    pub fn emptied(&self) -> Error {
        Error::transient("commit the rows", "what was staged is no longer there")
            .with("table", &self.table)
            .help(
                "The server crashed, or the staging table was emptied or removed; the next attempt \
                 stages again.",
            )
    }

    /// What the table, as it is, does not allow.
    pub fn refused(&self, message: impl Into<String>) -> Error {
        Error::permanent("write to the table", message).with("table", &self.table)
    }

    /// The error where there is no such table.
    pub fn missing(&self) -> Error {
        self.refused("there is no such table")
    }

    /// The same, with a statement that makes one for rows of `fields`.
    pub fn missing_for(&self, fields: &[(String, FieldType)]) -> Error {
        let kinds = fields.iter().map(|(name, kind)| (name, (self.dialect.sql_type)(kind)));
        let mut lines: Vec<String> =
            kinds.map(|(name, kind)| format!("{} {kind}", quote(name))).collect();
        if !self.key.is_empty() {
            lines.push(format!("PRIMARY KEY ({})", quote_all(&self.key)));
        }
        let create = format!("CREATE TABLE {} ({})", self.sql(), lines.join(", "));
        self.missing().help(format!("Create it, for instance so: {create};"))
    }

    /// The error where an upsert has no unique index. `on` is how one is made: `ON "t"`.
    pub fn no_index(&self, on: &str) -> Error {
        let key = quote_all(&self.key);
        self.refused(format!("it has no unique index over exactly ({key})"))
            .help(format!("Run: CREATE UNIQUE INDEX {on} ({key});"))
    }
}

/// The marker row of a run.
pub(super) struct Marker {
    pub fence: i64,
    pub decision: Option<Box<Decision>>,
}

impl Marker {
    /// Of the values that the row has.
    pub fn of(fence: i64, decision: Option<&str>) -> Result<Marker> {
        let decision = decision.map(serde_json::from_str).transpose().map_err(|cause| {
            Error::permanent("read the decision at the target", "it cannot be understood")
                .caused_by(cause)
                .help(format!("Somebody, or a newer Longshore, has written to {MARKER}."))
        })?;
        Ok(Marker { fence, decision })
    }
}

/// The decision as a marker row holds it.
pub(super) fn text_of(decision: &Decision) -> Result<String> {
    serde_json::to_string(decision).map_err(|cause| {
        Error::permanent("store the decision", "it cannot be written as JSON").caused_by(cause)
    })
}

/// An error of class `contract`: a column of the rows, or of the table, does not fit the other side.
pub(super) fn misfit(column: &str, message: impl Into<String>) -> Error {
    Error::contract("fit the rows to the table", message).with("column", column)
}

/// An error of class `contract`: the table itself refuses a row.
pub(super) fn row_refused(doing: &'static str, message: impl Into<String>) -> Error {
    Error::contract(doing, message).help("Refuse such rows in the contract, or correct the table.")
}

/// So many rows in a staging table.
pub(super) fn staged(written: u64) -> Staged {
    Staged { parts: Vec::new(), counts: Counts { written, ..Counts::default() } }
}

/// The name of a holder's staging table.
pub(super) fn stage_name(holder: &Holder) -> String {
    format!("{}{}", stage_prefix(holder.run), holder.fence)
}

/// What the names of a run's staging tables begin with; the fence follows. Twelve digits are the
/// random end of the run's name, and with the longest fence the name stays within the 63 bytes
/// that PostgreSQL allows.
pub(super) fn stage_prefix(run: RunId) -> String {
    let digits = run.0.simple().to_string();
    format!("longshore_stage_{}_", &digits[digits.len() - 12..])
}

/// Whether `table` is a staging table of this prefix, of `fence` or a lower one.
pub(super) fn staged_until(table: &str, prefix: &str, fence: i64) -> bool {
    table
        .strip_prefix(prefix)
        .and_then(|digits| digits.parse::<i64>().ok())
        .is_some_and(|staged| staged <= fence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_tables_are_known_by_run_and_fence() {
        let run = RunId::new();
        let prefix = stage_prefix(run);
        assert!(format!("{prefix}{}", i64::MAX).len() <= 63);
        assert!(staged_until(&format!("{prefix}2"), &prefix, 2));
        assert!(!staged_until(&format!("{prefix}3"), &prefix, 2));
        assert!(!staged_until(&format!("{prefix}2_mine"), &prefix, 2));
        assert!(!staged_until(&format!("{}2", stage_prefix(RunId::new())), &prefix, 2));
    }
}
