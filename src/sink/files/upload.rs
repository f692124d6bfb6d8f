//! Uploads under a file's final name: nobody sees them until they are completed, which happens once.

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::part::LEAST_PIECE;
use crate::budget::{Budget, Charge, Use};
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::fail;
use crate::job::decision;

const STAGE: &str = "stage a part";
const CLEAN: &str = "give an upload up";

/// Bytes of a piece, where the run's budget does not make it less. All but the last are of one size,
/// as some stores want it.
const PIECE: usize = 16 << 20;
/// How many pieces stores take.
const PIECES: usize = 10_000;

/// By what an upload is found again, to be given up. It is written before the first piece.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    file: String,
    id: String,
}

/// An upload under way. All of it blocks.
pub(super) struct Upload {
    uploads: Arc<dyn MultipartStore>,
    runtime: Handle,
    last: Path,
    id: MultipartId,
    pieces: Vec<PartId>,
    /// The piece that is being sent while the next is filled.
    sending: Option<JoinHandle<object_store::Result<PartId>>>,
    filling: Vec<u8>,
    piece: usize,
    /// The piece that is sent and the one that is filled.
    _charge: Charge,
}

impl Upload {
    /// Begins an upload of what becomes `last`, with a note at `note`.
    ///
    /// # Errors
    /// `fenced` when this fence staged there before: a fence belongs to one attempt.
    pub fn begin(
        store: &Store,
        note: &Path,
        last: Path,
        runtime: &Handle,
        budget: &Budget,
    ) -> Result<Upload> {
        let piece = budget.share(8, PIECE).max(LEAST_PIECE);
        let charge = budget.charge(Use::Uploading, 2 * piece)?;
        let uploads = store.uploads.clone().ok_or_else(|| {
            Error::permanent(STAGE, "the store has no uploads that can be completed later")
        })?;
        let id = runtime.block_on(async {
            let id = uploads.create_multipart(&last).await.map_err(|e| classify(STAGE, e))?;
            let told = Note { file: last.to_string(), id: id.clone() };
            let told = serde_json::to_vec(&told).map_err(|cause| {
                Error::permanent(STAGE, "the note has no JSON form").caused_by(cause)
            })?;
            match store.objects.put_opts(note, told.into(), PutMode::Create.into()).await {
                Err(object_store::Error::AlreadyExists { .. }) => {
                    let _ = uploads.abort_multipart(&last, &id).await;
                    Err(Error::fenced(STAGE, "another attempt staged under this fence"))
                }
                answer => answer.map(|_| id).map_err(|e| classify(STAGE, e)),
            }
        })?;
        fail::point("upload-noted")?;
        Ok(Upload {
            uploads,
            runtime: runtime.clone(),
            last,
            id,
            pieces: Vec::new(),
            sending: None,
            filling: Vec::new(),
            piece,
            _charge: charge,
        })
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.piece - self.filling.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.filling.extend_from_slice(now);
            bytes = rest;
            if self.filling.len() == self.piece {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Sends what is filled, once the piece before has arrived.
    fn send(&mut self) -> Result<()> {
        self.arrived()?;
        let index = self.pieces.len();
        if index == PIECES {
            return Err(Error::contract(STAGE, "the file is too large for the store")
                .with("bytes", self.piece * PIECES)
                .help(
                    "Put {part} into `file`, so that there may be several; or raise [limits] memory: \
                     a piece is an eighth of it, and 16 MiB at the most.",
                ));
        }
        let piece = Bytes::from(std::mem::take(&mut self.filling));
        let (uploads, last, id) = (self.uploads.clone(), self.last.clone(), self.id.clone());
        self.sending = Some(
            self.runtime
                .spawn(async move { uploads.put_part(&last, &id, index, piece.into()).await }),
        );
        Ok(())
    }

    fn arrived(&mut self) -> Result<()> {
        let Some(sending) = self.sending.take() else { return Ok(()) };
        let answer = self.runtime.block_on(sending);
        let piece = answer
            .map_err(|cause| Error::transient(STAGE, "the upload was cut off").caused_by(cause))?;
        self.pieces.push(piece.map_err(|e| classify(STAGE, e))?);
        Ok(())
    }

    /// Sends the rest, and tells by what the upload is completed.
    pub fn finish(mut self) -> Result<decision::Upload> {
        if !self.filling.is_empty() || self.pieces.is_empty() && self.sending.is_none() {
            self.send()?;
        }
        self.arrived()?;
        let pieces = self.pieces.into_iter().map(|piece| piece.content_id).collect();
        Ok(decision::Upload { id: self.id, pieces })
    }
}

/// Gives up the upload that a staged object is the note of, if it is one. What was completed, or
/// given up before, is no upload any more.
pub(super) async fn give_up(store: &Store, staged: &Path) -> Result<()> {
    let (Some(uploads), Some(name)) = (&store.uploads, staged.filename()) else { return Ok(()) };
    if !name.starts_with("upload-") {
        return Ok(());
    }
    let answer = match store.objects.get(staged).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(()),
        answer => answer.map_err(|e| classify(CLEAN, e))?,
    };
    let bytes = answer.bytes().await.map_err(|e| classify(CLEAN, e))?;
    // Another's words are no note; they are removed like all that is staged.
    let Ok(note) = serde_json::from_slice::<Note>(&bytes) else { return Ok(()) };
    let Ok(last) = Path::parse(&note.file) else { return Ok(()) };
    match uploads.abort_multipart(&last, &note.id).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        answer => answer.map_err(|e| classify(CLEAN, e)),
    }
}
