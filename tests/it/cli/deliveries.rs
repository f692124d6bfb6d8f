//! `longshore deliveries`: who got what.

use super::House;

#[test]
fn deliveries_are_listed_and_shown_with_their_files() {
    let house = House::new();
    house.done(&["apply"]);
    assert_eq!(house.done(&["deliveries", "--json"]), "");
    house.done(&["run", "orders"]);
    house.done(&["run", "orders"]);
    house.done(&["run", "daily", "--window", "2026-11-02", "--param", "country=SE"]);
    let found = house.objects(&["deliveries"]);
    let exports: Vec<_> = found.iter().map(|one| one["export"].as_str().unwrap()).collect();
    assert_eq!(exports, ["daily", "orders", "orders"]);
    assert_eq!(found, house.objects(&["deliveries", "list", "--since", "1h"]));
    assert_eq!(
        house.objects(&["deliveries", "list", "--export", "orders", "--limit", "1"])[0],
        found[1]
    );
    assert!(found[1]["replaced_by"].is_null());
    assert_eq!(found[2]["replaced_by"], found[1]["run"]);
    assert_eq!(found[0]["params"]["country"], "SE");
    assert_eq!(found[0]["window"]["start"], "2026-11-01T23:00:00Z");
    let place = found[0]["place"].as_str().unwrap();
    assert!(place.ends_with("lake/daily/2026-11-02/SE"), "{place}");

    let table = house.done(&["deliveries", "list"]);
    for words in ["STATE", "2026-11-02 country=SE", "standing", "replaced", "file:lake/orders"] {
        assert!(table.contains(words), "{words}\n{table}");
    }

    // What it shows is what is there: each file with its checksum, and the manifest's.
    let run = found[1]["run"].as_str().unwrap();
    let shown = house.done(&["deliveries", "show", &run[28..]]);
    let manifest = std::fs::read(house.path().join("lake/orders/_manifest.json")).unwrap();
    let object = house.objects(&["deliveries", "show", found[1]["delivery"].as_str().unwrap()]);
    let on_disk: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(object[0]["manifest"], on_disk);
    let file = &on_disk["files"][0];
    for words in [file["name"].as_str().unwrap(), file["sha256"].as_str().unwrap(), " for ole"] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    let sha256 = found[1]["manifest_sha256"].as_str().unwrap();
    assert!(shown.contains(&format!("manifest    SHA-256 {sha256}\n")), "{shown}");
    let older = found[2]["run"].as_str().unwrap();
    let shown = house.done(&["deliveries", "show", older]);
    assert!(
        shown.contains(&format!("state       replaced by that of run {}", &run[28..])),
        "{shown}"
    );

    assert!(house.fails(5, &["deliveries", "show", "00000000"]).contains("deliveries list"));
    assert!(house.fails(2, &["deliveries", "show", "xy"]).contains("last four characters"));
}
