//! What a run would do, found without one: whether it fits its systems, and the first rows as they
//! would be delivered. Nothing is delivered, kept or recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::{Map, Value as Json};

use super::Plan;
use crate::contract::{Classification, Contract};
use crate::error::Result;
use crate::format::row_json;
use crate::protect::Protect;
use crate::transform::Transform;

/// What the first rows of a run would be.
#[derive(Debug, Clone, Default)]
pub struct Preview {
    /// The columns, in their order.
    pub columns: Vec<String>,
    /// The rows, at most as many as were asked for.
    pub rows: Vec<Map<String, Json>>,
    /// How many rows were read for it: whole batches.
    pub read: u64,
    /// How many of those the transform left out.
    pub filtered: u64,
    /// How many broke a rule, by column and rule.
    pub refused: BTreeMap<(Option<String>, String), u64>,
    /// Whether the source was read to its end.
    pub whole: bool,
}

impl Plan {
    /// Asks the source and the references for their columns, plans every step on them, and asks the
    /// sink whether it would take what comes of it. No row is read, and nothing is written.
    ///
    /// # Errors
    /// What a run would fail with, as far as the columns tell.
    pub async fn check(&self) -> Result<()> {
        let mut schema = self.source.schema(&self.bindings).await?;
        let references = self.columns_of_references().await?;
        if let Some(config) = &self.export.transform {
            schema = Transform::plan(config, schema, &references)?.schema();
        }
        if let Some(config) = &self.export.contract {
            schema = Contract::plan(config, schema)?.schema();
        }
        if !self.export.protect.is_empty() {
            let keys = self.keys().await?;
            schema = Protect::plan(&self.export.protect, schema, &keys)?.schema();
        }
        self.sink.fits(&schema).await.map_err(|error| error.with("target", self.target()))
    }

    /// Takes the first rows the way that a run takes all of them, up to where they would be staged.
    /// Nothing more is read when there are enough.
    ///
    /// A column that the contract calls personal or secret, and that nothing protects, is not
    /// shown: its values are replaced by `[personal]` or `[secret]`.
    ///
    /// # Errors
    /// What a run would fail with on these rows, but for how many were refused.
    pub async fn preview(&self, most: usize) -> Result<Preview> {
        let references = self.read_references().await?;
        let mut rows = self.source.read(&self.bindings).await?;
        if let Some(config) = &self.export.transform {
            rows = Transform::plan(config, Arc::clone(&rows.schema), &references)?.rows(rows);
        }
        if let Some(config) = &self.export.contract {
            rows = Contract::plan(config, Arc::clone(&rows.schema))?.rows(rows);
        }
        if !self.export.protect.is_empty() {
            let keys = self.keys().await?;
            let schema = Arc::clone(&rows.schema);
            rows = Protect::plan(&self.export.protect, schema, &keys)?.rows(rows);
        }
        let fit = self.sink.fit(&rows.schema)?;
        let mut preview = Preview {
            columns: rows.schema.fields().iter().map(|field| field.name().clone()).collect(),
            ..Preview::default()
        };
        let hidden = self.unprotected();
        while preview.rows.len() < most {
            let Some(batch) = rows.stream.try_next().await? else {
                preview.whole = true;
                break;
            };
            let batch = match &fit {
                Some(fit) => fit.check(&batch.rows.clone(), batch)?,
                None => batch,
            };
            preview.read += batch.read;
            preview.filtered += batch.filtered;
            for refused in batch.refused {
                *preview.refused.entry((refused.column, refused.rule)).or_default() += 1;
            }
            let wanted = batch.rows.num_rows().min(most - preview.rows.len());
            for row in 0..wanted {
                let mut shown = row_json(&batch.rows, row);
                if let Some(fit) = &fit {
                    fit.spell(&batch.rows, row, &mut shown)?;
                }
                for (column, word) in &hidden {
                    if let Some(value) = shown.get_mut(*column) {
                        *value = Json::from(*word);
                    }
                }
                preview.rows.push(shown);
            }
        }
        Ok(preview)
    }

    /// The columns that tell of a person, or must not leave, and that nothing protects.
    fn unprotected(&self) -> Vec<(&str, &'static str)> {
        let fields = self.export.contract.iter().flat_map(|contract| &contract.fields);
        fields
            .filter(|(name, _)| !self.export.protect.contains_key(*name))
            .filter_map(|(name, field)| match field.classification? {
                Classification::Personal => Some((name.as_str(), "[personal]")),
                Classification::Secret => Some((name.as_str(), "[secret]")),
                Classification::Public | Classification::Internal => None,
            })
            .collect()
    }
}
