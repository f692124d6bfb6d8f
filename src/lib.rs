//! Longshore hands data out of systems to partners and analysts, as jobs on a RabbitMQ worker
//! pool, and can prove what was handed over.

pub mod claims;
pub mod config;
pub mod connect;
pub mod contract;
pub mod error;
pub mod export;
pub mod format;
pub mod job;
pub mod limits;
pub mod protect;
pub mod queue;
pub mod rows;
pub mod secret;
pub mod sink;
pub mod source;
pub mod transform;
pub mod units;
