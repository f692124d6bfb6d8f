//! What several suites need.

pub mod broker;
pub mod installation;
pub mod own;
pub mod processes;
pub mod proxy;
pub mod quarantine;
pub mod s3;
pub mod sample;
pub mod servers;
pub mod tls;
pub mod tpch;
pub mod vault;
