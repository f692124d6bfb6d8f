//! Writing refused rows, encrypted as they come: what is held is a chunk of age's and what the store
//! has not taken yet.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::StreamWriter;
use age::x25519::Recipient;
use arrow::datatypes::SchemaRef;
use object_store::buffered::BufWriter;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::line::{Column, Columns, FORMAT, Head, RowOut};
use super::{DOING, Vault, place};
use crate::budget::{Budget, Charge, Use};
use crate::connect::files::Store;
use crate::error::{Error, Result};
use crate::fail;
use crate::format::FieldType;
use crate::rows::Refused;
use crate::sink::Holder;

/// Bytes of one request: one is under way while the next is filled. No store takes less.
const PIECE: usize = 5 << 20;

/// The quarantine of one attempt.
pub struct Quarantine {
    head: Head,
    place: String,
    recipient: Recipient,
    writer: BufWriter,
    /// Once there is a row.
    cipher: Option<Cipher>,
    /// The columns that were written, by their number.
    schemas: Vec<SchemaRef>,
    charge: Charge,
}

impl Quarantine {
    /// A file of its own for every run and fence; nothing is written before the first row.
    ///
    /// # Errors
    /// Those of [`Store::open`] and of the key.
    pub async fn new(vault: &Vault, holder: &Holder) -> Result<Quarantine> {
        let store = Store::open(&vault.connection)?;
        let place = place(holder.run, holder.fence);
        let path = store.path(&place)?;
        Ok(Quarantine {
            head: Head { format: FORMAT.to_owned(), run: holder.run, fence: holder.fence },
            place,
            recipient: vault.recipient().await?,
            writer: BufWriter::with_capacity(store.objects.clone(), path, PIECE)
                .with_max_concurrency(1),
            cipher: None,
            schemas: Vec::new(),
            charge: Charge::default(),
        })
    }

    /// The same, charging what it holds to a budget.
    #[must_use]
    pub fn within(self, budget: &Budget) -> Quarantine {
        Quarantine { charge: budget.open(Use::Quarantine), ..self }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// `transient` where the store does not take them.
    pub async fn keep(&mut self, rows: &[Refused]) -> Result<()> {
        for row in rows {
            let of = self.number(row)?;
            self.line(&RowOut::new(row, of))?;
            self.pass_on().await?;
        }
        Ok(())
    }

    /// Completes the file, and tells where it is, under the quarantine's connection.
    ///
    /// # Errors
    /// As [`Quarantine::keep`].
    pub async fn close(mut self) -> Result<String> {
        if let Some(Cipher { stream, taken }) = self.cipher.take() {
            stream.finish().map_err(failed)?;
            let last = taken.take();
            self.writer.write_all(&last).await.map_err(failed)?;
        }
        self.writer.shutdown().await.map_err(failed)?;
        fail::point("quarantined")?;
        Ok(self.place)
    }

    /// The number of a row's columns, which are written where they are new.
    fn number(&mut self, row: &Refused) -> Result<Option<usize>> {
        let Some(schema) = &row.schema else { return Ok(None) };
        let known = |one: &SchemaRef| Arc::ptr_eq(one, schema) || one == schema;
        if let Some(number) = self.schemas.iter().position(known) {
            return Ok(Some(number));
        }
        // A column of a type without a name can be no contract's.
        let columns = schema.fields().iter().filter_map(|field| {
            let kind = FieldType::of_arrow(field.data_type())?;
            Some(Column { name: field.name().clone(), kind })
        });
        self.line(&Columns { columns: columns.collect() })?;
        self.schemas.push(Arc::clone(schema));
        Ok(Some(self.schemas.len() - 1))
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        let cipher = match &mut self.cipher {
            Some(cipher) => cipher,
            none => {
                let mut cipher = Cipher::new(&self.recipient)?;
                cipher.write(&self.head)?;
                none.insert(cipher)
            }
        };
        cipher.write(line)
    }

    /// Gives the store what is encrypted.
    async fn pass_on(&mut self) -> Result<()> {
        let Some(cipher) = &self.cipher else { return Ok(()) };
        let ready = cipher.taken.take();
        self.charge.cover(2 * PIECE + 2 * ready.len())?;
        self.writer.write_all(&ready).await.map_err(failed)
    }
}

/// An encrypting writer, and what comes out of it.
struct Cipher {
    stream: StreamWriter<Taken>,
    taken: Taken,
}

impl Cipher {
    fn new(recipient: &Recipient) -> Result<Cipher> {
        let taken = Taken::default();
        let encryptor =
            age::Encryptor::with_recipients([recipient as &dyn age::Recipient].into_iter())
                .map_err(|cause| {
                    Error::permanent(DOING, "the rows cannot be encrypted").caused_by(cause)
                })?;
        let stream = encryptor.wrap_output(taken.clone()).map_err(failed)?;
        Ok(Cipher { stream, taken })
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(line).map_err(|cause| {
            Error::permanent(DOING, "a refused row cannot be written as JSON").caused_by(cause)
        })?;
        line.push(b'\n');
        self.stream.write_all(&line).map_err(failed)
    }
}

/// Bytes on their way out of the encrypting writer, which keeps its own end of them.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<u8>>>);

impl Taken {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Taken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(cause: io::Error) -> Error {
    Error::transient(DOING, "the file cannot be written").caused_by(cause)
}
