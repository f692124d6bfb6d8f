//! The one snapshot that everything is read in, and the locks that belong before it.
//!
//! To a snapshot from before, a table that was emptied or written anew (TRUNCATE, many forms of ALTER
//! TABLE) is empty (<https://www.postgresql.org/docs/current/mvcc-caveats.html>), and so is one that was
//! made, filled and put in its place. A statement takes its snapshot before it waits for its locks:
//! what waits for a table that is being reloaded would read nothing of it, and no error would tell.
//!
//! So a table is locked before there is a snapshot. What else is read (by a query, a view, a condition,
//! a policy, in a partition) is known when it was planned, and what functions read when they have read
//! it; then a look tells whether the snapshot has what is locked as it is now. What is locked stays so
//! until the end. Of a foreign table only its own server could tell; and that a child was given to a table by
//! INHERIT, or that a view reads one more, is not seen.

use tokio_postgres::types::Type;

use super::{READ, classify};
use crate::connect::postgres::Client;
use crate::connect::sql::quote_table;
use crate::error::{Error, Result};
use crate::source::SourceConfig;

/// How often a transaction is begun, where a look finds that it was too early, before that is an error.
pub(super) const TRIES: u32 = 3;

/// Whether it is a table of this database of which this user may read all columns. No other can be
/// locked: no materialized or foreign one, nor one of which he may read some columns. A view can, and
/// with it whatever it could read: thousands of partitions, of which a condition leaves one.
const LOCKABLE: &str = "
SELECT c.relkind IN ('r', 'p') AND coalesce(has_table_privilege(c.oid, 'SELECT'), false)
FROM pg_class c WHERE c.oid = to_regclass($1)";

/// The snapshot, and what the transaction has locked that it does not have as it is now: that was made or
/// written anew, has another name or another place among partitions, or is a view that had read something
/// else. Rows of catalogues are those of the snapshot; what functions tell of a relation is of now. Indices
/// may be made anew while they are in use, and have the same rows then. What others have locked is not asked
/// about: it may be going just now.
const LOOK: &str = "
WITH mine AS MATERIALIZED (
    SELECT DISTINCT relation AS oid FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation'
), held AS (
    SELECT oid FROM mine WHERE pg_get_indexdef(oid) IS NULL
)
SELECT pg_current_snapshot()::text, string_agg(DISTINCT h.oid::regclass::text, ', ')
FROM held h
LEFT JOIN pg_class c ON c.oid = h.oid
LEFT JOIN pg_namespace s ON s.oid = c.relnamespace
WHERE c.oid IS NULL
   OR c.relfilenode <> 0 AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
   OR (pg_identify_object('pg_class'::regclass, c.oid, 0)).identity
      <> format('%I.%I', s.nspname, c.relname)
   OR (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid AND c.relispartition)
      IS DISTINCT FROM (SELECT a.relid
                        FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS a (relid, n)
                        WHERE n = 2)
   OR c.relkind = 'v' AND EXISTS (
      SELECT FROM pg_rewrite w
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                      AND d.refclassid = 'pg_class'::regclass
      JOIN pg_class o ON o.oid = d.refobjid AND o.relkind IN ('r', 'p', 'v', 'm', 'f')
      WHERE w.ev_class = c.oid AND d.refobjid <> c.oid
        AND d.refobjid NOT IN (SELECT oid FROM held))";

/// What a look finds.
pub(super) enum Look {
    /// The snapshot, as PostgreSQL writes it: it has everything as it is now.
    Sound(String),
    /// It is from before something was reloaded.
    Past(Error),
}

/// Begins the transaction; it has no snapshot yet.
///
/// A table is read in the order in which its rows lie there. Together with others that read it just
/// now, a scan would begin in its midst; that saves the disk some work where they all begin at once.
/// Of a table that is read whole, workers would hand all rows to the one process that sends them, which
/// is no faster; where a condition leaves few of many, it is, and they stay.
pub(super) async fn begin(client: &Client, config: &SourceConfig) -> Result<()> {
    let mut sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned();
    if let Some(table) = &config.table
        && is_lockable(client, &quote_table(table)).await?
    {
        sql += "; SET LOCAL synchronize_seqscans = off";
        if config.filter.is_none() && config.cursor.is_none() {
            sql += "; SET LOCAL max_parallel_workers_per_gather = 0";
        }
        // Its partitions are locked by planning, those that are read.
        sql += &format!("; LOCK TABLE ONLY {} IN ACCESS SHARE MODE", quote_table(table));
    }
    client.batch_execute(&sql).await.map_err(|error| classify(READ, error))
}

/// Asked outside of the transaction, since every question takes a snapshot.
async fn is_lockable(client: &Client, table: &str) -> Result<bool> {
    // Nothing is left at a server that a pooler may not give us again.
    let rows = client.query_typed(LOCKABLE, &[(&table, Type::TEXT)]).await;
    let rows = rows.map_err(|error| classify(READ, error))?;
    // Of one that is not there, planning tells.
    let Some(row) = rows.first() else { return Ok(false) };
    row.try_get(0).map_err(|error| classify(READ, error))
}

/// Looks whether all that the transaction has locked so far is there as its snapshot has it.
pub(super) async fn look(client: &Client) -> Result<Look> {
    let row = client.query_one(LOOK, &[]).await.map_err(|error| classify(READ, error))?;
    let text =
        |index| row.try_get::<_, Option<String>>(index).map_err(|error| classify(READ, error));
    Ok(match text(1)? {
        Some(tables) => Look::Past(outdated(&tables)),
        None => Look::Sound(text(0)?.unwrap_or_default()),
    })
}

fn outdated(tables: &str) -> Error {
    Error::transient(READ, "what is read was reloaded after the snapshot was taken")
        .with("tables", tables)
        .help(
            "It is read again. Where this comes again and again: read when nothing is reloaded, or let it \
             be reloaded by DELETE and INSERT.",
        )
}
