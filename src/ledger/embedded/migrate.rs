//! Migrations of the embedded ledger, built into the binary, and the guard against a newer schema.
//! The schema's number is SQLite's own `user_version`.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::file::BUSY;
use crate::connect::sqlite::classify;
use crate::error::{Error, Result};
use crate::ledger::Migration;

const DOING: &str = "migrate the embedded ledger";

// Not named like those of PostgreSQL, which are taken from all folders beneath theirs.
const MIGRATIONS: [(i32, &str, &str); 12] = [
    (1, "ledger", include_str!("../../../migrations/embedded/001_ledger.sql")),
    (2, "editions", include_str!("../../../migrations/embedded/002_editions.sql")),
    (3, "operating", include_str!("../../../migrations/embedded/003_operating.sql")),
    (4, "fanout", include_str!("../../../migrations/embedded/004_fanout.sql")),
    (5, "after", include_str!("../../../migrations/embedded/005_after.sql")),
    (6, "quarantine", include_str!("../../../migrations/embedded/006_quarantine.sql")),
    (7, "files", include_str!("../../../migrations/embedded/007_files.sql")),
    (8, "deliveries", include_str!("../../../migrations/embedded/008_deliveries.sql")),
    (9, "undone", include_str!("../../../migrations/embedded/009_undone.sql")),
    (10, "ticks", include_str!("../../../migrations/embedded/010_ticks.sql")),
    (11, "turns", include_str!("../../../migrations/embedded/011_turns.sql")),
    (12, "lines", include_str!("../../../migrations/embedded/012_lines.sql")),
];

/// Gives a new file its write-ahead log. Of several that do so at the same moment, SQLite fails the
/// others at once, whatever their busy timeout, since each reads before it writes.
#[expect(clippy::disallowed_methods, reason = "it blocks as SQLite's own waiting does")]
pub fn journal(connection: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(cause)
                if cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && started.elapsed() < BUSY =>
            {
                std::thread::sleep(Duration::from_millis(rand::random_range(1..20)));
            }
            switched => return switched,
        }
    }
}

/// Applies what is missing, in one transaction for which others wait.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    let failed = |cause| classify(DOING, cause);
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let have = known(version(&tx)?)?;
    for (number, _, sql) in MIGRATIONS.iter().filter(|(number, ..)| *number > have) {
        tx.execute_batch(sql).map_err(failed)?;
        tx.pragma_update(None, "user_version", number).map_err(failed)?;
    }
    tx.commit().map_err(failed)
}

/// The migrations that this binary knows, and whether the file has them.
pub fn status(path: &Path) -> Result<Vec<Migration>> {
    let failed = |cause| classify(DOING, cause);
    let have = if path.exists() {
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        known(version(&connection)?)?
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

/// Refuses a schema that is newer than this binary.
fn known(have: i32) -> Result<i32> {
    let newest = MIGRATIONS.iter().map(|(number, ..)| *number).max().unwrap_or(0);
    if have > newest {
        return Err(Error::refused("use the ledger", "it was migrated by a newer Longshore")
            .with("ledger", have)
            .with("binary", newest)
            .help("Update this binary; an older one could damage what the newer one wrote."));
    }
    Ok(have)
}

fn version(connection: &Connection) -> Result<i32> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|cause| classify(DOING, cause))
}
