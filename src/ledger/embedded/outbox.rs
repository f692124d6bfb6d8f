//! The outbox: what waits to be published, and what was.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::file::{Trouble, array, now, rows, run_id};
use crate::ledger::Posting;
use crate::ledger::sheet::run_of;

/// See [`Ledger::take_due`](crate::ledger::Ledger::take_due).
pub fn take_due(
    connection: &Connection,
    limit: u32,
    lease: Duration,
) -> Result<Vec<Posting>, Trouble> {
    let at = now();
    let until = (at + lease).as_microsecond();
    let mut taken = rows(connection, sql!(take_due), (at.as_microsecond(), until, limit), |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, i32>(3)?,
            row.get::<_, Option<String>>(4)?,
        ))
    })?;
    taken.sort_by_key(|(version, ..)| *version);
    taken
        .into_iter()
        .map(|(version, kind, run, epoch, pool)| match kind.as_str() {
            "letter" => letter(connection, version, &run),
            _ => Ok(Posting::Wake {
                version,
                run: run_id(&run)?,
                epoch,
                pool: pool.unwrap_or_default(),
            }),
        })
        .collect()
}

fn letter(connection: &Connection, version: i64, run: &str) -> Result<Posting, Trouble> {
    let record: String = connection
        .prepare_cached(sql!(load_runs))?
        .query_row((array([run]), "[]"), |row| row.get(0))?;
    let mut found = run_of(&record)?;
    found.order.body =
        connection.query_row("SELECT body FROM runs WHERE id = ?1", [run], |row| row.get(0))?;
    Ok(Posting::Letter { version, run: Box::new(found) })
}

/// Marks postings sent; `versions` is a JSON array of their numbers.
pub fn mark_sent(connection: &Connection, versions: &str) -> Result<(), Trouble> {
    // What was replaced meanwhile has another version, and stays to be sent.
    connection.execute(
        "DELETE FROM outbox \
         WHERE kind IN ('letter', 'clean', 'notice-dead') \
           AND version IN (SELECT value FROM json_each(?1))",
        [versions],
    )?;
    connection.execute(
        "UPDATE outbox SET sent_at = ?2, taken_until = NULL \
         WHERE version IN (SELECT value FROM json_each(?1))",
        params![versions, now().as_microsecond()],
    )?;
    Ok(())
}
