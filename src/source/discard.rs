//! The source that has no rows: for measuring what a job costs besides its rows, and for trying
//! out.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, stream};

use super::Source;
use crate::error::Result;
use crate::job::param::Bindings;
use crate::rows::Rows;

/// No rows, of one column `n`.
pub(super) struct DiscardSource;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

#[async_trait]
impl Source for DiscardSource {
    async fn schema(&self, _bindings: &Bindings) -> Result<SchemaRef> {
        Ok(schema())
    }

    async fn read(&self, _bindings: &Bindings) -> Result<Rows> {
        Ok(Rows { schema: schema(), stream: stream::empty().boxed(), snapshot: None })
    }
}
