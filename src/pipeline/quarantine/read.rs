//! Reading refused rows back. A file that was cut off, changed, or put in another one's place is an
//! error: age authenticates every chunk and the end, and the first line tells whose the rows are.

use std::io::{self, BufRead, BufReader, Read};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use indexmap::IndexMap;
use object_store::ObjectStoreExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::runtime::Handle;

use super::Vault;
use super::line::{COLUMNS, Columns, FORMAT, Head};
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::format::decode::MAX_RECORD;
use crate::job::RunId;

const DOING: &str = "read the quarantine";
/// How many bytes a line may have: a record's, of which each may have become six.
const LONGEST: usize = 8 * MAX_RECORD;

/// The columns of rows and their types.
pub type Types = IndexMap<String, FieldType>;

/// A row that was refused, as its line has it.
#[derive(Deserialize)]
pub struct KeptRow {
    /// The rule that it broke.
    pub rule: String,
    /// The column that broke it, where one did.
    pub column: Option<String>,
    /// The number of its columns among [`KeptRows::types`], where it had come through the
    /// transform.
    pub of: Option<usize>,
    /// Its values, as JSON: see [`row_json`](crate::format::row_json).
    pub row: Box<RawValue>,
}

/// The rows of one file, as they come. It is read on a thread that may block.
pub struct KeptRows {
    lines: BufReader<age::stream::StreamReader<Blocking>>,
    line: Vec<u8>,
    types: Vec<Types>,
}

impl KeptRows {
    /// Opens what an attempt of `run` has kept at `place`, and gives it to `work`, on a thread that
    /// may block.
    ///
    /// # Errors
    /// `permanent` where the file is not there, cannot be decrypted, or is another run's; those of
    /// the store, of the key, and of `work`.
    pub async fn open<T: Send + 'static>(
        vault: &Vault,
        run: RunId,
        place: &str,
        work: impl FnOnce(KeptRows) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Store::open(&vault.connection)?;
        let path = store.path(place)?;
        let identities = vault.identities().await?;
        let answer = match store.objects.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::permanent(DOING, "the file of the refused rows is gone")
                    .with("file", place)
                    .help("Was it removed by hand, or is [quarantine] connection another one?"));
            }
            answer => answer.map_err(|cause| classify(DOING, cause))?,
        };
        let chunks = answer.into_stream();
        let place = place.to_owned();
        let work = tokio::task::spawn_blocking(move || {
            let input = Blocking { runtime: Handle::current(), chunks, chunk: Bytes::new() };
            let rows = KeptRows::decrypt(input, &identities, run);
            rows.and_then(work).map_err(|error| error.with("file", place))
        });
        work.await
            .map_err(|cause| Error::transient(DOING, "the work was cut off").caused_by(cause))?
    }

    fn decrypt(
        input: Blocking,
        identities: &[age::x25519::Identity],
        run: RunId,
    ) -> Result<KeptRows> {
        let decryptor = age::Decryptor::new_buffered(input).map_err(encrypted)?;
        let identities = identities.iter().map(|identity| identity as &dyn age::Identity);
        let stream = decryptor.decrypt(identities).map_err(encrypted)?;
        let mut rows =
            KeptRows { lines: BufReader::new(stream), line: Vec::new(), types: Vec::new() };
        if !rows.next_line()? {
            return Err(damaged());
        }
        let head: Head = rows.parse()?;
        if head.format != FORMAT {
            return Err(Error::permanent(DOING, "its format is not known")
                .with("expected", FORMAT)
                .help("A newer Longshore wrote it; read it with that one."));
        }
        if head.run != run {
            return Err(Error::permanent(DOING, "the file holds the rows of another run")
                .with("found", head.run)
                .with("expected", run)
                .help("Somebody put it there; the rows are not released."));
        }
        Ok(rows)
    }

    /// The columns that are known by now.
    pub fn types(&self) -> &[Types] {
        &self.types
    }

    /// The next row; `None` at the end of a whole file.
    ///
    /// # Errors
    /// `permanent` where the file was changed or cut off; those of the store.
    pub fn next_row(&mut self) -> Result<Option<KeptRow>> {
        while self.next_line()? {
            if self.line.starts_with(COLUMNS) {
                let Columns { columns } = self.parse()?;
                self.types.push(columns.into_iter().map(|one| (one.name, one.kind)).collect());
                continue;
            }
            let row: KeptRow = self.parse()?;
            if row.of.is_some_and(|of| of >= self.types.len()) {
                return Err(damaged());
            }
            return Ok(Some(row));
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<bool> {
        self.line.clear();
        let mut limited = (&mut self.lines).take(LONGEST as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.line).map_err(broken)?;
        match (read, self.line.last()) {
            (0, _) => Ok(false),
            (_, Some(b'\n')) => Ok(true),
            _ => Err(damaged()),
        }
    }

    /// What the line holds; nothing of it goes into an error.
    fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.line).map_err(|_| damaged())
    }
}

fn damaged() -> Error {
    Error::permanent(DOING, "the file was changed or cut off")
        .help("Bring it back from a backup of the store, or drop it: `longshore quarantine drop`.")
}

/// The error that stopped the reading: the store's own, where one lies behind it.
fn broken(cause: io::Error) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(_) => damaged(),
    }
}

fn encrypted(cause: age::DecryptError) -> Error {
    match cause {
        age::DecryptError::Io(cause) => broken(cause),
        age::DecryptError::NoMatchingKeys => {
            Error::config(DOING, "the file was encrypted with another key").help(
                "Put the older key behind the newer one: what `[quarantine] key` refers to may \
                 have several, one a line.",
            )
        }
        _ => damaged(),
    }
}

/// The bytes of an object, for a thread that may block.
struct Blocking {
    runtime: Handle,
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl BufRead for Blocking {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(io::Error::other(classify(DOING, error))),
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount.min(self.chunk.len()));
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
