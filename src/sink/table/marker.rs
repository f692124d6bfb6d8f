//! The marker row of a run: its fence, and once it is committed the decision.

use super::{MARKER, Target};
use crate::error::{Error, Result};
use crate::job::decision::Decision;
use crate::sink::{Begun, Holder};

impl Target {
    /// Whether the run's row has this fence or is committed, with which an attempt may go on. A
    /// higher fence there is an error.
    pub fn held(&self, marker: Option<Marker>, holder: &Holder) -> Result<Marker> {
        match marker {
            Some(marker) if marker.fence > holder.fence => Err(self.overtaken(holder)),
            Some(marker) if marker.decision.is_some() || marker.fence == holder.fence => Ok(marker),
            _ => Err(self.unknown()),
        }
    }

    /// What an attempt begins with, of the run's row with its fence raised.
    pub fn begun(&self, marker: Marker, holder: &Holder) -> Result<Begun> {
        if marker.fence > holder.fence {
            return Err(self.overtaken(holder));
        }
        Ok(marker.decision.map_or(Begun::Open, Begun::Committed))
    }

    /// What is there at the run's close, of its row with its fence raised.
    pub fn closed(&self, marker: Marker, holder: &Holder) -> Result<Option<Box<Decision>>> {
        if marker.decision.is_none() && marker.fence > holder.fence {
            return Err(self.overtaken(holder));
        }
        Ok(marker.decision)
    }

    fn overtaken(&self, holder: &Holder) -> Error {
        Error::fenced("write to the table", "a later attempt holds the run")
            .with("table", &self.table)
            .with("fence", holder.fence)
    }

    /// The error where the run has no row with this fence.
    pub fn unknown(&self) -> Error {
        Error::transient("check the fence", "the target does not know this fence")
            .with("table", &self.table)
            .help("The row of the run was removed; the next attempt makes it anew.")
    }
}

/// The marker row of a run.
pub(in crate::sink) struct Marker {
    pub fence: i64,
    pub decision: Option<Box<Decision>>,
}

impl Marker {
    /// Of the values that the row has.
    pub fn of(fence: i64, decision: Option<&str>) -> Result<Marker> {
        let decision = decision.map(serde_json::from_str).transpose().map_err(|cause| {
            Error::permanent("read the decision at the target", "it cannot be understood")
                .caused_by(cause)
                .help(format!("Somebody, or a newer Longshore, has written to {MARKER}."))
        })?;
        Ok(Marker { fence, decision })
    }
}

/// The decision as a marker row holds it.
pub(in crate::sink) fn text_of(decision: &Decision) -> Result<String> {
    serde_json::to_string(decision).map_err(|cause| {
        Error::permanent("store the decision", "it cannot be written as JSON").caused_by(cause)
    })
}
