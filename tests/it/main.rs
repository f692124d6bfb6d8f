//! The integration tests: one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "how a test fails")]

mod acceptance;
mod after;
mod cli;
mod cli_named;
mod cli_signals;
mod cli_told;
mod conformance;
mod cursors;
mod docs;
mod doctor;
mod e2e;
mod editions;
mod everyday;
mod faults;
mod files;
mod layers;
mod lifecycle;
mod lookups;
mod night;
mod notices;
mod one_file;
mod pause;
mod probes;
mod producer_rights;
mod protect;
mod quarantine;
mod refusals;
mod rights;
mod signals;
mod sink_files_s3;
mod sink_postgres;
mod sink_sqlite;
mod sink_table;
mod source_files;
mod source_postgres;
mod spread;
mod support;
mod tls;
mod vault;
