//! What a data engineer who writes exports asks for: a start, what rows would be delivered, what
//! differs and whom it breaks, where values come from, and what an error means.

use serde_json::Value as Json;

use super::{House, told};

const PEOPLE: &str = r#"
[source]
connection = "shop"
table = "people"
[transform]
sql = "SELECT id, name, email, phone, age FROM input WHERE id <> 2"
[contract]
version = "1.0"
primary-key = ["id"]
max-rejected = "50%"
[contract.fields]
id = { type = "int64" }
name = { type = "string", classification = "personal" }
email = { type = "string", classification = "personal" }
phone = { type = "string", classification = "secret" }
age = { type = "int64", min = 18 }
[protect]
email = "mask"
[sink]
connection = "lake"
path = "people"
"#;

fn house() -> House {
    let house = House::new();
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, email TEXT, phone TEXT, age INTEGER) STRICT;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
         INSERT INTO people SELECT i, 'Ole ' || i, 'ole' || i || '@example.com', '555' || i,
                                   CASE WHEN i = 3 THEN 7 WHEN i = 4 THEN NULL ELSE 40 END FROM n;",
    )
    .unwrap();
    house.write("config/exports/people.toml", PEOPLE);
    house
}

#[test]
fn a_start_is_made_that_works_at_once() {
    let house = House::new();
    let made = house.done(&["init", "mine"]);
    for file in ["longshore.toml", "connections.toml", "exports/orders.toml"] {
        assert!(made.contains(&format!("made mine/config/{file}\n")), "{made}");
    }
    let (_, next) = made.split_once("\nNext:\n").unwrap();
    let next: Vec<&str> = next.lines().map(str::trim).collect();
    assert_eq!(
        next,
        [
            "longshore --config mine/config check",
            "longshore --config mine/config preview orders",
            "longshore --config mine/config run orders",
        ]
    );
    let run = |line: &str| house.done(&line.split(' ').skip(1).collect::<Vec<_>>());
    assert!(run(next[0]).ends_with("all is well\n"));
    let shown = run(next[1]);
    assert!(shown.starts_with("id  email "), "{shown}");
    assert!(!shown.contains("ola.hansen"), "{shown}");
    assert!(shown.contains("11 rows of 14 read, 2 filtered, 1 refused\n"), "{shown}");
    assert!(shown.contains("  refused 1 row: `amount` min 0\n"), "{shown}");
    assert!(!house.path().join("mine/longshore.db").exists());
    assert!(run(next[2]).contains("done: run "));
    house.done(&["--config", "mine/config", "check", "--connect"]);
    house.done(&["verify", "mine/deliveries/orders"]);
    let key = house.path().join("mine/quarantine.key");
    assert!(std::fs::read_to_string(&key).unwrap().contains("\nAGE-SECRET-KEY-1"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let error = house.fails(6, &["init", "mine"]);
    assert!(error.contains("(file mine/config/longshore.toml)"), "{error}");
    std::fs::remove_file(house.path().join("mine/config/longshore.toml")).unwrap();
    std::fs::write(house.path().join("mine/in/orders.csv"), "mine").unwrap();
    house.fails(6, &["init", "mine"]);
    assert!(!house.path().join("mine/config/longshore.toml").exists(), "nothing is half-made");
    assert_eq!(std::fs::read(house.path().join("mine/in/orders.csv")).unwrap(), b"mine");
    let made = house.objects(&["init", "a folder"]);
    assert_eq!(made[0]["next"][0], "longshore --config 'a folder/config' check");
}

#[test]
fn a_preview_shows_rows_as_they_would_be_delivered_and_delivers_nothing() {
    let house = house();
    let shown = house.done(&["preview", "people", "--rows", "3"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["id", "name", "email", "phone", "age"]
    );
    assert!(lines[1].starts_with("1   [personal]  "), "{shown}");
    assert!(lines[2].starts_with("4   [personal]  ") && lines[2].ends_with("NULL"), "{shown}");
    assert!(
        shown.contains(".com") && !shown.contains("ole1") && !shown.contains("5551"),
        "{shown}"
    );
    assert!(
        shown.contains("3 rows of 30 read, 1 filtered, 1 refused; there may be more\n"),
        "{shown}"
    );
    assert!(shown.contains("  refused 1 row: `age` min 18\n"), "{shown}");

    let objects = house.objects(&["preview", "people"]);
    assert_eq!(objects.len(), 21);
    assert_eq!(objects[0]["row"]["phone"], "[secret]");
    let last = &objects[20];
    assert_eq!((&last["rows"], &last["filtered"]), (&20.into(), &1.into()));
    assert_eq!(last["refused"][0]["rule"], "min 18");

    let daily = ["preview", "daily", "--param", "country=SE", "--window"];
    let shown = house.done(&[&daily[..], &["2026-11-19"]].concat());
    assert!(shown.contains("2 rows of 2 read, 0 filtered, 0 refused\n"), "{shown}");
    house.fails(2, &[&daily[..], &["2026-11-18..2026-11-19"]].concat());
    house.fails(2, &["preview", "daily"]);
    house.fails(2, &["preview", "people", "--rows", "0"]);
    house.fails(5, &["preview", "poeple"]);
    // Of many rows only a batch is read.
    let many = "\
[source]
connection = \"shop\"
query = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i FROM n\"
[contract.fields]
i = { type = \"int64\" }
[sink]
connection = \"lake\"
path = \"many\"
";
    house.write("config/exports/many.toml", many);
    let last = house.objects(&["preview", "many", "--rows", "1"]).pop().unwrap();
    assert!(last["read"].as_u64().unwrap() < 50_000 && last["whole"] == false, "{last}");
    let lake = std::fs::read_dir(house.path().join("lake")).unwrap();
    assert_eq!(lake.count(), 0);
    assert!(!house.path().join("longshore.db").exists());
}

#[test]
fn what_differs_is_shown_with_whom_it_breaks() {
    let house = house();
    house.fails(5, &["exports", "diff", "people"]);
    house.done(&["apply"]);
    let same = house.done(&["exports", "diff", "people"]);
    assert_eq!(
        same,
        "people: revision 1 (active) and config/exports/people.toml\n  nothing differs\n"
    );
    house.fails(5, &["exports", "diff", "people", "--ran"]);
    house.done(&["enqueue", "people", "--key", "first"]);

    let wider = PEOPLE
        .replace("phone = { type = \"string\", classification = \"secret\" }\n", "")
        .replace("phone, age", "age")
        .replace("min = 18", "min = 21");
    house.write("config/exports/people.toml", &wider);
    let expected = "  ~ transform.sql: \"SELECT id, name, email, phone, age FROM input WHERE id <> 2\" -> \"SELECT id, name, email, age FROM input WHERE id <> 2\"
  - contract.fields.phone.type: \"string\"
  - contract.fields.phone.required: false
  - contract.fields.phone.classification: \"secret\"
  ~ contract.fields.age.min: 18 -> 21
breaks recipients:
  column `phone` is removed
does not break them:
  column `age` has fewer values than it might have had
  the rows may be others (transform); the contract holds
warning: it breaks recipients, and the contract's version is still 1.0
   = help: raise `version` under [contract], and tell the recipients
";
    let told = house.done(&["exports", "diff", "people"]);
    assert_eq!(
        told,
        format!("people: revision 1 (active) and config/exports/people.toml\n{expected}")
    );
    let dry = house.done(&["apply", "--dry-run"]);
    assert!(dry.contains(&format!("\npeople, revision 2:\n{expected}")), "{dry}");
    let objects = house.objects(&["apply", "--dry-run"]);
    let people = objects.iter().find(|one| one["export"] == "people").unwrap();
    assert_eq!((&people["change"], &people["breaks"]), (&"changed".into(), &true.into()));
    assert_eq!(people["effects"][0]["what"], "column `phone` is removed");
    assert!(objects.iter().all(|one| one["export"] == "people" || one.get("changes").is_none()));

    house.done(&["apply"]);
    assert!(house.done(&["exports", "diff", "people"]).contains("nothing differs"));
    let ran = house.done(&["exports", "diff", "people", "--ran"]);
    assert!(ran.starts_with("people: revision 1 and config/exports/people.toml\n"), "{ran}");
    let back = house.objects(&["exports", "diff", "people", "2", "1"]).remove(0);
    assert_eq!((&back["old"], &back["new"]), (&2.into(), &1.into()));
    assert_eq!(back["warning"], "it breaks recipients, and the contract's version is still 1.0");
    assert!(
        back["changes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| { one["key"] == "contract.fields.phone.type" && one["old"] == Json::Null })
    );
    let error = house.fails(5, &["exports", "diff", "people", "7"]);
    assert!(error.contains("\nhelp: There are: 2, 1."), "{error}");
    house.fails(5, &["exports", "diff", "poeple"]);
    house.fails(2, &["exports", "diff", "people", "1", "--ran"]);
}

#[test]
fn a_definition_is_shown_with_where_its_values_came_from() {
    let house = House::new();
    house.write("config/exports/acme/_defaults.toml", "owner = \"sales\"\n[retry]\nattempts = 3\n");
    house.write(
        "config/exports/acme/feed.toml",
        "[source]\nconnection = \"shop\"\nquery = \"\"\"\nSELECT id\nFROM orders\n\"\"\"\n\
         [contract.fields]\nid = { type = \"int64\" }\n\
         [sink]\nconnection = \"lake\"\npath = \"feed\"\n",
    );
    let mut command = house.command(&["exports", "show", "feed", "--resolved"]);
    command.env("LONGSHORE__CONNECTIONS__LAKE__STAGING", ".mine");
    let (code, shown, err) = told(command);
    assert_eq!(code, 0, "{err}");
    insta::assert_snapshot!(shown);
    // It is TOML, but for the connections at its end.
    let (export, _) = shown.split_once("\n# connection").unwrap();
    toml::from_str::<toml::Table>(export).unwrap();
    assert!(!house.path().join("longshore.db").exists());

    let object = house.objects(&["exports", "show", "feed", "--resolved"]).remove(0);
    let values = object["values"].as_array().unwrap();
    let owner = values.iter().find(|one| one["key"] == "owner").unwrap();
    assert_eq!(owner["from"], "config/exports/acme/_defaults.toml:1");
    let error = house.fails(5, &["exports", "show", "fede", "--resolved"]);
    assert!(error.contains("\nhelp: Did you mean `feed`?"), "{error}");
    house.write("config/exports/acme/feed.toml", "sorce = 1");
    assert!(house.fails(3, &["exports", "show", "feed", "--resolved"]).contains("error[LS0201]"));
}

#[test]
fn an_error_is_explained_by_its_code() {
    let house = House::new();
    house.write("config/exports/orders.toml", "sorce = 1");
    let (_, found, _) = house.run(&["check"]);
    let (_, code) =
        found.lines().find_map(|line| line.split_once("more: longshore explain ")).unwrap();
    let shown = house.done(&["explain", &code.to_lowercase()]);
    assert!(shown.starts_with("LS0201: A key that nobody knows.\n"), "{shown}");
    assert!(shown.contains("\n  retyr = { attempts = 3 }\n"), "{shown}");
    assert!(shown.contains("\nWhat to do:\nCorrect the spelling"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    assert!(house.done(&["explain", "unavailable"]).contains("Bring the server back"));
    let all = house.done(&["explain"]);
    for name in ["LS0101", "LS0504", "transient", "usage"] {
        assert!(all.contains(&format!("\n{name} ")), "{all}");
    }
    assert_eq!(house.objects(&["explain"]).len(), all.lines().count() - 1);
    assert_eq!(house.objects(&["explain", "LS0102"])[0]["code"], "LS0102");
    house.fails(5, &["explain", "LS9999"]);
}

#[test]
fn shells_and_man_know_the_command_line() {
    let house = House::new();
    for (shell, words) in [
        ("bash", "complete -F _longshore"),
        ("zsh", "#compdef longshore"),
        ("fish", "complete -c longshore"),
    ] {
        let script = house.done(&["completions", shell]);
        assert!(script.contains(words) && script.contains("preview"), "{script}");
    }
    house.fails(2, &["completions", "cmd"]);
    house.done(&["man", "share/man1"]);
    let folder = house.path().join("share/man1");
    for (name, words) in [
        ("longshore.1", "longshore \\- Hands data out"),
        ("longshore-preview.1", "The first rows after transform, contract and protection"),
        ("longshore-exports-diff.1", "as `apply` would find it"),
    ] {
        let page = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(page.contains(words), "{page}");
    }
}
