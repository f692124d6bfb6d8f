//! The integration tests: one binary.

mod source_postgres;
