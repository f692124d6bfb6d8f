//! Which tables a PostgreSQL database has, and which of them this user may read.

use super::{READ, SourceConfig};
use crate::connect::Connection;
use crate::connect::postgres::{classify, connect};
use crate::error::Result;
use crate::source::{Listed, Tables};

/// Patterns find what `\\dt` and `\\dv` of psql show, but for the partitions of a table, which are
/// read with it. What is of another kind (a materialized view, a foreign table, a partition) is there
/// for those who name it.
const LIST: &str = "
SELECT n.nspname::text, c.relname::text,
       c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition,
       n.nspname LIKE 'pg\\_%' OR n.nspname = 'information_schema',
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')";

/// The tables that the definition's patterns take.
pub(super) async fn list(connection: &Connection, config: &SourceConfig) -> Result<Vec<String>> {
    let tables = Tables::parse(config.tables.as_deref().unwrap_or_default())?;
    let client = connect(connection, "source").await?;
    let rows = client.query(LIST, &[]).await.map_err(|error| classify(READ, error))?;
    let listed = rows.iter().map(|row| {
        Ok(Listed {
            schema: Some(row.try_get(0)?),
            name: row.try_get(1)?,
            plain: row.try_get(2)?,
            system: row.try_get(3)?,
            // A table that was dropped meanwhile has no rights any more.
            readable: row.try_get::<_, Option<bool>>(4)?.unwrap_or(false),
        })
    });
    let listed = listed.collect::<Result<Vec<Listed>, tokio_postgres::Error>>();
    let picked = tables.pick(&listed.map_err(|error| classify(READ, error))?);
    client.close().await;
    picked
}
