//! A run as programs see it, one JSON object.

use serde_json::{Value as Json, json};

use crate::cli::output::place;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::job::after::Predecessor;
use crate::job::run::Run;
use crate::ledger::{Attempt, Audited, RecordedDelivery};

/// The run alone: without the decision, which repeats the whole manifest.
pub fn object(run: &Run) -> Result<Json> {
    let object = serde_json::to_value(run).map_err(|cause| {
        Error::permanent("show the run", "it has no form in JSON").caused_by(cause)
    })?;
    let Json::Object(mut fields) = object else { return Ok(object) };
    let waits = run.parked.as_deref().and_then(Predecessor::of_resource);
    let waits = waits.map(|before| json!({"export": before.export, "window": before.window}));
    fields.insert("waits_for".to_owned(), json!(waits));
    fields.insert("tries".to_owned(), json!(run.tries()));
    // The ledger's own record has other names for what is `run` and `window` everywhere else.
    let fields = fields.into_iter().filter_map(|(name, value)| match name.as_str() {
        "id" => Some(("run".to_owned(), value)),
        "window_start" => Some(("window".to_owned(), json!(run.order.window))),
        "window_end" | "decision" => None,
        _ => Some((name, value)),
    });
    Ok(Json::Object(fields.collect()))
}

/// The run with all that belongs to it.
pub fn whole(
    run: &Run,
    attempts: &[Attempt],
    delivery: Option<&RecordedDelivery>,
    audit: &[Audited],
    config: &Config,
) -> Result<Json> {
    let unreadable = |cause: serde_json::Error| {
        Error::permanent("show the run", "its manifest is no JSON")
            .with("run", run.id.short())
            .caused_by(cause)
    };
    let manifest = delivery
        .map(|delivery| &delivery.manifest)
        .or(run.decision.as_ref().map(|decision| &decision.manifest))
        .map(|text| serde_json::from_str::<Json>(text).map_err(unreadable))
        .transpose()?;
    // It is told once.
    let mut decision = json!(run.decision);
    let mut recorded = json!(delivery);
    for told in [&mut decision, &mut recorded] {
        if let Some(fields) = told.as_object_mut() {
            fields.remove("manifest");
        }
    }
    if let (Some(delivery), Some(fields)) = (delivery, recorded.as_object_mut()) {
        fields.insert("place".to_owned(), json!(place(&delivery.target, &config.connections)));
    }
    let mut object = object(run)?;
    if let Some(fields) = object.as_object_mut() {
        fields.insert("decision".to_owned(), decision);
        fields.insert("attempts".to_owned(), json!(attempts));
        fields.insert("delivery".to_owned(), recorded);
        fields.insert("manifest".to_owned(), json!(manifest));
        fields.insert("audit".to_owned(), json!(audit));
    }
    Ok(object)
}
