//! What the tests need of the outside.

pub mod s3;
//! What several suites need.
pub mod proxy;
