//! What the server's catalogue says of the target: the table, its schema, and what this user may do
//! there.

use tokio_postgres::Transaction;

use super::plan::Table;
use super::{PostgresSink, failed, read};
use crate::connect::sql::quote;
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::sink::Mode;
use crate::sink::table::MARKER;

impl PostgresSink {
    /// What bears the table's name, and whether it is a table. The catalogue tells it of closed
    /// schemas too, whose rights are told later.
    async fn find(&self, tx: &Transaction<'_>) -> Result<Option<(Table, bool)>> {
        let table = &self.target.table;
        let (is_it, schema, name) = match table.split_once('.') {
            Some((schema, name)) => {
                ("n.nspname = $1::text::name AND c.relname = $2::text::name", schema, name)
            }
            // Looked for along the search path, of which the parameter is no part.
            None => ("$1::text = '' AND c.oid = to_regclass(quote_ident($2))", "", table.as_str()),
        };
        let row = tx
            .query_opt(
                &format!(
                    "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind IN ('r', 'p')
                     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE {is_it}"
                ),
                &[&schema, &name],
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

    /// The error where the schema of the table is missing. None is ever made.
    pub(super) fn no_schema(&self) -> Error {
        match self.target.table.split_once('.') {
            Some((schema, _)) => self.target.refused(format!("there is no schema {schema}")).help(
                format!("Correct `table` in [sink], or run: CREATE SCHEMA {};", quote(schema)),
            ),
            None => self
                .target
                .refused("the search_path of the user names no schema that is there")
                .help("Write the schema before the table's name in [sink]: schema.table."),
        }
    }

    /// Finds out, before anything is read, whether this user may write to the table as the mode
    /// wants, and whether an upsert has its index. What depends on the columns of the rows, and a
    /// table that is missing, is told by `stage`, which knows them.
    pub(super) async fn check(&self, tx: &Transaction<'_>, table: &Table) -> Result<()> {
        let how = &self.target.how;
        let wanted: &[&str] = match how.mode {
            Mode::Append => &["INSERT"],
            Mode::Upsert if how.deleted.is_some() => &["INSERT", "UPDATE", "SELECT", "DELETE"],
            Mode::Upsert => &["INSERT", "UPDATE", "SELECT"],
            Mode::Replace => &["INSERT", "DELETE"],
            Mode::ReplaceWindow => &["INSERT", "DELETE", "SELECT"],
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
                &[&table.oid, &wanted, &how.key],
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
        if hides && wanted.contains(&"DELETE") {
            let mode = how.mode.as_str();
            return Err(self
                .target
                .refused(format!("row security may hide rows, which `{mode}` would then leave"))
                .help(format!(
                    "Have a superuser run: ALTER ROLE {} BYPASSRLS; or use another mode.",
                    quote(&user)
                )));
        }
        if how.mode == Mode::Upsert && !indexed {
            return Err(self.no_index(tx, table).await?);
        }
        Ok(())
    }

    /// Why an upsert finds no index, of which a partitioned table may be able to have none.
    async fn no_index(&self, tx: &Transaction<'_>, table: &Table) -> Result<Error> {
        let row = tx
            .query_one(
                "SELECT coalesce(pg_get_partkeydef($1::oid), ''),
                        ARRAY(SELECT a.attname::text
                              FROM pg_partitioned_table p
                              CROSS JOIN unnest(p.partattrs::int2[]) k
                              JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k
                              WHERE p.partrelid = $1)",
                &[&table.oid],
            )
            .await
            .map_err(|error| failed("check the table", error))?;
        let (parts, columns): (String, Vec<String>) =
            read(&row, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?;
        let outside: Vec<String> =
            columns.into_iter().filter(|name| !self.target.has_key(name)).collect();
        if outside.is_empty() {
            return Ok(self.target.no_index(&format!("ON {}", table.sql())));
        }
        let outside = outside.join(", ");
        Ok(self
            .target
            .refused(format!(
                "it is partitioned by {parts}, and has no unique index without {outside}"
            ))
            .help(format!(
                "Add {outside} to primary-key in [contract], and make a unique index over all of \
                 it; or use the mode replace-window."
            )))
    }

    /// Finds out whether this user may add columns to the table, where `lacking` has some.
    pub(super) async fn may_alter(
        &self,
        tx: &Transaction<'_>,
        table: &Table,
        lacking: &[&(String, FieldType)],
    ) -> Result<()> {
        if lacking.is_empty() {
            return Ok(());
        }
        let row = tx
            .query_one(
                "SELECT current_user::text, pg_has_role(relowner, 'USAGE'), relowner::regrole::text
                 FROM pg_class WHERE oid = $1",
                &[&table.oid],
            )
            .await
            .map_err(|error| failed("check the table", error))?;
        let (user, owns, owner): (String, bool, String) =
            read(&row, |row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))?;
        if owns {
            return Ok(());
        }
        let names: Vec<&str> = lacking.iter().map(|(name, _)| name.as_str()).collect();
        Err(self
            .target
            .refused(format!("it lacks {}, and only its owner may add columns", names.join(", ")))
            .help(format!(
                "Have its owner run: {}; or: GRANT {owner} TO {};",
                self.target.add_columns(lacking).join("; "),
                quote(&user)
            )))
    }

    /// Finds out whether this user may use the sequences that number the columns which the rows do
    /// not bring.
    pub(super) async fn sequences(
        &self,
        tx: &Transaction<'_>,
        table: &Table,
        fields: &[(String, FieldType)],
    ) -> Result<()> {
        let given: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        let row = tx
            .query_one(
                "SELECT current_user::text, string_agg(s.oid::regclass::text, ', ')
                 FROM pg_depend d
                 JOIN pg_class s ON s.oid = d.objid
                 JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid = $1 AND d.deptype = 'a' AND a.atthasdef
                   AND NOT a.attname::text = ANY ($2)
                   AND CASE WHEN s.relkind = 'S'
                            THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END",
                &[&table.oid, &given],
            )
            .await
            .map_err(|error| failed("check the table", error))?;
        let (user, missing): (String, Option<String>) =
            read(&row, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?;
        let Some(missing) = missing else { return Ok(()) };
        Err(self.target.refused(format!("the user may not take numbers of {missing}")).help(
            format!("Have the owner run: GRANT USAGE ON SEQUENCE {missing} TO {};", quote(&user)),
        ))
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
                "SELECT current_user::text, m.oid IS NOT NULL,
                        has_schema_privilege(n.oid, 'USAGE'),
                        has_schema_privilege(n.oid, 'CREATE'),
                        coalesce(has_table_privilege(m.oid, 'SELECT')
                             AND has_table_privilege(m.oid, 'INSERT')
                             AND has_table_privilege(m.oid, 'UPDATE'), true)
                 FROM pg_namespace n
                 LEFT JOIN pg_class m ON m.relnamespace = n.oid AND m.relname = $2::text::name
                 WHERE n.nspname = $1::text::name",
                &[&schema, &MARKER],
            )
            .await
            .map_err(|error| failed(doing, error))?;
        let (user, exists): (String, bool) =
            read(&row, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?;
        let (may_use, may_create, may_write): (bool, bool, bool) =
            read(&row, |row| Ok((row.try_get(2)?, row.try_get(3)?, row.try_get(4)?)))?;
        if !may_use || (!may_create && (staging || !exists)) {
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
