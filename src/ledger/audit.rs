//! The audit trail, as whoever asks "who changed what, and why" looks through it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which lines of the audit trail are wanted. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// About exactly this.
    pub subject: Option<String>,
    /// About a run, or a message without one, whose name ends so, without dashes.
    pub ending: Option<String>,
    /// About this export: its definitions, pauses and cursors, and its runs as far as their history is
    /// there.
    pub export: Option<String>,
    /// By somebody in whose name this text stands.
    pub by: Option<String>,
    /// Whose action has this word, or these words one after the other.
    pub action: Option<String>,
    /// Written at or after.
    pub since: Option<Timestamp>,
    /// At the most, newest first.
    pub limit: u32,
}

impl AuditFilter {
    /// What is known about a subject.
    pub fn about(subject: &str, limit: u32) -> AuditFilter {
        AuditFilter { subject: Some(subject.to_owned()), limit, ..AuditFilter::default() }
    }
}

/// A line of the audit trail, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub by: String,
    /// What was done.
    pub action: String,
    /// To what: a run, an export, a cursor, a pause by its name among the resources, a message.
    pub subject: String,
    /// The export of the run that it was done to, as long as the history of that is there.
    pub export: Option<String>,
    /// Why.
    pub reason: String,
}
