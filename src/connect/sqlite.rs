//! SQLite: opening a database file, and what its errors mean.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{ErrorCode, OpenFlags};

use super::Connection;
use crate::error::{Error, Result};

const OPEN: &str = "open the SQLite database";

/// How long a statement waits for another writer before it fails as `transient`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a database file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading alone; the file must exist.
    Read,
    /// Reading and writing; the file must exist.
    Write,
}

/// The file that the connection's `sqlite:PATH` names.
///
/// # Errors
/// `config`: the url is not of this form.
pub fn path(connection: &Connection) -> Result<PathBuf> {
    let path = connection.url.strip_prefix("sqlite:").unwrap_or_default();
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(Error::config(OPEN, "the url is none of SQLite")
            .with("connection", &connection.name)
            .help("Write it as sqlite:folder/file.db, or sqlite:/folder/file.db from the root."));
    }
    Ok(PathBuf::from(path))
}

/// Opens the database of `connection`. Blocks: call it where that is allowed.
///
/// # Errors
/// `config` as [`path`] says; `permanent` when there is no such file or it is no database.
pub fn open(connection: &Connection, access: Access) -> Result<rusqlite::Connection> {
    let flags = match access {
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let path = path(connection)?;
    let failed = |error: rusqlite::Error| {
        classify(OPEN, error).with("connection", &connection.name).with("file", path.display())
    };
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = rusqlite::Connection::open_with_flags(&path, flags).map_err(failed)?;
    database.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    Ok(database)
}

/// What an error of SQLite means for the work. Its own words are shown only where they cannot
/// quote a value.
pub fn classify(operation: &'static str, error: rusqlite::Error) -> Error {
    let Some(code) = error.sqlite_error_code() else {
        return Error::permanent(operation, "SQLite gave something unexpected").caused_by(error);
    };
    let found = match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Error::transient(operation, "another writer holds the database")
        }
        ErrorCode::OperationInterrupted => Error::transient(operation, "it was interrupted"),
        ErrorCode::DiskFull => {
            Error::unavailable(operation, "the disk is full").help("Make room on it.")
        }
        ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory => {
            Error::transient(operation, "the disk or the memory failed")
        }
        ErrorCode::CannotOpen => Error::permanent(operation, "the file cannot be opened")
            .help("Check that it exists and that this user may read it."),
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => {
            Error::permanent(operation, "the file is no sound SQLite database")
        }
        ErrorCode::ReadOnly => Error::permanent(operation, "the database can only be read"),
        ErrorCode::ConstraintViolation => Error::permanent(operation, "a constraint was broken"),
        _ => match &error {
            // A plain SQLITE_ERROR is of the SQL: it has names and words of it, bound values never.
            rusqlite::Error::SqlInputError { msg, .. } => bad_sql(operation, msg),
            rusqlite::Error::SqliteFailure(code, Some(msg)) if code.extended_code == 1 => {
                bad_sql(operation, msg)
            }
            _ => Error::permanent(operation, format!("SQLite refused it ({code:?})")),
        },
    };
    found.caused_by(error)
}

fn bad_sql(operation: &'static str, words: &str) -> Error {
    Error::permanent(operation, words).help("Check the SQL and the names in it.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    fn connection(url: &str) -> Connection {
        serde_json::from_value(serde_json::json!({"type": "sqlite", "url": url})).unwrap()
    }

    #[test]
    fn both_writings_of_a_path_are_understood() {
        assert_eq!(path(&connection("sqlite:a/b.db")).unwrap(), PathBuf::from("a/b.db"));
        assert_eq!(path(&connection("sqlite:///a/b.db")).unwrap(), PathBuf::from("/a/b.db"));
        assert_eq!(path(&connection("postgres://h")).unwrap_err().class(), Class::Config);
    }

    #[test]
    fn a_missing_file_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("none.db");
        let error =
            open(&connection(&format!("sqlite:{}", file.display())), Access::Write).unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        assert!(error.to_string().ends_with(&format!("file {})", file.display())), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn bad_sql_shows_the_words_of_sqlite() {
        let database = rusqlite::Connection::open_in_memory().unwrap();
        let error = classify("prepare", database.prepare("SELECT x FROM nowhere").unwrap_err());
        assert!(error.to_string().contains("no such table: nowhere"), "{error}");
    }
}
