//! Rate limits: `governor` within the process, and one shared by the whole fleet.

pub mod embedded;
mod gcra;
pub mod local;
pub mod redis;

use std::time::Duration;

use crate::error::Result;
use crate::units::Rate;
use async_trait::async_trait;

/// A limit that all workers of an installation share.
#[async_trait]
pub trait SharedLimits: Send + Sync {
    /// Takes one turn under `name`. Zero: go ahead, the turn is taken. More: nothing was taken,
    /// and trying again after that long may succeed. The burst is one second's worth, at least
    /// one. Errors are of class `unavailable`.
    async fn take(&self, name: &str, rate: Rate) -> Result<Duration>;
}
