//! What the server's catalogue says of the target: the table, its schema, and what this user may do
//! there.

use tokio_postgres::Transaction;

use super::plan::Table;
use super::{PostgresSink, failed, read};
use crate::connect::sql::quote;
use crate::error::{Error, Result};
use crate::sink::Mode;
use crate::sink::table::MARKER;

impl PostgresSink {
    /// What bears the table's name, and whether it is a table.
    async fn find(&self, tx: &Transaction<'_>) -> Result<Option<(Table, bool)>> {
        let row = tx
            .query_opt(
                "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind IN ('r', 'p')
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = to_regclass($1)",
                &[&self.target.sql()],
            )
            .await
            .map_err(|error| failed("find the table", error))?;
        let Some(row) = row else { return Ok(None) };
        let (oid, schema, name, is_table) = read(&row, |row| {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
        })?;
        Ok(Some((Table { oid, schema, name }, is_table)))
    }

    /// The table, or `None` where there is none.
    pub(super) async fn table(&self, tx: &Transaction<'_>) -> Result<Option<Table>> {
        match self.find(tx).await? {
            Some((table, true)) => Ok(Some(table)),
            Some((_, false)) => Err(Error::permanent("find the table", "this is no table")
                .with("table", &self.target.table)
                .help("Name an ordinary or a partitioned table, not a view or a foreign table.")),
            None => Ok(None),
        }
    }

    /// The schema that the table is in, or would be in; `None` where there is no such schema.
    pub(super) async fn schema(&self, tx: &Transaction<'_>) -> Result<Option<String>> {
        if let Some((table, _)) = self.find(tx).await? {
            return Ok(Some(table.schema));
        }
        let schema = self.target.table.split_once('.').map(|(schema, _)| schema);
        let row = tx
            .query_opt(
                "SELECT nspname::text FROM pg_namespace
                 WHERE nspname = coalesce($1::text::name, current_schema())",
                &[&schema],
            )
            .await
            .map_err(|error| failed("find the schema", error))?;
        row.map(|row| read(&row, |row| row.try_get(0))).transpose()
    }

    /// Finds out, before anything is read, whether this user may write to the table as the mode
    /// wants, and whether an upsert has its index. A table that is missing is told by `stage`,
    /// which knows the columns that it wants.
    pub(super) async fn check(&self, tx: &Transaction<'_>, table: &Table) -> Result<()> {
        let wanted: &[&str] = match self.target.mode {
            Mode::Append => &["INSERT"],
            Mode::Upsert => &["INSERT", "UPDATE", "SELECT"],
            Mode::Replace => &["INSERT", "DELETE"],
        };
        let row = tx
            .query_one(
                "SELECT current_user::text,
                        ARRAY(SELECT p FROM unnest($2::text[]) p
                              WHERE NOT has_table_privilege($1::oid, p)),
                        row_security_active($1::oid),
                        EXISTS (SELECT FROM pg_index i
                                WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid
                                  AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
                                  AND ARRAY(SELECT a.attname::text
                                            FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
                                            JOIN pg_attribute a
                                              ON a.attrelid = $1 AND a.attnum = k
                                            ORDER BY 1)
                                    = ARRAY(SELECT k FROM unnest($3::text[]) k ORDER BY 1))",
                &[&table.oid, &wanted, &self.target.key],
            )
            .await
            .map_err(|error| failed("check the table", error))?;
        let (user, missing, hides, indexed): (String, Vec<String>, bool, bool) =
            read(&row, |row| {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
            })?;
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(self.target.refused(format!("the user may not {missing} there")).help(
                format!(
                    "Have the table's owner run: GRANT {missing} ON {} TO {};",
                    table.sql(),
                    quote(&user)
                ),
            ));
        }
        if hides && self.target.mode == Mode::Replace {
            return Err(self
                .target
                .refused("row security hides rows, which `replace` would then leave".to_owned())
                .help(format!(
                    "Have a superuser run: ALTER ROLE {} BYPASSRLS; or use another mode.",
                    quote(&user)
                )));
        }
        if self.target.mode == Mode::Upsert && !indexed {
            return Err(self.target.no_index(&format!("ON {}", table.sql())));
        }
        Ok(())
    }

    /// Finds out whether this user may write to the marker table, and make it where it is missing;
    /// `staging` asks for the right to make tables even where it is there. Answers its name for SQL,
    /// and whether it is there.
    pub(super) async fn marker_rights(
        &self,
        tx: &Transaction<'_>,
        schema: &str,
        staging: bool,
    ) -> Result<(String, bool)> {
        let doing = "look for the table of deliveries";
        let marker = format!("{}.{MARKER}", quote(schema));
        let row = tx
            .query_one(
                "SELECT current_user::text, to_regclass($1) IS NOT NULL,
                        has_schema_privilege($2, 'CREATE'),
                        coalesce(has_table_privilege(to_regclass($1)::oid, 'SELECT')
                             AND has_table_privilege(to_regclass($1)::oid, 'INSERT')
                             AND has_table_privilege(to_regclass($1)::oid, 'UPDATE'), true)",
                &[&marker, &schema],
            )
            .await
            .map_err(|error| failed(doing, error))?;
        let (user, exists, may_create, may_write): (String, bool, bool, bool) =
            read(&row, |row| {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
            })?;
        if !may_create && (staging || !exists) {
            return Err(self
                .target
                .refused(format!("the user may not create tables in schema {schema}"))
                .help(format!(
                    "Have its owner run: GRANT USAGE, CREATE ON SCHEMA {} TO {}; Longshore keeps \
                     {MARKER} and its staging tables beside the target.",
                    quote(schema),
                    quote(&user)
                )));
        }
        if !may_write {
            return Err(self.target.refused(format!("the user may not write to {marker}")).help(
                format!(
                    "Have its owner run: GRANT SELECT, INSERT, UPDATE ON {marker} TO {};",
                    quote(&user)
                ),
            ));
        }
        Ok((marker, exists))
    }

    /// Makes the marker table where it is missing, and gives its name for SQL. `staging` is as for
    /// [`PostgresSink::marker_rights`].
    pub(super) async fn marker_table(
        &self,
        tx: &Transaction<'_>,
        schema: &str,
        staging: bool,
    ) -> Result<String> {
        let doing = "prepare the table of deliveries";
        let (marker, exists) = self.marker_rights(tx, schema, staging).await?;
        if !exists {
            // CREATE TABLE IF NOT EXISTS fails when two do it at once, so one waits for the other.
            tx.batch_execute(&format!(
                "SELECT pg_advisory_xact_lock(hashtext('{MARKER}'));
                 CREATE TABLE IF NOT EXISTS {marker} (
                     run uuid PRIMARY KEY,
                     fence bigint NOT NULL,
                     state text NOT NULL CHECK (state IN ('open', 'committed')),
                     decision text CHECK ((decision IS NOT NULL) = (state = 'committed')),
                     updated_at timestamptz NOT NULL DEFAULT now()
                 )"
            ))
            .await
            .map_err(|error| failed(doing, error))?;
        }
        Ok(marker)
    }
}
