//! The SQLite file of an embedded installation, as claims and limits use it: each has tables of its
//! own, and a connection of its own.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{Error, Result};

/// A connection to the embedded database's file, for one part's tables.
pub(crate) struct Database(Arc<Mutex<Connection>>);

impl Database {
    /// Opens the file and runs `schema`, whose statements must be harmless to repeat.
    pub(crate) fn open(path: &Path, schema: &str) -> Result<Database> {
        let open = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(2))?;
            // NORMAL: a power cut may take the last claims, which costs nothing but speed.
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.execute_batch(schema)?;
            Ok(connection)
        };
        open().map(|connection| Database(Arc::new(Mutex::new(connection)))).map_err(
            |error: rusqlite::Error| {
                Error::config("open the embedded database", "the file cannot be used")
                    .with("file", path.display())
                    .caused_by(error)
                    .help("Check that its folder exists, that it may be written, and that it is an SQLite file.")
            },
        )
    }

    /// Runs `work` in one transaction, on a thread that may block. Waits at most two seconds for
    /// other processes.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            // A panic inside rolled its transaction back, so that the connection is sound.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = work(&tx)?;
            tx.commit()?;
            Ok(answer)
        });
        done.await
            .map_err(|error| {
                Error::unavailable(operation, "the work was cut off").caused_by(error)
            })?
            .map_err(|error: rusqlite::Error| {
                Error::unavailable(operation, "the embedded database cannot be used right now")
                    .caused_by(error)
                    .help("Check that its disk has room and that no other program locks the file.")
            })
    }
}
