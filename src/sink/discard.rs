//! The sink that counts rows and keeps nothing: for measuring, and for trying out.
//!
//! It goes the whole way of a delivery by decision, with a manifest that names no files. Runs with
//! the same `path` follow one another, as they would at any target; `path = "{run}"` sets them
//! free of each other.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::TryStreamExt;

use super::{Begun, Holder, Sink, Staged, Way};
use crate::connect::Connection;
use crate::error::Result;
use crate::job::decision::Decision;
use crate::rows::{Counts, Rows};

/// A place where rows are counted and forgotten.
pub struct DiscardSink {
    target: String,
}

impl DiscardSink {
    /// A sink that is called `folder`, the rendered path.
    pub fn new(connection: &Connection, folder: Option<&str>) -> DiscardSink {
        let target = match folder {
            Some(folder) => format!("{}/{folder}", connection.name),
            None => connection.name.clone(),
        };
        DiscardSink { target }
    }
}

#[async_trait]
impl Sink for DiscardSink {
    fn way(&self) -> Way {
        Way::Decision
    }

    fn target(&self) -> &str {
        &self.target
    }

    async fn fits(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    async fn begin(&self, _holder: &Holder) -> Result<Begun> {
        Ok(Begun::Open)
    }

    async fn stage(&self, _holder: &Holder, mut rows: Rows) -> Result<Staged> {
        let mut counts = Counts::default();
        while let Some(batch) = rows.stream.try_next().await? {
            counts.written += batch.rows.num_rows() as u64;
        }
        Ok(Staged { parts: Vec::new(), counts })
    }

    async fn commit(&self, _holder: &Holder, _decision: &Decision) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _holder: &Holder) -> Result<Option<Box<Decision>>> {
        Ok(None)
    }

    async fn clean(&self, _holder: &Holder) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use futures::{StreamExt, stream};

    use super::*;
    use crate::budget::Budget;
    use crate::job::RunId;
    use crate::job::param::Bindings;
    use crate::rows::Batch;
    use crate::source::{self, SourceConfig};

    fn nowhere() -> Connection {
        let mut connection: Connection =
            serde_json::from_value(serde_json::json!({"type": "discard", "url": "discard:"}))
                .unwrap();
        connection.name = "nowhere".to_owned();
        connection
    }

    #[tokio::test]
    async fn rows_are_counted_and_no_part_is_left() {
        let config: SourceConfig =
            serde_json::from_value(serde_json::json!({"connection": "nowhere"})).unwrap();
        let source = source::build(&config, &nowhere(), None, &Budget::default()).unwrap();
        let mut rows = source.read(&Bindings::new()).await.unwrap();
        assert_eq!(rows.schema, source.schema(&Bindings::new()).await.unwrap());
        assert!(rows.stream.next().await.is_none(), "the source has no rows");

        let values = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_new(rows.schema.clone(), vec![values]).unwrap();
        rows.stream =
            stream::iter([Ok(Batch::whole(batch.clone())), Ok(Batch::whole(batch))]).boxed();
        let sink = DiscardSink::new(&nowhere(), Some("a"));
        let holder = Holder { run: RunId::new(), fence: 1 };
        assert_eq!(sink.begin(&holder).await.unwrap(), Begun::Open);
        let staged = sink.stage(&holder, rows).await.unwrap();
        assert_eq!((staged.counts.written, staged.counts.bytes), (6, 0));
        assert!(staged.parts.is_empty());
        assert_eq!(sink.target(), "nowhere/a");
    }

    #[test]
    fn the_source_takes_no_keys() {
        let config: SourceConfig =
            serde_json::from_value(serde_json::json!({"connection": "nowhere", "table": "t"}))
                .unwrap();
        let error = source::build(&config, &nowhere(), None, &Budget::default()).err().unwrap();
        assert_eq!(error.class(), crate::error::Class::Config);
    }
}
