//! What texts say that can be typed can be typed.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use longshore::cli::Cli;

#[test]
fn every_command_that_is_named_exists() {
    let mut root = Cli::command();
    root.build();
    for (line, exists) in [
        ("runs show 7c2f9a1e --json | jq .run", true),
        ("--config out/config dead replay --export=orders", true),
        ("dead drop --all --reason 'a test of it'", true),
        ("explain LS0304", true),
        ("explan LS0304", false),
        ("runs resolve 7c2f9a1e --as dead", true),
        ("runs revive 7c2f9a1e", false),
        ("apply --everything", false),
        ("exports [OPTIONS] [COMMAND]", true),
    ] {
        assert_eq!(follow(&root, line).is_ok(), exists, "{line}");
    }
    let text =
        "See `longshore runs \\\n   show {}`. \"longshore {role}\"\n  longshore dead list   why";
    assert_eq!(named(text), ["runs show {}", "dead list"]);

    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in ["src", "docs", "config", "README.md", "compose.yaml"] {
        read(&here.join(place), &mut files);
    }
    let (mut count, mut wrong) = (0, Vec::new());
    for (file, text) in &files {
        for line in named(text) {
            count += 1;
            if let Err(what) = follow(&root, &line) {
                wrong.push(format!("{file}: `longshore {line}`: {what}"));
            }
        }
    }
    assert!(count > 80, "only {count} commands were found");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn read(place: &Path, files: &mut Vec<(String, String)>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            read(&entry.unwrap().path(), files);
        }
        return;
    }
    files.push((place.display().to_string(), fs::read_to_string(place).unwrap()));
}

/// What follows the program's name, wherever a command does.
fn named(text: &str) -> Vec<String> {
    // A literal may go on in the next line.
    let mut text = text.to_owned();
    while let Some(at) = text.find("\\\n") {
        let rest = text[at + 2..].trim_start().to_owned();
        text.truncate(at);
        text.push_str(&rest);
    }
    text.match_indices("longshore ")
        .filter(|(at, _)| {
            let before = text[..*at].chars().next_back().unwrap_or('\n');
            before.is_whitespace() || before == '`' || before == '"'
        })
        .map(|(at, name)| &text[at + name.len()..])
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
        .map(|rest| {
            let ends = ["  ", " >", " 2>", " &"].map(|text| rest.find(text));
            let end = [rest.find(['`', '"', '\n'])].into_iter().chain(ends).flatten().min();
            rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ' ', '\\']).to_owned()
        })
        .collect()
}

/// Whether there are such commands and options.
fn follow(root: &Command, line: &str) -> Result<(), String> {
    let mut command = root;
    // What is quoted is one word, whatever it says.
    let plain: String = line.split('\'').step_by(2).collect::<Vec<_>>().join("quoted");
    let mut words = plain.split(' ').take_while(|word| *word != "|");
    while let Some(word) = words.next() {
        if ["[OPTIONS]", "[COMMAND]", "<COMMAND>"].contains(&word) {
            // What a usage line says in the place of something.
        } else if let Some(option) = word.strip_prefix("--") {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            let found = command.get_arguments().find(|one| one.get_long() == Some(name));
            let found = found.ok_or_else(|| format!("there is no --{name}"))?;
            if found.get_action().takes_values() && value.is_none() {
                words.next();
            }
        } else if let Some(below) = command.find_subcommand(word) {
            command = below;
        } else if command.get_positionals().next().is_none() {
            return Err(format!("there is no `{word}`"));
        }
    }
    Ok(())
}
