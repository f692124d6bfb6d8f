//! Record batches ↔ bytes: Parquet, CSV, JSON lines, Arrow and Avro, with or without compression.

pub mod charset;
pub mod decode;
pub mod dialect;
pub mod encode;
pub mod pgcopy;
pub mod row;
pub mod types;
pub mod values;

use serde::{Deserialize, Serialize};

pub use dialect::{CsvOptions, Formulas, Quote};
pub use row::row_json;
pub use types::{Field, FieldType, Fields};

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Apache Parquet; compression is inside the file.
    Parquet,
    /// Comma-separated values, RFC 4180 and UTF-8 unless the dialect says otherwise.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// Arrow IPC in its file form, which ends in a table of contents: a reader may pick batches,
    /// and a file that was cut off is known by its lacking end. Streams are read too.
    Arrow,
    /// Avro object container files. `int16` is written as `int`: Avro has no narrower one.
    Avro,
}

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// As they are.
    None,
    /// gzip; in Parquet the gzip codec, in Avro `deflate`. Arrow has none.
    Gzip,
    /// Zstandard; in Parquet, Arrow and Avro the zstd codec within the file.
    Zstd,
}

impl Format {
    /// What a file of this format and compression is called: `parquet`, `csv.zst`, `jsonl.gz`.
    pub fn extension(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Format::Parquet, _) => "parquet",
            (Format::Arrow, _) => "arrow",
            (Format::Avro, _) => "avro",
            (Format::Csv, Compression::None) => "csv",
            (Format::Csv, Compression::Gzip) => "csv.gz",
            (Format::Csv, Compression::Zstd) => "csv.zst",
            (Format::Jsonl, Compression::None) => "jsonl",
            (Format::Jsonl, Compression::Gzip) => "jsonl.gz",
            (Format::Jsonl, Compression::Zstd) => "jsonl.zst",
        }
    }

    /// Format and compression told by a file's name, where it tells them. Of a format that
    /// compresses within its files the name tells no more than the format.
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
            "arrow" | "feather" => Format::Arrow,
            "avro" => Format::Avro,
            _ => return None,
        };
        Some((format, compression))
    }

    /// Whether its files say themselves which types their columns have, and compress within.
    pub fn is_typed(self) -> bool {
        matches!(self, Format::Parquet | Format::Arrow | Format::Avro)
    }

    /// How its files are compressed where nothing is said.
    pub fn usual_compression(self) -> Compression {
        if self.is_typed() { Compression::Zstd } else { Compression::None }
    }

    /// Whether its files may be compressed so.
    pub fn has(self, compression: Compression) -> bool {
        !matches!((self, compression), (Format::Arrow, Compression::Gzip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_file_is() {
        for (name, told) in [
            ("a.parquet", Some((Format::Parquet, Compression::None))),
            ("ORDERS_20261119.csv.gz", Some((Format::Csv, Compression::Gzip))),
            ("a.ndjson.zst", Some((Format::Jsonl, Compression::Zstd))),
            ("a.arrow", Some((Format::Arrow, Compression::None))),
            ("a.b.avro", Some((Format::Avro, Compression::None))),
            ("a.gz", None),
            ("csv", None),
            ("a.txt", None),
        ] {
            assert_eq!(Format::of_name(name), told, "{name}");
        }
        for format in [Format::Parquet, Format::Csv, Format::Jsonl, Format::Arrow, Format::Avro] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let name = format!("x.{}", format.extension(compression));
                let inside = format.is_typed();
                let told = if inside { Compression::None } else { compression };
                assert_eq!(Format::of_name(&name), Some((format, told)));
            }
        }
    }
}
