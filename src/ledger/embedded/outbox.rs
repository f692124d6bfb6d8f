//! The outbox: what waits to be published, and what was.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::file::{Trouble, array, now, pairs, rows, run_id};
use crate::job::machine::later;
use crate::ledger::Posting;
use crate::ledger::sheet::{message_of, run_of};

/// For how many microseconds what was sent is taken to be on its queue still: ten minutes.
const SURE: i64 = 600_000_000;

/// See [`Ledger::take_due`](crate::ledger::Ledger::take_due).
pub fn take_due(
    connection: &Connection,
    limit: u32,
    ahead: u32,
    lease: Duration,
) -> Result<Vec<Posting>, Trouble> {
    let at = now();
    let versions = next(connection, limit, ahead, at.as_microsecond())?;
    if versions.is_empty() {
        return Ok(Vec::new());
    }
    let until = (at + lease).as_microsecond();
    let mut taken = rows(connection, sql!(take_due), (array(&versions), until), |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, i32>(3)?,
            row.get::<_, Option<String>>(4)?,
            row.get::<_, Option<String>>(5)?,
        ))
    })?;
    let turns: HashMap<i64, usize> = versions.into_iter().zip(0..).collect();
    taken.sort_by_key(|(version, ..)| turns.get(version).copied());
    taken
        .into_iter()
        .map(|(version, kind, run, epoch, pool, message)| match kind.as_str() {
            "letter" => letter(connection, version, &run),
            "job" => Ok(Posting::Job {
                version,
                pool: pool.unwrap_or_default(),
                message: Box::new(message_of(&message.unwrap_or_default())?),
            }),
            _ => Ok(Posting::Wake {
                version,
                run: run_id(&run)?,
                epoch,
                pool: pool.unwrap_or_default(),
            }),
        })
        .collect()
}

/// The versions of what may go now, in the order of their turns.
fn next(connection: &Connection, limit: u32, ahead: u32, at: i64) -> Result<Vec<i64>, Trouble> {
    let free: Vec<(i64, i64)> = pairs(connection, sql!(due_at_once), (at, limit))?;
    let mut due: Vec<_> =
        (0..).zip(free).map(|(turn, (version, since))| (turn, since, version)).collect();
    let lines = rows(connection, sql!(lines), [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    })?;
    let sure = at - SURE;
    for (pool, export, weight) in lines {
        let most = i64::from(ahead) * weight;
        let before: i64 = connection
            .prepare_cached(sql!(ahead))?
            .query_row(params![pool, export, most, sure], |row| row.get(0))?;
        let room = (most - before).clamp(0, limit.into());
        let first = rows(connection, sql!(first_in_line), (pool, export, at, room), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<bool>>(2)?))
        })?;
        let turns = (0..).zip(first).filter(|(_, (.., taken))| *taken != Some(true));
        due.extend(turns.map(|(place, (version, since, _))| (place / weight, since, version)));
    }
    due.sort_unstable();
    due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(due.into_iter().map(|(.., version)| version).collect())
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

/// Puts a message into the outbox, that is due `after` from now.
pub fn post_again(
    connection: &Connection,
    pool: &str,
    message: &str,
    after: Duration,
) -> Result<(), Trouble> {
    let name = uuid::Uuid::now_v7().to_string();
    let at = later(now(), after).as_microsecond();
    connection.prepare_cached(sql!(put_job))?.execute(params![name, pool, at, message])?;
    connection.execute("UPDATE outbox_version SET last = last + 1", [])?;
    Ok(())
}

/// Marks postings sent; `versions` is a JSON array of their numbers.
pub fn mark_sent(connection: &Connection, versions: &str) -> Result<(), Trouble> {
    // What was replaced meanwhile has another version, and stays to be sent.
    connection.execute(
        "DELETE FROM outbox \
         WHERE kind IN ('letter', 'clean', 'job', 'notice-dead') \
           AND version IN (SELECT value FROM json_each(?1))",
        [versions],
    )?;
    connection.execute(
        "UPDATE outbox \
         SET sent_at = ?2, first_sent_at = coalesce(first_sent_at, ?2), taken_until = NULL \
         WHERE version IN (SELECT value FROM json_each(?1))",
        params![versions, now().as_microsecond()],
    )?;
    Ok(())
}
