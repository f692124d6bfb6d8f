//! What is told of rows that the target refuses: the constraint and the column, and no value.

use tokio_postgres::error::{DbError, SqlState};

use super::plan::{PRINTING, Table};
use super::{Client, PostgresSink, failed, read, transaction};
use crate::connect::postgres::Quiet;
use crate::error::{Error, Result};
use crate::sink::table::row_refused;

const DOING: &str = "merge the rows";

/// Whether the server refused a row, and not the statement: data exceptions, constraints, what a
/// trigger raises, and row security (the rights are checked long before).
pub(super) fn is_of_a_row(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        code.code().starts_with("22")
            || code.code().starts_with("23")
            || [SqlState::RAISE_EXCEPTION, SqlState::INSUFFICIENT_PRIVILEGE].contains(code)
    })
}

impl PostgresSink {
    /// The error of class `contract` for what the server refused. Its own words quote values, so
    /// the names are asked for, in transactions of their own. `casts` are what became of staged
    /// columns, of those that may have failed.
    pub(super) async fn refusal(
        &self,
        client: &mut Client,
        stage: &Table,
        casts: Vec<(String, String)>,
        error: tokio_postgres::Error,
    ) -> Result<Error> {
        let Some(server) = error.as_db_error() else { return Ok(failed(DOING, error)) };
        let code = server.code().code();
        if *server.code() == SqlState::INSUFFICIENT_PRIVILEGE && !self.guarded(client).await? {
            return Ok(failed(DOING, error).with("table", &self.target.table));
        }
        let mut column = server.column().map(str::to_owned);
        if column.is_none() && (code.starts_with("22") || server.datatype().is_some()) {
            column = failing(client, stage, casts).await?;
        }
        if column.is_none() {
            column = constrained(client, server).await?;
        }
        let what = match (server.constraint(), code) {
            (Some(constraint), _) => format!("constraint {constraint} refuses a row"),
            (None, "23502") => "a column that requires a value gets none".to_owned(),
            (None, "23514") => "no partition of the table takes a row".to_owned(),
            (None, "P0001") => "a trigger of the table refuses a row".to_owned(),
            (None, "42501") => "row security of the table refuses a row".to_owned(),
            (None, _) => "a value is none of its column's type".to_owned(),
        };
        let mut refused = row_refused(DOING, format!("{what} (SQLSTATE {code})"))
            .with("table", &self.target.table);
        if let Some(column) = column {
            refused = refused.with("column", column);
        }
        Ok(refused.caused_by(Quiet(error)))
    }

    /// Whether policies decide about this user's rows.
    async fn guarded(&self, client: &mut Client) -> Result<bool> {
        let tx = transaction(client).await?;
        let row = tx
            .query_one("SELECT row_security_active(to_regclass($1)::oid)", &[&self.target.sql()])
            .await
            .map_err(|error| failed(DOING, error))?;
        read(&row, |row| row.try_get(0))
    }
}

/// The columns of the constraint, or the unique index, that was broken.
async fn constrained(client: &mut Client, server: &DbError) -> Result<Option<String>> {
    let (Some(schema), Some(table), Some(constraint)) =
        (server.schema(), server.table(), server.constraint())
    else {
        return Ok(None);
    };
    let tx = transaction(client).await?;
    let row = tx
        .query_one(
            "SELECT string_agg(DISTINCT a.attname::text, ', ')
             FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_constraint o ON o.conrelid = c.oid AND o.conname = $3::text::name
             LEFT JOIN (pg_index i JOIN pg_class x ON x.oid = i.indexrelid)
                    ON i.indrelid = c.oid AND x.relname = $3::text::name
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                  AND (a.attnum = ANY (o.conkey) OR a.attnum = ANY (i.indkey::int2[]))
             WHERE n.nspname = $1::text::name AND c.relname = $2::text::name",
            &[&schema, &table, &constraint],
        )
        .await
        .map_err(|error| failed(DOING, error))?;
    read(&row, |row| row.try_get(0))
}

/// The first column whose staged values cannot all be cast. Asked only after a merge failed, since
/// the server's own error quotes the value and not the column.
async fn failing(
    client: &mut Client,
    stage: &Table,
    casts: Vec<(String, String)>,
) -> Result<Option<String>> {
    for (column, cast) in casts {
        let tx = transaction(client).await?;
        tx.batch_execute(PRINTING).await.map_err(|error| failed(DOING, error))?;
        match tx.query_one(&format!("SELECT count({cast}) FROM {}", stage.sql()), &[]).await {
            Ok(_) => {}
            Err(error) if error.as_db_error().is_some() => return Ok(Some(column)),
            Err(error) => return Err(failed(DOING, error)),
        }
    }
    Ok(None)
}
