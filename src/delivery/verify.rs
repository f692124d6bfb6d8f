//! A delivery against its manifest: every byte is read again, and everything that does not agree
//! is listed. It needs no server.

mod count;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path as LocalPath;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::count::{Count, Counter, parquet_rows};
use crate::connect::Connection;
use crate::connect::files::{Store, classify};
use crate::digest;
use crate::error::{Class, Error, Result};
use crate::format::{CsvOptions, Format};
use crate::job::RunId;
use crate::job::manifest::{
    MANIFEST_LIMIT, MANIFEST_NAME, MANIFEST_SUFFIX, Manifest, ManifestFile,
};

const DOING: &str = "verify the delivery";
/// Bytes that are read at once.
const CHUNK: u64 = 8 << 20;
/// Files beside the delivery that are named, at the most.
const NOTES: usize = 100;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The manifest that was checked.
    pub manifest: String,
    /// SHA-256 of the manifest itself, in hex.
    pub manifest_sha256: String,
    /// The delivery.
    pub delivery: Uuid,
    /// The run that made it.
    pub run: RunId,
    /// The export.
    pub export: String,
    /// Which delivery of its key it is.
    pub edition: i32,
    /// How many files it names.
    pub files: u64,
    /// How many rows it names.
    pub rows: u64,
    /// How many bytes it names.
    pub bytes: u64,
    /// The files as the manifest has them.
    pub parts: Vec<ManifestFile>,
    /// Everything that does not agree. Empty: the delivery is what its manifest says.
    pub mismatches: Vec<Mismatch>,
    /// What is worth knowing and no error: files that the manifest does not name.
    pub notes: Vec<String>,
}

impl Verified {
    /// Whether everything agrees.
    pub fn is_intact(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// One thing that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The file, or none where it is the manifest itself.
    pub file: Option<String>,
    /// What was compared: `file`, `bytes`, `sha256`, `rows` or `counts`.
    pub what: &'static str,
    /// What the manifest says.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or(MANIFEST_NAME);
        write!(f, "{file}: {}: expected {}, found {}", self.what, self.expected, self.found)
    }
}

/// Checks the delivery at `place`: its folder, its manifest, or the file that a manifest of its own
/// stands beside (`{file}.manifest.json`), as a path of this machine, a `file:` address, or an `s3://` address that is read with the environment's own credentials.
///
/// # Errors
/// `not-found` where there is no manifest; `malformed` for one that cannot be read; and those of
/// the store. What does not agree is no error but a [`Mismatch`].
pub async fn verify(place: &str) -> Result<Verified> {
    let (folder, name) = split(place)?;
    let store = if folder.starts_with("s3://") {
        open(&folder)?
    } else {
        if !LocalPath::new(&folder).is_dir() {
            let beside = format!("{folder}{MANIFEST_SUFFIX}");
            if name == MANIFEST_NAME && LocalPath::new(&beside).is_file() {
                let (folder, name) = parted(&beside);
                let store = Store::at(LocalPath::new(&folder), "")?;
                return check(&store, "", &name, place, true).await;
            }
            return Err(nothing(place));
        }
        Store::at(LocalPath::new(&folder), "")?
    };
    match check(&store, "", &name, place, true).await {
        // In a bucket a file's path looks like a folder's.
        Err(error) if error.class() == Class::NotFound && name == MANIFEST_NAME => {
            let (above, last) = parted(&folder);
            if above.strip_prefix("s3://").is_none_or(str::is_empty) {
                return Err(error);
            }
            let (store, name) = (open(&above)?, format!("{last}{MANIFEST_SUFFIX}"));
            match check(&store, "", &name, place, true).await {
                Err(other) if other.class() == Class::NotFound => Err(error),
                answer => answer,
            }
        }
        answer => answer,
    }
}

/// A bucket's folder, with the environment's own credentials.
fn open(address: &str) -> Result<Store> {
    let address = serde_json::json!({"type": "files", "url": address});
    let connection: Connection = serde_json::from_value(address)
        .map_err(|cause| Error::usage(DOING, "the address is not understood").caused_by(cause))?;
    Store::open(&connection)
}

/// Checks the delivery whose manifest is at `manifest` in an opened store; of the files, unless
/// `deep`, only whether they are there with their sizes.
///
/// # Errors
/// Those of [`verify`].
pub async fn verify_manifest(store: &Store, manifest: &str, deep: bool) -> Result<Verified> {
    let (folder, name) = manifest.rsplit_once('/').unwrap_or(("", manifest));
    check(store, folder, name, manifest, deep).await
}

/// The folder of a delivery and the name of its manifest.
fn split(place: &str) -> Result<(String, String)> {
    let plain = match place.strip_prefix("file:") {
        Some(rest) => {
            let rest = rest.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
            let rest = percent_encoding::percent_decode_str(rest).decode_utf8();
            rest.map_err(|_| Error::usage(DOING, "the address is not UTF-8"))?.into_owned()
        }
        None => place.to_owned(),
    };
    if !plain.ends_with(".json") {
        return Ok((plain, MANIFEST_NAME.to_owned()));
    }
    Ok(parted(&plain))
}

/// The folder of a path, and the name in it.
fn parted(path: &str) -> (String, String) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((folder, name)) => (folder.to_owned(), name.to_owned()),
        None => (".".to_owned(), path.to_owned()),
    }
}

fn nothing(place: &str) -> Error {
    Error::not_found(DOING, "no manifest is there")
        .with("place", place)
        .help("Name a delivery's folder, or its manifest. Without a manifest there is no delivery.")
}

async fn check(
    store: &Store,
    folder: &str,
    name: &str,
    place: &str,
    deep: bool,
) -> Result<Verified> {
    let within = |name: &str| match folder {
        "" => store.path(name),
        folder => store.path(&format!("{folder}/{name}")),
    };
    let path = within(name)?;
    let size = match store.objects.head(&path).await {
        Ok(meta) => meta.size,
        Err(object_store::Error::NotFound { .. }) => return Err(nothing(place)),
        Err(error) => return Err(classify(DOING, error)),
    };
    if size > MANIFEST_LIMIT as u64 {
        return Err(Error::malformed(DOING, "the manifest is too long").with("place", place));
    }
    let answer = store.objects.get(&path).await.map_err(|e| classify(DOING, e))?;
    let bytes = answer.bytes().await.map_err(|e| classify(DOING, e))?;
    let manifest =
        Manifest::parse(&bytes, MANIFEST_LIMIT).map_err(|error| error.with("place", place))?;

    let mut found = Verified {
        manifest: place.to_owned(),
        manifest_sha256: digest::sha256(&bytes),
        delivery: manifest.delivery,
        run: manifest.run,
        export: manifest.export.clone(),
        edition: manifest.edition,
        files: manifest.files.len() as u64,
        rows: manifest.files.iter().map(|file| file.rows).sum(),
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        parts: manifest.files.clone(),
        mismatches: Vec::new(),
        notes: Vec::new(),
    };
    check_counts(&manifest, &mut found);
    for file in &manifest.files {
        let mut differs = |what, expected: &dyn fmt::Display, is: &dyn fmt::Display| {
            found.mismatches.push(Mismatch {
                file: Some(file.name.clone()),
                what,
                expected: expected.to_string(),
                found: is.to_string(),
            });
        };
        if file.name.contains('/') {
            differs("file", &"a name beside the manifest", &"a path");
            continue;
        }
        let path = within(&file.name)?;
        if !deep {
            match store.objects.head(&path).await {
                Ok(meta) if meta.size == file.bytes => {}
                Ok(meta) => differs("bytes", &file.bytes, &meta.size),
                Err(object_store::Error::NotFound { .. }) => {
                    differs("file", &"present", &"missing");
                }
                Err(error) => return Err(classify(DOING, error)),
            }
            continue;
        }
        let header = manifest.schema.first().map(|column| column.name.as_str());
        match read(store, &path, file, header, manifest.csv.as_ref()).await? {
            None => differs("file", &"present", &"missing"),
            Some(is) => {
                if is.bytes != file.bytes {
                    differs("bytes", &file.bytes, &is.bytes);
                }
                if !is.sha256.eq_ignore_ascii_case(&file.sha256) {
                    differs("sha256", &file.sha256, &is.sha256);
                }
                match is.rows {
                    Count::Rows(rows) if rows != file.rows => differs("rows", &file.rows, &rows),
                    Count::Headed(lines)
                        if lines != file.rows && lines.saturating_sub(1) != file.rows =>
                    {
                        differs("rows", &file.rows, &lines.saturating_sub(1));
                    }
                    Count::Unreadable => differs("rows", &file.rows, &"an unreadable file"),
                    Count::Rows(_) | Count::Headed(_) | Count::Unknown => {}
                }
            }
        }
    }
    // Beside a manifest of another name lie other deliveries.
    if name == MANIFEST_NAME && deep {
        note_others(store, &within("")?, name, &manifest, &mut found).await?;
    }
    Ok(found)
}

fn check_counts(manifest: &Manifest, found: &mut Verified) {
    let counts = manifest.counts;
    let mut differs = |expected: String, is: String| {
        found.mismatches.push(Mismatch { file: None, what: "counts", expected, found: is });
    };
    let sum =
        u128::from(counts.written) + u128::from(counts.filtered) + u128::from(counts.quarantined);
    if u128::from(counts.read) != sum {
        differs(
            format!("{} rows read", counts.read),
            format!("{sum} written, filtered and quarantined"),
        );
    }
    let listed: u128 = manifest.files.iter().map(|file| u128::from(file.rows)).sum();
    if u128::from(counts.written) != listed {
        differs(format!("{} rows written", counts.written), format!("{listed} in its files"));
    }
}

/// Names the files beside the delivery that it does not name itself.
async fn note_others(
    store: &Store,
    folder: &Path,
    name: &str,
    manifest: &Manifest,
    found: &mut Verified,
) -> Result<()> {
    let prefix = (!folder.as_ref().is_empty()).then_some(folder);
    let listed = store.objects.list_with_delimiter(prefix).await.map_err(|e| classify(DOING, e))?;
    let mut others: Vec<_> = listed
        .objects
        .iter()
        .filter_map(|object| object.location.filename())
        .filter(|other| *other != name && other.strip_suffix(".sig") != Some(name))
        .filter(|other| !manifest.files.iter().any(|file| file.name == *other))
        .collect();
    others.sort_unstable();
    let more = others.len().saturating_sub(NOTES);
    let note = |other: &&str| format!("{other} is not part of the delivery");
    found.notes.extend(others.iter().take(NOTES).map(note));
    if more > 0 {
        found.notes.push(format!("{more} more files are not part of the delivery"));
    }
    Ok(())
}

/// A file as it is.
struct Read {
    bytes: u64,
    sha256: String,
    rows: Count,
}

async fn read(
    store: &Store,
    path: &Path,
    file: &ManifestFile,
    header: Option<&str>,
    csv: Option<&CsvOptions>,
) -> Result<Option<Read>> {
    let size = match store.objects.head(path).await {
        Ok(meta) => meta.size,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(classify(DOING, error)),
    };
    let kind = Format::of_name(&file.name);
    let mut counter = Counter::of(kind, header, csv)?;
    let mut hash = Sha256::new();
    let mut at = 0;
    // By ranges: a request is bounded in time, and reading a whole file may take longer.
    while at < size {
        let range = at..size.min(at + CHUNK);
        let piece = store.objects.get_range(path, range).await.map_err(|e| classify(DOING, e))?;
        if piece.is_empty() {
            return Err(Error::transient(DOING, "the file shrank while it was read"));
        }
        hash.update(&piece);
        counter.take(&piece).await;
        at += piece.len() as u64;
    }
    let rows = match kind {
        Some((Format::Parquet, _)) => parquet_rows(store, path, size).await?,
        _ => counter.finish().await,
    };
    Ok(Some(Read { bytes: at, sha256: hex::encode(hash.finalize()), rows }))
}
