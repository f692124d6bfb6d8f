//! Record batches ↔ bytes: Parquet, CSV and JSON lines, with or without compression.

pub mod decode;
pub mod encode;
pub mod pgcopy;
pub mod row;
pub mod types;
pub mod values;

use serde::{Deserialize, Serialize};

pub use row::row_json;
pub use types::{Field, FieldType, Fields};

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Apache Parquet; compression is inside the file.
    Parquet,
    /// Comma-separated values, RFC 4180 and UTF-8 unless [`CsvOptions`] say otherwise.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// As they are.
    None,
    /// gzip; in Parquet the gzip codec.
    Gzip,
    /// Zstandard; in Parquet the zstd codec.
    Zstd,
}

impl Format {
    /// What a file of this format and compression is called: `parquet`, `csv.zst`, `jsonl.gz`.
    pub fn extension(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Format::Parquet, _) => "parquet",
            (Format::Csv, Compression::None) => "csv",
            (Format::Csv, Compression::Gzip) => "csv.gz",
            (Format::Csv, Compression::Zstd) => "csv.zst",
            (Format::Jsonl, Compression::None) => "jsonl",
            (Format::Jsonl, Compression::Gzip) => "jsonl.gz",
            (Format::Jsonl, Compression::Zstd) => "jsonl.zst",
        }
    }

    /// Format and compression told by a file's name, where it tells them.
    pub fn of_name(name: &str) -> Option<(Format, Compression)> {
        let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
            (stem, Compression::Gzip)
        } else if let Some(stem) = name.strip_suffix(".zst") {
            (stem, Compression::Zstd)
        } else {
            (name, Compression::None)
        };
        let format = match stem.rsplit_once('.')?.1 {
            "parquet" => Format::Parquet,
            "csv" => Format::Csv,
            "jsonl" | "ndjson" => Format::Jsonl,
            _ => return None,
        };
        Some((format, compression))
    }
}

/// The dialect of CSV, for reading and for writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CsvOptions {
    /// Whether the first line names the columns.
    pub header: bool,
    /// One character between two fields.
    pub delimiter: char,
    /// What stands for NULL, unquoted. An empty string is written as `""`.
    pub null: String,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { header: true, delimiter: ',', null: String::new() }
    }
}
