//! Refused rows on their way once more: from the file that kept them to the contract.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;

use super::Vault;
use super::read::{KeptRow, KeptRows, Types};
use crate::budget::Budget;
use crate::contract::BrokenRules;
use crate::error::{Error, Result};
use crate::format::decode::batcher::schema;
use crate::format::decode::refused::{RefusedRows, raw_row};
use crate::job::supplement::Supplement;
use crate::rows::{At, BATCH_ROWS, Batch, Counts, Origin, Places, Refused, Rows, batch_bytes};

const DOING: &str = "read the refused rows again";

/// What a file holds, found by reading it whole: nothing is delivered of one that is damaged.
struct Content {
    /// The columns that rows have.
    types: Vec<Types>,
    /// How many rows each of them has.
    typed: Vec<u64>,
    /// How many rows were refused before they had types.
    untyped: u64,
}

/// The rows that a supplement is made of, a stream for each kind of columns that they have. Those
/// that were refused before the contract saw them have no types, and stay refused.
///
/// # Errors
/// `permanent` where the file is damaged, or holds another number of rows than the run recorded;
/// `contract` where no row could be held against a contract.
pub async fn rows(vault: &Vault, supplement: &Supplement, budget: &Budget) -> Result<Vec<Rows>> {
    let Supplement { run, place, rows, .. } = supplement;
    let content = KeptRows::open(vault, *run, place, count).await?;
    let found = content.typed.iter().sum::<u64>() + content.untyped;
    if found != *rows {
        return Err(Error::permanent(
            DOING,
            format!("there are {found}, and the run refused {rows}"),
        )
        .with("file", place)
        .help("Somebody changed the file; nothing is released."));
    }
    let typed = content.typed.iter().enumerate().filter(|(_, rows)| **rows > 0);
    let streams: Vec<Rows> = typed
        .zip(std::iter::once(true).chain(std::iter::repeat(false)))
        .filter_map(|((of, _), first)| {
            let types = content.types.get(of)?.clone();
            let schema = schema(&types);
            let pick = Pick { of, types, untyped: first && content.untyped > 0 };
            let stream = stream(vault, supplement, pick, budget);
            Some(Rows { schema, stream, snapshot: None })
        })
        .collect();
    if streams.is_empty() {
        return Err(Error::contract(DOING, "none of them can be held against a contract").help(
            "They could not be read or transformed; correct the data at its source, and run the \
             export again.",
        ));
    }
    Ok(streams)
}

fn count(mut rows: KeptRows) -> Result<Content> {
    let (mut typed, mut untyped) = (Vec::new(), 0);
    while let Some(row) = rows.next_row()? {
        let Some(of) = row.of else {
            untyped += 1;
            continue;
        };
        typed.resize(rows.types().len(), 0);
        if let Some(count) = typed.get_mut(of) {
            *count += 1;
        }
    }
    Ok(Content { types: rows.types().to_vec(), typed, untyped })
}

/// Which rows of a file.
struct Pick {
    /// The number of their columns.
    of: usize,
    types: Types,
    /// Besides, those without types.
    untyped: bool,
}

/// The picked rows; nothing is read before the first is asked for.
fn stream(
    vault: &Vault,
    supplement: &Supplement,
    pick: Pick,
    budget: &Budget,
) -> BoxStream<'static, Result<Batch>> {
    let (vault, Supplement { run, place, .. }) = (vault.clone(), supplement.clone());
    let budget = budget.clone();
    let begun = async move {
        let (outbox, inbox) = mpsc::channel(1);
        let reading = tokio::spawn(async move {
            let send = move |rows| send(rows, pick, &budget, &outbox);
            KeptRows::open(&vault, run, &place, send).await
        });
        stream::unfold((inbox, Some(reading)), |(mut inbox, mut reading)| async move {
            if let Some(batch) = inbox.recv().await {
                return Some((Ok(batch), (inbox, reading)));
            }
            // Where nothing more comes, the reading tells why.
            let error = match reading.take()?.await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error,
                Err(cause) => Error::transient(DOING, "the work was cut off").caused_by(cause),
            };
            Some((Err(error), (inbox, None)))
        })
    };
    stream::once(begun).flatten().boxed()
}

fn send(
    mut rows: KeptRows,
    pick: Pick,
    budget: &Budget,
    outbox: &mpsc::Sender<Batch>,
) -> Result<()> {
    let mut gathered = Gathered::new(&pick.types, budget)?;
    while let Some(row) = rows.next_row()? {
        let of = row.of;
        if of != Some(pick.of) && !(of.is_none() && pick.untyped) {
            continue;
        }
        let place = Place::of(row.origin.as_ref());
        let elsewhere = of.is_some() && !gathered.numbers.is_empty() && place != gathered.place;
        if (elsewhere || gathered.is_full())
            && outbox.blocking_send(gathered.take()?.charged(budget)?).is_err()
        {
            // Nobody wants them any more.
            return Ok(());
        }
        if of.is_none() {
            gathered.bytes += row.row.get().len();
            gathered.refused.push(again(row)?);
            continue;
        }
        gathered.numbers.push(place.as_ref().map_or(0, |place| place.number));
        gathered.place = place;
        gathered.batches.add(row.row.get())?;
    }
    let last = gathered.take()?;
    if last.read > 0 {
        let _ = outbox.blocking_send(last.charged(budget)?);
    }
    Ok(())
}

/// Where a row came from. The places of one file are equal, whatever their numbers.
struct Place {
    file: Arc<str>,
    at: fn(u64) -> At,
    is_line: bool,
    number: u64,
}

impl Place {
    fn of(origin: Option<&Origin>) -> Option<Place> {
        let Origin { file, at } = origin?;
        let file = file.as_str().into();
        Some(match *at {
            At::Line(number) => Place { file, at: At::Line, is_line: true, number },
            At::Row(number) => Place { file, at: At::Row, is_line: false, number },
        })
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        (&self.file, self.is_line) == (&other.file, other.is_line)
    }
}

/// Rows on their way into a batch: those with types are of one file, or of none.
struct Gathered {
    batches: RefusedRows,
    place: Option<Place>,
    numbers: Vec<u64>,
    refused: Vec<Refused>,
    /// Of the rows without types.
    bytes: usize,
    /// How many of those make a batch.
    full: usize,
    schema: SchemaRef,
}

impl Gathered {
    fn new(types: &Types, budget: &Budget) -> Result<Gathered> {
        Ok(Gathered {
            batches: RefusedRows::new(types).within(budget)?,
            full: batch_bytes(budget),
            place: None,
            numbers: Vec::new(),
            refused: Vec::new(),
            bytes: 0,
            schema: schema(types),
        })
    }

    fn is_full(&self) -> bool {
        let many = self.refused.len() >= BATCH_ROWS || self.bytes >= self.full;
        many || self.batches.is_full()
    }

    /// The rows since the last time, as a batch that was read.
    fn take(&mut self) -> Result<Batch> {
        let empty = || Batch::whole(RecordBatch::new_empty(Arc::clone(&self.schema)));
        let mut batch = self.batches.finish()?.unwrap_or_else(empty);
        let numbers = std::mem::take(&mut self.numbers).into();
        batch.places = self.place.take().map(|Place { file, at, .. }| Places { file, at, numbers });
        batch.read += self.refused.len() as u64;
        batch.refused.append(&mut self.refused);
        self.bytes = 0;
        Ok(batch)
    }
}

/// A row that stays refused.
fn again(kept: KeptRow) -> Result<Refused> {
    let KeptRow { rule, column, why, also, origin, of: _, row } = kept;
    Ok(Refused { rule, column, why, also, origin, row: raw_row(row.get())?, schema: None })
}

/// Whether a supplement may be delivered: it has a row, and those that were refused again are kept.
///
/// # Errors
/// `contract`; then the rows stay where they were.
pub fn check_taken(counts: &Counts, broken: &BrokenRules, kept: bool) -> Result<()> {
    if counts.written > 0 && (kept || counts.quarantined == 0) {
        return Ok(());
    }
    let message = match counts.written {
        0 => format!("all {} rows were refused again: {broken}", counts.read),
        _ => format!(
            "there is no quarantine to keep the {} in that were refused again",
            counts.quarantined
        ),
    };
    Err(Error::contract("keep the contract", message).help(
        "The rows are kept as they were. Correct the contract, apply it, and release them again.",
    ))
}
