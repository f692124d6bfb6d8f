//! Bytes → record batches.
//!
//! CSV, JSON lines, Arrow and Avro are read by blocking iterators over any reader, Parquet by a
//! stream over ranges of a file. A value that is not exactly of its declared type makes its row a refused
//! one.

pub mod avro;
pub mod batcher;
mod columns;
pub mod csv;
pub mod exact;
mod header;
pub mod ipc;
pub mod jsonl;
pub mod parquet;
pub mod refused;
mod unicode;
mod why;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// How many bytes one record of CSV or one line of JSON may have.
pub const MAX_RECORD: usize = 64 << 20;

fn too_long(operation: &'static str) -> Error {
    Error::permanent(operation, format!("a record has more than {} MiB", MAX_RECORD >> 20))
        .help("Check the quotes and line breaks of the file.")
}

/// The error that stopped a reader: the store's own, where one lies behind it.
fn damaged(operation: &'static str, cause: std::io::Error) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(cause) => Error::permanent(operation, "the compressed data is damaged or cut off")
            .help("Check that the file is complete and compressed as its name says.")
            .caused_by(cause),
    }
}

/// What a library makes of a file. Some panic over what cannot be, where they should say so; the reader
/// is not asked again.
fn guarded<T>(unsound: impl FnOnce() -> Error, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(unsound()))
}

/// The error that stopped a reader of a file that is not compressed as a whole.
fn broken_off(operation: &'static str, cause: std::io::Error) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(cause) => Error::permanent(operation, "the file is damaged or cut off")
            .help("Check that it is complete.")
            .caused_by(cause),
    }
}
