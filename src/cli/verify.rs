//! `longshore verify`

use clap::Args;

use super::output::{counted, thousands};
use super::{Context, Ended, Verdict};
use crate::delivery;
use crate::error::{Class, Error, Result};
use crate::units::Size;

const DOING: &str = "verify the delivery";
/// How to get at a store without a configuration.
const ENVIRONMENT: &str = "Without a configuration, credentials come from AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY, else from this machine's role; the region from AWS_REGION; and the \
    endpoint of a store that is not Amazon's from AWS_ENDPOINT_URL.";

/// Hold a delivery against its manifest; needs no server
///
/// Every byte is read again. It needs no configuration, so that a recipient can run it too. Exit 1
/// if anything does not agree.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore verify /data/daily-orders/day=2026-11-19/SE
  AWS_ENDPOINT_URL=https://store.internal longshore verify s3://acme-lake/exports/orders
  longshore verify . --json")]
pub struct Verify {
    /// The delivery's folder, its manifest, or the file that a manifest of its own stands beside: a
    /// path, file:..., or s3://bucket/folder. For s3://,
    /// credentials, region and endpoint come from the environment: AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL
    #[arg(value_name = "PATH|URL")]
    place: String,
}

impl Verify {
    async fn verify(&self) -> Result<delivery::Verified> {
        match self.place.split_once("://") {
            Some(("s3", _)) => {
                delivery::verify(&self.place).await.map_err(|error| match error.class() {
                    // The address is understood, and the store did not give what is there.
                    Class::Unavailable | Class::Throttled | Class::Transient | Class::Permanent => {
                        let advice = error.advice().map(|advice| format!("{advice} "));
                        let help = advice.unwrap_or_default() + ENVIRONMENT;
                        error.with("place", &self.place).help(help)
                    }
                    _ => error,
                })
            }
            // A path may have anything in it, but hardly this.
            Some((scheme, _)) if scheme != "file" && !scheme.contains('/') => {
                Err(Error::usage(DOING, format!("{scheme}:// is no store"))
                    .with("place", &self.place)
                    .help("Name a folder of this machine, or s3://bucket/folder."))
            }
            _ => delivery::verify(&self.place).await,
        }
    }

    pub async fn run(self, context: &Context) -> Ended {
        context.log()?;
        let out = &context.out;
        let found = self.verify().await?;
        let verdict = if found.is_intact() { Verdict::Done } else { Verdict::Found };
        if out.json {
            out.object(&found)?;
            return Ok(verdict);
        }
        let rows = found
            .parts
            .iter()
            .map(|file| {
                let wrong: Vec<&str> = found
                    .mismatches
                    .iter()
                    .filter(|one| one.file.as_ref() == Some(&file.name))
                    .map(|one| one.what)
                    .collect();
                let result = match (wrong.is_empty(), out.terminal()) {
                    (true, true) => "✓".to_owned(),
                    (true, false) => "ok".to_owned(),
                    (false, _) => format!("wrong: {}", wrong.join(", ")),
                };
                vec![file.name.clone(), thousands(file.rows), Size(file.bytes).human(), result]
            })
            .collect();
        out.table(&["FILE", "ROWS", "BYTES", "RESULT"], rows)?;
        for mismatch in &found.mismatches {
            out.line(format!("{mismatch}"))?;
        }
        for note in &found.notes {
            out.line(format!("note: {note}"))?;
        }
        out.line(format!(
            "{}: {} of run {}, edition {}: {} in {}",
            if found.is_intact() { "intact" } else { "not as its manifest says" },
            found.export,
            found.run.short(),
            found.edition,
            counted(found.rows, "row"),
            counted(found.files, "file"),
        ))?;
        Ok(verdict)
    }
}
