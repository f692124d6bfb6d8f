//! What is told of exports that go by a cursor.

use super::*;

#[test]
fn a_cursor_goes_with_a_sink_that_keeps_what_was_before() {
    let export = |cursor: &str, rest: &str| {
        let text =
            format!("[source]\nconnection = \"shop\"\ntable = \"t\"\ncursor = {cursor}\n{rest}");
        load_in(folder(&[("exports/a.toml", &text)]).path(), LoadOptions::default())
    };
    let table = |mode: &str| {
        format!(
            "[sink]\nconnection = \"shop\"\ntable = \"u\"\nmode = \"{mode}\"\n\
             [contract]\nprimary-key = [\"id\"]\nfields = {{ id = {{ type = \"int64\" }} }}\n"
        )
    };
    let files = |path: &str| format!("[sink]\nconnection = \"lake\"\npath = \"{path}\"\n");
    let back = "{ column = \"at\", lookback = \"10m\", start = 2026-01-01, nulls = \"skip\" }";
    export(back, &table("upsert")).unwrap();
    export("\"at\"", &table("append")).unwrap();
    let of_runs = export("\"at\"", &files("a/{run}")).unwrap();
    let cursor = of_runs.exports["a"].export.source.cursor.clone().unwrap();
    assert_eq!((cursor.column.as_str(), cursor.start), ("at", None));
    let windows = "[schedule]\ncron = \"0 4 * * *\"\nwindow = \"day\"\nstart = 2026-01-01\n";
    for (cursor, rest, line, words) in [
        (back, table("append"), 4, "the sink would have them twice"),
        (back, files("a/{run}"), 4, "the sink would have them twice"),
        ("\"at\"", table("replace"), 8, "would remove all others"),
        ("\"at\"", files("a"), 7, "would replace those before"),
        ("\"at\"", table("append") + windows, 14, "reads by that, and not by the cursor"),
    ] {
        let shown = export(cursor, &rest).unwrap_err();
        assert!(shown.contains("error[LS0318]"), "{shown}");
        assert!(shown.contains(words), "{shown}");
        assert!(shown.contains(&format!("a.toml:{line}:")), "{line}: {shown}");
    }
    let of_files = |cursor: &str, sink: &str| {
        let text = format!(
            "[source]\nconnection = \"lake\"\npath = \"in/*.csv\"\ncursor = {cursor}\n\
             fields = {{ id = {{ type = \"int64\" }} }}\n{sink}"
        );
        load_in(folder(&[("exports/a.toml", &text)]).path(), LoadOptions::default())
    };
    of_files("\"file\"", &files("a/{run}")).unwrap();
    of_files("{ column = \"file\" }", &table("upsert")).unwrap();
    for (cursor, rest, words) in [
        ("\"at\"", files("a/{run}"), "files have no columns that a cursor goes by"),
        ("\"file\"", files("a"), "would replace those before"),
        ("\"file\"", table("replace"), "would remove all others"),
        ("{ column = \"file\", lookback = \"1m\" }", table("upsert"), "has no `lookback`"),
        ("{ column = \"file\", start = 2026-01-01 }", table("upsert"), "has no `start`"),
        ("{ column = \"file\", nulls = \"fail\" }", table("upsert"), "has no `nulls`"),
    ] {
        let shown = of_files(cursor, &rest).unwrap_err();
        assert!(shown.contains("error[LS0318]"), "{shown}");
        assert!(shown.contains(words), "{shown}");
    }
    let shown = export("{ column = \"at\", nulls = \"drop\" }", &table("append")).unwrap_err();
    assert!(shown.contains("unknown value `drop`"), "{shown}");
    let shown = export("{ column = \"at\", back = \"1m\" }", &table("append")).unwrap_err();
    assert!(shown.contains("unknown key `back`"), "{shown}");
}
