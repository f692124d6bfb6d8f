//! What the sinks that write to tables have in common: which column takes which, which rows give
//! way, what is known of a run's fence, and what is told of them.

mod how;
mod marker;
mod span;

use arrow::datatypes::Schema;

use super::{Holder, Mode, NewColumns, Staged};
use crate::connect::Connection;
use crate::connect::sql::{quote, quote_all};
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::job::RunId;
use crate::rows::Counts;

pub use how::Merge;
pub(super) use marker::{Marker, text_of};
pub use span::Span;
pub(super) use span::Term;

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
    /// How many bytes a name may have, where there is a limit.
    pub longest: Option<usize>,
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
    pub how: Merge,
    /// Connection and table: the name of what is written to.
    pub name: String,
    dialect: Dialect,
}

impl Target {
    /// `table` of `connection`. A mode without what it needs, and a name that the database would
    /// cut, are errors of class `config`.
    pub fn new(
        connection: &Connection,
        table: &str,
        how: Merge,
        dialect: Dialect,
    ) -> Result<Target> {
        let wrong = |message: &str| Error::config("write to the table", message);
        if how.mode == Mode::Upsert && how.key.is_empty() {
            return Err(wrong("an upsert needs a primary key")
                .help("Name its columns: primary-key = [\"id\"] in [contract]."));
        }
        if how.mode == Mode::ReplaceWindow && how.span.is_none() {
            return Err(wrong("nothing tells which rows are of the window")
                .help("Name the column: window-column = \"created_at\" in [sink]."));
        }
        if how.mode != Mode::Upsert && how.deleted.is_some() {
            return Err(wrong("only an upsert has a condition for deleted rows")
                .help("Leave out `deleted` in [sink], or set mode = \"upsert\"."));
        }
        if let Some(limit) = dialect.longest
            && let Some(long) = table.splitn(2, '.').find(|name| name.len() > limit)
        {
            return Err(wrong(&format!("a name has more than {limit} bytes"))
                .with("name", long)
                .help(
                    "The database would cut it. Write the table's name as the database has it.",
                ));
        }
        let name = format!("{}/{table}", connection.name);
        let (connection, table) = (connection.clone(), table.to_owned());
        Ok(Target { connection, table, how, name, dialect })
    }

    /// The table as SQL text.
    pub fn sql(&self) -> String {
        (self.dialect.quote)(&self.table)
    }

    /// Whether a column is part of the primary key.
    pub fn has_key(&self, name: &str) -> bool {
        self.how.key.iter().any(|part| (self.dialect.same)(part, name))
    }

    /// The names and types of rows that are to be written. A type without a name in definitions, two
    /// columns of one name, and a name that the database would cut are [`misfit`]s.
    pub fn fields(&self, schema: &Schema) -> Result<Fields> {
        let mut fields = Fields::with_capacity(schema.fields().len());
        for field in schema.fields() {
            if fields.iter().any(|(name, _)| (self.dialect.same)(name, field.name())) {
                return Err(misfit(field.name(), "two columns have one name")
                    .help("Rename one of them in the query or the transform."));
            }
            if let Some(limit) = self.dialect.longest.filter(|limit| field.name().len() > *limit) {
                let message = format!("its name has more than {limit} bytes, and would be cut");
                return Err(misfit(field.name(), message)
                    .help("Give it a shorter name in the query or the transform."));
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

    /// Those of `fields` that the table lacks and is to get.
    pub fn lacking<'f, C: Column>(
        &self,
        columns: &[C],
        fields: &'f [(String, FieldType)],
    ) -> Vec<&'f (String, FieldType)> {
        if self.how.new_columns == NewColumns::Fail {
            return Vec::new();
        }
        let there = |name: &str| columns.iter().any(|one| (self.dialect.same)(one.name(), name));
        fields.iter().filter(|(name, _)| !there(name)).collect()
    }

    /// The column of the table that takes each of `fields`, by name; `None` for those that
    /// [`Target::lacking`] tells. What would lose anything, or leave a required column or one of an
    /// upsert's key empty, or does not tell the window, is a [`misfit`].
    pub fn pair<'a, C: Column>(
        &self,
        columns: &'a [C],
        fields: &[(String, FieldType)],
    ) -> Result<Vec<Option<&'a C>>> {
        let same = self.dialect.same;
        let mut pairs = Vec::with_capacity(fields.len());
        for (name, kind) in fields {
            let Some(column) = columns.iter().find(|column| same(column.name(), name)) else {
                if self.how.new_columns == NewColumns::Add {
                    pairs.push(None);
                    continue;
                }
                return Err(misfit(name, "the table has no such column").help(format!(
                    "Add it to the table (ADD COLUMN {} {}), set new-columns = \"add\" in [sink], or \
                     leave it out of the rows.",
                    quote(name),
                    (self.dialect.sql_type)(kind)
                )));
            };
            if column.is_generated() {
                return Err(misfit(name, "the table computes this column itself")
                    .help("Leave it out of the rows."));
            }
            column.takes(kind, self)?;
            pairs.push(Some(column));
        }
        let given = |name: &str| fields.iter().any(|(field, _)| same(field, name));
        if let Some(column) = columns.iter().find(|one| one.is_required() && !given(one.name())) {
            return Err(misfit(
                column.name(),
                "the table requires a value, and the rows have no such column",
            )
            .help("Add it to the rows, or give the table's column a default."));
        }
        let upsert = self.how.mode == Mode::Upsert;
        if let Some(name) = self.how.key.iter().find(|name| upsert && !given(name)) {
            return Err(misfit(name, "the rows lack a column of the primary key")
                .help("Add it to the rows, or correct primary-key in [contract]."));
        }
        self.terms(fields)?;
        Ok(pairs)
    }

    /// The conditions that rows of a `replace-window` meet; none for other modes.
    pub fn terms(&self, fields: &[(String, FieldType)]) -> Result<Vec<Term>> {
        match &self.how.span {
            Some(span) => span.terms(fields, self.dialect.same),
            None => Ok(Vec::new()),
        }
    }

    /// A condition over staged rows that is true for those that remove their key.
    pub fn deletes(&self) -> String {
        match &self.how.deleted {
            // On a line of its own, since it may end in a comment.
            Some(condition) => format!("({condition}\n) IS TRUE"),
            None => "false".to_owned(),
        }
    }

    /// What adds columns of such types to the table.
    pub fn add_columns(&self, fields: &[&(String, FieldType)]) -> Vec<String> {
        let add = |(name, kind): &&(String, FieldType)| {
            let kind = (self.dialect.sql_type)(kind);
            format!("ALTER TABLE {} ADD COLUMN {} {kind}", self.sql(), quote(name))
        };
        fields.iter().map(add).collect()
    }

    /// What makes the table for rows of `fields`.
    pub fn create(&self, fields: &[(String, FieldType)]) -> String {
        let kinds = fields.iter().map(|(name, kind)| (name, (self.dialect.sql_type)(kind)));
        let mut lines: Vec<String> =
            kinds.map(|(name, kind)| format!("{} {kind}", quote(name))).collect();
        // Deliveries that are appended may well bring a key again.
        if self.how.mode == Mode::Upsert {
            lines.push(format!("PRIMARY KEY ({})", quote_all(&self.how.key)));
        }
        format!("CREATE TABLE {} ({})", self.sql(), lines.join(", "))
    }

    /// How an upsert goes on after its INSERT of the columns `names`; nothing for other modes.
    /// `terms` are those of the unique index.
    pub fn on_conflict(&self, terms: &str, names: &[&str]) -> String {
        if self.how.mode != Mode::Upsert {
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
        let parts = self.how.key.iter().map(|name| format!("{} IS NULL", quote(name)));
        parts.collect::<Vec<_>>().join(" OR ")
    }

    /// `rows` without a value in a key column, and `keys` that come more than once, are errors of
    /// class `contract`.
    pub fn keys_hold(&self, rows: u64, keys: u64) -> Result<()> {
        let names = self.how.key.join(", ");
        let message = match (rows, keys) {
            (0, 0) => return Ok(()),
            (0, keys) => format!("{keys} values of the primary key ({names}) come more than once"),
            (rows, _) => format!("{rows} rows lack a value of the primary key ({names})"),
        };
        Err(Error::contract("merge the rows", message).with("table", &self.table).help(
            "Make the source give one row for each key, or correct primary-key in [contract]. Of files \
             that have the same key, move the newer away until the others are delivered.",
        ))
    }

    /// Staged rows outside of the span are an error of class `contract`.
    pub fn span_holds(&self, outside: u64) -> Result<()> {
        let Some(span) = self.how.span.as_ref().filter(|_| outside > 0) else { return Ok(()) };
        let message = format!("{outside} rows are outside of {}", span.told());
        Err(Error::contract("merge the rows", message)
            .with("table", &self.table)
            .with("column", &span.column)
            .help(
                "Nothing was replaced. Make the query give the rows of the window and the scope \
                 alone, or correct window-column and scope in [sink].",
            ))
    }

    /// Whether the table took all of so many rows with so many columns. Rows of an upsert that are
    /// nothing but their key stay as they are, and do not count.
    pub fn took(&self, taken: u64, given: u64, columns: usize) -> Result<()> {
        let all_key = self.how.mode == Mode::Upsert && columns == self.how.key.len();
        if taken == given || all_key {
            return Ok(());
        }
        Err(self.refused(format!("it took {taken} of {given} rows")).help(
            "A trigger or a rule of the table keeps rows out. Remove it, or filter in the \
             transform.",
        ))
    }

    /// The error where rows that were to go are still there.
    pub fn kept(&self) -> Error {
        self.refused("rows that were deleted are still there")
            .help("A trigger or a rule of the table keeps them. Remove it, or use another mode.")
    }

    /// Tells the log what a commit did to the table beside adding rows.
    pub fn told(&self, changes: &Changes) {
        let table = &self.name;
        if changes.created {
            tracing::info!(table, "created the table, which did not exist");
        }
        for (column, kind) in &changes.added {
            let kind = (self.dialect.sql_type)(kind);
            tracing::info!(table, column, "type" = kind, "added a column that the table lacked");
        }
        if self.how.mode != Mode::Append {
            let (taken, removed, deletes) = (changes.taken, changes.removed, changes.deletes);
            let mode = self.how.mode.as_str();
            tracing::info!(table, mode, taken, removed, deletes, "merged the rows");
        }
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
        self.missing().help(format!(
            "Create it, for instance so: {}; or set new-columns = \"add\" in [sink].",
            self.create(fields)
        ))
    }

    /// The error where an upsert has no unique index. `on` is how one is made: `ON "t"`.
    pub fn no_index(&self, on: &str) -> Error {
        let key = quote_all(&self.how.key);
        self.refused(format!("it has no unique index over exactly ({key})"))
            .help(format!("Run: CREATE UNIQUE INDEX {on} ({key});"))
    }
}

/// An error of class `contract`: a column of the rows, or of the table, does not fit the other side.
pub(super) fn misfit(column: &str, message: impl Into<String>) -> Error {
    Error::contract("fit the rows to the table", message).with("column", column)
}

/// An error of class `contract`: the table itself refuses a row.
pub(super) fn row_refused(doing: &'static str, message: impl Into<String>) -> Error {
    Error::contract(doing, message).help("Refuse such rows in the contract, or correct the table.")
}

/// So many rows in a staging table, of which so many remove their key.
pub(super) fn staged(written: u64, deleted: u64) -> Staged {
    Staged { parts: Vec::new(), counts: Counts { written, deleted, ..Counts::default() } }
}

/// What a commit did to the table.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// It was made.
    pub created: bool,
    /// Columns that it got.
    pub added: Fields,
    /// Staged rows that removed their key.
    pub deletes: u64,
    /// Rows that went.
    pub removed: u64,
    /// Rows that came, or were updated.
    pub taken: u64,
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
