//! Committing a delivery whose files have fixed names.
//!
//! As with any delivery every step may have been done before and is safe to repeat. What differs:
//! the names may be those of the predecessor's files, which are then replaced; and a trigger may
//! follow the manifest.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path as LocalPath, PathBuf};

use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, UpdateVersion};
use sha2::{Digest, Sha256};

use super::commit::{
    BRING, Next, PUT, Standing, between, bring, foreign, is_there, link, lock, lost, next,
    put_manifest, size, standing,
};
use crate::connect::files::{Store, classify, classify_io, create_durably, sync_up};
use crate::digest;
use crate::error::{Error, Result};
use crate::fail;
use crate::job::decision::{Decision, Part, Upload};
use crate::job::manifest::{MANIFEST_LIMIT, Manifest, ManifestFile};
use crate::sink::FileNames;

const TRIGGER: &str = "write the trigger";
/// Bytes that are read at once of a file that is there already.
const CHUNK: u64 = 8 << 20;

/// Commits `decision` to `folder`. `scratch` is the folder of the attempt that commits.
pub(super) async fn commit(
    store: &Store,
    folder: &str,
    names: &FileNames,
    scratch: &str,
    decision: &Decision,
) -> Result<()> {
    for part in &decision.parts {
        // A file is beside its manifest, whatever a decision says.
        if part.name.is_empty() || part.name.contains(['/', '\\']) {
            let what = "the file's name leads elsewhere";
            return Err(Error::config(BRING, what).with("part", &part.name));
        }
    }
    if let Some(root) = store.root() {
        let here = |relative: &str| -> Result<PathBuf> {
            Ok(store.local(&store.path(relative)?).unwrap_or_default())
        };
        let mut parts = Vec::with_capacity(decision.parts.len());
        for part in &decision.parts {
            parts.push((here(&part.staged)?, part.clone()));
        }
        let work = Here {
            root: root.to_owned(),
            target: here(folder)?,
            scratch: here(scratch)?,
            parts,
            names: names.clone(),
            decision: decision.clone(),
        };
        return tokio::task::spawn_blocking(move || work.commit())
            .await
            .map_err(|cause| Error::transient(PUT, "the work was cut off").caused_by(cause))?;
    }
    let manifest = names.manifest();
    let found = standing(store, folder, &manifest).await?;
    let replaced = replaceable(found.as_ref().map(|found| found.bytes.as_slice()));
    let step = next(found, decision, folder)?;
    if !matches!(step, Next::Nothing) {
        for part in &decision.parts {
            let last = store.path(&format!("{folder}/{}", part.name))?;
            let replaced = if matches!(step, Next::Replace(_)) { &replaced[..] } else { &[] };
            complete(store, &last, part, replaced).await?;
            fail::point("part-brought")?;
        }
        put_manifest(store, folder, &manifest, decision, step).await?;
    }
    if let Some(name) = &names.trigger {
        trigger(store, folder, name, names, decision).await?;
    }
    for part in decision.parts.iter().filter(|part| part.upload.is_some()) {
        // There is no upload to give up any more; a note that stays is removed by cleaning.
        let _ = store.objects.delete(&store.path(&part.staged)?).await;
    }
    Ok(())
}

/// The files that a manifest names, which a delivery in its place may overwrite.
fn replaceable(manifest: Option<&[u8]>) -> Vec<ManifestFile> {
    let manifest = manifest.and_then(|bytes| Manifest::parse(bytes, MANIFEST_LIMIT).ok());
    manifest.map(|manifest| manifest.files).unwrap_or_default()
}

/// Whether a file of this name and length is one of the predecessor's.
fn is_replaced(files: &[ManifestFile], part: &Part, bytes: u64) -> bool {
    files.iter().any(|file| file.name == part.name && file.bytes == bytes)
}

/// What the trigger says: the manifest that it stands for, as `sha256sum` writes it.
fn words(names: &FileNames, decision: &Decision) -> String {
    let sha256 = digest::sha256(&decision.manifest);
    format!("{sha256}  {}\n", names.manifest())
}

/// Completes the one upload that becomes the part. A second completion finds no upload any more, so
/// that none can land on a later delivery.
async fn complete(
    store: &Store,
    last: &Path,
    part: &Part,
    replaced: &[ManifestFile],
) -> Result<()> {
    let (Some(uploads), Some(Upload { id, pieces })) = (&store.uploads, &part.upload) else {
        return Err(lost(part));
    };
    if let Some(bytes) = size(store, last).await?
        && !is_replaced(replaced, part, bytes)
    {
        return match bytes == part.bytes && sha256(store, last, bytes).await? == part.sha256 {
            true => Ok(()),
            false => Err(foreign(last)),
        };
    }
    let pieces = pieces.iter().map(|piece| PartId { content_id: piece.clone() }).collect();
    if let Err(error) = uploads.complete_multipart(last, id, pieces).await {
        // Only what is there tells whether the upload is gone because it was completed before.
        let is_mine = match size(store, last).await? {
            Some(bytes) if bytes == part.bytes => sha256(store, last, bytes).await? == part.sha256,
            _ => false,
        };
        return match (is_mine, error) {
            (true, _) => Ok(()),
            (false, object_store::Error::NotFound { .. }) => Err(lost(part)),
            (false, error) => Err(classify(BRING, error)),
        };
    }
    if size(store, last).await? != Some(part.bytes) {
        return Err(Error::transient(BRING, "the file has another length").with("part", &part.name));
    }
    Ok(())
}

async fn sha256(store: &Store, path: &Path, bytes: u64) -> Result<String> {
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < bytes {
        let range = at..bytes.min(at + CHUNK);
        let piece = store.objects.get_range(path, range).await.map_err(|e| classify(BRING, e))?;
        if piece.is_empty() {
            return Err(Error::transient(BRING, "the file shrank while it was read"));
        }
        hash.update(&piece);
        at += piece.len() as u64;
    }
    Ok(hex::encode(hash.finalize()))
}

/// Puts the trigger, unless it is there. Its words are the manifest's, so that a worker that was
/// overtaken is known by what stands there, and an old trigger by the new delivery.
async fn trigger(
    store: &Store,
    folder: &str,
    name: &str,
    names: &FileNames,
    decision: &Decision,
) -> Result<()> {
    let path = store.path(&format!("{folder}/{name}"))?;
    let words = words(names, decision);
    let mode = match store.objects.get(&path).await {
        Ok(answer) => {
            let (tag, version) = (answer.meta.e_tag.clone(), answer.meta.version.clone());
            if answer.meta.size == words.len() as u64
                && answer.bytes().await.map_err(|e| classify(TRIGGER, e))? == words.as_bytes()
            {
                return Ok(());
            }
            PutMode::Update(UpdateVersion { e_tag: tag, version })
        }
        Err(object_store::Error::NotFound { .. }) => PutMode::Create,
        Err(error) => return Err(classify(TRIGGER, error)),
    };
    // After the look at the trigger: whoever replaced the manifest since replaces the trigger too.
    let found = standing(store, folder, &names.manifest()).await?;
    if found.is_none_or(|found| found.bytes != decision.manifest.as_bytes()) {
        return Err(between(LocalPath::new(&names.manifest())));
    }
    match store.objects.put_opts(&path, words.into(), mode.into()).await {
        Ok(_) => Ok(()),
        Err(
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
        ) => Err(Error::transient(TRIGGER, "another write was under way")),
        Err(error) => Err(classify(TRIGGER, error)),
    }
}

/// The same in a folder of this machine. All of it is one step under a lock on the folder: a
/// worker that stalled may have been overtaken, and must not bring an old file back.
struct Here {
    root: PathBuf,
    target: PathBuf,
    scratch: PathBuf,
    parts: Vec<(PathBuf, Part)>,
    names: FileNames,
    decision: Decision,
}

impl Here {
    fn commit(&self) -> Result<()> {
        let put = |cause| classify_io(PUT, cause);
        create_durably(&self.target).map_err(put)?;
        let _lock = lock(&self.target)?;
        let last = self.target.join(self.names.manifest());
        let standing = match fs::read(&last) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            answer => Some(answer.map_err(put)?),
        };
        let replaced = replaceable(standing.as_deref());
        let found = standing.map(Standing::here);
        let step = next(found, &self.decision, &self.target.display().to_string())?;
        if !matches!(step, Next::Nothing) {
            let replaces = matches!(step, Next::Replace(_));
            for (staged, part) in &self.parts {
                let to = self.target.join(&part.name);
                if replaces {
                    replace(staged, &to, part, &replaced)?
                } else {
                    bring(staged, &to, part)?
                }
                fail::point("part-brought")?;
            }
            if replaces {
                self.remove_more(&replaced)?;
            }
            // The files' names must not be younger than the manifest's, should the machine crash.
            sync_up(&self.root, &self.target).map_err(put)?;
            let written = self.write("manifest", &self.decision.manifest).map_err(put)?;
            if replaces {
                fs::rename(&written, &last).map_err(put)?;
            } else {
                link(&written, &last).map_err(put)?;
                let _ = fs::remove_file(&written);
            }
            fail::point("manifest-put")?;
        }
        // Also when it was there already: who put it there may have died before this.
        sync_up(&self.root, &self.target).map_err(put)?;
        let Some(name) = &self.names.trigger else { return Ok(()) };
        let (trigger, words) = (self.target.join(name), words(&self.names, &self.decision));
        let put = |cause| classify_io(TRIGGER, cause);
        match fs::read(&trigger) {
            Ok(there) if there == words.as_bytes() => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(put(error)),
            _ => {
                let written = self.write("trigger", &words).map_err(put)?;
                fs::rename(&written, &trigger).map_err(put)?;
            }
        }
        sync_up(&self.root, &self.target).map_err(put)
    }

    /// Removes the predecessor's files whose names are not used again: a recipient would take them
    /// for ours. An object store cannot do that safely, since a late request would remove those of
    /// a later delivery: there they stay, and the manifest does not name them.
    fn remove_more(&self, replaced: &[ManifestFile]) -> Result<()> {
        let mine = |name: &str| self.parts.iter().any(|(_, part)| part.name == name);
        let others = replaced.iter().filter(|file| !mine(&file.name) && !file.name.contains('/'));
        for file in others {
            let path = self.target.join(&file.name);
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() && meta.len() == file.bytes => {
                    fs::remove_file(&path).map_err(|cause| classify_io(BRING, cause))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes a file where nobody looks.
    fn write(&self, name: &str, text: &str) -> std::io::Result<PathBuf> {
        create_durably(&self.scratch)?;
        let path = self.scratch.join(name);
        let mut file = fs::File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(path)
    }
}

/// Gives a staged file its final name, which one of the predecessor's may have.
fn replace(
    staged: &LocalPath,
    last: &LocalPath,
    part: &Part,
    replaced: &[ManifestFile],
) -> Result<()> {
    let io = |cause| classify_io(BRING, cause);
    let length = |path: &LocalPath| match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    };
    let (there, waiting) = (length(last)?, length(staged)?);
    if waiting == Some(part.bytes) && there.is_some_and(|bytes| is_replaced(replaced, part, bytes))
    {
        return fs::rename(staged, last).map_err(io);
    }
    match is_there(last, part)? {
        Some(true) => Ok(()),
        Some(false) if waiting.is_none() => Err(lost(part)),
        Some(false) => Err(foreign(&last.display())),
        None => bring(staged, last, part),
    }
}
