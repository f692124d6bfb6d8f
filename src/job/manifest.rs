//! The manifest: what a delivery says of itself. It is written last, and recipients take what it
//! names.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::decision::Part;
use super::{RunId, Window};
use crate::error::{Error, Result};
use crate::format::{CsvOptions, FieldType};
use crate::rows::Counts;

/// The name of a manifest in its delivery's folder.
pub const MANIFEST_NAME: &str = "_manifest.json";
/// What stands behind the name of a file in the name of a manifest of its own.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";
/// The shape of the manifests that this Longshore writes and reads.
pub const MANIFEST_FORMAT: &str = "longshore.manifest.v1";
/// How long a manifest may be.
pub const MANIFEST_LIMIT: usize = 64 << 20;

/// A delivery's description of itself. It holds no secret and no value of a row.
///
/// The order of the fields is the order in the file; an absent value is written as `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: String,
    /// The delivery's own name.
    pub delivery: Uuid,
    /// The run that made it.
    pub run: RunId,
    /// The run's key.
    pub key: String,
    /// Which delivery of that key it is, from 1.
    pub edition: i32,
    /// The delivery whose place it takes.
    pub supersedes: Option<Uuid>,
    /// The delivery that was made without these rows, which its contract had refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplements: Option<Supplemented>,
    /// The export's name.
    pub export: String,
    /// The number of the definition.
    pub revision: i32,
    /// The hash of the definition.
    pub definition: String,
    /// The version of the contract that every row was checked against.
    pub contract_version: Option<String>,
    /// The span of time that it covers.
    pub window: Option<Window>,
    /// The job's parameters.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The columns of every file, in order.
    pub schema: Vec<ManifestColumn>,
    /// The dialect of its files, where they are CSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// What of the source was read, where that goes by a cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<ManifestCursor>,
    /// The one state of the source that was read, where it has such a thing.
    pub snapshot: Option<String>,
    /// The files, in the order of the rows.
    pub files: Vec<ManifestFile>,
    /// What became of the rows.
    pub counts: ManifestCounts,
    /// When it was made.
    pub made_at: Timestamp,
    /// By what: `longshore 1.2.3`.
    pub made_by: String,
}

/// A delivery that was made without some of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supplemented {
    /// The run that made it.
    pub run: RunId,
    /// The delivery.
    pub delivery: Uuid,
    /// Its key.
    pub key: String,
}

/// One column of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

/// The range of a cursor that a delivery has: rows with a value greater than `from`, or, with a
/// `lookback`, than some time before it, up to `to`. A cursor over files stands at the last of
/// those that were delivered; what a delivery has is told by `files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestCursor {
    /// The column.
    pub column: String,
    /// Where the cursor stood; `null`: nowhere yet.
    pub from: Option<String>,
    /// The greatest value that was read; `null`: there was none at all.
    pub to: Option<String>,
    /// The files that were read, in the order of their names, where it is a cursor over files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<SourceFile>>,
}

/// A file of a source, in the state in which it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its path, under the url of the source's connection.
    pub path: String,
    /// Its ETag; where the store tells none, its size and the time of its last change.
    pub etag: String,
}

/// One file of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name, beside the manifest.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

impl From<&Part> for ManifestFile {
    fn from(part: &Part) -> ManifestFile {
        ManifestFile {
            name: part.name.clone(),
            bytes: part.bytes,
            rows: part.rows,
            sha256: part.sha256.clone(),
        }
    }
}

/// What became of the rows that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestCounts {
    /// Rows that the source gave.
    pub read: u64,
    /// Rows in the files.
    pub written: u64,
    /// Rows that the transform left out.
    pub filtered: u64,
    /// Rows in quarantine.
    pub quarantined: u64,
}

impl From<Counts> for ManifestCounts {
    fn from(counts: Counts) -> ManifestCounts {
        let Counts { read, written, filtered, quarantined, bytes: _, deleted: _ } = counts;
        ManifestCounts { read, written, filtered, quarantined }
    }
}

impl Manifest {
    /// What goes into [`Manifest::made_by`].
    pub fn maker() -> String {
        concat!("longshore ", env!("CARGO_PKG_VERSION")).to_owned()
    }

    /// The file's bytes: indented JSON that ends in a line break, always the same for the same
    /// manifest.
    pub fn to_bytes(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|cause| {
            Error::permanent("write the manifest", "it has no JSON form").caused_by(cause)
        })?;
        text.push('\n');
        Ok(text)
    }

    /// The files that were read, where the run went by a cursor over files.
    pub fn sources(self) -> Vec<SourceFile> {
        self.cursor.and_then(|cursor| cursor.files).unwrap_or_default()
    }

    /// Reads a manifest of at most `limit` bytes. Members that this version does not know are
    /// passed over.
    ///
    /// # Errors
    /// `malformed`, for what is longer, no manifest, or one of another format.
    pub fn parse(bytes: &[u8], limit: usize) -> Result<Manifest> {
        const DOING: &str = "read the manifest";
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        if bytes.len() > limit {
            return Err(Error::malformed(DOING, format!("it is longer than {limit} bytes")));
        }
        let foreign = |cause: serde_json::Error| {
            let at = format!("{}:{}", cause.line(), cause.column());
            Error::malformed(DOING, "it is not a manifest, or is damaged").with("at", at)
        };
        let head: Head = serde_json::from_slice(bytes).map_err(foreign)?;
        if head.format != MANIFEST_FORMAT {
            return Err(Error::malformed(DOING, "its format is not known")
                .with("expected", MANIFEST_FORMAT)
                .help("A newer Longshore wrote it; read it with that one."));
        }
        serde_json::from_slice(bytes).map_err(foreign)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(run: RunId, files: Vec<ManifestFile>) -> Manifest {
        let written = files.iter().map(|file| file.rows).sum();
        Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            delivery: Uuid::from_u128(7),
            run,
            key: "k".to_owned(),
            edition: 1,
            supersedes: None,
            supplements: None,
            export: "orders".to_owned(),
            revision: 3,
            definition: "ab".repeat(32),
            contract_version: Some("1.2".to_owned()),
            window: Some(Window {
                start: "2026-11-18T23:00:00Z".parse().unwrap(),
                end: "2026-11-19T23:00:00Z".parse().unwrap(),
            }),
            params: serde_json::json!({"z": 1, "a": "SE"}).as_object().unwrap().clone(),
            schema: vec![ManifestColumn {
                name: "id".to_owned(),
                kind: FieldType::Decimal(15, 2),
                nullable: false,
            }],
            csv: None,
            cursor: None,
            snapshot: None,
            files,
            counts: ManifestCounts { read: written + 3, written, filtered: 2, quarantined: 1 },
            made_at: "2026-11-20T03:15:04Z".parse().unwrap(),
            made_by: Manifest::maker(),
        }
    }

    #[test]
    fn bytes_are_stable_and_read_back() {
        let manifest = sample(RunId::new(), vec![]);
        let bytes = manifest.to_bytes().unwrap();
        assert!(bytes.ends_with("}\n"));
        assert!(bytes.starts_with("{\n  \"format\": \"longshore.manifest.v1\",\n  \"delivery\""));
        let back = Manifest::parse(bytes.as_bytes(), MANIFEST_LIMIT).unwrap();
        assert_eq!(back, manifest);
        assert_eq!(back.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let long = sample(RunId::new(), vec![]).to_bytes().unwrap();
        for (bytes, limit, word) in [
            (long.as_str(), 10, "longer than 10"),
            ("{", 100, "damaged"),
            ("{\"format\": \"longshore.manifest.v2\"}", 100, "not known"),
            ("{\"format\": \"longshore.manifest.v1\"}", 100, "damaged"),
        ] {
            let error = Manifest::parse(bytes.as_bytes(), limit).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
