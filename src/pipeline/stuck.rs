//! What became of a run that is stuck between its decision and its end, as its target tells.

use super::Plan;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::job::command::Delivery;
use crate::job::decision::Decision;
use crate::job::machine::Proof;
use crate::job::manifest::Manifest;
use crate::job::run::{Run, State};
use crate::job::waiting;
use crate::sink::Holder;

/// What the target of a stuck run has.
pub enum Found {
    /// The delivery, whole.
    Delivered(Box<Decision>, Proof),
    /// Nothing that a recipient sees.
    Nothing,
    /// It does not tell.
    Unknown(Error),
}

/// Asks the target of a run that is held under its current fence. Of a run that is closing, the
/// commit point is blocked for older fences by that.
pub async fn find(plan: &Plan, run: &Run) -> Found {
    match ask(plan, run).await {
        Ok(Some((decision, proof))) => Found::Delivered(decision, proof),
        Ok(None) => Found::Nothing,
        Err(error) => Found::Unknown(error),
    }
}

async fn ask(plan: &Plan, run: &Run) -> Result<Option<(Box<Decision>, Proof)>> {
    if run.state == State::Closing {
        let holder = Holder { run: run.id, fence: run.fence };
        let found = plan.sink().close(&holder).await?;
        return Ok(found.map(|decision| (decision, Proof::Target)));
    }
    // Decided: it is there if its manifest, which comes last, is the one that stands there.
    let Some(decision) = &run.decision else { return Ok(None) };
    let standing = plan.sink().standing().await?;
    let there = standing.is_some_and(|standing| standing == sha256(&decision.manifest));
    Ok(there.then(|| (Box::new(decision.clone()), Proof::Decision)))
}

/// The row of a delivery that is recorded by an operator's word.
///
/// # Errors
/// `malformed` where the decision's manifest cannot be understood.
pub fn delivery(run: &Run, decision: &Decision) -> Result<Delivery> {
    let manifest = Manifest::parse(decision.manifest.as_bytes(), super::MANIFEST_LIMIT)?;
    // It was reserved when the run was opened, and is until the run has ended.
    let target = waiting::target_of(&run.needs);
    Ok(Delivery {
        id: manifest.delivery,
        target: target.unwrap_or_default().to_owned(),
        manifest_sha256: sha256(&decision.manifest),
        files: manifest.sources(),
    })
}
