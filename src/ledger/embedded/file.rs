//! The file that the ledger is, and how it is read and written: on blocking threads, one at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row, Transaction, TransactionBehavior};

use super::migrate;
use crate::connect::sqlite::classify;
use crate::error::{Error, Result};
use crate::job::RunId;

/// How long another process's transaction is waited for.
pub const BUSY: Duration = Duration::from_secs(30);

/// The file. One writer at a time is all that SQLite has; the lock is held on blocking threads
/// only.
pub struct File(Arc<Mutex<Connection>>);

impl File {
    /// Opens the file, which is made if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// `refused` where it was written by a newer Longshore; `permanent` where it cannot be opened.
    pub fn open(path: &Path) -> Result<File> {
        const DOING: &str = "open the embedded ledger";
        let failed = |cause| classify(DOING, cause).with("file", path.display());
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        migrate::journal(&connection).map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
        connection
            .create_scalar_function("micros", 1, flags, |context| {
                context
                    .get::<Option<String>>(0)?
                    .map(|text| {
                        text.parse::<Timestamp>()
                            .map(Timestamp::as_microsecond)
                            .map_err(|cause| rusqlite::Error::UserFunctionError(cause.into()))
                    })
                    .transpose()
            })
            .map_err(failed)?;
        connection
            .create_scalar_function("stamp", 1, flags, |context| {
                context
                    .get::<Option<i64>>(0)?
                    .map(|micros| {
                        Timestamp::from_microsecond(micros)
                            .map(|at| at.to_string())
                            .map_err(|cause| rusqlite::Error::UserFunctionError(cause.into()))
                    })
                    .transpose()
            })
            .map_err(failed)?;
        migrate::migrate(&mut connection)?;
        Ok(File(Arc::new(Mutex::new(connection))))
    }

    /// Does some work on a blocking thread.
    pub async fn with<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            // A panic elsewhere rolled its transaction back: the connection is as good as before.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection)
        });
        match done.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Trouble::Sqlite(cause))) => Err(classify(doing, cause)),
            Ok(Err(Trouble::Ours(error))) => Err(error),
            Err(cause) => Err(Error::transient(doing, "the work was cut off").caused_by(cause)),
        }
    }

    /// As [`File::with`], in one transaction, for which other writers wait.
    pub async fn transact<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        self.with(doing, move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&tx)?;
            tx.commit()?;
            Ok(done)
        })
        .await
    }

    /// What a statement answers, each row one record in JSON.
    pub async fn records<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        doing: &'static str,
        sql: &'static str,
        params: impl Params + Send + 'static,
    ) -> Result<Vec<T>> {
        self.with(doing, move |connection| {
            texts(connection, sql, params)?
                .iter()
                .map(|text| {
                    serde_json::from_str(text).map_err(|cause| {
                        Error::permanent(doing, "a record is not as it should be")
                            .caused_by(cause)
                            .into()
                    })
                })
                .collect()
        })
        .await
    }
}

/// What can go wrong within a transaction.
pub enum Trouble {
    Sqlite(rusqlite::Error),
    Ours(Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        Trouble::Sqlite(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Ours(error)
    }
}

/// Now, as exactly as the ledger keeps it.
pub fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or_default()
}

/// What a statement answers, each row as `read` takes it.
pub fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Trouble> {
    Ok(connection.prepare_cached(sql)?.query_map(params, read)?.collect::<Result<_, _>>()?)
}

/// What a statement of one column answers.
pub fn texts(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Vec<String>, Trouble> {
    rows(connection, sql, params, |row| row.get(0))
}

/// What a statement of two columns answers.
pub fn pairs<A: FromSql, B: FromSql>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Vec<(A, B)>, Trouble> {
    rows(connection, sql, params, |row| Ok((row.get(0)?, row.get(1)?)))
}

/// A list as a parameter: a JSON array.
pub fn array<T: serde::Serialize>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .filter_map(|item| serde_json::to_value(item).ok())
        .collect::<serde_json::Value>()
        .to_string()
}

/// A run's name, as it is stored.
pub fn run_id(text: &str) -> Result<RunId, Trouble> {
    text.parse().map_err(|cause| {
        Error::permanent("read the ledger", "a run's name is not as it should be")
            .caused_by(cause)
            .into()
    })
}

/// A time, as it is stored.
pub fn stamp(micros: i64) -> Result<Timestamp, Trouble> {
    Timestamp::from_microsecond(micros).map_err(|cause| {
        Error::permanent("read the ledger", "a time is out of range").caused_by(cause).into()
    })
}
