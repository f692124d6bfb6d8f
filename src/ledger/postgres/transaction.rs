//! One transaction of the ledger: what it reads under its locks, and what it stores.
//!
//! It is three exchanges with the server, whatever its size: begin and read what is named, read the
//! resources that those need, store and commit. Within an exchange the statements are sent together
//! and executed in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use deadpool_postgres::Object;
use futures::future::try_join_all;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::columns::{self, Column};
use super::remembered::Known;
use super::{classify, column};
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::job::after::Predecessor;
use crate::job::changes::{Changes, Facts};
use crate::job::command::Command;
use crate::job::pause::Scope;
use crate::job::waiting::{Resource, Waiter};
use crate::ledger::sheet::{Named, Sheets, note_before, resources_of, run_of, targets_of};

/// What the ledger does in it, as errors tell it.
pub const DOING: &str = "write to the ledger";

/// The statements of a transaction, each by the name of its file. They are prepared before it
/// begins, so that within it they are sent without waiting, and so in order.
macro_rules! statements {
    ($($name:ident),* $(,)?) => {
        pub struct Prepared { clock: Statement, $($name: Statement),* }

        impl Prepared {
            /// Prepares what this connection has not prepared before.
            pub async fn on(client: &Object) -> Result<Prepared> {
                let texts = ["SELECT clock_timestamp(), pg_current_xact_id()::xid::text", $(sql!($name)),*];
                let prepared = try_join_all(texts.map(|sql| client.prepare_cached(sql)))
                    .await
                    .map_err(|e| classify(DOING, e))?;
                let mut prepared = prepared.into_iter();
                let mut next = || prepared.next().ok_or_else(|| {
                    Error::permanent(DOING, "a statement was not prepared")
                });
                Ok(Prepared { clock: next()?, $($name: next()?),* })
            }
        }
    };
}

statements!(
    lock_runs,
    lock_runs_and_before,
    load_runs,
    load_active,
    lock_resources,
    lock_needs,
    load_holdings,
    load_waiters,
    load_cursors,
    load_heads,
    load_pauses,
    load_before,
    insert_runs,
    update_runs,
    delete_holdings,
    end_attempts,
    delete_waiters,
    delete_postings,
    insert_deliveries,
    delete_cursors,
    put_cursors,
    put_cursor_files,
    insert_audit,
    insert_holdings,
    insert_attempts,
    insert_waiters,
    put_outbox,
);

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

async fn query(client: &Object, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>> {
    client.query(statement, params).await.map_err(|e| classify(DOING, e))
}

/// As [`query`], where there is something to ask for.
async fn query_if(
    wanted: bool,
    client: &Object,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Vec<Row>> {
    match wanted {
        true => query(client, statement, params).await,
        false => Ok(Vec::new()),
    }
}

async fn control(client: &Object, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(|e| classify(DOING, e))
}

/// Begins, locks the runs that are named, and reads what the commands concern. Answers also what the server
/// calls the transaction.
pub async fn load(
    prepared: &Prepared,
    client: &Object,
    commands: &[Command],
    known: Vec<Known>,
    begin: &str,
) -> Result<(Facts, String)> {
    let named = Named::of(commands);
    let runs: Vec<Uuid> = named.runs.iter().map(|run| run.0).collect();
    let keys: Vec<&String> = named.keys.iter().collect();
    let exports: Vec<&String> = named.exports.iter().collect();
    let named_runs: Params = &[&runs, &keys];
    let named_exports: Params = &[&exports];
    let (remembered, written_by): (Vec<Uuid>, Vec<&String>) =
        known.iter().map(|known| (known.run.id.0, &known.written_by)).unzip();
    let is_known: HashSet<&Uuid> = remembered.iter().collect();
    let unknown: Vec<Uuid> = runs.iter().copied().filter(|run| !is_known.contains(run)).collect();
    let to_read: Params = &[&unknown, &keys, &remembered, &written_by];
    // Whoever looks at other runs locks them too, all in one order with its own.
    let (before, starts, ends) = columns_of(&named.before);
    let and_before: Params = &[&runs, &keys, &before, &starts, &ends];
    let lock = match before.is_empty() {
        true => query(client, &prepared.lock_runs, named_runs),
        false => query(client, &prepared.lock_runs_and_before, and_before),
    };
    // The clock is read under the locks.
    let ((), locked, rows, active, pauses, clock) = tokio::try_join!(
        biased;
        control(client, begin),
        lock,
        query(client, &prepared.load_runs, to_read),
        query_if(!exports.is_empty(), client, &prepared.load_active, named_exports),
        query_if(named.pauses, client, &prepared.load_pauses, &[]),
        query(client, &prepared.clock, &[]),
    )?;
    let (now, xid) = match clock.first() {
        Some(row) => (column(row, 0)?, column(row, 1)?),
        None => return Err(Error::transient(DOING, "the server did not tell its time")),
    };
    let mut facts = Facts { now, ..Facts::default() };
    for row in &rows {
        let run = run_of(column(row, 0)?)?;
        if column(row, 1)? {
            facts.superseded.insert(run.id);
        }
        facts.runs.push(run);
    }
    for row in &active {
        facts.active.insert(column(row, 0)?, column(row, 1)?);
    }
    for row in &pauses {
        // What a newer Longshore pauses is not for this one to know.
        let scope = Scope::of(column(row, 0)?, column(row, 1)?);
        facts.pauses.extend(scope.map(|scope| scope.resource()));
    }
    let mut writers: HashMap<Uuid, String> = HashMap::new();
    for row in &locked {
        writers.insert(column(row, 0)?, column(row, 1)?);
    }
    // One may have been read as well, for another command's key.
    let read: HashSet<RunId> = facts.runs.iter().map(|run| run.id).collect();
    let as_remembered = known.into_iter().filter(|Known { run, written_by }| {
        writers.get(&run.id.0) == Some(written_by) && !read.contains(&run.id)
    });
    facts.runs.extend(as_remembered.map(|known| known.run));
    load_resources(prepared, client, &named, commands.len(), &mut facts).await?;
    Ok((facts, xid))
}

/// Predecessors, as three arrays.
fn columns_of(before: &BTreeSet<Predecessor>) -> (Vec<&String>, Vec<Timestamp>, Vec<Timestamp>) {
    let windows = || before.iter().map(|one| one.window);
    (
        before.iter().map(|one| &one.export).collect(),
        windows().map(|window| window.start).collect(),
        windows().map(|window| window.end).collect(),
    )
}

/// Locks the resources, then reads what stands under their locks: who holds them and waits for
/// them, cursors, and what was delivered last.
async fn load_resources(
    prepared: &Prepared,
    client: &Object,
    named: &Named,
    commands: usize,
    facts: &mut Facts,
) -> Result<()> {
    let mut resources: BTreeSet<String> = named.needs.keys().cloned().collect();
    resources.extend(facts.runs.iter().flat_map(resources_of));
    let names: Vec<String> = resources.into_iter().collect();
    let runs: Vec<Uuid> = facts.runs.iter().map(|run| run.id.0).collect();
    let (needs, capacities): (Vec<&String>, Vec<i32>) = named
        .needs
        .iter()
        .map(|(name, capacity)| (name, i32::try_from(*capacity).unwrap_or(i32::MAX)))
        .unzip();
    let cursors: Vec<&String> = named.cursors.iter().collect();
    let mut targets = named.targets.clone();
    targets.extend(facts.runs.iter().filter_map(targets_of));
    let targets: Vec<String> = targets.into_iter().collect();
    let most = i64::try_from(commands).unwrap_or(i64::MAX);
    let any = !names.is_empty();
    let of_names: Params = &[&names];
    let of_needs: Params = &[&needs, &capacities];
    let of_waiters: Params = &[&names, &most, &runs];
    let of_cursors: Params = &[&cursors];
    let of_targets: Params = &[&targets];
    let (before, starts, ends) = columns_of(&named.before);
    let of_before: Params = &[&before, &starts, &ends];
    let (locked, _, holdings, waiters, cursors, heads, before) = tokio::try_join!(
        biased;
        query_if(any, client, &prepared.lock_resources, of_names),
        // What is not there yet, or has another capacity now, is put there.
        query_if(!needs.is_empty(), client, &prepared.lock_needs, of_needs),
        query_if(any, client, &prepared.load_holdings, of_names),
        query_if(any, client, &prepared.load_waiters, of_waiters),
        query_if(!cursors.is_empty(), client, &prepared.load_cursors, of_cursors),
        query_if(!targets.is_empty(), client, &prepared.load_heads, of_targets),
        query_if(!before.is_empty(), client, &prepared.load_before, of_before),
    )?;
    let mut found: BTreeMap<String, Resource> = BTreeMap::new();
    for row in &locked {
        let capacity: i32 = column(row, 1)?;
        found.entry(column(row, 0)?).or_default().capacity = capacity.unsigned_abs();
    }
    for row in &holdings {
        found.entry(column(row, 0)?).or_default().holders.insert(RunId(column(row, 1)?));
    }
    for row in &waiters {
        found.entry(column(row, 0)?).or_default().waiters.insert(Waiter {
            run: RunId(column(row, 1)?),
            since: column(row, 2)?,
            pool: column(row, 3)?,
            epoch: column(row, 4)?,
        });
    }
    facts.resources = found;
    for row in &cursors {
        facts.cursors.insert(column(row, 0)?, column(row, 1)?);
    }
    for row in &heads {
        facts.heads.insert(column(row, 0)?, column(row, 1)?);
    }
    for row in &before {
        note_before(column(row, 0)?, &mut facts.before)?;
    }
    Ok(())
}

/// Stores what changed, and commits.
pub async fn store(
    prepared: &Prepared,
    client: &Object,
    changes: &Changes,
    notices: bool,
) -> Result<()> {
    let sheets = Sheets::of(changes, notices)?;
    let put = async |statement: &Statement, sheet: Option<&String>| -> Result<()> {
        if let Some(sheet) = sheet {
            client.execute(statement, &[&Json(sheet)]).await.map_err(|e| classify(DOING, e))?;
        }
        Ok(())
    };
    let put_runs = async |statement: &Statement, columns: Option<Vec<Column<'_>>>| -> Result<()> {
        if let Some(columns) = columns {
            let params = columns.iter().map(|column| &**column as &(dyn ToSql + Sync));
            let params: Vec<_> = params.collect();
            client.execute(statement, &params).await.map_err(|e| classify(DOING, e))?;
        }
        Ok(())
    };
    let Changes { inserted, updated, .. } = changes;
    let inserted = (!inserted.is_empty()).then(|| columns::whole(inserted)).transpose()?;
    let updated = (!updated.is_empty()).then(|| columns::changing(updated)).transpose()?;
    // In this order: runs before what refers to them, and what is taken away before what takes its
    // place. Where one fails the server refuses the rest, and COMMIT rolls back.
    tokio::try_join!(
        biased;
        put_runs(&prepared.insert_runs, inserted),
        put_runs(&prepared.update_runs, updated),
        put(&prepared.delete_holdings, sheets.freed.as_ref()),
        put(&prepared.end_attempts, sheets.ended.as_ref()),
        put(&prepared.delete_waiters, sheets.unparked.as_ref()),
        put(&prepared.delete_postings, sheets.unposted.as_ref()),
        put(&prepared.insert_deliveries, sheets.deliveries.as_ref()),
        put(&prepared.delete_cursors, sheets.forgotten.as_ref()),
        put(&prepared.put_cursors, sheets.cursors.as_ref()),
        put(&prepared.put_cursor_files, sheets.cursor_files.as_ref()),
        put(&prepared.insert_audit, sheets.audit.as_ref()),
        put(&prepared.insert_holdings, sheets.taken.as_ref()),
        put(&prepared.insert_attempts, sheets.opened.as_ref()),
        put(&prepared.insert_waiters, sheets.parked.as_ref()),
        put(&prepared.put_outbox, sheets.wakes.as_ref()),
        put(&prepared.put_outbox, sheets.letters.as_ref()),
        control(client, "COMMIT"),
    )?;
    Ok(())
}

/// JSON text as a parameter of type json, sent as it is.
#[derive(Debug)]
struct Json<'a>(&'a str);

impl ToSql for Json<'_> {
    fn to_sql(
        &self,
        _: &tokio_postgres::types::Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(tokio_postgres::types::IsNull::No)
    }

    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        *kind == tokio_postgres::types::Type::JSON
    }

    tokio_postgres::types::to_sql_checked!();
}
