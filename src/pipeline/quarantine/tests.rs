//! What is written can be read back, by whoever has the key and by nobody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::budget::Budget;
use crate::error::Class;
use crate::format::row_json;
use crate::job::supplement::Supplement;
use crate::rows::{At, Batch, Breach, Origin, Refused};
use crate::secret::Secret;
use crate::sink::Holder;

/// A value that is to be seen nowhere.
const CANARY: &str = "canary-4111-1111-1111-1111";

struct Bed {
    folder: tempfile::TempDir,
    vault: Vault,
    holder: Holder,
}

fn bed() -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/lake", folder.path().display());
    let connection = serde_json::from_value(json!({"type": "files", "url": url})).unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, new_key().to_file().expose_secret()).unwrap();
    let vault =
        Vault { connection: Arc::new(connection), key: Secret::File(file.display().to_string()) };
    Bed { folder, vault, holder: Holder { run: RunId::new(), fence: 3 } }
}

impl Bed {
    fn set_key(&self, text: &str) {
        std::fs::write(self.folder.path().join("key"), text).unwrap();
    }

    fn file(&self, place: &str) -> PathBuf {
        self.folder.path().join("lake").join(place)
    }

    async fn keep(&self, rows: &[Refused]) -> String {
        let mut quarantine = Quarantine::new(&self.vault, &self.holder).await.unwrap();
        for row in rows.chunks(7) {
            quarantine.keep(row).await.unwrap();
        }
        quarantine.close().await.unwrap()
    }

    async fn read(&self, place: &str) -> Result<Vec<(Option<usize>, String)>> {
        KeptRows::open(&self.vault, self.holder.run, place, |mut rows| {
            let mut found = Vec::new();
            while let Some(row) = rows.next_row()? {
                found.push((row.of, row.row.get().to_owned()));
            }
            Ok(found)
        })
        .await
    }
}

/// Rows of two schemas, and of none.
fn refused(count: i64) -> Vec<Refused> {
    let decimals = Decimal128Array::from_iter_values((0..count).map(i128::from));
    let before = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef),
        ("amount", Arc::new(decimals.with_precision_and_scale(38, 3).unwrap())),
    ])
    .unwrap();
    let texts = (0..count).map(|_| CANARY);
    let after = RecordBatch::try_from_iter([(
        "card",
        Arc::new(StringArray::from_iter_values(texts)) as ArrayRef,
    )])
    .unwrap();
    let of = |batch: &RecordBatch, row: i64, typed: bool| Refused {
        rule: "min 0".to_owned(),
        column: Some("amount".to_owned()),
        row: row_json(batch, usize::try_from(row).unwrap()),
        schema: typed.then(|| batch.schema()),
        ..Refused::default()
    };
    (0..count)
        .flat_map(|row| [of(&before, row, true), of(&after, row, true), of(&after, row, false)])
        .collect()
}

/// Every byte below a folder.
fn bytes_below(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        all.extend(if path.is_dir() { bytes_below(&path) } else { std::fs::read(path).unwrap() });
    }
    all
}

#[tokio::test]
async fn rows_are_read_back_as_they_were_and_nobody_else_sees_them() {
    let bed = bed();
    // More than a chunk of age's, several times.
    let rows = refused(3_000);
    let place = bed.keep(&rows).await;
    assert_eq!(place, format!("quarantine/{}/3.jsonl.age", bed.holder.run));
    let back = bed.read(&place).await.unwrap();
    assert_eq!(back.len(), rows.len());
    let numbers = [Some(0), Some(1), None];
    for (index, ((of, row), was)) in back.iter().zip(&rows).enumerate() {
        assert_eq!(*of, numbers[index % 3]);
        assert_eq!(row, &serde_json::to_string(&was.row).unwrap());
    }
    let stored = bytes_below(&bed.folder.path().join("lake"));
    for word in [CANARY, "amount", "min 0"] {
        assert!(!stored.windows(word.len()).any(|bytes| bytes == word.as_bytes()), "{word}");
    }
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
}

#[tokio::test]
async fn a_file_that_was_touched_is_an_error() {
    let bed = bed();
    let place = bed.keep(&refused(3_000)).await;
    let file = bed.file(&place);
    let whole = std::fs::read(&file).unwrap();
    let middle = whole.len() / 2;
    let mut changed = whole.clone();
    changed[middle] ^= 1;
    // To the end of a chunk, too: the header is the first 200 bytes, and a chunk 64 KiB and its tag.
    let ends: Vec<usize> = (150..260).map(|head| head + 64 * 1024 + 16).collect();
    let cut = [10, middle, whole.len() - 1].into_iter().chain(ends);
    let wrong = cut.map(|end| whole[..end].to_vec()).chain([changed, Vec::new()]);
    for bytes in wrong {
        std::fs::write(&file, &bytes).unwrap();
        let error = bed.read(&place).await.unwrap_err();
        assert_eq!(error.class(), Class::Permanent, "{} bytes: {error}", bytes.len());
        assert!(!error.chain().contains("canary"), "{error}");
    }
    // Another run's rows in its place, whole and under the right key.
    std::fs::write(&file, &whole).unwrap();
    let other = Bed { holder: Holder { run: RunId::new(), fence: 1 }, ..bed };
    let error = other.read(&place).await.unwrap_err();
    assert!(error.to_string().contains("another run"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = other.read(&place).await.unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[tokio::test]
async fn a_wrong_key_is_told_of_and_never_shown() {
    let bed = bed();
    let place = bed.keep(&refused(2)).await;
    let old = std::fs::read_to_string(bed.folder.path().join("key")).unwrap();
    let new = new_key().to_file().expose_secret().to_owned();
    bed.set_key(&new);
    let error = bed.read(&place).await.unwrap_err();
    assert_eq!(error.class(), Class::Config);
    assert!(error.advice().unwrap().contains("older key behind"), "{error}");
    // A new key before an old one: both files can be read.
    bed.set_key(&format!("{new}{old}"));
    assert_eq!(bed.read(&place).await.unwrap().len(), 6);
    for wrong in ["# a comment", CANARY, &format!("{new}{CANARY}"), &old.to_lowercase()[2..]] {
        bed.set_key(wrong);
        for error in [
            bed.read(&place).await.unwrap_err(),
            Quarantine::new(&bed.vault, &bed.holder).await.err().unwrap(),
            bed.vault.check_key().await.unwrap_err(),
        ] {
            let told = format!("{} {error:?} {:?}", error.chain(), error.advice());
            assert_eq!(error.class(), Class::Config, "{told}");
            assert!(told.contains("longshore quarantine key"), "{told}");
            assert!(!told.contains("canary") && !told.to_uppercase().contains("SECRET-KEY-1Q"));
        }
    }
    std::fs::remove_file(bed.folder.path().join("key")).unwrap();
    assert_eq!(bed.vault.check_key().await.unwrap_err().class(), Class::Unavailable);
}

#[tokio::test]
async fn rows_that_an_older_longshore_kept_have_no_place_and_are_read() {
    let bed = bed();
    let mut rows = refused(1);
    rows[0].origin = Some(Origin { file: "in/a.csv".to_owned(), at: At::Line(7) });
    rows[0].why = Some("spaces around it".to_owned());
    rows[0].also = vec![Breach { rule: "required".to_owned(), column: None, why: None }];
    let place = bed.keep(&rows).await;
    let told = KeptRows::open(&bed.vault, bed.holder.run, &place, |mut rows| {
        let mut told = Vec::new();
        while let Some(row) = rows.next_row()? {
            told.push((row.origin.map(|origin| origin.to_string()), row.why, row.also.len()));
        }
        Ok(told)
    });
    let [first, rest @ ..] = &told.await.unwrap()[..] else { panic!("no rows") };
    let why = Some("spaces around it".to_owned());
    assert_eq!(*first, (Some("in/a.csv line 7".to_owned()), why, 1));
    // What is not known is not written, as it never was: the line is that of an older Longshore.
    assert!(rest.iter().all(|one| *one == (None, None, 0)));
    let old = serde_json::to_string(&line::RowOut::new(&rows[1], Some(0))).unwrap();
    assert_eq!(
        old,
        r#"{"rule":"min 0","column":"amount","of":0,"row":{"card":"CARD"}}"#
            .replace("CARD", CANARY)
    );
}

#[tokio::test]
async fn rows_that_are_refused_again_keep_their_places() {
    let bed = bed();
    let mut rows = refused(4);
    let at = |file: &str, at: At| Some(Origin { file: file.to_owned(), at });
    let origins = [at("a", At::Line(3)), at("a", At::Line(9)), at("b", At::Row(1)), None];
    for (number, origin) in origins.iter().enumerate() {
        // Of the first kind of columns, and those that have none.
        rows[3 * number].origin = origin.clone();
        rows[3 * number + 2].origin = origin.clone();
    }
    let place = bed.keep(&rows).await;
    let supplement = Supplement {
        run: bed.holder.run,
        first: bed.holder.run,
        delivery: uuid::Uuid::nil(),
        key: "k".to_owned(),
        number: 1,
        beside: None,
        place,
        rows: 12,
    };
    let mut streams = super::rows(&bed.vault, &supplement, &Budget::default()).await.unwrap();
    let batches: Vec<Batch> = streams.remove(0).stream.try_collect().await.unwrap();
    let typed: Vec<_> = batches
        .iter()
        .flat_map(|batch| (0..batch.rows.num_rows()).map(|row| batch.origin(row)))
        .collect();
    assert_eq!(typed, origins);
    let untyped: Vec<_> =
        batches.iter().flat_map(|batch| &batch.refused).map(|row| row.origin.clone()).collect();
    assert_eq!(untyped, origins);
    assert_eq!(batches.iter().map(|batch| batch.read).sum::<u64>(), 8);
}

#[tokio::test]
async fn nothing_is_written_before_the_first_row() {
    let bed = bed();
    drop(Quarantine::new(&bed.vault, &bed.holder).await.unwrap());
    assert_eq!(bytes_below(&bed.folder.path().join("lake")), Vec::<u8>::new());
}
