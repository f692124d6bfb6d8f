//! How states of runs change: what a batch of commands names is loaded, the book applies them, and
//! what changed is stored, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::file::{Trouble, array, now, pairs, rows, run_id, stamp, texts};
use crate::job::after::Predecessor;
use crate::job::book::Book;
use crate::job::changes::{Changes, Facts};
use crate::job::command::{Command, Outcome};
use crate::job::pause::Scope;
use crate::job::waiting::{Resource, Waiter};
use crate::job::window::Window;
use crate::ledger::sheet::{
    self, Named, Sheets, note_before, resources_of, run_of, storable, targets_of,
};

/// Applies commands; with `notices`, a run that dies leaves one in the outbox. Answers also whether something was put into the outbox that is due.
pub fn apply(
    connection: &Connection,
    commands: Vec<Command>,
    notices: bool,
) -> Result<(Vec<Outcome>, bool), Trouble> {
    storable(&commands)?;
    let at = now();
    let mut book = Book::new(load(connection, &commands, at)?);
    let outcomes = commands.into_iter().map(|command| book.apply(command)).collect();
    let changes = book.close();
    store(connection, &changes, notices, at)?;
    Ok((outcomes, changes.posts(at)))
}

fn load(connection: &Connection, commands: &[Command], at: Timestamp) -> Result<Facts, Trouble> {
    let named = Named::of(commands);
    let mut facts = Facts { now: at, ..Facts::default() };
    let found: Vec<(String, bool)> =
        pairs(connection, sql!(load_runs), (array(&named.runs), array(&named.keys)))?;
    for (text, superseded) in found {
        let run = run_of(&text)?;
        if superseded {
            facts.superseded.insert(run.id);
        }
        facts.runs.push(run);
    }
    facts.active = pairs(
        connection,
        "SELECT export, hash FROM active_definitions \
         WHERE export IN (SELECT value FROM json_each(?1))",
        [array(&named.exports)],
    )?
    .into_iter()
    .collect();
    if named.pauses {
        let pauses = pairs::<String, String>(
            connection,
            "SELECT scope, name FROM pauses WHERE until IS NULL OR until > ?1",
            [at.as_microsecond()],
        )?;
        // What a newer Longshore pauses is not for this one to know.
        let scopes = pauses.iter().filter_map(|(kind, name)| Scope::of(kind, name));
        facts.pauses = scopes.map(|scope| scope.resource()).collect();
    }
    let mut resources: BTreeSet<String> = named.needs.keys().cloned().collect();
    resources.extend(facts.runs.iter().flat_map(resources_of));
    let runs = array(facts.runs.iter().map(|run| run.id));
    facts.resources = load_resources(connection, &resources, commands.len(), &runs)?;
    facts.cursors = pairs(
        connection,
        "SELECT name, value FROM cursors WHERE name IN (SELECT value FROM json_each(?1))",
        [array(&named.cursors)],
    )?
    .into_iter()
    .collect();
    let mut targets = named.targets;
    targets.extend(facts.runs.iter().filter_map(targets_of));
    facts.heads = pairs(
        connection,
        "SELECT target, manifest_sha256 FROM heads \
         WHERE target IN (SELECT value FROM json_each(?1))",
        [array(&targets)],
    )?
    .into_iter()
    .collect();
    for before in &named.before {
        let Window { start, end } = before.window;
        let of = params![before.export, start.as_microsecond(), end.as_microsecond()];
        for text in texts(connection, sql!(load_before), of)? {
            note_before(&text, &mut facts.before)?;
        }
    }
    Ok(facts)
}

fn load_resources(
    connection: &Connection,
    resources: &BTreeSet<String>,
    commands: usize,
    runs: &str,
) -> Result<BTreeMap<String, Resource>, Trouble> {
    let names = array(resources);
    let mut found: BTreeMap<String, Resource> = BTreeMap::new();
    for (name, capacity) in pairs::<String, u32>(
        connection,
        "SELECT name, capacity FROM resources WHERE name IN (SELECT value FROM json_each(?1))",
        [&names],
    )? {
        found.entry(name).or_default().capacity = capacity;
    }
    for (name, run) in pairs::<String, String>(
        connection,
        "SELECT resource, run FROM holdings WHERE resource IN (SELECT value FROM json_each(?1))",
        [&names],
    )? {
        found.entry(name).or_default().holders.insert(run_id(&run)?);
    }
    let most = i64::try_from(commands).unwrap_or(i64::MAX);
    let mut waiters = rows(connection, sql!(load_named_waiters), [&*names, runs], waiter)?;
    for name in resources {
        // Of a predecessor all are woken at once.
        let most = if Predecessor::of_resource(name).is_some() { -1 } else { most };
        waiters.extend(rows(connection, sql!(load_waiters), params![name, most], waiter)?);
    }
    for (name, run, since, pool, epoch) in waiters {
        let waiter = Waiter { run: run_id(&run)?, since: stamp(since)?, pool, epoch };
        found.entry(name).or_default().waiters.insert(waiter);
    }
    Ok(found)
}

/// A row of the list of waiters.
fn waiter(row: &Row<'_>) -> rusqlite::Result<(String, String, i64, String, i32)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn store(
    connection: &Connection,
    changes: &Changes,
    notices: bool,
    at: Timestamp,
) -> Result<(), Trouble> {
    let sheets = Sheets::of(changes, notices)?;
    let at = at.as_microsecond();
    let put = |sql: &str, sheet: &Option<String>| -> Result<(), Trouble> {
        if let Some(sheet) = sheet {
            connection.prepare_cached(sql)?.execute([sheet])?;
        }
        Ok(())
    };
    let put_at = |sql: &str, sheet: &Option<String>| -> Result<(), Trouble> {
        if let Some(sheet) = sheet {
            connection.prepare_cached(sql)?.execute(params![sheet, at])?;
        }
        Ok(())
    };
    put(sql!(insert_runs), &sheet::inserted(changes)?)?;
    put(sql!(update_runs), &sheet::updated(changes)?)?;
    put(sql!(put_resources), &sheets.resources)?;
    put(sql!(delete_holdings), &sheets.freed)?;
    put(sql!(insert_holdings), &sheets.taken)?;
    put(sql!(delete_waiters), &sheets.unparked)?;
    put(sql!(insert_waiters), &sheets.parked)?;
    put(sql!(delete_postings), &sheets.unposted)?;
    for posts in [&sheets.wakes, &sheets.letters] {
        put_at(sql!(put_outbox), posts)?;
        put("UPDATE outbox_version SET last = last + json_array_length(?1)", posts)?;
    }
    put_at(sql!(end_attempts), &sheets.ended)?;
    put_at(sql!(insert_attempts), &sheets.opened)?;
    put_at(sql!(insert_deliveries), &sheets.deliveries)?;
    put(sql!(put_heads), &sheets.deliveries)?;
    put(sql!(delete_cursors), &sheets.forgotten)?;
    put(sql!(delete_cursor_files), &sheets.forgotten)?;
    put_at(sql!(put_cursors), &sheets.cursors)?;
    put(sql!(put_cursor_files), &sheets.cursor_files)?;
    put_at(sql!(insert_audit), &sheets.audit)
}
