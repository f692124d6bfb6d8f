//! Which rows a format cannot hold exactly: they are refused before anything is encoded.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value as Json};

use super::csv::Cannot;
use super::{Encoder, columns, types};
use crate::error::{Error, Result};
use crate::format::values::Values;
use crate::format::{Compression, CsvOptions, FieldType, Format};
use crate::rows::{Batch, Refused};

/// Tells rows that a format cannot hold from those that it can.
pub struct Fit {
    kinds: Vec<FieldType>,
    names: Vec<String>,
    what: What,
}

enum What {
    Everything,
    /// JSON has no NaN and no infinities.
    Finite,
    Csv(Cannot),
}

impl Fit {
    /// For rows of `schema` in files of this kind.
    ///
    /// # Errors
    /// Those of [`Encoder::new`]: what no row could be written with.
    pub fn new(format: Format, csv: &CsvOptions, schema: &SchemaRef) -> Result<Fit> {
        Encoder::new(format, Compression::None, csv, schema)?;
        let kinds = types(schema)?;
        let floats = kinds.iter().any(|k| matches!(k, FieldType::Float32 | FieldType::Float64));
        let what = match format {
            Format::Jsonl if floats => What::Finite,
            Format::Csv => Cannot::new(csv, &kinds)?.map_or(What::Everything, What::Csv),
            _ => What::Everything,
        };
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Fit { kinds, names, what })
    }

    /// Takes the rows that cannot be written out of `batch`. `before` are the same rows as they
    /// were before they were protected: those go to quarantine.
    ///
    /// # Errors
    /// `contract` when the batch has other columns than the schema.
    pub fn check(&self, before: &RecordBatch, mut batch: Batch) -> Result<Batch> {
        if matches!(self.what, What::Everything) {
            return Ok(batch);
        }
        let columns = columns(&self.kinds, &batch.rows)?;
        let mut keep = vec![true; batch.rows.num_rows()];
        for (row, keep) in keep.iter_mut().enumerate() {
            let misfit = columns
                .iter()
                .zip(&self.names)
                .find_map(|(column, name)| Some((self.rule(column, row)?, name)));
            let Some((rule, name)) = misfit else { continue };
            *keep = false;
            batch.refused.push(Refused {
                rule,
                column: Some(name.clone()),
                row: crate::format::row_json(before, row),
                schema: Some(before.schema()),
            });
        }
        if keep.contains(&false) {
            let kept = arrow::compute::filter_record_batch(&batch.rows, &keep.into());
            batch.rows = kept.map_err(|cause| {
                Error::permanent("check what can be written", "rows cannot be taken out")
                    .caused_by(cause)
            })?;
        }
        Ok(batch)
    }

    /// Spells the dates and times of a row as the format does, where it has a way of its own.
    ///
    /// # Errors
    /// As [`Fit::check`].
    pub fn spell(
        &self,
        rows: &RecordBatch,
        row: usize,
        shown: &mut Map<String, Json>,
    ) -> Result<()> {
        let What::Csv(cannot) = &self.what else { return Ok(()) };
        for (column, name) in columns(&self.kinds, rows)?.iter().zip(&self.names) {
            if !column.is_null(row)
                && let Some(text) = cannot.spelling(column, row)
            {
                shown.insert(name.clone(), Json::from(text));
            }
        }
        Ok(())
    }

    fn rule(&self, column: &Values<'_>, row: usize) -> Option<String> {
        if column.is_null(row) {
            return None;
        }
        match &self.what {
            What::Everything => None,
            What::Finite => {
                let finite = match column {
                    Values::Float32(a) => a.value(row).is_finite(),
                    Values::Float64(a) => a.value(row).is_finite(),
                    _ => true,
                };
                (!finite).then(|| "JSON number".to_owned())
            }
            What::Csv(cannot) => cannot.rule(column, row),
        }
    }
}
