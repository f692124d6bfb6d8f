//! The command line, one file per command.
//!
//! Results go to standard output, as tables for people or (`--json`) one object a line for
//! programs; errors, progress and logs go to standard error. How a command ended is told by its
//! exit code: see `Failure::code`.

mod apply;
mod arguments;
mod audit;
mod backfill;
mod check;
mod cursors;
mod dead;
mod deliveries;
mod demo;
mod detokenize;
mod dev;
mod doctor;
mod enqueue;
mod explain;
mod exports;
mod init;
mod migrate;
mod output;
mod pause;
mod preview;
mod progress;
mod quarantine;
#[cfg(test)]
mod reference;
mod rerun;
mod run;
mod runs;
mod scheduler;
mod service;
mod shell;
mod signals;
mod trial;
mod verify;
mod wait;
mod windows;
mod worker;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::{self, Config, LoadOptions, Problems};
use crate::error::{Class, Error};
use crate::scrub::scrub;
use crate::telemetry;
use crate::wiring;

use output::Out;

/// Hands data out of systems to partners and analysts, and can prove what was handed over.
#[derive(Debug, Parser)]
#[command(
    name = "longshore",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  longshore init .                                a small configuration to start from
  longshore check                                 look for mistakes in ./config
  longshore apply                                 make its definitions active
  longshore enqueue daily-orders --window 2026-11-19 --param country=SE --wait
  longshore runs                                  what became of it
  longshore dead list                             what was given up, and why

Exit codes: 0 done, 1 failed or something was found, 2 wrong usage, 3 configuration invalid,
4 a dependency cannot be reached, 5 not found, 6 refused, 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The folder of the configuration
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "LONGSHORE_CONFIG",
        default_value = "config",
        help_heading = "Options for every command"
    )]
    config: PathBuf,
    /// Print one JSON object a line, for programs
    #[arg(long, global = true, help_heading = "Options for every command")]
    json: bool,
    /// What is logged: error, warn, info, debug, trace, or a list like info,longshore=debug
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        value_parser = arguments::level,
        help_heading = "Options for every command"
    )]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Check(check::Check),
    Apply(apply::Apply),
    Preview(preview::Preview),
    Run(run::Run),
    Dev(dev::Dev),
    Worker(worker::Worker),
    Scheduler(scheduler::Scheduler),
    Migrate(migrate::Migrate),
    Doctor(doctor::Doctor),
    Enqueue(enqueue::Enqueue),
    Windows(windows::Windows),
    Backfill(backfill::Backfill),
    Rerun(rerun::Rerun),
    Runs(runs::Runs),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Audit(audit::Audit),
    Deliveries(deliveries::Deliveries),
    Dead(dead::Dead),
    Quarantine(quarantine::Quarantine),
    Detokenize(detokenize::Detokenize),
    Cursors(cursors::Cursors),
    Exports(exports::Exports),
    Verify(verify::Verify),
    Explain(explain::Explain),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All is well.
    Done,
    /// The work failed, or something was found; it is told already.
    Found,
    /// Something could not be reached; that is told already.
    Away,
}

/// Why a command could not do what it was asked.
#[derive(Debug)]
enum Failure {
    Error(Error),
    Problems(Problems),
    /// Nobody reads what is printed any more.
    Unread,
    Interrupted,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Failure {
        Failure::Problems(problems)
    }
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Failure {
        match cause.kind() {
            io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Error::permanent("print the result", "standard output cannot be written to")
                .caused_by(cause)
                .into(),
        }
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Unread => 0,
            Failure::Problems(_) => 3,
            Failure::Interrupted => 130,
            Failure::Error(error) => match error.class() {
                Class::Usage => 2,
                Class::Config => 3,
                Class::Unavailable | Class::Throttled => 4,
                Class::NotFound => 5,
                Class::Refused | Class::Conflict | Class::Fenced => 6,
                Class::Transient
                | Class::Contract
                | Class::Permanent
                | Class::Malformed
                | Class::Poison
                | Class::Cancelled
                | Class::Expired => 1,
            },
        }
    }

    fn tell(&self) {
        match self {
            Failure::Unread | Failure::Interrupted => {}
            Failure::Problems(problems) => told(&problems.to_string()),
            Failure::Error(error) => {
                tracing::debug!(error = error.chain(), "failed");
                tell(error);
            }
        }
    }
}

type Ended = Result<Verdict, Failure>;

/// Does what the command line asks for. Answers the exit code.
pub async fn run(cli: Cli) -> u8 {
    let context = Context { out: Out::new(cli.global.json), global: cli.global };
    let ended = match cli.command {
        Command::Worker(command) => command.run(&context).await,
        Command::Scheduler(command) => command.run(&context).await,
        Command::Dev(command) => command.run(&context).await,
        Command::Run(command) => command.run(&context).await,
        Command::Init(command) => command.run(&context),
        Command::Explain(command) => command.run(&context),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(&context),
        Command::Preview(command) => interruptible(Box::pin(command.run(&context))).await,
        Command::Check(command) => interruptible(command.run(&context)).await,
        Command::Apply(command) => interruptible(command.run(&context)).await,
        Command::Migrate(command) => interruptible(command.run(&context)).await,
        Command::Doctor(command) => interruptible(Box::pin(command.run(&context))).await,
        Command::Enqueue(command) => Box::pin(command.run(&context)).await,
        Command::Windows(command) => interruptible(command.run(&context)).await,
        Command::Backfill(command) => interruptible(command.run(&context)).await,
        Command::Rerun(command) => Box::pin(command.run(&context)).await,
        Command::Runs(command) => interruptible(command.run(&context)).await,
        Command::Pause(command) => interruptible(command.run(&context)).await,
        Command::Resume(command) => interruptible(command.run(&context)).await,
        Command::Audit(command) => interruptible(command.run(&context)).await,
        Command::Deliveries(command) => interruptible(command.run(&context)).await,
        Command::Dead(command) => Box::pin(interruptible(command.run(&context))).await,
        Command::Quarantine(command) => Box::pin(command.run(&context)).await,
        Command::Detokenize(command) => interruptible(command.run(&context)).await,
        Command::Cursors(command) => interruptible(command.run(&context)).await,
        Command::Exports(command) => interruptible(Box::pin(command.run(&context))).await,
        Command::Verify(command) => interruptible(command.run(&context)).await,
    };
    match ended {
        Ok(Verdict::Done) => 0,
        Ok(Verdict::Found) => 1,
        Ok(Verdict::Away) => 4,
        Err(failure) => {
            failure.tell();
            failure.code()
        }
    }
}

/// For a command of which nothing is left half-done when it is cut off.
async fn interruptible(command: impl Future<Output = Ended>) -> Ended {
    tokio::select! {
        ended = command => ended,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

/// Tells that the process could not even begin.
pub fn no_runtime(cause: &io::Error) -> ExitCode {
    told(&format!("error: cannot start: {cause}\n"));
    ExitCode::FAILURE
}

/// Prints an error for people, with what to do about it on a line of its own.
fn tell(error: &Error) {
    let mut text = format!("error: {}\n", scrub(&error.to_string()));
    if let Some(advice) = error.advice() {
        text.push_str(&format!("help: {}\n", scrub(advice)));
    }
    told(&text);
}

/// Prints to standard error; that nobody reads it is no reason to fail.
fn told(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// What every command is given.
struct Context {
    global: Global,
    out: Out,
}

impl Context {
    /// Reads the configuration. Anything wrong in it is a failure.
    fn read(&self, exports: bool) -> Result<Config, Problems> {
        config::load(&self.global.config, self.options(exports))
    }

    /// The same with one export, whatever is wrong with the others.
    fn read_with(&self, export: &str) -> Result<Config, Problems> {
        let options = LoadOptions { only: Some(export.to_owned()), ..self.options(true) };
        config::load(&self.global.config, options)
    }

    /// How the configuration is read.
    fn options(&self, exports: bool) -> LoadOptions {
        let variables = config::variables();
        let env = variables
            .iter()
            .find(|(name, value)| name == "LONGSHORE_ENV" && !value.is_empty())
            .map(|(_, value)| value.clone());
        LoadOptions { env, variables, exports, only: None }
    }

    /// The configuration, for a command that ends by itself: warnings are logged.
    fn config(&self, exports: bool) -> Result<Config, Failure> {
        self.log()?;
        Ok(self.read(exports)?)
    }

    /// The same with one export, whatever is wrong with the others.
    fn config_with(&self, export: &str) -> Result<Config, Failure> {
        self.log()?;
        Ok(self.read_with(export)?)
    }

    /// Starts the log of a command that ends by itself. It tells once that the broker is away, so
    /// that the link need not tell each time that it tried.
    fn log(&self) -> Result<(), Failure> {
        self.log_from("warn,longshore::queue::rabbitmq::link=off")
    }

    /// The same, with another level where none is asked for.
    fn log_from(&self, level: &str) -> Result<(), Failure> {
        let level = self.global.log_level.as_deref().unwrap_or(level);
        telemetry::start(telemetry::LogFormat::Pretty, level, color_of_logs())?;
        Ok(())
    }

    /// The configuration, for a process that stays: the log is as the settings say.
    fn service(&self, exports: bool) -> Result<(Config, PrometheusHandle), Failure> {
        let config = self.read(exports)?;
        let log = &config.settings.log;
        let level = self.global.log_level.as_deref().unwrap_or(match log.level {
            config::LogLevel::Error => "error",
            config::LogLevel::Warn => "warn",
            config::LogLevel::Info => "info",
            config::LogLevel::Debug => "debug",
            config::LogLevel::Trace => "trace",
        });
        let format = match log.format {
            config::LogFormat::Json => telemetry::LogFormat::Json,
            config::LogFormat::Auto if !io::stderr().is_terminal() => telemetry::LogFormat::Json,
            config::LogFormat::Auto | config::LogFormat::Pretty => telemetry::LogFormat::Pretty,
        };
        let metrics = telemetry::start(format, level, color_of_logs())?;
        Ok((config, metrics))
    }

    /// Who does this, for the audit trail.
    fn by(&self) -> String {
        config::by(&wiring::host())
    }
}

fn color_of_logs() -> bool {
    io::stderr().is_terminal() && !config::no_color()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound_and_every_help_has_examples() {
        let mut root = Cli::command();
        root.clone().debug_assert();
        for command in root.get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(help.contains("Examples:\n  longshore "), "{help}");
        }
    }

    #[test]
    fn what_is_for_every_command_may_stand_anywhere() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let lines = [
            "runs list --export e",
            "runs show x",
            "runs cancel x --reason r",
            "runs watch --export e",
            "runs resolve x --as dead --reason r",
            "pause list",
            "deliveries list --export e",
            "deliveries show abcd",
            "dead list --export e",
            "dead show abcd",
            "dead replay --all --reason r",
            "dead drop --all --reason r",
            "cursors e",
            "quarantine list --export e",
            "quarantine show abcd --reveal --reason r",
            "quarantine release abcd --reason r",
            "quarantine drop abcd --reason r",
            "quarantine key",
            "detokenize tok_x --reason r",
            "cursors show e",
            "cursors set e --to 7 --reason r",
            "cursors reset e --reason r",
            "deliveries list",
            "deliveries show x",
            "exports list",
            "exports show x",
            "exports diff x",
            "deliveries list --export e",
            "deliveries show x",
        ];
        let root = Cli::command();
        for command in root.get_subcommands().filter(|command| command.has_subcommands()) {
            for below in command.get_subcommands() {
                let both = format!("{} {}", command.get_name(), below.get_name());
                assert!(lines.iter().any(|line| line.starts_with(&both)), "{both} is not tried");
            }
        }
        for option in ["--json", "--config d", "--log-level info"] {
            for line in lines.map(words) {
                let tried: Vec<String> = (0..=line.len())
                    .filter(|at| {
                        *at == 0
                            || !["--export", "--reason", "--to", "--as"].contains(&&*line[at - 1])
                    })
                    .map(|at| {
                        let mut line = line.clone();
                        line.splice(at..at, words(option));
                        line.insert(0, "longshore".to_owned());
                        let read =
                            Cli::try_parse_from(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
                        format!("{read:?}")
                    })
                    .collect();
                assert!(tried.iter().all(|one| *one == tried[0]), "{line:?}: {tried:#?}");
                assert!(tried[0].contains("json: true") || option != "--json", "{}", tried[0]);
            }
        }
    }

    #[test]
    fn classes_of_errors_become_exit_codes() {
        for (class, code) in [
            (Class::Contract, 1),
            (Class::Usage, 2),
            (Class::Config, 3),
            (Class::Unavailable, 4),
            (Class::NotFound, 5),
            (Class::Conflict, 6),
            (Class::Refused, 6),
        ] {
            assert_eq!(Failure::Error(Error::new(class, "test", "it")).code(), code);
        }
        assert_eq!(Failure::Problems(Problems::default()).code(), 3);
        assert_eq!(Failure::Interrupted.code(), 130);
        let unread = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(unread.code(), 0);
    }
}
