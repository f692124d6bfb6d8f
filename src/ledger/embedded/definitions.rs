//! Definitions: which is active, and its number.

use rusqlite::{Connection, OptionalExtension, params};

use super::file::{Trouble, array, now, texts};
use crate::ledger::{Applied, Change, NewDefinition};

/// See [`Ledger::activate`](crate::ledger::Ledger::activate).
pub fn activate(
    connection: &Connection,
    definitions: &[NewDefinition],
    retire: bool,
    (by, reason): (&str, &str),
) -> Result<Vec<Applied>, Trouble> {
    let at = now().as_microsecond();
    let mut applied = Vec::new();
    for new in definitions {
        let active: Option<String> = connection
            .query_row(
                "SELECT hash FROM active_definitions WHERE export = ?1",
                [&new.export],
                |row| row.get(0),
            )
            .optional()?;
        connection.execute(
            "INSERT INTO definitions (export, revision, hash, content, applied_at, applied_by) \
             SELECT ?1, coalesce(max(revision), 0) + 1, ?2, ?3, ?4, ?5 FROM definitions \
             WHERE export = ?1 ON CONFLICT (export, hash) DO NOTHING",
            params![new.export, new.hash, new.content, at, by],
        )?;
        let revision = connection.query_row(
            "SELECT revision FROM definitions WHERE export = ?1 AND hash = ?2",
            [&new.export, &new.hash],
            |row| row.get(0),
        )?;
        connection.execute(
            "INSERT OR REPLACE INTO active_definitions (export, hash, weight) VALUES (?1, ?2, ?3)",
            params![new.export, new.hash, new.weight],
        )?;
        let change = match active {
            None => Change::New,
            Some(hash) if hash == new.hash => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        applied.push(Applied { export: new.export.clone(), revision, change });
    }
    if retire {
        let gone = texts(
            connection,
            "DELETE FROM active_definitions \
             WHERE export NOT IN (SELECT value FROM json_each(?1)) RETURNING export",
            [array(definitions.iter().map(|new| &new.export))],
        )?;
        applied.extend(gone.into_iter().map(|export| Applied {
            export,
            revision: 0,
            change: Change::Retired,
        }));
    }
    for line in applied.iter().filter(|line| line.change != Change::Unchanged) {
        connection.execute(
            r#"INSERT INTO audit (at, "by", action, subject, reason)
               VALUES (?1, ?2, 'apply', ?3, ?4)"#,
            params![at, by, line.export, line.audited(reason)],
        )?;
    }
    Ok(applied)
}
