//! One suite for each trait, run by every backend: each behaviour is a plain async function,
//! stamped once per backend.

mod claims;
mod limits;
mod redis;
pub mod queue;
pub mod rabbitmq;
