mod replaced;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use futures::stream;

use super::*;
use crate::delivery::verify::verify;
use crate::digest;
use crate::error::Class;
use crate::job::manifest::tests::sample;
use crate::job::manifest::{MANIFEST_NAME, ManifestFile};
use crate::rows::Batch;
use crate::sink::SinkConfig;

fn sink(root: &Path, if_exists: IfExists) -> FilesSink {
    let settings =
        serde_json::json!({"type": "files", "url": format!("file://{}", root.display())});
    let mut connection: Connection = serde_json::from_value(settings).unwrap();
    connection.name = "lake".to_owned();
    FilesSink::new(&connection, Place::folder("orders/day=2026-11-19"), layout(None), if_exists)
        .unwrap()
}

fn layout(max_file_size: Option<u64>) -> Layout {
    Layout {
        format: Format::Csv,
        compression: Compression::None,
        csv: CsvOptions::default(),
        max_file_size,
    }
}

/// A sink of files of fixed names.
fn fixed(root: &Path, file: &str, max: Option<u64>, if_exists: IfExists) -> FilesSink {
    let settings =
        serde_json::json!({"type": "files", "url": format!("file://{}", root.display())});
    let mut connection: Connection = serde_json::from_value(settings).unwrap();
    connection.name = "acme".to_owned();
    let config: SinkConfig = serde_json::from_value(serde_json::json!({
        "connection": "acme", "path": "in", "file": file, "trigger": "{file}.done",
    }))
    .unwrap();
    let place = config.place("MARK", |text| Ok(text.to_owned())).unwrap().unwrap();
    FilesSink::new(&connection, place, layout(max), if_exists).unwrap()
}

/// What is in the folder `in`: names and contents, but for the manifests.
fn there(root: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(root.join("in")) else { return vec![] };
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let text =
                if name.ends_with(".json") { vec![] } else { std::fs::read(entry.path()).unwrap() };
            (name, text)
        })
        .collect();
    found.sort();
    found
}

/// The rows of a decided delivery as its file has them.
fn text(rows: std::ops::Range<u64>) -> Vec<u8> {
    std::iter::once("id\n".to_owned())
        .chain(rows.map(|n| format!("{n}\n")))
        .collect::<String>()
        .into_bytes()
}

fn trigger(decision: &Decision) -> Vec<u8> {
    let sha256 = digest::sha256(&decision.manifest);
    format!("{sha256}  O.csv.manifest.json\n").into_bytes()
}

#[tokio::test]
async fn fixed_names_are_committed_from_wherever_the_first_worker_stopped() {
    // Nothing · the file · the manifest · the trigger, and again with a predecessor.
    for reached in 0..4 {
        for replaces in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let sink = fixed(dir.path(), "O.csv", None, IfExists::Replace);
            assert_eq!(sink.target(), "acme/in/O.csv");
            let folder = dir.path().join("in");
            let mut standing = None;
            if replaces {
                let before = holder(RunId::new(), 1);
                let decision = decide(before.run, staged(&sink, &before, 1).await, None);
                sink.commit(&before, &decision).await.unwrap();
                assert_eq!(there(dir.path())[1].1, trigger(&decision));
                standing = sink.current_manifest().await.unwrap();
            }
            let (run, before) = (RunId::new(), there(dir.path()));
            let first = holder(run, 1);
            let decision = decide(run, staged(&sink, &first, 3).await, standing);
            assert_eq!(there(dir.path()), before, "nothing is seen before the commit");
            assert_eq!((decision.parts.len(), decision.parts[0].name.as_str()), (1, "O.csv"));
            std::fs::create_dir_all(&folder).unwrap();
            if reached > 0 {
                let from = dir.path().join(&decision.parts[0].staged);
                std::fs::rename(from, folder.join("O.csv")).unwrap();
            }
            if reached > 1 {
                std::fs::write(folder.join("O.csv.manifest.json"), &decision.manifest).unwrap();
            }
            if reached > 2 {
                std::fs::write(folder.join("O.csv.done"), trigger(&decision)).unwrap();
            }
            let second = holder(run, 2);
            let (one, two) =
                tokio::join!(sink.commit(&second, &decision), sink.commit(&first, &decision));
            one.unwrap();
            two.unwrap();
            let expected = [
                ("O.csv".to_owned(), text(0..300)),
                ("O.csv.done".to_owned(), trigger(&decision)),
                ("O.csv.manifest.json".to_owned(), vec![]),
            ];
            assert_eq!(there(dir.path()), expected, "{reached} {replaces}");
            for place in ["in/O.csv", "in/O.csv.manifest.json"] {
                let found = verify(dir.path().join(place).to_str().unwrap()).await.unwrap();
                assert!(found.is_intact() && found.notes.is_empty(), "{found:?}");
            }
            sink.clean(&second).await.unwrap();
            assert!(!dir.path().join(format!(".longshore/{run}")).exists());
        }
    }
}

#[tokio::test]
async fn a_fixed_name_is_taken_from_the_predecessor_and_from_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let keep = fixed(dir.path(), "O.csv", None, IfExists::Fail);
    let swap = fixed(dir.path(), "O.csv", None, IfExists::Replace);
    let beside = fixed(dir.path(), "P.csv", None, IfExists::Fail);
    let [a, b, c, d] = [1, 1, 1, 1].map(|fence| holder(RunId::new(), fence));
    let name = dir.path().join("in/O.csv");
    std::fs::create_dir_all(name.parent().unwrap()).unwrap();

    let first = decide(a.run, staged(&keep, &a, 1).await, None);
    std::fs::write(&name, "mine").unwrap();
    let error = keep.commit(&a, &first).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(there(dir.path()), [("O.csv".to_owned(), b"mine".to_vec())]);
    std::fs::remove_file(&name).unwrap();
    keep.commit(&a, &first).await.unwrap();

    // Another export in the same folder.
    beside.expect_free(d.run).await.unwrap();
    let other = decide(d.run, staged(&beside, &d, 1).await, None);
    beside.commit(&d, &other).await.unwrap();
    assert_eq!(there(dir.path()).len(), 6);

    assert_eq!(keep.expect_free(b.run).await.unwrap_err().class(), Class::Refused);
    let standing = swap.current_manifest().await.unwrap();
    let second = decide(b.run, staged(&swap, &b, 2).await, standing.clone());
    let late = decide(c.run, staged(&swap, &c, 3).await, standing);
    swap.commit(&b, &second).await.unwrap();
    assert_eq!(swap.commit(&c, &late).await.unwrap_err().class(), Class::Refused);
    assert_eq!(swap.commit(&a, &first).await.unwrap_err().class(), Class::Refused);
    assert_eq!(std::fs::read(&name).unwrap(), text(0..200));
    assert_eq!(std::fs::read(dir.path().join("in/O.csv.done")).unwrap(), trigger(&second));

    // Somebody put another file where the predecessor's was.
    let standing = swap.current_manifest().await.unwrap();
    let third = decide(c.run, staged(&swap, &holder(c.run, 2), 3).await, standing);
    std::fs::write(&name, "not the predecessor's").unwrap();
    assert_eq!(swap.commit(&c, &third).await.unwrap_err().class(), Class::Refused);
    assert_eq!(std::fs::read(&name).unwrap(), b"not the predecessor's");
    // A repeated commit brings a trigger that was taken away back, and nothing else.
    std::fs::write(&name, text(0..200)).unwrap();
    swap.commit(&c, &third).await.unwrap();
    assert_eq!(std::fs::read(&name).unwrap(), text(0..300));
}

#[tokio::test]
async fn no_file_is_larger_than_it_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunId::new();
    let mut names = Vec::new();
    for (fence, format, compression) in [
        (1, Format::Csv, Compression::None),
        (2, Format::Csv, Compression::Gzip),
        (3, Format::Jsonl, Compression::Zstd),
        (4, Format::Parquet, Compression::None),
        (5, Format::Arrow, Compression::None),
        (6, Format::Avro, Compression::None),
    ] {
        let most = 1 << 20;
        let mut sink = fixed(dir.path(), "O-{part}.csv", Some(most), IfExists::Fail);
        sink.layout = Layout { format, compression, ..sink.layout };
        let done = staged(&sink, &holder(run, fence), 5_000).await;
        assert!(done.parts.iter().all(|part| part.bytes <= most), "{:?}", done.parts);
        assert_eq!(done.parts.iter().map(|part| part.rows).sum::<u64>(), 500_000);
        names = done.parts.iter().map(|part| part.name.clone()).collect();
        // What compresses well is cut early at the most.
        let several = compression == Compression::None;
        assert!(!several || names.len() > 1, "{format:?}: {:?}", done.parts);
    }
    assert_eq!(names[..2], ["O-00000.csv", "O-00001.csv"]);

    let sink = fixed(dir.path(), "O-{part}.csv", Some(1 << 20), IfExists::Fail);
    let who = holder(run, 7);
    let decision = decide(run, staged(&sink, &who, 5_000).await, None);
    sink.commit(&who, &decision).await.unwrap();
    let manifest = dir.path().join("in/O.csv.manifest.json");
    let found = verify(manifest.to_str().unwrap()).await.unwrap();
    assert!(found.is_intact(), "{found:?}");
    assert_eq!((found.rows, found.files), (500_000, decision.parts.len() as u64));
    assert!(dir.path().join("in/O.csv.done").exists());

    // A smaller one in its place leaves none of its files.
    let swap = fixed(dir.path(), "O-{part}.csv", Some(1 << 20), IfExists::Replace);
    let (who, standing) = (holder(RunId::new(), 1), swap.current_manifest().await.unwrap());
    std::fs::write(dir.path().join("in/O-notes.csv"), "mine").unwrap();
    let decision = decide(who.run, staged(&swap, &who, 1).await, standing);
    swap.commit(&who, &decision).await.unwrap();
    swap.commit(&who, &decision).await.unwrap();
    let names: Vec<_> = there(dir.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["O-00000.csv", "O-notes.csv", "O.csv.done", "O.csv.manifest.json"]);
    assert!(verify(manifest.to_str().unwrap()).await.unwrap().is_intact());
}

#[tokio::test]
async fn a_decision_without_files_lets_nothing_appear() {
    let dir = tempfile::tempdir().unwrap();
    let sink = fixed(dir.path(), "O.csv", None, IfExists::Fail);
    let who = holder(RunId::new(), 1);
    let mut nothing = staged(&sink, &who, 0).await;
    assert_eq!(nothing.parts.len(), 1);
    nothing.parts.clear();
    sink.commit(&who, &decide(who.run, nothing, None)).await.unwrap();
    assert_eq!(there(dir.path()), []);
    assert_eq!(sink.standing().await.unwrap(), None);
}

fn rows(batches: u64) -> Rows {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let of = schema.clone();
    let batches = (0..batches).map(move |n| {
        let ids = Arc::new(Int64Array::from_iter_values((0..100).map(|i| (n * 100 + i) as i64)));
        let rows = RecordBatch::try_new(of.clone(), vec![ids]).unwrap();
        Ok(Batch { read: 103, filtered: 3, ..Batch::whole(rows) })
    });
    Rows { schema, stream: stream::iter(batches).boxed(), snapshot: None }
}

fn holder(run: RunId, fence: i64) -> Holder {
    Holder { run, fence }
}

fn decide(run: RunId, staged: Staged, replaces: Option<String>) -> Decision {
    let files = staged.parts.iter().map(ManifestFile::from);
    Decision {
        manifest: sample(run, files.collect()).to_bytes().unwrap(),
        parts: staged.parts,
        counts: staged.counts,
        cursor: None,
        replaces,
        quarantine: None,
    }
}

/// The names in the delivery's folder, sorted.
fn delivered(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join("orders/day=2026-11-19")) else { return vec![] };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn staged(sink: &FilesSink, who: &Holder, batches: u64) -> Staged {
    assert_eq!(sink.begin(who).await.unwrap(), Begun::Open);
    sink.stage(who, rows(batches)).await.unwrap()
}

#[tokio::test]
async fn a_delivery_is_staged_unseen_committed_whole_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), IfExists::Fail);
    sink.part_bytes = 1000;
    assert_eq!(sink.target(), "lake/orders/day=2026-11-19");
    let run = RunId::new();
    let who = holder(run, 4);
    let staged = staged(&sink, &who, 7).await;
    assert_eq!(delivered(dir.path()), Vec::<String>::new());
    assert_eq!((staged.counts.read, staged.counts.filtered, staged.counts.written), (721, 21, 700));
    assert!(staged.parts.len() > 1, "{:?}", staged.parts);
    assert!(staged.parts.iter().all(|part| part.rows > 0));
    assert!(staged.parts[0].staged.starts_with(&format!(".longshore/{run}/4/part-00000")));

    let decision = decide(run, staged, None);
    sink.commit(&who, &decision).await.unwrap();
    let text: String = decision
        .parts
        .iter()
        .map(|part| dir.path().join("orders/day=2026-11-19").join(&part.name))
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines()
                .filter(|line| *line != "id")
                .map(|line| format!("{line}\n"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(text, (0..700).map(|n| format!("{n}\n")).collect::<String>());
    sink.clean(&who).await.unwrap();
    sink.clean(&who).await.unwrap();
    assert!(!dir.path().join(format!(".longshore/{run}")).exists());
    let place = dir.path().join("orders/day=2026-11-19");
    let found = verify(place.to_str().unwrap()).await.unwrap();
    assert!(found.is_intact(), "{:?}", found.mismatches);
    assert_eq!((found.rows, found.files), (700, decision.parts.len() as u64));
    let hash = digest::sha256(&decision.manifest);
    assert_eq!(sink.current_manifest().await.unwrap(), Some(hash));
}

#[tokio::test]
async fn a_commit_cut_off_anywhere_is_rolled_forward_by_a_later_attempt() {
    // How far the first worker came: parts brought (0..=n), then the manifest.
    for reached in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = sink(dir.path(), IfExists::Fail);
        sink.part_bytes = 1000;
        let run = RunId::new();
        let first = holder(run, 1);
        let decision = decide(run, staged(&sink, &first, 7).await, None);
        let folder = dir.path().join("orders/day=2026-11-19");
        std::fs::create_dir_all(&folder).unwrap();
        for part in decision.parts.iter().take(reached) {
            std::fs::hard_link(dir.path().join(&part.staged), folder.join(&part.name)).unwrap();
            if reached % 2 == 0 {
                std::fs::remove_file(dir.path().join(&part.staged)).unwrap();
            }
        }
        if reached > decision.parts.len() {
            std::fs::write(folder.join(MANIFEST_NAME), &decision.manifest).unwrap();
        }
        let second = holder(run, 2);
        for who in [&second, &second, &first] {
            sink.commit(who, &decision).await.unwrap();
            assert_eq!(delivered(dir.path()).len(), decision.parts.len() + 1);
            assert!(verify(folder.to_str().unwrap()).await.unwrap().is_intact());
        }
        if reached > decision.parts.len() {
            break;
        }
    }
}

#[tokio::test]
async fn two_fences_stage_apart_and_cleaning_spares_the_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), IfExists::Fail);
    let run = RunId::new();
    let (old, new) = (holder(run, 1), holder(run, 2));
    let (first, second) = tokio::join!(staged(&sink, &old, 3), staged(&sink, &new, 3));
    assert_ne!(first.parts[0].staged, second.parts[0].staged);
    let error = sink.stage(&old, rows(1)).await.unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
    sink.clean(&old).await.unwrap();
    assert!(!dir.path().join(&first.parts[0].staged).exists());
    let decision = decide(run, second, None);
    let (one, two) = tokio::join!(sink.commit(&new, &decision), sink.commit(&old, &decision));
    one.unwrap();
    two.unwrap();
    assert_eq!(delivered(dir.path()).len(), 2);
}

#[tokio::test]
async fn fail_keeps_what_is_there_and_replace_takes_only_its_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let keep = sink(dir.path(), IfExists::Fail);
    let swap = sink(dir.path(), IfExists::Replace);
    let (a, b, c) = (RunId::new(), RunId::new(), RunId::new());
    let first = decide(a, staged(&keep, &holder(a, 1), 1).await, None);
    keep.expect_free(b).await.unwrap();
    keep.commit(&holder(a, 1), &first).await.unwrap();
    keep.expect_free(a).await.unwrap();
    swap.expect_free(b).await.unwrap();
    assert_eq!(keep.expect_free(b).await.unwrap_err().class(), Class::Refused);

    let second = decide(b, staged(&swap, &holder(b, 1), 2).await, None);
    let error = keep.commit(&holder(b, 1), &second).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(delivered(dir.path()).len(), 2, "no part of the loser is left");

    let standing = swap.current_manifest().await.unwrap();
    let replacing = Decision { replaces: standing.clone(), ..second };
    let late = decide(c, staged(&swap, &holder(c, 1), 3).await, standing);
    swap.commit(&holder(b, 1), &replacing).await.unwrap();
    swap.commit(&holder(b, 2), &replacing).await.unwrap();
    let error = swap.commit(&holder(c, 1), &late).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    // The old worker of the first run comes late.
    assert_eq!(keep.commit(&holder(a, 1), &first).await.unwrap_err().class(), Class::Refused);
    let folder = dir.path().join("orders/day=2026-11-19");
    let text = std::fs::read_to_string(folder.join(MANIFEST_NAME)).unwrap();
    assert_eq!(text, replacing.manifest);
    let found = verify(folder.to_str().unwrap()).await.unwrap();
    assert!(found.is_intact());
    assert_eq!(found.notes, [format!("{} is not part of the delivery", first.parts[0].name)]);
    std::fs::remove_file(folder.join(MANIFEST_NAME)).unwrap();
    assert_eq!(swap.commit(&holder(b, 1), &replacing).await.unwrap_err().class(), Class::Refused);
}

#[tokio::test]
async fn a_foreign_file_is_never_overwritten_and_a_lost_part_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), IfExists::Fail);
    let run = RunId::new();
    let decision = decide(run, staged(&sink, &holder(run, 1), 1).await, None);
    let folder = dir.path().join("orders/day=2026-11-19");
    std::fs::create_dir_all(&folder).unwrap();
    let name = folder.join(&decision.parts[0].name);
    std::fs::write(&name, "mine").unwrap();
    let error = sink.commit(&holder(run, 1), &decision).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(std::fs::read(&name).unwrap(), b"mine");
    std::fs::remove_file(&name).unwrap();
    sink.clean(&holder(run, 1)).await.unwrap();
    let error = sink.commit(&holder(run, 1), &decision).await.unwrap_err();
    assert!(error.to_string().contains("neither staged nor delivered"), "{error}");
    assert_eq!(delivered(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn an_error_of_the_source_ends_staging_and_no_rows_make_one_part() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), IfExists::Fail);
    let run = RunId::new();
    let mut broken = rows(1);
    let failure = stream::once(async { Err(Error::unavailable("read the table", "gone")) });
    broken.stream = broken.stream.chain(failure).boxed();
    let error = sink.stage(&holder(run, 1), broken).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    let none = staged(&sink, &holder(run, 2), 0).await;
    assert_eq!((none.parts.len(), none.parts[0].rows), (1, 0));
    assert_eq!(std::fs::read(dir.path().join(&none.parts[0].staged)).unwrap(), b"id\n");
}

#[test]
fn names_that_no_folder_takes_are_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        serde_json::json!({"type": "files", "url": format!("file://{}", dir.path().display())});
    let connection: Connection = serde_json::from_value(settings).unwrap();
    let config = serde_json::json!({"connection": "x", "path": "in", "file": format!("{}.csv", "x".repeat(240))});
    let config: SinkConfig = serde_json::from_value(config).unwrap();
    let place = config.place("MARK", |text| Ok(text.to_owned())).unwrap().unwrap();
    let error = FilesSink::new(&connection, place, layout(None), IfExists::Fail).err().unwrap();
    assert_eq!(error.class(), Class::Config);
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn paths_that_would_meet_the_staging_folder_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let connection: Connection = serde_json::from_value(serde_json::json!({
        "type": "files", "url": format!("file://{}", dir.path().display()),
    }))
    .unwrap();
    for folder in ["", ".longshore", ".longshore/x", "../x", "/x"] {
        let place = Place::folder(folder);
        let error = FilesSink::new(&connection, place, layout(None), IfExists::Fail);
        assert_eq!(error.err().unwrap().class(), Class::Config, "{folder}");
    }
}
