//! `longshore quarantine`

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{Context, Ended, Verdict};
use crate::pipeline;

/// Rows that were refused. Alone it is `quarantine list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore quarantine key > /run/secrets/quarantine")]
pub struct Quarantine {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key for `[quarantine] key`, and print it; nothing else has it
    Key,
}

impl Quarantine {
    pub async fn run(self, context: &Context) -> Ended {
        match self.command {
            What::Key => key(context),
        }
    }
}

fn key(context: &Context) -> Ended {
    let key = pipeline::new_key();
    if context.out.json {
        let identity = key.identity.expose_secret();
        context.out.object(&json!({"identity": identity, "recipient": key.recipient}))?;
    } else {
        context.out.line(key.to_file().expose_secret().trim_end())?;
    }
    Ok(Verdict::Done)
}
