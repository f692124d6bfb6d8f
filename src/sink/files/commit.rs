//! Making a decided delivery visible: parts to their final names, then the manifest.
//!
//! Every step may have been done before by this or another worker under the same decision, may be
//! cut off anywhere, and is safe to repeat.

use std::fs::{self, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path as LocalPath, PathBuf};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStoreExt, PutMode, UpdateVersion};
use sha2::{Digest, Sha256};

use crate::connect::files::{Store, classify, classify_io, create_durably, sync_up};
use crate::digest;
use crate::error::{Error, Result};
use crate::fail;
use crate::job::decision::{Decision, Part};
use crate::job::manifest::{MANIFEST_LIMIT, MANIFEST_NAME};

pub(super) const BRING: &str = "bring a part to its final name";
pub(super) const PUT: &str = "write the manifest";
const READ: &str = "read the manifest";

/// How long the lock on a folder is waited for, and how often is looked for it.
const LOCK_WAIT: Duration = Duration::from_secs(30);
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// Server-side copies that are under way at once.
const COPIES: usize = 4;

/// A manifest as it stands at the target.
pub(super) struct Standing {
    pub bytes: Vec<u8>,
    pub sha256: String,
    /// What an object store knows this content by.
    version: Option<UpdateVersion>,
}

impl Standing {
    /// One in a folder of this machine.
    pub fn here(bytes: Vec<u8>) -> Standing {
        Standing { sha256: digest::sha256(&bytes), bytes, version: None }
    }
}

/// The manifest called `name` that stands in `folder`, if one does.
pub(super) async fn standing(store: &Store, folder: &str, name: &str) -> Result<Option<Standing>> {
    let path = store.path(&format!("{folder}/{name}"))?;
    let answer = match store.objects.get_opts(&path, GetOptions::default()).await {
        Ok(answer) => answer,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(classify(READ, error)),
    };
    if answer.meta.size > MANIFEST_LIMIT as u64 {
        return Err(Error::refused(READ, "what is there is too long to be a manifest")
            .with("file", &path)
            .help("Look at it, and move it away or deliver to another path."));
    }
    let version = answer
        .meta
        .e_tag
        .clone()
        .map(|tag| UpdateVersion { e_tag: Some(tag), version: answer.meta.version.clone() });
    let bytes = answer.bytes().await.map_err(|e| classify(READ, e))?.to_vec();
    Ok(Some(Standing { sha256: digest::sha256(&bytes), bytes, version }))
}

/// What is to be done about the manifest that stands at the target.
#[derive(Clone)]
pub(super) enum Next {
    /// Nothing is there and nothing should be.
    Create,
    /// The predecessor is there.
    Replace(Option<UpdateVersion>),
    /// It is this one already.
    Nothing,
}

pub(super) fn next(found: Option<Standing>, decision: &Decision, folder: &str) -> Result<Next> {
    let refuse = |what: &str| {
        Err(Error::refused("commit the delivery", what.to_owned()).with("path", folder).help(
            "Look at what is there. Once it is out of the way, the run goes on by itself; another \
                 path, or if-exists = \"replace\", avoids it.",
        ))
    };
    match (found, &decision.replaces) {
        (Some(found), _) if found.bytes == decision.manifest.as_bytes() => Ok(Next::Nothing),
        (Some(found), Some(expected)) if found.sha256 == *expected => {
            Ok(Next::Replace(found.version))
        }
        (None, None) => Ok(Next::Create),
        (Some(_), None) => refuse("another delivery is there"),
        (Some(_), Some(_)) => refuse("the delivery there is not the one that this one replaces"),
        (None, Some(_)) => refuse("the delivery that this one replaces is gone"),
    }
}

/// Commits `decision` to `folder`. `scratch` is the folder of the attempt that commits.
pub(super) async fn commit(
    store: &Store,
    folder: &str,
    scratch: &str,
    decision: &Decision,
) -> Result<()> {
    // Looking first spares a worker that was overtaken from leaving parts that nothing names.
    let next = next(standing(store, folder, MANIFEST_NAME).await?, decision, folder)?;
    if let Some(root) = store.root() {
        let here = |relative: &str| -> Result<PathBuf> {
            Ok(store.local(&store.path(relative)?).unwrap_or_default())
        };
        let (target, scratch) = (here(folder)?, here(scratch)?);
        let mut parts = Vec::with_capacity(decision.parts.len());
        for part in &decision.parts {
            plain_name(&part.name)?;
            parts.push((here(&part.staged)?, part.clone()));
        }
        let (root, decision) = (root.to_owned(), decision.clone());
        return tokio::task::spawn_blocking(move || {
            commit_here(&root, &target, &scratch, &parts, &decision, &next)
        })
        .await
        .map_err(|cause| Error::transient(PUT, "the work was cut off").caused_by(cause))?;
    }
    if matches!(next, Next::Nothing) {
        return Ok(());
    }
    let copies: Vec<_> = decision.parts.iter().map(|part| copy(store, folder, part)).collect();
    futures::stream::iter(copies).buffer_unordered(COPIES).try_collect::<()>().await?;
    put_manifest(store, folder, MANIFEST_NAME, decision, next).await
}

/// A part is beside its manifest, whatever a decision says.
pub(super) fn plain_name(name: &str) -> Result<()> {
    if name.is_empty() || name.starts_with('_') || name.contains(['/', '\\']) || name == ".." {
        return Err(
            Error::config(BRING, "the part's name is no plain file name").with("part", name)
        );
    }
    Ok(())
}

async fn copy(store: &Store, folder: &str, part: &Part) -> Result<()> {
    plain_name(&part.name)?;
    let from = store.path(&part.staged)?;
    let to = store.path(&format!("{folder}/{}", part.name))?;
    if size(store, &to).await? == Some(part.bytes) {
        return Ok(());
    }
    match store.objects.copy(&from, &to).await {
        Err(object_store::Error::NotFound { .. }) => return Err(lost(part)),
        answer => answer.map_err(|e| classify(BRING, e))?,
    }
    if size(store, &to).await? != Some(part.bytes) {
        return Err(Error::transient(BRING, "the copy has another length").with("part", &part.name));
    }
    fail::point("part-brought")
}

pub(super) async fn size(store: &Store, path: &Path) -> Result<Option<u64>> {
    match store.objects.head(path).await {
        Ok(meta) => Ok(Some(meta.size)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(classify(BRING, error)),
    }
}

pub(super) fn lost(part: &Part) -> Error {
    Error::permanent(BRING, "it is neither staged nor delivered").with("part", &part.name).help(
        "Somebody removed it from the staging folder; the run has to be resolved and run again.",
    )
}

pub(super) async fn put_manifest(
    store: &Store,
    folder: &str,
    name: &str,
    decision: &Decision,
    step: Next,
) -> Result<()> {
    let path = store.path(&format!("{folder}/{name}"))?;
    let mode = match step {
        Next::Nothing => return Ok(()),
        Next::Create => PutMode::Create,
        Next::Replace(Some(version)) => PutMode::Update(version),
        Next::Replace(None) => {
            return Err(Error::config(PUT, "the store gives its objects no ETag")
                .help("Use a store that does, or if-exists = \"fail\"."));
        }
    };
    let body = decision.manifest.clone().into();
    match store.objects.put_opts(&path, body, mode.into()).await {
        Ok(_) => fail::point("manifest-put"),
        Err(
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
        ) => match next(standing(store, folder, name).await?, decision, folder)? {
            Next::Nothing => Ok(()),
            // A concurrent write was refused and took this one with it (S3 answers 409).
            Next::Create | Next::Replace(_) => {
                Err(Error::transient(PUT, "another write was under way"))
            }
        },
        Err(error) => Err(classify(PUT, error)),
    }
}

fn commit_here(
    root: &LocalPath,
    target: &LocalPath,
    scratch: &LocalPath,
    parts: &[(PathBuf, Part)],
    decision: &Decision,
    step: &Next,
) -> Result<()> {
    let put = |cause| classify_io(PUT, cause);
    let manifest = decision.manifest.as_str();
    create_durably(target).map_err(put)?;
    // Looking and renaming are one step: a worker that stalled since the commit began may have been
    // overtaken, and must not bring an old delivery back. And what replaced deliveries left is not
    // removed between bringing a part and naming it.
    let _lock = lock(target)?;
    if !matches!(step, Next::Nothing) {
        for (staged, part) in parts {
            bring(staged, &target.join(&part.name), part)?;
            fail::point("part-brought")?;
        }
        // The parts' names must not be younger than the manifest's, should the machine crash.
        sync_up(root, target).map_err(put)?;
        create_durably(scratch).map_err(put)?;
        let written = scratch.join(MANIFEST_NAME);
        let mut file = fs::File::create(&written).map_err(put)?;
        file.write_all(manifest.as_bytes()).map_err(put)?;
        file.sync_all().map_err(put)?;
        let last = target.join(MANIFEST_NAME);
        match step {
            Next::Replace(_) => replace(&written, &last, decision)?,
            _ => match link(&written, &last) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if fs::read(&last).map_err(put)? != manifest.as_bytes() {
                        return Err(between(&last));
                    }
                }
                answer => answer.map_err(put)?,
            },
        }
        fail::point("manifest-put")?;
        // Whoever comes late writes it after the run was cleaned up after.
        let _ = fs::remove_file(&written);
    }
    // Also when it was there already: who put it there may have died before this.
    sync_up(root, target).map_err(put)
}

/// Puts the manifest in the place of its predecessor, and of no other. The caller holds the lock on
/// the folder.
fn replace(written: &LocalPath, last: &LocalPath, decision: &Decision) -> Result<()> {
    let put = |cause| classify_io(PUT, cause);
    let standing = match fs::read(last) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(between(last)),
        answer => answer.map_err(put)?,
    };
    if standing == decision.manifest.as_bytes() {
        return Ok(());
    }
    if Some(digest::sha256(&standing)) != decision.replaces {
        return Err(between(last));
    }
    fs::rename(written, last).map_err(put)
}

/// Locks a folder until the file that is given back is dropped. `None` where the file system has no
/// locks: there the reservation of the target must do. Whoever stalls with the lock is not waited for
/// without end.
pub(super) fn lock(folder: &LocalPath) -> Result<Option<fs::File>> {
    let put = |cause| classify_io(PUT, cause);
    let file = fs::File::open(folder).map_err(put)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                return Ok(None);
            }
            Err(TryLockError::Error(error)) => return Err(put(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_WAIT => {
                return Err(Error::unavailable(PUT, "another process holds the folder's lock")
                    .with("folder", folder.display())
                    .help(
                        "It commits there, or stands still while it does; `fuser` tells which it is.",
                    ));
            }
            #[expect(clippy::disallowed_methods, reason = "this thread is one that may block")]
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_LOOK),
        }
    }
}

pub(super) fn between(last: &LocalPath) -> Error {
    Error::refused(PUT, "another delivery came in between")
        .with("file", last.display())
        .help("Look at what is there; only one run may deliver to a path.")
}

/// Gives a staged file its final name, and overwrites nothing.
pub(super) fn bring(staged: &LocalPath, last: &LocalPath, part: &Part) -> Result<()> {
    let io = |cause| classify_io(BRING, cause);
    match fs::metadata(staged) {
        Ok(meta) if meta.len() != part.bytes => {
            return Err(Error::permanent(BRING, "the staged file has another length")
                .with("part", &part.name)
                .help(
                    "The file was changed or damaged; the run has to be resolved and run again.",
                ));
        }
        Ok(_) => match link(staged, last) {
            Ok(()) => {
                // What remains is removed by cleaning.
                let _ = fs::remove_file(staged);
                return Ok(());
            }
            // Somebody else may have been faster: then it stands at its final name.
            Err(error)
                if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {}
            Err(error) => return Err(io(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    match is_there(last, part)? {
        Some(true) => Ok(()),
        Some(false) => Err(foreign(&last.display())),
        None => Err(lost(part)),
    }
}

/// Whether the file at `last` is the part; `None` where there is none.
pub(super) fn is_there(last: &LocalPath, part: &Part) -> Result<Option<bool>> {
    let io = |cause| classify_io(BRING, cause);
    let mut file = match fs::File::open(last) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut hash = Hashing(Sha256::new());
    let bytes = std::io::copy(&mut file, &mut hash).map_err(io)?;
    Ok(Some(bytes == part.bytes && hex::encode(hash.0.finalize()) == part.sha256))
}

pub(super) fn foreign(file: &dyn std::fmt::Display) -> Error {
    Error::refused(BRING, "another file has that name")
        .with("file", file)
        .help("Move it away; nothing is overwritten.")
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A second name for a file, which must not exist. Where the file system has no such thing, the
/// file is moved after looking: the reservation of the target keeps other runs away meanwhile.
pub(super) fn link(from: &LocalPath, to: &LocalPath) -> std::io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error)
            if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) =>
        {
            if to.try_exists()? {
                return Err(ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::rows::Counts;

    #[test]
    fn a_worker_that_stalled_before_the_rename_brings_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        let (written, last) = (dir.path().join("written"), dir.path().join(MANIFEST_NAME));
        let sha256 = |text: &str| digest::sha256(text);
        let decision = Decision {
            manifest: "mine".to_owned(),
            parts: Vec::new(),
            counts: Counts::default(),
            cursor: None,
            replaces: Some(sha256("before")),
            quarantine: None,
        };
        fs::write(&written, "mine").unwrap();
        fs::write(&last, "after").unwrap();
        let error = replace(&written, &last, &decision).unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        assert_eq!(fs::read(&last).unwrap(), b"after");

        fs::write(&last, "before").unwrap();
        replace(&written, &last, &decision).unwrap();
        assert_eq!(fs::read(&last).unwrap(), b"mine");
        replace(&written, &last, &decision).unwrap();
    }
}
