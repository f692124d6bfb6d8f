//! One suite for each trait, run by every backend: each behaviour is a plain async function,
//! stamped once per backend.

pub mod queue;
pub mod rabbitmq;
