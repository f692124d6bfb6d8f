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

pub(crate) use plan::{CHARACTER, LINE};

/// The `[transform]` of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TransformConfig {
    /// `SELECT … FROM input [WHERE …]`. One row in gives one row out, or none; joins, groups and order
    /// belong into the query. Types are exact: what would lose digits is refused when planning.
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
    /// Checks the form of the SELECT alone, where the schema of its input is not known.
    ///
    /// # Errors
    /// `config`, with the place where the parser tells one.
    pub fn parse(config: &TransformConfig) -> Result<()> {
        plan::parse(&config.sql)
    }

    /// Plans the SELECT against the schema of its input, without reading a row.
    ///
    /// Fails with class `config` if the SQL is wrong, is not row-wise, depends on anything but
    /// the row, or would lose digits.
    pub fn plan(config: &TransformConfig, input: SchemaRef) -> Result<Transform> {
        let transform = plan::plan(&config.sql, input.clone())?;
        // What fails without a row would fail for every row.
        transform.run(&RecordBatch::new_empty(input)).map_err(|failure| {
            let cause = failure.cause.strip_backtrace();
            plan::refuse(format!("an expression cannot be evaluated: {cause}"))
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
            Err(failure) if rows.num_rows() <= 1 => {
                refused.extend((0..rows.num_rows()).map(|row| Refused {
                    rule: failure.rule(),
                    column: failure.column.clone(),
                    row: row_json(rows, row),
                    schema: None,
                }));
            }
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.separate(&rows.slice(0, half), parts, refused);
                self.separate(&rows.slice(half, rows.num_rows() - half), parts, refused);
            }
        }
    }

    fn run(&self, rows: &RecordBatch) -> Result<RecordBatch, Failure> {
        let mut rows = rows.clone();
        for stage in &self.stages {
            let count = rows.num_rows();
            rows = match stage {
                Stage::Filter(condition) => {
                    let filtered = || -> Result<_, DataFusionError> {
                        let mask = condition.evaluate(&rows)?.into_array(count)?;
                        Ok(filter_record_batch(&rows, mask.as_boolean())?)
                    };
                    filtered().map_err(|cause| Failure { column: None, cause })?
                }
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
                        .map_err(|cause| Failure { column: None, cause: cause.into() })?
                }
            };
        }
        output::convert(&rows, &self.schema)
    }
}

/// Why rows cannot be evaluated. The cause itself may quote values.
#[derive(Debug)]
struct Failure {
    /// The column whose expression it was; none for the condition.
    column: Option<String>,
    cause: DataFusionError,
}

impl Failure {
    fn of(column: &str, cause: impl Into<DataFusionError>) -> Failure {
        Failure { column: Some(column.to_owned()), cause: cause.into() }
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
        match self.column {
            Some(_) => cause.to_owned(),
            None => format!("WHERE: {cause}"),
        }
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
