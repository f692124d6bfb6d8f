//! Rate limits: `governor` within the process, and one shared by the whole fleet.

pub mod embedded;
mod gcra;
pub mod local;
pub mod redis;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// How often something may be done: `50/s`, `600/m`, `1000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many times, at least once.
    pub count: u32,
    /// In how long: a second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    /// Understands `50/s`, `600/m` and `1000/h`.
    pub fn parse(text: &str) -> Result<Rate> {
        text.split_once('/')
            .and_then(|(count, unit)| {
                let per = match unit.trim() {
                    "s" => 1,
                    "m" => 60,
                    "h" => 3600,
                    _ => return None,
                };
                let count = count.trim().parse::<u32>().ok().filter(|count| *count > 0)?;
                Some(Rate { count, per: Duration::from_secs(per) })
            })
            .ok_or_else(|| {
                Error::config("read a rate", format!("`{text}` is no rate")).help(
                    "Write how many times and in how long: \"50/s\", \"600/m\" or \"1000/h\".",
                )
            })
    }

    /// How long after one another two of them are, when spread evenly.
    pub fn interval(&self) -> Duration {
        self.per / self.count
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Rate::parse(&text).map_err(|error| {
            serde::de::Error::custom(format!(
                "{}. {}",
                error.message(),
                error.advice().unwrap_or_default()
            ))
        })
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A limit that all workers of an installation share.
#[async_trait]
pub trait SharedLimits: Send + Sync {
    /// Takes one turn under `name`. Zero: go ahead, the turn is taken. More: nothing was taken,
    /// and trying again after that long may succeed. The burst is one second's worth, at least
    /// one. Errors are of class `unavailable`.
    async fn take(&self, name: &str, rate: Rate) -> Result<Duration>;
}
