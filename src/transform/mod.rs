//! The transform: one row-wise SELECT over `input`, by DataFusion's parser and expressions.
//!
//! One row in gives one row out, or none, and the same row always gives the same result. In small
//! tables, the references, it looks up at most one row for each by a join with their key.
//! Whatever needs more than one row belongs into the source's query, where a database does it
//! better. Numbers are exact: literals with a point are decimals, an overflow refuses its row
//! instead of wrapping around, and what would round in silence is refused when planning.
//! Integer division drops the remainder, as SQL says.

mod check;
mod context;
mod join;
mod output;
mod plan;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter, filter_record_batch, is_not_null, take};
use arrow::datatypes::{DataType, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::row_json;
use crate::rows::{BATCH_BYTES, Batch, Places, Refused, Rows};

pub(crate) use plan::{CHARACTER, LINE};
pub use table::{Table, Tables, cost};

/// The `[transform]` of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TransformConfig {
    /// `SELECT … FROM input [LEFT JOIN reference ON …] [WHERE …]`. One row in gives one row out, or none;
    /// other joins, groups and order belong into the query. Types are exact: what would lose digits is
    /// refused when planning. `docs/reference/sql.md` has its types and functions.
    pub sql: String,
}

/// One step over a batch.
#[derive(Debug)]
enum Stage {
    /// Leaves out the rows for which the condition is not true.
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes the columns of a new batch.
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    /// Sets the columns of a reference beside those that are there.
    Lookup(Lookup),
}

/// How a row of a reference is found for each row of a batch.
#[derive(Debug)]
struct Lookup {
    table: Arc<Table>,
    /// What is looked up, in the order of the key.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Whether rows without a counterpart stay, with NULLs; else they are left out.
    whole: bool,
    /// The columns of the reference that are wanted.
    taken: Vec<usize>,
    schema: SchemaRef,
}

/// A transform that was planned for one input schema.
#[derive(Debug)]
pub struct Transform {
    stages: Vec<Stage>,
    schema: SchemaRef,
}

impl Transform {
    /// Checks the form of the SELECT alone, where the schema of its input or of a reference is not
    /// known. Answers which of the references it uses.
    ///
    /// # Errors
    /// `config`, with the place where the parser tells one.
    pub fn parse(
        config: &TransformConfig,
        references: &BTreeSet<&str>,
    ) -> Result<BTreeSet<String>> {
        plan::parse(&config.sql, references)
    }

    /// Plans the SELECT against the schema of its input and the references, without reading a row.
    ///
    /// Fails with class `config` if the SQL is wrong, is not row-wise, depends on anything but
    /// the row and the references, or would lose digits.
    pub fn plan(config: &TransformConfig, input: SchemaRef, tables: &Tables) -> Result<Transform> {
        let transform = plan::plan(&config.sql, input.clone(), tables)?;
        // What fails without a row would fail for every row.
        let none = Placed { rows: RecordBatch::new_empty(input), places: None };
        transform.run(none).map_err(|failure| {
            plan::never(&config.sql, failure.column().as_deref(), &failure.cause)
        })?;
        Ok(transform)
    }

    /// The schema of what it gives.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Transforms one batch. A row whose evaluation fails (overflow, division by zero, a value
    /// that cannot be cast) is refused; the others go on.
    pub fn apply(&self, batch: Batch) -> Result<Batch> {
        let charge = batch.charge;
        let mut refused = batch.refused;
        let earlier = refused.len();
        let before = Placed { rows: batch.rows, places: batch.places };
        let count = before.rows.num_rows();
        let mut parts = Vec::with_capacity(1);
        self.separate(before, &mut parts, &mut refused);
        let Placed { rows, places } = match parts.len() {
            1 => parts.remove(0),
            _ => joined(&self.schema, &parts).map_err(|cause| {
                Error::permanent("transform rows", "the parts of a batch do not fit together")
                    .caused_by(cause)
            })?,
        };
        let left_out = count - (refused.len() - earlier) - rows.num_rows();
        let filtered = batch.filtered + left_out as u64;
        Ok(Batch { rows, read: batch.read, filtered, refused, places, charge })
    }

    /// Transforms a stream of batches, lazily. Where what is looked up is wide, batches become several.
    pub fn rows(self, rows: Rows) -> Rows {
        let schema = self.schema();
        let most = self.rows_at_once();
        let stream = rows
            .stream
            .flat_map(move |batch| match batch {
                Ok(batch) => stream::iter(slices(batch, most)).map(Ok).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            })
            .map(move |batch| batch.and_then(|batch| self.apply(batch)));
        Rows { schema, stream: stream.boxed(), snapshot: rows.snapshot }
    }

    /// How many rows a batch may have, so that what is looked up for them stays within the bytes of a
    /// batch whatever it is.
    fn rows_at_once(&self) -> usize {
        let widths = self.stages.iter().filter_map(|stage| match stage {
            Stage::Lookup(Lookup { table, taken, .. }) => {
                Some(taken.iter().map(|at| table.widest(*at)).sum::<usize>())
            }
            _ => None,
        });
        (BATCH_BYTES / widths.sum::<usize>().max(1)).max(1)
    }

    /// Evaluates the rows together, and where that fails, each half alone, down to the rows that
    /// cannot be evaluated. Few bad rows cost a few evaluations, and nothing if there are none.
    fn separate(&self, placed: Placed, parts: &mut Vec<Placed>, refused: &mut Vec<Refused>) {
        let count = placed.rows.num_rows();
        match self.run(placed.clone()) {
            Ok(done) => parts.push(done),
            Err(failure) if count <= 1 => {
                refused.extend((0..count).map(|row| Refused {
                    rule: failure.rule(),
                    column: failure.column(),
                    row: row_json(&placed.rows, row),
                    origin: placed.places.as_ref().and_then(|places| places.origin(row)),
                    ..Refused::default()
                }));
            }
            Err(_) => {
                let half = count / 2;
                self.separate(placed.slice(0, half), parts, refused);
                self.separate(placed.slice(half, count - half), parts, refused);
            }
        }
    }

    fn run(&self, placed: Placed) -> Result<Placed, Failure> {
        let Placed { mut rows, mut places } = placed;
        for stage in &self.stages {
            let count = rows.num_rows();
            rows = match stage {
                Stage::Filter(condition) => {
                    let mut filtered = || -> Result<_, DataFusionError> {
                        let mask = condition.evaluate(&rows)?.into_array(count)?;
                        Ok(kept(&rows, &mut places, mask.as_boolean())?)
                    };
                    filtered().map_err(|cause| Failure { at: At::Where, cause })?
                }
                Stage::Lookup(lookup) => lookup
                    .apply(&rows, &mut places)
                    .map_err(|cause| Failure { at: At::On, cause })?,
                Stage::Project(columns, schema) => {
                    let columns = columns
                        .iter()
                        .zip(schema.fields())
                        .map(|(column, field)| {
                            let computed = || -> Result<_, DataFusionError> {
                                let values = column.evaluate(&rows)?.into_array(count)?;
                                digits(values.as_ref())?;
                                Ok(values)
                            };
                            computed().map_err(|cause| Failure::of(field.name(), cause))
                        })
                        .collect::<Result<Vec<_>, Failure>>()?;
                    let options = RecordBatchOptions::new().with_row_count(Some(count));
                    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
                        .map_err(|cause| Failure { at: At::Where, cause: cause.into() })?
                }
            };
        }
        Ok(Placed { rows: output::convert(&rows, &self.schema)?, places })
    }
}

/// Rows, and where they came from.
#[derive(Debug, Clone)]
struct Placed {
    rows: RecordBatch,
    places: Option<Places>,
}

impl Placed {
    fn slice(&self, from: usize, count: usize) -> Placed {
        Placed {
            rows: self.rows.slice(from, count),
            places: self.places.as_ref().map(|places| places.slice(from, count)),
        }
    }
}

/// The rows for which `mask` is true; only their places stay.
fn kept(
    rows: &RecordBatch,
    places: &mut Option<Places>,
    mask: &BooleanArray,
) -> Result<RecordBatch, ArrowError> {
    if let Some(places) = places {
        *places = places.filter(mask)?;
    }
    filter_record_batch(rows, mask)
}

fn joined(schema: &SchemaRef, parts: &[Placed]) -> Result<Placed, ArrowError> {
    let rows = concat_batches(schema, parts.iter().map(|part| &part.rows))?;
    let places: Option<Vec<&Places>> = parts.iter().map(|part| part.places.as_ref()).collect();
    let places = places.as_deref().map(Places::joined).transpose()?.flatten();
    Ok(Placed { rows, places })
}

impl Lookup {
    fn apply(
        &self,
        rows: &RecordBatch,
        origins: &mut Option<Places>,
    ) -> Result<RecordBatch, DataFusionError> {
        let keys = self
            .keys
            .iter()
            .map(|key| {
                let values = key.evaluate(rows)?.into_array(rows.num_rows())?;
                digits(values.as_ref())?;
                Ok(values)
            })
            .collect::<Result<Vec<_>, DataFusionError>>()?;
        let mut places = self.table.find(&keys)?;
        let mut kept = rows.clone();
        if !self.whole && places.null_count() > 0 {
            let there = is_not_null(&places)?;
            kept = self::kept(rows, origins, &there)?;
            places = filter(&places, &there)?.as_primitive::<UInt32Type>().clone();
        }
        let mut columns = kept.columns().to_vec();
        for at in &self.taken {
            columns.push(take(self.table.column(*at), &places, None)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// A batch in slices of at most so many rows. What was read and is no longer there is told by the
/// first.
fn slices(mut batch: Batch, most: usize) -> Vec<Batch> {
    let count = batch.rows.num_rows();
    if count <= most {
        return vec![batch];
    }
    let places = batch.places.take();
    let part = |from: usize, rows: usize| places.as_ref().map(|places| places.slice(from, rows));
    let rest = (most..count).step_by(most).map(|from| {
        let rows = most.min(count - from);
        let charge = batch.charge.clone();
        Batch { places: part(from, rows), charge, ..Batch::whole(batch.rows.slice(from, rows)) }
    });
    let rest: Vec<Batch> = rest.collect();
    batch.places = part(0, most);
    batch.rows = batch.rows.slice(0, most);
    batch.read -= (count - most) as u64;
    std::iter::once(batch).chain(rest).collect()
}

/// Why rows cannot be evaluated. The cause itself may quote values.
#[derive(Debug)]
struct Failure {
    at: At,
    cause: DataFusionError,
}

/// What could not be evaluated.
#[derive(Debug)]
enum At {
    /// The expression of a column.
    Column(String),
    /// The condition.
    Where,
    /// What is looked up.
    On,
}

impl Failure {
    fn of(column: &str, cause: impl Into<DataFusionError>) -> Failure {
        Failure { at: At::Column(column.to_owned()), cause: cause.into() }
    }

    fn column(&self) -> Option<String> {
        match &self.at {
            At::Column(name) => Some(name.clone()),
            At::Where | At::On => None,
        }
    }

    /// The rule that a row broke whose evaluation failed, in words without values.
    fn rule(&self) -> String {
        let cause = match self.cause.find_root() {
            DataFusionError::ArrowError(arrow, _) => match **arrow {
                ArrowError::ArithmeticOverflow(_) => "overflow",
                ArrowError::DivideByZero => "division by zero",
                ArrowError::CastError(_) | ArrowError::ParseError(_) => "a value cannot be cast",
                _ => "a value does not fit",
            },
            _ => "a function refuses a value",
        };
        match self.at {
            At::Column(_) => cause.to_owned(),
            At::Where => format!("WHERE: {cause}"),
            At::On => format!("ON: {cause}"),
        }
    }
}

/// Arithmetic on decimals is checked against their 128 or 256 bits only, which hold more than their precision.
fn digits(values: &dyn Array) -> Result<(), DataFusionError> {
    if let DataType::Decimal128(precision, _) = values.data_type() {
        values
            .as_primitive::<arrow::datatypes::Decimal128Type>()
            .validate_decimal_precision(*precision)
            .map_err(|_| ArrowError::ArithmeticOverflow("decimal".to_owned()))?;
    }
    if let DataType::Decimal256(precision, _) = values.data_type() {
        values
            .as_primitive::<arrow::datatypes::Decimal256Type>()
            .validate_decimal_precision(*precision)
            .map_err(|_| ArrowError::ArithmeticOverflow("decimal".to_owned()))?;
    }
    Ok(())
}
