//! Limits in Redis, for the whole fleet: one number for each name, under `<prefix>:limit:{<name>}`.

use std::time::Duration;

use async_trait::async_trait;
use redis::Script;

use super::SharedLimits;
use super::gcra::Spacing;
use crate::claims::link::{Link, escape};
use crate::error::Result;
use crate::secret::Secret;
use crate::units::Rate;

/// Limits that all workers of an installation share.
pub struct RedisLimits {
    link: Link,
    prefix: String,
    take: Script,
}

impl RedisLimits {
    /// As [`RedisClaims::connect`](crate::claims::redis::RedisClaims::connect), on a connection
    /// of its own, so that neither waits for the other.
    pub fn connect(url: &str, password: Option<Secret>, prefix: String) -> Result<RedisLimits> {
        Ok(RedisLimits {
            link: Link::new(url, password)?,
            prefix: escape(&prefix),
            take: Script::new(include_str!("take.lua")),
        })
    }
}

#[async_trait]
impl SharedLimits for RedisLimits {
    async fn take(&self, name: &str, rate: Rate) -> Result<Duration> {
        let spacing = Spacing::of(rate);
        let mut call = self.take.key(format!("{}:limit:{{{}}}", self.prefix, escape(name)));
        call.arg(spacing.interval).arg(spacing.tolerance());
        let wait: i64 = self.link.invoke("take a turn of the shared limit", &call).await?;
        Ok(Duration::from_micros(wait.max(0).unsigned_abs()))
    }
}
