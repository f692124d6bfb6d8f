//! Checks what an export says of its files: their names, format and dialect.

use super::{missing, text};
use crate::config::problem::{Code, Problems};
use crate::config::tree::Node;
use crate::connect::Connection;
use crate::export::Export;
use crate::format::{Compression, CsvOptions, Format};
use crate::job::manifest::MANIFEST_SUFFIX;
use crate::units::Size;

/// How small `max-file-size` may be: below, what begins and ends a file would fill it.
const SMALLEST: u64 = 1 << 20;
/// How large a file may be that is brought to its name by a copy within an object store.
const COPIED: u64 = 4 << 30;

/// Checks a dialect.
pub(super) fn check_csv(
    csv: Option<&CsvOptions>,
    at: &[&str],
    tree: &Node,
    problems: &mut Problems,
) {
    for (key, error) in csv.map(CsvOptions::mistakes).unwrap_or_default() {
        let place = tree.at(&[at, &["csv", key]].concat());
        problems.add(Code::BadValue, place, error.message(), "").help =
            error.advice().map(str::to_owned);
    }
}

/// Checks a sink of files.
pub(super) fn check_files(
    export: &Export,
    connection: &Connection,
    tree: &Node,
    problems: &mut Problems,
) {
    let sink = &export.sink;
    match &sink.path {
        // With `file`, what tells deliveries apart may be in either.
        Some(path) if sink.file.is_some() => {
            text::path(path, export, tree.at(&["sink", "path"]), problems);
        }
        Some(path) => text::folder(path, export, tree.at(&["sink", "path"]), problems),
        None => missing("path", tree, &["sink"], "add `path = \"folder\"`", problems),
    }
    check_names(export, tree, problems);
    check_kind(export, tree, problems);
    check_csv(sink.csv.as_ref(), &["sink"], tree, problems);
    if let Some(size) = sink.max_file_size {
        let place = tree.at(&["sink", "max-file-size"]);
        if size.0 < SMALLEST {
            problems
                .add(Code::BadValue, place, "files cannot be so small", "")
                .help(format!("write {} or more", Size(SMALLEST)));
        } else if sink.file.is_none() && connection.url.starts_with("s3:") && size.0 > COPIED {
            problems
                .add(Code::BadValue, place, "an object store does not copy files so large", "")
                .help(format!("write {} or less, or name the files by `file`", Size(COPIED)));
        }
    }
}

/// Checks the names of file and trigger.
fn check_names(export: &Export, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    let (Some(file), Some(base)) = (&sink.file, sink.base()) else {
        if sink.trigger.is_some() {
            problems
                .add(
                    Code::Unfit,
                    tree.key_at(&["sink", "trigger"]),
                    "a trigger belongs to a file of a fixed name",
                    "there is no `file`",
                )
                .help(
                    "add `file = \"ORDERS.csv\"`; other deliveries are there with their manifest",
                );
        }
        return;
    };
    let place = tree.at(&["sink", "file"]);
    let mut wrong = |what: &str, help: &str| {
        problems.add(Code::BadValue, place, what, "").help(help);
    };
    if file.contains('/') {
        wrong("a file's name has no `/`", "put folders into `path`");
        return;
    }
    if file.matches("{part}").count() > 1 {
        wrong("{part} may be there once", "leave the others out");
        return;
    }
    if base.is_empty() || base.starts_with(['.', '_']) {
        wrong("this is no name for a file that recipients take", "begin with a letter or a digit");
        return;
    }
    if base.ends_with(MANIFEST_SUFFIX) {
        wrong("manifests are called so", "choose another ending");
        return;
    }
    let whole = |name: &str| match &sink.path {
        Some(path) => format!("{path}/{name}"),
        None => name.to_owned(),
    };
    // What is wrong with the path alone was said there.
    let before = problems.0.len();
    text::path(&base, export, place, problems);
    if problems.0.len() > before {
        return;
    }
    text::folder(&whole(&base), export, place, problems);
    let Some(trigger) = &sink.trigger else { return };
    let place = tree.at(&["sink", "trigger"]);
    let name = trigger.replace("{file}", &base);
    if trigger.contains('/') {
        problems
            .add(Code::BadValue, place, "a file's name has no `/`", "")
            .help("a trigger lies beside its file");
    } else if name == base || name == file.as_str() || name == base + MANIFEST_SUFFIX {
        problems
            .add(Code::Meeting, place, "the trigger has another file's name", "")
            .help("call it \"{file}.done\"");
    } else if let Some(template) = text::path(&name, export, place, problems)
        && !trigger.contains("{file}")
        && template.placeholders().next().is_none()
    {
        problems
            .add(Code::Meeting, place, "all deliveries have one trigger", "")
            .help("call it \"{file}.done\"");
    }
}

/// Checks format and compression, and what the file's name tells of them.
fn check_kind(export: &Export, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    let (format, compression) = sink.kind();
    let base = sink.base().unwrap_or_default();
    let told = Format::of_name(&base);
    if sink.file.is_some() && sink.format.is_none() && told.is_none() {
        let help = "add `format = \"csv\"`, or end the file's name with .csv";
        missing("format", tree, &["sink"], help, problems);
        return;
    }
    if let (Some((tells, _)), Some(given)) = (told, sink.format)
        && tells != given
    {
        let place = tree.at(&["sink", "format"]);
        problems
            .add(Code::Unfit, place, "the file's name tells another format", "")
            .help("leave it out, or change the ending of `file`");
    }
    let ending = match base.rsplit_once('.') {
        Some((_, "gz")) => Some(Compression::Gzip),
        Some((_, "zst")) => Some(Compression::Zstd),
        _ => None,
    };
    if format.is_typed() && ending.is_some() {
        let place = tree.at(&["sink", "file"]);
        problems
            .add(Code::Unfit, place, "files of this format compress within themselves", "")
            .help("leave the last ending out, and set `compression`");
    } else if !format.is_typed()
        && sink.file.is_some()
        && ending.unwrap_or(Compression::None) != compression
    {
        let place = tree.at(&["sink", "compression"]);
        problems
            .add(Code::Unfit, place, "the file's name tells another compression", "")
            .help("end it with .gz for gzip, .zst for zstd, and with neither for none");
    } else if !format.has(compression) {
        let place = tree.at(&["sink", "compression"]);
        problems
            .add(Code::Unfit, place, "files of this format know no such compression", "")
            .help("use \"zstd\" or \"none\"");
    }
    if sink.csv.is_some() && format != Format::Csv {
        problems
            .add(Code::Unfit, tree.key_at(&["sink", "csv"]), "the format is not csv", "remove it")
            .help("or set `format = \"csv\"`");
    }
}
