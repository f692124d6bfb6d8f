//! `longshore detokenize`: whoever has the key and says why gets the values of tokens back.

use std::process::Command;

use rusqlite::Connection;
use serde_json::json;

use super::{House, told};

/// The values of a column that is made tokens.
const CANARY: &str = "canary-4222-2222-2222-2222";

const PEOPLE: &str = r#"
source = { connection = "shop", table = "people" }
protect = { name = "tokenize", card = "tokenize", number = "tokenize", id = "drop" }
sink = { connection = "lake", path = "people", format = "jsonl" }
"#;

fn house() -> House {
    let house = House::new();
    let shop = Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, card BLOB, number INTEGER) STRICT;
         INSERT INTO people VALUES
             (1, 'CANARY', x'ff00', -7), (2, 'CANARY', NULL, 7), (3, '', x'41', NULL);"
            .replace("CANARY", CANARY)
            .as_str(),
    )
    .unwrap();
    house.write("config/exports/people.toml", PEOPLE);
    house
}

fn command(house: &House, arguments: &[&str]) -> Command {
    let mut command = house.command(arguments);
    command.env("PSEUDONYMS", "0123456789abcdef0123456789abcdef");
    command
}

/// The tokens of the delivery, by row.
fn tokens(house: &House) -> Vec<serde_json::Value> {
    let (code, out, err) = told(command(house, &["run", "people", "--to", "tried", "--json"]));
    assert_eq!(code, 0, "{out}{err}");
    let folder = house.path().join("tried/people");
    let part = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let part = part.into_iter().find(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let text = std::fs::read_to_string(part.unwrap()).unwrap();
    assert!(!text.contains(CANARY), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn audited(house: &House) -> Vec<(String, String, String)> {
    let ledger = Connection::open(house.path().join("longshore.db")).unwrap();
    let mut lines = ledger
        .prepare("SELECT \"by\", action, reason FROM audit WHERE subject = 'tokens' ORDER BY rowid")
        .unwrap();
    let rows = lines.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn tokens_are_turned_back_for_who_says_why() {
    let house = house();
    let rows = tokens(&house);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["name"], rows[1]["name"]);
    assert_eq!((&rows[1]["card"], &rows[2]["number"]), (&json!(null), &json!(null)));
    let of = |row: usize, column: &str| rows[row][column].as_str().unwrap().to_owned();
    let (name, card, number) = (of(0, "name"), of(0, "card"), of(0, "number"));
    let ask = |arguments: &[&str]| {
        let line = [&["detokenize"], arguments, &["--reason", "ticket 4711"]].concat();
        told(command(&house, &line))
    };
    let (code, _, err) = told(command(&house, &["detokenize", &name]));
    assert!(code == 2 && err.contains("--reason"), "{err}");
    // There is no ledger that could tell of it.
    let (code, out, err) = ask(&[&name]);
    assert!(code == 5 && out.is_empty() && !err.contains(CANARY), "{code} {out} {err}");

    house.done(&["apply"]);
    let (code, out, err) = ask(&[&name, &card, &number]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected =
        [vec!["VALUE", "TOKEN"], vec![CANARY, &name], vec!["\\xff00", &card], vec!["-7", &number]];
    assert_eq!(lines, expected);

    let (code, out, _) = ask(&["--json", &card, &of(2, "name"), &of(2, "card")]);
    assert_eq!(code, 0);
    let objects: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        objects,
        [
            json!({"token": card, "bytes": "ff00"}),
            json!({"token": of(2, "name"), "value": ""}),
            json!({"token": of(2, "card"), "value": "A"}),
        ]
    );
    let trail = audited(&house);
    let actions: Vec<&str> = trail.iter().map(|(_, action, _)| action.as_str()).collect();
    assert_eq!(actions, ["detokenize 3 tokens", "detokenize 3 tokens"]);
    assert!(trail.iter().all(|(by, _, why)| by.starts_with("ole@") && why == "ticket 4711"));

    // What cannot be written down is not shown.
    let ledger = Connection::open(house.path().join("longshore.db")).unwrap();
    ledger
        .execute_batch(
            "CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'no'); END",
        )
        .unwrap();
    let (code, out, err) = ask(&[&name]);
    assert!(code != 0 && out.is_empty() && !err.contains(CANARY), "{code} {out} {err}");
}

#[test]
fn a_token_of_somebody_else_is_named_by_its_place() {
    let house = house();
    house.done(&["apply"]);
    let token = tokens(&house)[0]["name"].as_str().unwrap().to_owned();
    let cut = &token[..token.len() - 4];
    let mut asked =
        assert_cmd::Command::from(command(&house, &["detokenize", "-", "--reason", "r"]));
    let output = asked.write_stdin(format!("{cut}\n\n{token}\nhash\n")).output().unwrap();
    let (out, err) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(out.contains(CANARY) && out.contains(&token), "{out}");
    for words in ["error: token 1 is not", "error: token 3 is not", "help: It was cut"] {
        assert!(err.contains(words), "{err}");
    }
    assert!(!err.contains("token 2") && !err.contains(&token), "{err}");
    assert_eq!(audited(&house)[0].1, "detokenize 3 tokens");

    // With another key none is this installation's.
    let mut other = house.command(&["detokenize", &token, "--reason", "r"]);
    other.env("PSEUDONYMS", "another");
    let (code, out, err) = told(other);
    assert!(code == 1 && out.is_empty() && err.contains("token 1 is not"), "{code} {out} {err}");
    // Without one there is nothing to try.
    let missing = house.fails(3, &["detokenize", &token, "--reason", "r"]);
    assert!(missing.contains("PSEUDONYMS"), "{missing}");
}
