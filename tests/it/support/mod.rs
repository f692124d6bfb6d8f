//! What the tests need of the outside.

pub mod s3;
