//! What several suites need.

pub mod proxy;
pub mod s3;
