//! The reference of the command line, generated from the commands and held against the committed
//! page. After a change: `make reference`.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::Cli;
use crate::generated::expect_committed;

const HEAD: &str = "\
# Command line

Generated from the program; `longshore COMMAND --help` shows the same.

Results go to standard output, as tables for people or with `--json` as one object a line; logs and
errors go to standard error. Colour and progress are for terminals alone; `NO_COLOR` is honoured.
Runs are told by the shortest unique ending of their name, of at least eight characters in tables; every
command takes one of four or more.

";

fn markdown() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = HEAD.to_owned();
    text.push_str("## Commands\n\n| command | what it does |\n|---|---|\n");
    for command in shown(&root) {
        let _ = writeln!(
            text,
            "| [`longshore {0}`](#longshore-{0}) | {1} |",
            command.get_name(),
            about(command)
        );
    }
    text.push_str("\n## Options for every command\n\n");
    table(&mut text, root.get_arguments().filter(|arg| arg.is_global_set()));
    text.push_str(EXITS);
    for command in shown(&root) {
        section(&mut text, "longshore", command, 2);
    }
    text
}

/// Held against what `longshore --help` says by a test.
const EXITS: &str = "
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed or something was found |
| 2 | wrong usage |
| 3 | configuration invalid |
| 4 | a dependency cannot be reached |
| 5 | not found |
| 6 | refused |
| 130 | interrupted |
";

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set())
}

fn about(command: &Command) -> String {
    command.get_about().map(|text| line(&text.to_string())).unwrap_or_default()
}

fn section(text: &mut String, above: &str, command: &Command, level: usize) {
    let name = format!("{above} {}", command.get_name());
    let _ = write!(text, "\n{} {name}\n\n", "#".repeat(level));
    let long = command.get_long_about().or(command.get_about());
    let _ = writeln!(text, "{}\n", long.map(ToString::to_string).unwrap_or_default().trim());
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(text, "```text\n{}\n```", usage.trim_start_matches("Usage: ").trim());
    let mut own = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set())
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        .peekable();
    if own.peek().is_some() {
        text.push('\n');
        table(text, own);
    }
    if let Some(after) = command.get_after_help() {
        let _ = write!(text, "\n```text\n{}\n```\n", after.to_string().trim());
    }
    for below in shown(command) {
        section(text, &name, below, level + 1);
    }
}

fn table<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    text.push_str("| argument | meaning |\n|---|---|\n");
    for arg in arguments {
        let mut meaning = arg
            .get_long_help()
            .or(arg.get_help())
            .map(|help| line(&help.to_string()))
            .unwrap_or_default();
        let flag = !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let values = arg.get_possible_values();
        if !flag && !values.is_empty() {
            let values: Vec<_> =
                values.iter().map(|value| format!("`{}`", value.get_name())).collect();
            let _ = write!(meaning, ". One of {}", values.join(", "));
        }
        let defaults: Vec<_> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !flag && !defaults.is_empty() {
            let variable = arg.get_env().map(|name| name.to_string_lossy());
            let first =
                variable.map(|name| format!("what `{name}` says, else ")).unwrap_or_default();
            let _ = write!(meaning, ". Default: {first}`{}`", defaults.join(" "));
        }
        let _ = writeln!(text, "| `{}` | {meaning} |", shape(arg, flag));
    }
}

/// How an argument is written.
fn shape(arg: &Arg, flag: bool) -> String {
    let value = arg
        .get_value_names()
        .and_then(|names| names.first())
        .map_or(arg.get_id().as_str().to_uppercase(), ToString::to_string);
    match arg.get_long() {
        Some(long) if flag => format!("--{long}"),
        Some(long) => format!("--{long} {value}"),
        None if arg.is_required_set() => value,
        None => format!("[{value}]"),
    }
}

/// One line of a table.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_page_of_the_command_line_is_committed() {
    expect_committed("docs/reference/cli.md", &markdown());
}

#[test]
fn every_argument_and_every_exit_code_is_told() {
    let root = Cli::command();
    let after = root.get_after_help().unwrap().to_string();
    let (_, told) = after.split_once("Exit codes: ").unwrap();
    for row in EXITS.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some((code, meaning)) = row.trim_end_matches(" |").split_once(" | ") else { continue };
        if code.bytes().all(|byte| byte.is_ascii_digit()) {
            let both = format!("{code} {meaning}");
            assert!(line(told).contains(&both), "{both} is not in {told}");
        }
    }
    for row in markdown().lines().filter(|row| row.starts_with("| `")) {
        assert!(!row.ends_with("|  |"), "nothing is said of {row}");
    }
}
