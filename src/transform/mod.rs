//! The transform: one row-wise SELECT over `input`, by DataFusion's parser and expressions.
//!
//! One row in gives one row out, or none, and the same row always gives the same result.
//! Whatever needs more than one row belongs into the source's query, where a database does it
//! better. Numbers are exact: literals with a point are decimals, an overflow refuses its row
//! instead of wrapping around, and what would round in silence is refused when planning.
//! Integer division drops the remainder, as SQL says.

mod check;
mod output;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::row_json;
use crate::rows::{Batch, Refused, Rows};

/// The `[transform]` of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TransformConfig {
    /// `SELECT … FROM input [WHERE …]`. One row in gives one row out, or none.
    pub sql: String,
}

/// One step over a batch.
#[derive(Debug)]
enum Stage {
    /// Leaves out the rows for which the condition is not true.
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes the columns of a new batch.
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
}

/// A transform that was planned for one input schema.
#[derive(Debug)]
pub struct Transform {
    stages: Vec<Stage>,
    schema: SchemaRef,
}

impl Transform {
    /// Plans the SELECT against the schema of its input, without reading a row.
    ///
    /// Fails with class `config` if the SQL is wrong, is not row-wise, depends on anything but
    /// the row, or would lose digits.
    pub fn plan(config: &TransformConfig, input: SchemaRef) -> Result<Transform> {
        let transform = plan::plan(&config.sql, input.clone())?;
        // What fails without a row would fail for every row.
        transform.run(&RecordBatch::new_empty(input)).map_err(|cause| {
            plan::refuse(format!("an expression cannot be evaluated: {}", cause.strip_backtrace()))
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
        let mut refused = batch.refused;
        let earlier = refused.len();
        let mut parts = Vec::with_capacity(1);
        self.separate(&batch.rows, &mut parts, &mut refused);
        let rows = match parts.len() {
            1 => parts.remove(0),
            _ => concat_batches(&self.schema, &parts).map_err(|cause| {
                Error::permanent("transform rows", "the parts of a batch do not fit together")
                    .caused_by(cause)
            })?,
        };
        let left_out = batch.rows.num_rows() - (refused.len() - earlier) - rows.num_rows();
        Ok(Batch { rows, read: batch.read, filtered: batch.filtered + left_out as u64, refused })
    }

    /// Transforms a stream of batches, lazily.
    pub fn rows(self, rows: Rows) -> Rows {
        let schema = self.schema();
        let stream = rows.stream.map(move |batch| batch.and_then(|batch| self.apply(batch)));
        Rows { schema, stream: stream.boxed(), snapshot: rows.snapshot }
    }

    /// Evaluates the rows together, and where that fails, each half alone, down to the rows that
    /// cannot be evaluated. Few bad rows cost a few evaluations, and nothing if there are none.
    fn separate(
        &self,
        rows: &RecordBatch,
        parts: &mut Vec<RecordBatch>,
        refused: &mut Vec<Refused>,
    ) {
        match self.run(rows) {
            Ok(done) => parts.push(done),
            Err(cause) if rows.num_rows() <= 1 => refused.extend((0..rows.num_rows()).map(|row| {
                Refused { rule: rule(&cause).to_owned(), column: None, row: row_json(rows, row) }
            })),
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.separate(&rows.slice(0, half), parts, refused);
                self.separate(&rows.slice(half, rows.num_rows() - half), parts, refused);
            }
        }
    }

    fn run(&self, rows: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let mut rows = rows.clone();
        for stage in &self.stages {
            let count = rows.num_rows();
            rows = match stage {
                Stage::Filter(condition) => {
                    let mask = condition.evaluate(&rows)?.into_array(count)?;
                    filter_record_batch(&rows, mask.as_boolean())?
                }
                Stage::Project(columns, schema) => {
                    let columns = columns
                        .iter()
                        .map(|column| {
                            let values = column.evaluate(&rows)?.into_array(count)?;
                            digits(values.as_ref())?;
                            Ok(values)
                        })
                        .collect::<Result<Vec<_>, DataFusionError>>()?;
                    let options = RecordBatchOptions::new().with_row_count(Some(count));
                    RecordBatch::try_new_with_options(schema.clone(), columns, &options)?
                }
            };
        }
        output::convert(&rows, &self.schema)
    }
}

/// Arithmetic on decimals is checked against 128 bits only, which hold more than their precision.
fn digits(values: &dyn Array) -> Result<(), DataFusionError> {
    if let DataType::Decimal128(precision, _) = values.data_type() {
        values
            .as_primitive::<arrow::datatypes::Decimal128Type>()
            .validate_decimal_precision(*precision)
            .map_err(|_| ArrowError::ArithmeticOverflow("decimal".to_owned()))?;
    }
    Ok(())
}

/// The rule that a row broke whose evaluation failed. The error itself may quote values.
fn rule(cause: &DataFusionError) -> &'static str {
    match cause.find_root() {
        DataFusionError::ArrowError(arrow, _) => match **arrow {
            ArrowError::ArithmeticOverflow(_) => "overflow",
            ArrowError::DivideByZero => "division by zero",
            _ => "transform",
        },
        _ => "transform",
    }
}
