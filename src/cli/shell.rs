//! `longshore completions` and `longshore man`: what shells and `man` know of the command line.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use super::{Cli, Context, Ended, Verdict};
use crate::error::Error;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore completions bash > ~/.local/share/bash-completion/completions/longshore
  longshore completions zsh > ~/.zfunc/_longshore
  longshore completions fish > ~/.config/fish/completions/longshore.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Ended {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "longshore", &mut script);
        io::stdout().lock().write_all(&script)?;
        Ok(Verdict::Done)
    }
}

/// Write the man pages into a folder
///
/// One for longshore, and one for each of its commands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore man ~/.local/share/man/man1
  longshore man /usr/share/man/man1")]
pub struct Man {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub fn run(self, context: &Context) -> Ended {
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &self.folder))
            .map_err(|cause| {
                Error::permanent("write the man pages", "the folder cannot be written to")
                    .with("folder", self.folder.display())
                    .caused_by(cause)
                    .help("Name a folder that this user may write to.")
            })?;
        if context.out.json {
            context.out.object(&json!({"folder": self.folder}))?;
        } else {
            context.out.line(format!("the man pages are in {}", self.folder.display()))?;
        }
        Ok(Verdict::Done)
    }
}
