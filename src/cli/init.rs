//! `longshore init`

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Context, Ended, Verdict};
use crate::error::{Error, Result};
use crate::{pipeline, secret};

const DOING: &str = "make the configuration";

/// What is made, under the folder.
const FILES: [(&str, &str); 4] = [
    ("config/longshore.toml", include_str!("../../config/init/longshore.toml")),
    ("config/connections.toml", include_str!("../../config/init/connections.toml")),
    ("config/exports/orders.toml", include_str!("../../config/init/exports/orders.toml")),
    ("in/orders.csv", include_str!("../../config/init/in/orders.csv")),
];

/// The key of its quarantine, which is made anew.
const KEY: &str = "quarantine.key";

/// A small working configuration to start from
///
/// Queue, ledger and claims in one file, a CSV to read, and an export of it that runs at once. Nothing
/// that is there is overwritten.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore init mine
  longshore init .")]
pub struct Init {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Init {
    pub fn run(self, context: &Context) -> Ended {
        let folder = &self.folder;
        let names = FILES.iter().map(|(name, _)| *name).chain([KEY]);
        if let Some(name) = names.clone().find(|name| folder.join(name).exists()) {
            return Err(Error::refused(DOING, "something is there already")
                .with("file", folder.join(name).display())
                .help("Name another folder, or move it away. Nothing was changed.")
                .into());
        }
        for (name, text) in FILES {
            write(&folder.join(name), text)?;
        }
        let key = folder.join(KEY);
        secret::write_private(&key, &pipeline::new_key().to_file())
            .map_err(|cause| unwritten(&key, cause))?;
        let config = folder.join("config");
        let option = if folder == Path::new(".") {
            // Where it is looked for anyway.
            String::new()
        } else {
            format!(" --config {}", quoted(&config.display().to_string()))
        };
        let next = ["check", "preview orders", "run orders"]
            .map(|command| format!("longshore{option} {command}"));
        let out = &context.out;
        if out.json {
            out.object(&json!({
                "folder": folder,
                "files": names.collect::<Vec<_>>(),
                "next": next,
            }))?;
            return Ok(Verdict::Done);
        }
        for name in names {
            out.line(format!("made {}", folder.join(name).display()))?;
        }
        out.line("\nNext:")?;
        for command in next {
            out.line(format!("  {command}"))?;
        }
        Ok(Verdict::Done)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let made = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Somebody may have made it meanwhile.
        std::fs::File::create_new(path)?.write_all(text.as_bytes())
    };
    made().map_err(|cause| unwritten(path, cause))
}

fn unwritten(path: &Path, cause: std::io::Error) -> Error {
    Error::permanent(DOING, format!("the file cannot be written: {}", cause.kind()))
        .with("file", path.display())
        .caused_by(cause)
        .help("Name a folder that this user may write to.")
}

/// The word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
