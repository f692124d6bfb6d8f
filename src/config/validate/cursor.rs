//! Checks what an export that goes by a cursor says of its sink and its schedule.

use crate::config::problem::{Code, Problems};
use crate::config::tree::Node;
use crate::connect::System;
use crate::export::Export;
use crate::job::template::Template;
use crate::sink::Mode;
use crate::source::{CursorConfig, FILE};

/// Checks the cursor of an export that delivers to a system of this kind.
pub(super) fn check_cursor(
    cursor: &CursorConfig,
    export: &Export,
    to: System,
    tree: &Node,
    problems: &mut Problems,
) {
    let (sink, place) = (&export.sink, tree.key_at(&["source", "cursor"]));
    let is_table = matches!(to, System::Postgres | System::Sqlite);
    if cursor.lookback.is_some() && !(is_table && sink.mode == Some(Mode::Upsert)) {
        problems
            .add(
                Code::Cursor,
                place,
                "a lookback delivers rows again, and the sink would have them twice",
                "",
            )
            .help("deliver to a table with `mode = \"upsert\"`, or leave `lookback` out");
    }
    if is_table && sink.mode == Some(Mode::Replace) {
        problems
            .add(
                Code::Cursor,
                tree.at(&["sink", "mode"]),
                "a run by a cursor has the new rows alone, and would remove all others",
                "replaces the table",
            )
            .help("write `mode = \"append\"` or `mode = \"upsert\"`");
    }
    if to == System::Files {
        let names: Vec<_> = export.param_names().into_iter().chain(["part"]).collect();
        let own = [&sink.path, &sink.file]
            .into_iter()
            .flatten()
            .any(|text| Template::read(text, &names).0.placeholders().any(|name| name == "run"));
        if !own {
            let key = if sink.file.is_some() { "file" } else { "path" };
            problems
                .add(
                    Code::Cursor,
                    tree.at(&["sink", key]),
                    "a run by a cursor has the new rows alone, and would replace those before",
                    "the same for every run",
                )
                .help("put {run} into it: \"orders/{run}\"");
        }
    }
    if export.schedule.as_ref().is_some_and(|schedule| schedule.window.is_some()) {
        problems
            .add(
                Code::Cursor,
                tree.key_at(&["schedule", "window"]),
                "a run with a window reads by that, and not by the cursor",
                "there is a cursor",
            )
            .help("leave `window` out: each time that the cron names is a run; or the cursor");
    }
}

/// Checks the cursor of an export that reads files: there is one word for it.
pub(super) fn check_files_cursor(cursor: &CursorConfig, tree: &Node, problems: &mut Problems) {
    const HELP: &str = "write `cursor = \"file\"`: each run takes the files that are new";
    if cursor.column != FILE {
        let place = tree.at(&["source", "cursor"]);
        problems
            .add(Code::Cursor, place, "files have no columns that a cursor goes by", "")
            .help(HELP);
        return;
    }
    let written = tree.get("source").and_then(|source| source.get("cursor"));
    for (key, entry) in written.into_iter().flat_map(Node::entries) {
        if key != "column" {
            let place = entry.key.as_ref().unwrap_or(&entry.place);
            let message = format!("a cursor over files has no `{key}`");
            problems.add(Code::Cursor, place, message, "remove it").help(HELP);
        }
    }
}
