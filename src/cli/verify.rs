//! `longshore verify`

use clap::Args;

use super::output::{counted, thousands};
use super::{Context, Ended, Verdict};
use crate::delivery;
use crate::units::Size;

/// Holds a delivery against its manifest: every byte is read again. It needs no server and no
/// configuration, so that a recipient can run it too. Exit 1 if anything does not agree.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore verify /data/daily-orders/day=2026-11-19/SE
  longshore verify s3://acme-lake/exports/orders/_manifest.json
  longshore verify . --json")]
pub struct Verify {
    /// The delivery's folder, or its manifest
    #[arg(value_name = "PATH|URL")]
    place: String,
}

impl Verify {
    pub async fn run(self, context: &Context) -> Ended {
        context.log()?;
        let out = &context.out;
        let found = delivery::verify(&self.place).await?;
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
