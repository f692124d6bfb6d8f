//! The merge: staged rows into the table, in the transaction that commits them.

use tokio_postgres::Transaction;

use super::plan::{self, Pair, Table};
use super::{Client, PostgresSink, failed, read, stage_table, transaction};
use crate::connect::sql::quote;
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::job::decision::Decision;
use crate::sink::table::{self, MARKER};
use crate::sink::{Holder, Mode};

/// What became of a merge.
pub(super) enum Merged {
    /// An earlier call committed.
    Before,
    /// It is done, but for the COMMIT.
    Now,
    /// A value is none of its column's type; these are the casts that may have failed.
    BadValue { stage: Table, casts: Vec<(String, String)>, error: tokio_postgres::Error },
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
        // From here on the table stays as it is found, and for `replace` nobody else writes.
        let strength =
            if self.target.mode == Mode::Replace { "SHARE ROW EXCLUSIVE" } else { "ROW EXCLUSIVE" };
        tx.batch_execute(&format!("LOCK TABLE {} IN {strength} MODE", self.target.sql()))
            .await
            .map_err(|error| failed("lock the table", error))?;
        let table = self.table(tx).await?.ok_or_else(|| self.target.missing())?;
        let columns = plan::columns(tx, table.oid).await?;
        let stage = stage_table(&schema, holder);
        let staged = self.staged(tx, &stage).await?;
        let pairs = plan::pair(&self.target, &columns, &staged)?;
        self.inspect(tx, &stage, &pairs, decision.counts.written).await?;
        let (repeated, taken) = match self.pour(tx, &table, &stage, &pairs).await {
            Ok(counts) => counts,
            Err(error) if error.code().is_some_and(|code| code.code().starts_with("22")) => {
                let casts = pairs.iter().filter(|pair| pair.may_fail());
                let casts = casts.map(|pair| (pair.column.name.clone(), pair.cast())).collect();
                return Ok(Merged::BadValue { stage, casts, error });
            }
            Err(error) => {
                return Err(failed("merge the rows", error).with("table", &self.target.table));
            }
        };
        self.target.keys_hold(0, repeated)?;
        self.target.took(taken, decision.counts.written, pairs.len())?;
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
        Ok(Merged::Now)
    }

    /// Names and types of what is staged.
    async fn staged(
        &self,
        tx: &Transaction<'_>,
        stage: &Table,
    ) -> Result<Vec<(String, FieldType)>> {
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

    /// Finds what must not be merged: rows that went missing, keys without a value, texts too long.
    async fn inspect(
        &self,
        tx: &Transaction<'_>,
        stage: &Table,
        pairs: &[Pair<'_>],
        written: u64,
    ) -> Result<()> {
        let long: Vec<(&Pair<'_>, String)> =
            pairs.iter().filter_map(|pair| Some((pair, pair.too_long()?))).collect();
        let null = match self.target.mode {
            Mode::Upsert => self.target.lacks_key(),
            Mode::Append | Mode::Replace => "false".to_owned(),
        };
        let mut sql = format!("SELECT count(*), count(*) FILTER (WHERE {null})");
        for (_, condition) in &long {
            sql.push_str(&format!(", count(*) FILTER (WHERE {condition})"));
        }
        let row = tx
            .query_one(&format!("{sql} FROM {}", stage.sql()), &[])
            .await
            .map_err(|error| failed("inspect the staged rows", error))?;
        let count = |index: usize| read(&row, |row| row.try_get(index).map(i64::unsigned_abs));
        if count(0)? != written {
            return Err(self.target.emptied());
        }
        self.target.keys_hold(count(1)?, 0)?;
        for (index, (pair, _)) in long.iter().enumerate() {
            let rows = count(index + 2)?;
            if rows > 0 {
                let message = format!("{rows} texts are too long for their column");
                return Err(Error::contract("merge the rows", message)
                    .with("table", &self.target.table)
                    .with("column", &pair.column.name)
                    .help("Widen the column, or refuse or shorten such texts before."));
            }
        }
        Ok(())
    }

    /// Moves the staged rows into the table, and tells how many keys come more than once (then
    /// nothing was moved) and how many rows the table took.
    async fn pour(
        &self,
        tx: &Transaction<'_>,
        table: &Table,
        stage: &Table,
        pairs: &[Pair<'_>],
    ) -> Result<(u64, u64), tokio_postgres::Error> {
        if self.target.mode == Mode::Upsert {
            let key = pairs.iter().filter(|pair| self.target.key.contains(&pair.column.name));
            let key: Vec<String> = key.map(Pair::cast).collect();
            let sql = format!(
                "SELECT count(*) FROM (SELECT FROM {} GROUP BY {} HAVING count(*) > 1) AS d",
                stage.sql(),
                key.join(", ")
            );
            let repeated: i64 = tx.query_one(&sql, &[]).await?.try_get(0)?;
            if repeated > 0 {
                return Ok((repeated.unsigned_abs(), 0));
            }
        }
        if self.target.mode == Mode::Replace {
            tx.execute(&format!("DELETE FROM {}", table.sql()), &[]).await?;
        }
        let insert = plan::merge(&self.target, table, stage, pairs);
        Ok((0, tx.execute(&insert, &[]).await?))
    }
}

/// The first column whose staged values cannot all be cast. Asked only after a merge failed, since
/// the server's own error quotes the value and not the column.
pub(super) async fn failing(
    client: &mut Client,
    stage: &Table,
    casts: Vec<(String, String)>,
) -> Result<Option<String>> {
    for (column, cast) in casts {
        let tx = transaction(client).await?;
        match tx.query_one(&format!("SELECT count({cast}) FROM {}", stage.sql()), &[]).await {
            Ok(_) => {}
            Err(error) if error.as_db_error().is_some() => return Ok(Some(column)),
            Err(error) => return Err(failed("merge the rows", error)),
        }
    }
    Ok(None)
}
