//! The integration tests: one binary.

mod sink_files_s3;
mod support;
