//! The COPY by which rows are read.

use std::pin::Pin;

use futures::StreamExt;
use tokio_postgres::CopyOutStream;

use super::decode::Decoder;
use super::snapshot::{self, Look};
use super::{READ, classify};
use crate::budget::Budget;
use crate::connect::postgres::Client;
use crate::error::Result;
use crate::rows::Batch;

/// A read under way, in the transaction that it was planned in. Dropping it cancels the COPY at the
/// server, through [`Client`].
pub(super) struct Reading {
    copy: Option<Pin<Box<CopyOutStream>>>,
    client: Client,
    statement: String,
    decoder: Decoder,
    budget: Budget,
}

impl Reading {
    pub fn new(client: Client, select: &str, decoder: Decoder, budget: Budget) -> Reading {
        let statement = format!("COPY (\n{select}\n) TO STDOUT (FORMAT binary)");
        Reading { copy: None, client, statement, decoder, budget }
    }

    /// The next batch, and what is left to read after it.
    pub async fn next(mut self) -> Result<Option<(Batch, Option<Reading>)>> {
        let copy = match &mut self.copy {
            Some(copy) => copy,
            None => {
                let copy = self.client.copy_out(&self.statement).await;
                self.copy.insert(Box::pin(copy.map_err(|error| classify(READ, error))?))
            }
        };
        while let Some(message) = copy.next().await {
            self.decoder.take(&message.map_err(|error| classify(READ, error))?)?;
            if self.decoder.is_full() {
                let batch = self.decoder.finish()?.charged(&self.budget)?;
                return Ok(Some((batch, Some(self))));
            }
        }
        let last = match self.decoder.is_empty() {
            true => None,
            false => Some(self.decoder.finish()?.charged(&self.budget)?),
        };
        drop(self.copy);
        // By now also what functions have read is locked.
        if let Look::Past(error) = snapshot::look(&self.client).await? {
            return Err(error);
        }
        self.client.batch_execute("COMMIT").await.map_err(|error| classify(READ, error))?;
        self.client.close().await;
        Ok(last.map(|batch| (batch, None)))
    }
}
