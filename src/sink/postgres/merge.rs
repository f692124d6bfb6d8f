//! The merge: staged rows into the table, in the transaction that commits them.

use tokio_postgres::Transaction;

use super::plan::{self, Changed, Pair, Table};
use super::refusal::is_of_a_row;
use super::{PostgresSink, failed, read, stage_table};
use crate::connect::sql::quote;
use crate::error::{Error, Result};
use crate::job::decision::Decision;
use crate::sink::table::{self, Changes, Fields, MARKER, Term};
use crate::sink::{Holder, Mode, NewColumns};

/// What became of a merge.
pub(super) enum Merged {
    /// An earlier call committed.
    Before,
    /// It is done, but for the COMMIT.
    Now(Changes),
    /// The table refuses a row; these are the casts that may have failed.
    Refused { stage: Table, casts: Vec<(String, String)>, error: tokio_postgres::Error },
}

/// What [`PostgresSink::inspect`] found in the staged rows.
struct Inspected {
    /// Those that remove their key.
    deletes: u64,
}

/// What [`PostgresSink::pour`] did.
#[derive(Default)]
struct Poured {
    /// Keys that come more than once. Then nothing was moved.
    repeated: u64,
    /// Rows that were to go, and are still there.
    kept: bool,
    removed: u64,
    taken: u64,
}

impl PostgresSink {
    /// Everything of a commit but the COMMIT itself.
    pub(super) async fn merge(
        &self,
        tx: &Transaction<'_>,
        holder: &Holder,
        decision: &Decision,
    ) -> Result<Merged> {
        // Whatever the user's default is, what the ledger will record must survive a crash here.
        tx.execute(
            "SELECT set_config('synchronous_commit', 'on', true)
             WHERE current_setting('synchronous_commit') = 'off'",
            &[],
        )
        .await
        .map_err(|error| failed("commit the rows", error))?;
        let schema = self.schema(tx).await?.ok_or_else(|| self.target.missing())?;
        if self.lock(tx, &schema, holder).await?.decision.is_some() {
            return Ok(Merged::Before);
        }
        let stage = stage_table(&schema, holder);
        let fields = self.staged(tx, &stage).await?;
        let mut changes = Changes::default();
        let table = self.widen(tx, &fields, &mut changes).await?;
        let columns = plan::columns(tx, table.oid).await?;
        let pairs = plan::pair(&self.target, &columns, &fields)?;
        let terms = self.target.terms(&fields)?;
        let written = decision.counts.written;
        let refused = |stage, error| {
            let casts = pairs.iter().filter(|pair| pair.may_fail());
            let casts = casts.map(|pair| (pair.column.name.clone(), pair.cast())).collect();
            Ok(Merged::Refused { stage, casts, error })
        };
        let inspected = match self.inspect(tx, &stage, &pairs, &terms, written).await? {
            Ok(inspected) => inspected,
            Err(error) => return refused(stage, error),
        };
        let replaced = match self.target.how.mode {
            Mode::Append | Mode::Upsert => None,
            Mode::Replace => Some("true".to_owned()),
            Mode::ReplaceWindow => Some(plan::within(&terms, &pairs)?),
        };
        let poured = match self.pour(tx, &table, &stage, &pairs, replaced.as_deref()).await {
            Ok(poured) => poured,
            Err(error) if is_of_a_row(&error) => return refused(stage, error),
            Err(error) => {
                return Err(failed("merge the rows", error).with("table", &self.target.table));
            }
        };
        self.target.keys_hold(0, poured.repeated)?;
        if poured.kept {
            return Err(self.target.kept());
        }
        let deletes = inspected.deletes;
        self.target.took(poured.taken, written.saturating_sub(deletes), pairs.len())?;
        let text = table::text_of(decision)?;
        tx.execute(
            &format!(
                "UPDATE {}.{MARKER} SET state = 'committed', decision = $2, updated_at = now()
                 WHERE run = $1",
                quote(&schema)
            ),
            &[&holder.run.0, &text],
        )
        .await
        .map_err(|error| failed("store the decision", error))?;
        Ok(Merged::Now(Changes {
            deletes,
            removed: poured.removed,
            taken: poured.taken,
            ..changes
        }))
    }

    /// Locks the table, and gives it the columns that it is to get, or makes it. From here on it
    /// stays as it is found, and for `replace` nobody else writes.
    async fn widen(
        &self,
        tx: &Transaction<'_>,
        fields: &Fields,
        changes: &mut Changes,
    ) -> Result<Table> {
        let doing = "add columns to the table";
        let alter = async |sql: String| {
            tx.batch_execute(&sql)
                .await
                .map_err(|error| failed(doing, error).with("table", &self.target.table))
        };
        let lacking = match self.table(tx).await? {
            Some(table) => {
                let columns = plan::columns(tx, table.oid).await?;
                !self.target.lacking(&columns, fields).is_empty()
            }
            None if self.target.how.new_columns == NewColumns::Add => {
                alter(self.target.create(fields)).await?;
                changes.created = true;
                false
            }
            None => return Err(self.target.missing()),
        };
        let strength = match self.target.how.mode {
            // At once as strong as adding takes: two that grow a weaker lock would wait for each
            // other.
            _ if lacking => "ACCESS EXCLUSIVE",
            Mode::Replace => "SHARE ROW EXCLUSIVE",
            Mode::Append | Mode::Upsert | Mode::ReplaceWindow => "ROW EXCLUSIVE",
        };
        tx.batch_execute(&format!("LOCK TABLE {} IN {strength} MODE", self.target.sql()))
            .await
            .map_err(|error| failed("lock the table", error))?;
        let table = self.table(tx).await?.ok_or_else(|| self.target.missing())?;
        let columns = plan::columns(tx, table.oid).await?;
        let lacking = self.target.lacking(&columns, fields);
        for statement in self.target.add_columns(&lacking) {
            alter(statement).await?;
        }
        changes.added = lacking.into_iter().cloned().collect();
        Ok(table)
    }

    /// Names and types of what is staged.
    async fn staged(&self, tx: &Transaction<'_>, stage: &Table) -> Result<Fields> {
        let oid: Option<u32> = tx
            .query_one("SELECT to_regclass($1)::oid", &[&stage.sql()])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| failed("find the staged rows", error))?;
        let Some(oid) = oid else { return Err(self.target.emptied()) };
        let columns = plan::columns(tx, oid).await?;
        Ok(columns
            .iter()
            .filter_map(|column| Some((column.name.clone(), column.staged()?)))
            .collect())
    }

    /// Finds what must not be merged: rows that went missing, keys without a value, rows outside of
    /// the window, texts too long. Nothing has been deleted yet.
    async fn inspect(
        &self,
        tx: &Transaction<'_>,
        stage: &Table,
        pairs: &[Pair<'_>],
        terms: &[Term],
        written: u64,
    ) -> Result<Result<Inspected, tokio_postgres::Error>> {
        let changed: Vec<(&Pair<'_>, Changed)> =
            pairs.iter().filter_map(|pair| Some((pair, pair.changes()?))).collect();
        let null = match self.target.how.mode {
            Mode::Upsert => self.target.lacks_key(),
            Mode::Append | Mode::Replace | Mode::ReplaceWindow => "false".to_owned(),
        };
        let (inside, deletes) = (plan::staged_within(terms)?, self.target.deletes());
        let mut sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE {null}),
                    count(*) FILTER (WHERE ({inside}) IS NOT TRUE),
                    count(*) FILTER (WHERE {deletes})"
        );
        for (_, Changed { condition, .. }) in &changed {
            sql.push_str(&format!(", count(*) FILTER (WHERE {condition})"));
        }
        let doing = "inspect the staged rows";
        if !changed.is_empty() {
            tx.batch_execute(plan::PRINTING).await.map_err(|error| failed(doing, error))?;
        }
        let row = match tx.query_one(&format!("{sql} FROM {}", stage.sql()), &[]).await {
            Ok(row) => row,
            Err(error) if is_of_a_row(&error) => return Ok(Err(error)),
            Err(error) => return Err(failed(doing, error)),
        };
        let count = |index: usize| read(&row, |row| row.try_get(index).map(i64::unsigned_abs));
        if count(0)? != written {
            return Err(self.target.emptied());
        }
        self.target.keys_hold(count(1)?, 0)?;
        self.target.span_holds(count(2)?)?;
        for (index, (pair, Changed { what, help, .. })) in changed.iter().enumerate() {
            let rows = count(index + 4)?;
            if rows > 0 {
                return Err(Error::contract("merge the rows", format!("{rows} {what}"))
                    .with("table", &self.target.table)
                    .with("column", &pair.column.name)
                    .help(*help));
            }
        }
        Ok(Ok(Inspected { deletes: count(3)? }))
    }

    /// Takes out of the table what is to go (rows for which `replaced` holds; keys that staged rows
    /// remove), and moves the staged rows into it.
    async fn pour(
        &self,
        tx: &Transaction<'_>,
        table: &Table,
        stage: &Table,
        pairs: &[Pair<'_>],
        replaced: Option<&str>,
    ) -> Result<Poured, tokio_postgres::Error> {
        let mut poured = Poured::default();
        let key: Vec<&Pair<'_>> = match self.target.how.mode {
            Mode::Upsert => {
                pairs.iter().filter(|pair| self.target.has_key(&pair.column.name)).collect()
            }
            Mode::Append | Mode::Replace | Mode::ReplaceWindow => Vec::new(),
        };
        let casts: Vec<String> = key.iter().map(|pair| pair.cast()).collect();
        let casts = casts.join(", ");
        if !key.is_empty() {
            let sql = format!(
                "SELECT count(*) FROM (SELECT FROM {} GROUP BY {casts} HAVING count(*) > 1) AS d",
                stage.sql()
            );
            let repeated: i64 = tx.query_one(&sql, &[]).await?.try_get(0)?;
            if repeated > 0 {
                poured.repeated = repeated.unsigned_abs();
                return Ok(poured);
            }
        }
        let gone = match (replaced, &self.target.how.deleted) {
            (Some(condition), _) => Some(condition.to_owned()),
            (None, Some(_)) => Some(format!(
                "({}) IN (SELECT {casts} FROM {} WHERE {})",
                plan::names(key.iter().copied()),
                stage.sql(),
                self.target.deletes()
            )),
            (None, None) => None,
        };
        if let Some(condition) = gone {
            let table = table.sql();
            let delete = format!("DELETE FROM {table} WHERE {condition}");
            poured.removed = tx.execute(&delete, &[]).await?;
            // A trigger may keep rows, and says nothing.
            let left = format!("SELECT EXISTS (SELECT FROM {table} WHERE {condition})");
            if self.may_keep(tx, &table).await? && tx.query_one(&left, &[]).await?.try_get(0)? {
                poured.kept = true;
                return Ok(poured);
            }
        }
        let insert = plan::merge(&self.target, table, stage, pairs);
        poured.taken = tx.execute(&insert, &[]).await?;
        // What is deferred is refused here, where it can still be told.
        tx.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
        Ok(poured)
    }

    /// Whether the table has rules, or triggers that run before a row is deleted.
    async fn may_keep(
        &self,
        tx: &Transaction<'_>,
        table: &str,
    ) -> Result<bool, tokio_postgres::Error> {
        // The bits of tgtype (pg_trigger.h): for each row, before, of DELETE.
        let sql = "SELECT c.relhasrules OR EXISTS (
                       SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                          AND t.tgenabled <> 'D' AND t.tgtype & 11 = 11)
                   FROM pg_class c WHERE c.oid = to_regclass($1)";
        tx.query_one(sql, &[&table]).await?.try_get(0)
    }
}
