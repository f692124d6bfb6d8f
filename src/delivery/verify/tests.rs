use super::*;
use crate::format::Compression;
use crate::format::encode::Encoder;
use crate::job::manifest::tests::sample;
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

const FORMATS: [(Format, Compression); 10] = [
    (Format::Parquet, Compression::Zstd),
    (Format::Csv, Compression::None),
    (Format::Csv, Compression::Gzip),
    (Format::Csv, Compression::Zstd),
    (Format::Jsonl, Compression::None),
    (Format::Jsonl, Compression::Gzip),
    (Format::Jsonl, Compression::Zstd),
    (Format::Arrow, Compression::Zstd),
    (Format::Avro, Compression::None),
    (Format::Avro, Compression::Zstd),
];

/// Files of two rows in every format, one of whose values has line breaks and quotes.
fn delivery(folder: &LocalPath) -> Manifest {
    let of = |name| Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, true)]));
    let values = Arc::new(StringArray::from(vec!["a\n\"b\"\n", "c"]));
    let mut files = Vec::new();
    for (format, compression) in FORMATS {
        let name = format!("part-{:05}.{}", files.len(), format.extension(compression));
        let options = CsvOptions { header: files.len() % 2 == 0, ..CsvOptions::default() };
        // Avro has no such names.
        let schema = of(if format == Format::Avro { "a" } else { "a \"b\"" });
        let rows = RecordBatch::try_new(schema.clone(), vec![values.clone()]).unwrap();
        let mut encoder = Encoder::new(format, compression, &options, &schema).unwrap();
        let mut bytes = Vec::new();
        encoder.write(&rows, &mut bytes).unwrap();
        encoder.finish(&mut bytes).unwrap();
        std::fs::write(folder.join(&name), &bytes).unwrap();
        let sha256 = digest::sha256(&bytes);
        files.push(ManifestFile { name, bytes: bytes.len() as u64, rows: 2, sha256 });
    }
    let mut manifest = sample(RunId::new(), files);
    manifest.schema[0].name = "a \"b\"".to_owned();
    manifest
}

fn put(folder: &LocalPath, manifest: &Manifest) {
    std::fs::write(folder.join(MANIFEST_NAME), manifest.to_bytes().unwrap()).unwrap();
}

#[tokio::test]
async fn an_intact_delivery_is_found_by_folder_manifest_and_address() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = delivery(dir.path());
    put(dir.path(), &manifest);
    std::fs::write(dir.path().join("_manifest.json.sig"), "s").unwrap();
    std::fs::write(dir.path().join("README"), "r").unwrap();
    let folder = dir.path().display().to_string();
    for place in [
        folder.clone(),
        format!("{folder}/{MANIFEST_NAME}"),
        format!("file://{folder}"),
        format!("file:{folder}/{MANIFEST_NAME}"),
    ] {
        let found = verify(&place).await.unwrap();
        assert_eq!(found.mismatches, []);
        assert_eq!((found.files, found.rows), (10, 20));
        assert_eq!(found.notes, ["README is not part of the delivery"]);
    }
    assert_eq!(verify(&format!("{folder}/no")).await.unwrap_err().class(), Class::NotFound);
    let empty = tempfile::tempdir().unwrap();
    let error = verify(empty.path().to_str().unwrap()).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
}

#[tokio::test]
async fn every_mismatch_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = delivery(dir.path());
    for file in &mut manifest.files {
        file.rows = 3;
    }
    manifest.files[0].bytes += 1;
    manifest.files[1].sha256 = "00".repeat(32);
    std::fs::remove_file(dir.path().join(&manifest.files[2].name)).unwrap();
    std::fs::write(dir.path().join(&manifest.files[3].name), "no zstd").unwrap();
    manifest.counts.read += 1;
    put(dir.path(), &manifest);
    let found = verify(dir.path().to_str().unwrap()).await.unwrap();
    assert!(!found.is_intact());
    let listed: Vec<_> = found
        .mismatches
        .iter()
        .map(|one| (one.file.as_deref().map(|name| &name[..10]), one.what))
        .collect();
    assert_eq!(
        listed,
        [
            (None, "counts"),
            (None, "counts"),
            (Some("part-00000"), "bytes"),
            (Some("part-00000"), "rows"),
            (Some("part-00001"), "sha256"),
            (Some("part-00001"), "rows"),
            (Some("part-00002"), "file"),
            (Some("part-00003"), "bytes"),
            (Some("part-00003"), "sha256"),
            (Some("part-00003"), "rows"),
            (Some("part-00004"), "rows"),
            (Some("part-00005"), "rows"),
            (Some("part-00006"), "rows"),
            (Some("part-00007"), "rows"),
            (Some("part-00008"), "rows"),
            (Some("part-00009"), "rows"),
        ]
    );
    assert!(found.mismatches[4].to_string().contains("sha256: expected 0000"));
}

#[tokio::test]
async fn a_manifest_beside_its_file_is_found_by_either_and_tells_the_dialect() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("ø", DataType::Utf8, true)]));
    let values = Arc::new(StringArray::from(vec!["a\n\u{a0a}", "c"]));
    let rows = RecordBatch::try_new(schema.clone(), vec![values]).unwrap();
    let csv = CsvOptions { encoding: "utf-16le".to_owned(), ..CsvOptions::default() };
    let mut encoder = Encoder::new(Format::Csv, Compression::Gzip, &csv, &schema).unwrap();
    let mut bytes = Vec::new();
    encoder.write(&rows, &mut bytes).unwrap();
    encoder.finish(&mut bytes).unwrap();
    std::fs::write(dir.path().join("o.csv.gz"), &bytes).unwrap();
    let (name, sha256) = ("o.csv.gz".to_owned(), digest::sha256(&bytes));
    let file = ManifestFile { name, bytes: bytes.len() as u64, rows: 2, sha256 };
    let mut manifest = sample(RunId::new(), vec![file]);
    manifest.csv = Some(csv);
    let beside = dir.path().join("o.csv.gz.manifest.json");
    std::fs::write(&beside, manifest.to_bytes().unwrap()).unwrap();
    std::fs::write(dir.path().join("other.csv"), "x").unwrap();
    for place in [beside, dir.path().join("o.csv.gz")] {
        let found = verify(place.to_str().unwrap()).await.unwrap();
        assert_eq!((found.mismatches, found.notes), (vec![], vec![]));
    }
    assert!(verify(dir.path().join("other.csv").to_str().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_manifest_cannot_lead_out_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = delivery(dir.path());
    manifest.files[0].name = "../outside".to_owned();
    put(dir.path(), &manifest);
    let found = verify(dir.path().to_str().unwrap()).await.unwrap();
    assert_eq!(found.mismatches.len(), 1);
    assert_eq!(found.mismatches[0].what, "file");
}
