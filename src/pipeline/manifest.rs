//! What is decided once a delivery is staged: its manifest, what it takes the place of, and how the
//! cursor moves.

use arrow::datatypes::Schema;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Attempt, Plan};
use crate::error::{Error, Result};
use crate::format::{FieldType, Format};
use crate::job::decision::CursorMove;
use crate::job::manifest::{
    MANIFEST_FORMAT, Manifest, ManifestColumn, ManifestCursor, ManifestFile, Supplemented,
};
use crate::rows::Counts;

impl Plan {
    /// The manifest that this delivery takes the place of. What stands there must be what the
    /// ledger recorded last for this target, or nothing: a decision that could never be carried
    /// out must not be taken.
    pub(super) async fn replaced(&self, attempt: &Attempt) -> Result<Option<String>> {
        if !self.replaces() {
            return Ok(None);
        }
        let standing = self.sink.standing().await?;
        if standing.is_none() || standing == attempt.predecessor {
            return Ok(standing);
        }
        Err(Error::refused(
            "replace the delivery",
            "the delivery that stands there is not the last one that this ledger recorded",
        )
        .with("target", self.target())
        .help("Find out who wrote it; move it away, or use another path."))
    }

    /// How the cursor moves over what was read, if it does.
    pub(super) fn moved(&self, range: Option<&ManifestCursor>) -> Option<CursorMove> {
        let (name, range) = (self.cursor()?.to_owned(), range?);
        Some(CursorMove { name, from: range.from.clone(), to: range.to.clone()? })
    }

    pub(super) fn manifest(
        &self,
        attempt: &Attempt,
        schema: Vec<ManifestColumn>,
        cursor: Option<ManifestCursor>,
        snapshot: Option<String>,
        files: Vec<ManifestFile>,
        counts: Counts,
    ) -> Manifest {
        let run = &attempt.run;
        Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            delivery: Uuid::now_v7(),
            run: run.id,
            key: run.order.key.clone(),
            edition: run.order.edition,
            supersedes: attempt.supersedes,
            supplements: self.supplement.as_ref().map(|supplement| Supplemented {
                run: supplement.first,
                delivery: supplement.delivery,
                key: supplement.key.clone(),
            }),
            export: run.order.export.clone(),
            revision: run.order.revision,
            definition: run.order.definition.clone(),
            contract_version: self.export.contract.as_ref().and_then(|c| c.version.clone()),
            window: run.order.window,
            params: run.order.params.clone(),
            schema,
            csv: (self.export.sink.kind().0 == Format::Csv)
                .then(|| self.export.sink.csv.clone())
                .flatten(),
            cursor,
            snapshot,
            files,
            counts: counts.into(),
            made_at: Timestamp::now(),
            made_by: Manifest::maker(),
        }
    }
}

/// The columns of a delivery.
///
/// # Errors
/// `permanent`: one has a type without a name.
pub(super) fn columns(schema: &Schema) -> Result<Vec<ManifestColumn>> {
    let column = |field: &arrow::datatypes::FieldRef| {
        let kind = FieldType::of_arrow(field.data_type()).ok_or_else(|| {
            Error::permanent("describe the delivery", "a column's type has no name")
                .with("column", field.name())
                .with("type", field.data_type())
                .help("Cast it in the source's query or in the transform.")
        })?;
        Ok(ManifestColumn { name: field.name().clone(), kind, nullable: field.is_nullable() })
    };
    schema.fields().iter().map(column).collect()
}
