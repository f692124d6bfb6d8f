use serde_json::json;

use super::*;

const EXPORT: &str = r#"
[source]
connection = "shop"
table = "orders"
[contract]
version = "1.2"
primary-key = ["id"]
[contract.fields]
id = { type = "int64" }
email = { type = "string" }
amount = { type = "decimal(15,2)", min = 0, max = 100 }
country = { type = "string", values = ["NO", "SE"], required = true }
day = { type = "date", min = "2026-01-31" }
[protect]
email = "mask"
[sink]
connection = "lake"
path = "orders"
format = "csv"
"#;

fn content(text: &str) -> Json {
    let export: Export = toml::from_str(text).unwrap();
    serde_json::to_value(export).unwrap()
}

/// What becomes of it when one line is another.
fn changed(from: &str, to: &str) -> Comparison {
    let new = EXPORT.replace(from, to);
    assert_ne!(new, EXPORT, "{from}");
    Comparison::of(&content(EXPORT), &content(&new))
}

#[test]
fn every_change_of_the_contract_is_classified() {
    for (from, to, breaks, what) in [
        ("email = { type = \"string\" }\n", "", true, "column `email` is removed"),
        ("email = \"mask\"", "email = \"drop\"", true, "column `email` is removed"),
        ("day = {", "noon = { type = \"date\" }\nday = {", false, "column `noon` is added"),
        (
            "id = { type = \"int64\"",
            "id = { type = \"int32\"",
            true,
            "column `id` is int32 instead of int64",
        ),
        (", required = true", "", true, "column `country` may be NULL now"),
        ("primary-key = [\"id\"]\n", "", true, "column `id` may be NULL now"),
        (
            "email = { type = \"string\"",
            "email = { type = \"string\", required = true",
            false,
            "column `email` is never NULL now",
        ),
        ("min = 0", "min = -1", true, "column `amount` may have values that it could not have"),
        ("min = 0", "min = 9", false, "column `amount` has fewer values than it might have had"),
        ("max = 100", "max = 1000", true, "column `amount` may have values that it could not have"),
        ("max = 100", "max = 20", false, "column `amount` has fewer values than it might have had"),
        (", max = 100", "", true, "column `amount` may have values that it could not have"),
        ("2026-01-31", "2025-12-31", true, "column `day` may have values that it could not have"),
        (
            "[\"NO\", \"SE\"]",
            "[\"NO\", \"SE\", \"DK\"]",
            true,
            "column `country` may have values that it could not have",
        ),
        (
            "[\"NO\", \"SE\"]",
            "[\"SE\"]",
            false,
            "column `country` has fewer values than it might have had",
        ),
        (
            "email = \"mask\"",
            "email = \"hash\"",
            true,
            "column `email` is protected in another way: hash instead of mask",
        ),
        (
            "email = \"mask\"",
            "email = { method = \"mask\", keep = 6 }",
            true,
            "column `email` tells more than before: mask, keep = 6 instead of mask",
        ),
        (
            "email = \"mask\"",
            "email = \"mask\"\nday = { method = \"generalize\", to = \"month\" }",
            true,
            "column `day` is protected now: generalize, to = month",
        ),
        (
            "[protect]\nemail = \"mask\"",
            "",
            true,
            "column `email` is delivered as it is, without protection",
        ),
        (
            "version =",
            "max-rejected = \"1%\"\nversion =",
            true,
            "up to 1% of the rows may be missing from a delivery",
        ),
        ("path = \"orders\"", "path = \"sales\"", true, "deliveries go to another place"),
        ("format = \"csv\"", "format = \"jsonl\"", true, "deliveries have another format"),
        (
            "table = \"orders\"",
            "table = \"all\"",
            false,
            "the rows may be others (source); the contract holds",
        ),
    ] {
        let found = changed(from, to);
        let effect = Effect { breaks, what: what.to_owned() };
        assert!(found.effects.contains(&effect), "{from} -> {to}: {:?}", found.effects);
        assert_eq!(found.breaks, breaks, "{from} -> {to}: {:?}", found.effects);
        assert_eq!(found.warning.is_some(), breaks, "{from} -> {to}");
        assert!(!found.changes.is_empty());
    }
    // A new version says that it breaks.
    let told = changed("version = \"1.2\"\nprimary-key = [\"id\"]", "version = \"2.0\"");
    assert!(told.breaks && told.warning.is_none());
}

#[test]
fn how_rows_meet_those_of_a_table_matters() {
    let table = |more: &str| {
        let sink = format!("table = \"orders\"\nmode = \"upsert\"\n{more}");
        content(&EXPORT.replace("path = \"orders\"\nformat = \"csv\"\n", &sink))
    };
    for (more, breaks) in [
        ("deleted = \"day IS NULL\"\n", true),
        ("window-column = \"day\"\n", true),
        ("scope = [\"country\"]\n", true),
        ("new-columns = \"add\"\n", false),
    ] {
        let found = Comparison::of(&table(""), &table(more));
        assert_eq!((found.breaks, found.effects.len()), (breaks, 1), "{more}: {:?}", found.effects);
    }
    let same = Comparison::of(&table(""), &table("new-columns = \"fail\"\n"));
    assert!(same.effects.is_empty(), "{:?}", same.effects);
}

#[test]
fn keys_are_compared_one_by_one() {
    let found = changed(
        "amount = { type = \"decimal(15,2)\", min = 0, max = 100 }",
        "vat = { type = \"bool\", max = 1 }",
    );
    let keys: Vec<_> =
        found.changes.iter().map(|one| (one.key.as_str(), one.new.clone())).collect();
    assert_eq!(
        keys,
        [
            ("contract.fields.amount.type", None),
            ("contract.fields.amount.required", None),
            ("contract.fields.amount.min", None),
            ("contract.fields.amount.max", None),
            ("contract.fields.vat.type", Some(json!("bool"))),
            ("contract.fields.vat.required", Some(json!(false))),
            ("contract.fields.vat.max", Some(json!(1))),
        ]
    );
    assert_eq!(Comparison::of(&content(EXPORT), &content(EXPORT)).changes, []);
    // The order of the columns is the only difference.
    let mut moved = content(EXPORT);
    let fields = moved.pointer_mut("/contract/fields").unwrap().as_object_mut().unwrap();
    let email = fields.shift_remove("email").unwrap();
    fields.insert("email".to_owned(), email);
    let found = Comparison::of(&content(EXPORT), &moved);
    assert_eq!(found.changes.len(), 1);
    assert_eq!(found.changes[0].key, "contract.fields");
    assert!(found.breaks, "in CSV columns are told apart by their place");
    // What another Longshore wrote is compared all the same.
    let strange = Comparison::of(&json!({"a": 1}), &content(EXPORT));
    assert!(strange.changes.len() > 5 && strange.effects.is_empty());
}

#[test]
fn references_are_part_of_the_definition_where_there_are_any() {
    let plain = content(EXPORT);
    assert!(plain.get("reference").is_none() && plain["source"].get("key").is_none(), "{plain}");
    let line = "[reference.c]\nconnection = \"lake\"\npath = \"c.parquet\"\nkey = [\"code\"]\n";
    let more = content(&format!("{EXPORT}{line}"));
    let found = Comparison::of(&plain, &more);
    let keys: Vec<&str> = found.changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["reference.c.connection", "reference.c.path", "reference.c.key"]);
    assert!(found.effects[0].what.contains("the rows may be others (references)"));
}
