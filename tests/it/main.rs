//! The integration tests: one binary.

mod source_files;
mod source_postgres;
