//! The references of a run: read whole before its rows, each from a source of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::account::PLACES;
use super::{House, Plan};
use crate::budget::{Budget, Use};
use crate::connect::Connection;
use crate::contract::BrokenRules;
use crate::error::{Error, Result};
use crate::export::Export;
use crate::job::param::Bindings;
use crate::rows::Refused;
use crate::source::{self, Source};
use crate::transform::{Table, Tables, cost};
use crate::units::Size;

const DOING: &str = "read the references";

/// A small table that the transform looks rows up in.
pub(super) struct Reference {
    name: String,
    key: Vec<String>,
    source: Box<dyn Source>,
    pub connection: Arc<Connection>,
}

impl Reference {
    /// The references of an export. None of them is reached yet. `filled` gives the path of a run.
    ///
    /// # Errors
    /// `config`, where one does not fit this installation, and those of `filled`.
    pub fn of(
        export: &Export,
        house: &House,
        budget: &Budget,
        filled: impl Fn(&str) -> Result<String>,
    ) -> Result<Vec<Reference>> {
        let one = |(name, config): (&String, &source::SourceConfig)| {
            let build = || {
                let connection = house.connection(&config.connection)?;
                Ok(Reference {
                    name: name.clone(),
                    key: config.key.clone().unwrap_or_default(),
                    source: source::build_reference(&config.at(&filled)?, connection, budget)?,
                    connection: Arc::clone(connection),
                })
            };
            build().map_err(|error: Error| error.with("reference", name))
        };
        export.reference.iter().map(one).collect()
    }

    /// Its columns, as a table without rows.
    async fn columns(&self, bindings: &Bindings) -> Result<Table> {
        let schema = self.source.schema(bindings).await?;
        Table::new(&self.name, &schema, &self.key, &[])
    }

    /// All of its rows. `room` is how many bytes they may take; what they take is taken off it.
    async fn read(
        &self,
        bindings: &Bindings,
        budget: &Budget,
        room: &mut u64,
        bound: u64,
    ) -> Result<Table> {
        let mut charge = budget.open(Use::References);
        let mut total = 0;
        let mut rows = self.source.read(bindings).await?;
        let (mut batches, mut refused) = (Vec::<RecordBatch>::new(), BTreeMap::new());
        let mut first = Vec::new();
        while let Some(batch) = rows.stream.try_next().await? {
            let untold = PLACES.saturating_sub(first.len());
            first.extend(batch.refused.iter().filter_map(Refused::place).take(untold));
            for row in batch.refused {
                *refused.entry(row.named()).or_default() += 1_u64;
            }
            let bytes = cost(&batch.rows, &self.key);
            *room = room.checked_sub(bytes).ok_or_else(|| {
                let taken = bound - *room + bytes;
                Error::permanent(
                    DOING,
                    format!(
                        "they are too large: {} with the rows read so far, and {} may be taken",
                        Size(taken).human(),
                        Size(bound).human()
                    ),
                )
                .with("bytes", taken)
                .with("bound", bound)
                .help(
                    "References may take half of [limits] memory: raise that, read fewer rows and \
                     columns, or join in the source's query.",
                )
            })?;
            total += bytes as usize;
            charge.set(total)?;
            batches.push(batch.rows);
        }
        if !refused.is_empty() {
            let count: u64 = refused.values().sum();
            let rows = if count == 1 { "row" } else { "rows" };
            let broken = BrokenRules::of(refused).at(first);
            return Err(Error::contract(
                DOING,
                format!("{count} {rows} could not be read exactly: {broken}"),
            )
            .help("All rows of a reference must be right: correct them where they come from."));
        }
        let schema = Arc::clone(&rows.schema);
        // What reading took is given back: beside the rows, the table is made, of as many bytes.
        drop(rows);
        charge.set(2 * total)?;
        let table = Table::new(&self.name, &schema, &self.key, &batches)?;
        drop(batches);
        charge.set(total)?;
        Ok(table.charged(charge))
    }
}

impl Plan {
    /// Reads the references, all of them.
    ///
    /// # Errors
    /// The sources'; `contract` where rows cannot be read or have one key, `permanent` where they take
    /// more memory than they may. Each names its reference.
    pub(super) async fn read_references(&self) -> Result<Tables> {
        let bound = self.export().limits.memory.0 / 2;
        let mut room = bound;
        let mut tables = Tables::new();
        for one in &self.references {
            let table = one.read(&self.bindings, &self.budget, &mut room, bound).await;
            let table = table.map_err(|error| error.with("reference", &one.name))?;
            tables.insert(one.name.clone(), Arc::new(table));
        }
        Ok(tables)
    }

    /// The references without their rows.
    ///
    /// # Errors
    /// The sources', and where a key is none.
    pub(super) async fn columns_of_references(&self) -> Result<Tables> {
        let mut tables = Tables::new();
        for one in &self.references {
            let table = one.columns(&self.bindings).await;
            let table = table.map_err(|error| error.with("reference", &one.name))?;
            tables.insert(one.name.clone(), Arc::new(table));
        }
        Ok(tables)
    }
}
