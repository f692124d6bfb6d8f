//! Longshore hands data out of systems to partners and analysts, as jobs on a RabbitMQ worker
//! pool, and can prove what was handed over.

pub mod claims;
pub mod cli;
pub mod config;
pub mod connect;
pub mod contract;
pub mod delivery;
pub mod demo;
pub mod error;
pub mod export;
pub mod format;
pub mod http;
pub mod intake;
pub mod job;
pub mod ledger;
pub mod limits;
pub mod pipeline;
pub mod protect;
pub mod queue;
pub mod replay;
pub mod rows;
pub mod scheduler;
pub mod scrub;
pub mod secret;
pub mod sink;
pub mod source;
pub mod telemetry;
pub mod transform;
pub mod units;
pub mod wiring;
pub mod worker;
