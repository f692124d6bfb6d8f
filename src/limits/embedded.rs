//! Limits in the embedded database: shared by the processes of one machine.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::SharedLimits;
use super::gcra::{Spacing, Turn};
use crate::claims::file::Database;
use crate::error::Result;
use crate::units::Rate;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS limits_turns (
        name TEXT PRIMARY KEY,
        due  INTEGER NOT NULL      -- theoretical arrival time, Unix time in microseconds
    ) WITHOUT ROWID;
";

/// Limits of a single machine, whose processes share one file.
pub struct EmbeddedLimits(Database);

impl EmbeddedLimits {
    /// Opens the file, and makes it and its tables where they are missing. A file that cannot be
    /// opened is an error of class `config`.
    pub fn open(path: &Path) -> Result<EmbeddedLimits> {
        Database::open(path, SCHEMA).map(EmbeddedLimits)
    }
}

#[async_trait]
impl SharedLimits for EmbeddedLimits {
    async fn take(&self, name: &str, rate: Rate) -> Result<Duration> {
        let name = name.to_owned();
        self.0
            .run("take a turn of the shared limit", move |tx| {
                let kept = tx
                    .prepare_cached("SELECT due FROM limits_turns WHERE name = ?1")?
                    .query_row([&name], |row| row.get(0))
                    .optional()?;
                match Spacing::of(rate).turn(kept, jiff::Timestamp::now().as_microsecond()) {
                    Turn::Wait(micros) => Ok(Duration::from_micros(micros.unsigned_abs())),
                    Turn::Take(due) => {
                        tx.prepare_cached(
                            "INSERT OR REPLACE INTO limits_turns (name, due) VALUES (?1, ?2)",
                        )?
                        .execute(params![name, due])?;
                        Ok(Duration::ZERO)
                    }
                }
            })
            .await
    }
}
