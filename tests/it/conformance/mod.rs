//! One suite for each trait, run by every backend: each behaviour is a plain async function,
//! stamped once per backend.

mod claims;
mod ledger;
mod limits;
pub mod queue;
pub mod rabbitmq;
mod redis;
