//! Migrations of the embedded ledger, built into the binary, and the guard against a newer schema.
//! The schema's number is SQLite's own `user_version`.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::connect::sqlite::classify;
use crate::error::{Error, Result};

use crate::ledger::Migration;

const DOING: &str = "migrate the embedded ledger";

// Not named like those of PostgreSQL, which are taken from all folders beneath theirs.
const MIGRATIONS: [(i32, &str, &str); 1] =
    [(1, "ledger", include_str!("../../../migrations/embedded/001_ledger.sql"))];

/// Applies what is missing.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    let failed = |cause| classify(DOING, cause);
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let have = version(&tx)?;
    let newest = MIGRATIONS.iter().map(|(number, ..)| *number).max().unwrap_or(0);
    if have > newest {
        return Err(Error::refused("use the ledger", "it was migrated by a newer Longshore")
            .with("ledger", have)
            .with("binary", newest)
            .help("Update this binary; an older one could damage what the newer one wrote."));
    }
    for (number, _, sql) in MIGRATIONS.iter().filter(|(number, ..)| *number > have) {
        tx.execute_batch(sql).map_err(failed)?;
        tx.pragma_update(None, "user_version", number).map_err(failed)?;
    }
    tx.commit().map_err(failed)
}

/// The migrations that this binary knows, and whether the file has them.
pub fn status(path: &Path) -> Result<Vec<Migration>> {
    let have = if path.exists() {
        version(&Connection::open(path).map_err(|cause| classify(DOING, cause))?)?
    } else {
        0
    };
    Ok(MIGRATIONS
        .iter()
        .map(|(number, name, _)| Migration {
            version: *number,
            name: (*name).to_owned(),
            applied: *number <= have,
        })
        .collect())
}

fn version(connection: &Connection) -> Result<i32> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|cause| classify(DOING, cause))
}
