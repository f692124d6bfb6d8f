//! The merge: staged rows into the table, in the transaction that commits them.

use rusqlite::{Transaction, params_from_iter};

use super::plan::{self, Column};
use super::{SqliteSink, count, failed};
use crate::connect::sql::quote;
use crate::error::Result;
use crate::sink::table::{self, Changes, Fields, Term};
use crate::sink::{Holder, Mode, NewColumns};

const DOING: &str = "merge the rows";

impl SqliteSink {
    /// Moves what is staged into the table, after everything else that the mode asks for.
    pub(super) fn merge(
        &self,
        tx: &Transaction<'_>,
        holder: &Holder,
        written: u64,
    ) -> Result<Changes> {
        let name = table::stage_name(holder);
        let stage = quote(&name);
        let fields = plan::staged(tx, &name)?;
        if fields.is_empty() || count(tx, &format!("SELECT count(*) FROM {stage}"), [])? != written
        {
            return Err(self.target.emptied());
        }
        let mut changes = Changes::default();
        let columns = self.widen(tx, &fields, &mut changes)?;
        plan::pair(&self.target, &columns, &fields)?;
        let terms = self.target.terms(&fields)?;
        let conflict = self.conflict(tx, &columns)?;
        self.inspect(tx, &stage, &terms, conflict.as_deref())?;
        changes.deletes = match &self.target.how.deleted {
            Some(_) => {
                let deletes = self.target.deletes();
                count(tx, &format!("SELECT count(*) FROM {stage} WHERE {deletes}"), [])?
            }
            None => 0,
        };
        changes.removed = self.remove(tx, &stage, &columns, &terms)?;
        let conflict = conflict.unwrap_or_default();
        let insert = plan::merge(&self.target, &name, &fields, &conflict);
        changes.taken = tx.execute(&insert, []).map_err(|error| failed(DOING, error))? as u64;
        let given = written.saturating_sub(changes.deletes);
        self.target.took(changes.taken, given, fields.len())?;
        Ok(changes)
    }

    /// Gives the table the columns that it is to get, or makes it, and tells its columns.
    fn widen(
        &self,
        tx: &Transaction<'_>,
        fields: &Fields,
        changes: &mut Changes,
    ) -> Result<Vec<Column>> {
        let alter = |sql: &str| {
            tx.execute_batch(sql).map_err(|error| failed("add columns to the table", error))
        };
        let there = || plan::columns(tx, &self.target.table);
        let columns = match there()? {
            Some(columns) => columns,
            None if self.target.how.new_columns == NewColumns::Add => {
                alter(&self.target.create(fields))?;
                changes.created = true;
                there()?.ok_or_else(|| self.target.missing())?
            }
            None => return Err(self.target.missing()),
        };
        let lacking = self.target.lacking(&columns, fields);
        if lacking.is_empty() {
            return Ok(columns);
        }
        for statement in self.target.add_columns(&lacking) {
            alter(&statement)?;
        }
        changes.added = lacking.into_iter().cloned().collect();
        there()?.ok_or_else(|| self.target.missing())
    }

    /// Finds what must not be merged: rows outside of the window, keys without a value or doubled.
    fn inspect(
        &self,
        tx: &Transaction<'_>,
        stage: &str,
        terms: &[Term],
        conflict: Option<&[String]>,
    ) -> Result<()> {
        let (inside, values) = plan::within(terms)?;
        let outside = format!("SELECT count(*) FROM {stage} WHERE ({inside}) IS NOT TRUE");
        self.target.span_holds(count(tx, &outside, params_from_iter(values))?)?;
        let Some(conflict) = conflict else { return Ok(()) };
        let null = self.target.lacks_key();
        let without = count(tx, &format!("SELECT count(*) FROM {stage} WHERE {null}"), [])?;
        let repeated = count(
            tx,
            &format!(
                "SELECT count(*) FROM (SELECT 1 FROM {stage} GROUP BY {} HAVING count(*) > 1)",
                conflict.join(", ")
            ),
            [],
        )?;
        self.target.keys_hold(without, repeated)
    }

    /// Takes out of the table what is to go, and tells how many rows that were.
    fn remove(
        &self,
        tx: &Transaction<'_>,
        stage: &str,
        columns: &[Column],
        terms: &[Term],
    ) -> Result<u64> {
        let (condition, values) = match (self.target.how.mode, &self.target.how.deleted) {
            (Mode::Replace, _) => ("true".to_owned(), Vec::new()),
            (Mode::ReplaceWindow, _) => plan::within(terms)?,
            (Mode::Upsert, Some(_)) => (plan::removed(&self.target, stage, columns), Vec::new()),
            (Mode::Append | Mode::Upsert, _) => return Ok(0),
        };
        let table = self.target.sql();
        let removed = tx
            .execute(
                &format!("DELETE FROM {table} WHERE {condition}"),
                params_from_iter(values.iter()),
            )
            .map_err(|error| failed("delete the old rows", error))?;
        // A trigger may keep rows, and says nothing.
        let left = format!(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger'
                                 AND tbl_name = '{}' COLLATE NOCASE)
                    AND EXISTS (SELECT 1 FROM {table} WHERE {condition})",
            self.target.table.replace('\'', "''")
        );
        if count(tx, &left, params_from_iter(values))? > 0 {
            return Err(self.target.kept());
        }
        Ok(removed as u64)
    }
}
