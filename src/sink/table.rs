//! What the sinks that write to tables have in common.

use super::Mode;
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::job::decision::Decision;

/// The table in which each target keeps what was committed there.
pub(super) const MARKER: &str = "longshore_deliveries";

/// An upsert without a primary key is an error of class `config`.
pub(super) fn upsert_needs_key(mode: Mode, key: &[String]) -> Result<()> {
    if mode == Mode::Upsert && key.is_empty() {
        return Err(Error::config("write to the table", "an upsert needs a primary key")
            .help("Name its columns: primary-key = [\"id\"] in [contract]."));
    }
    Ok(())
}

/// An error of class `contract`: a column of the rows, or of the table, does not fit the other side.
pub(super) fn misfit(column: &str, message: impl Into<String>) -> Error {
    Error::contract("fit the rows to the table", message).with("column", column)
}

/// A column that the table requires, or of the key of an upsert, and that the rows do not have, is
/// a [`misfit`].
pub(super) fn complete<'a>(
    mut required: impl Iterator<Item = &'a str>,
    mode: Mode,
    key: &[String],
    given: impl Fn(&str) -> bool,
) -> Result<()> {
    if let Some(name) = required.find(|name| !given(name)) {
        return Err(misfit(name, "the table requires a value, and the rows have no such column")
            .help("Add it to the rows, or give the table's column a default."));
    }
    if let Some(name) = key.iter().find(|name| mode == Mode::Upsert && !given(name)) {
        return Err(misfit(name, "the rows lack a column of the primary key")
            .help("Add it to the rows, or correct primary-key in [contract]."));
    }
    Ok(())
}

/// What the names of a run's staging tables begin with; the fence follows. Twelve digits are the
/// random end of the run's name, and with the longest fence the name stays within the 63 bytes
/// that PostgreSQL allows.
pub(super) fn stage_prefix(run: RunId) -> String {
    let digits = run.0.simple().to_string();
    format!("longshore_stage_{}_", &digits[digits.len() - 12..])
}

/// Whether `table` is a staging table of this prefix, of `fence` or a lower one.
pub(super) fn staged_until(table: &str, prefix: &str, fence: i64) -> bool {
    table
        .strip_prefix(prefix)
        .and_then(|digits| digits.parse::<i64>().ok())
        .is_some_and(|staged| staged <= fence)
}

/// The decision that a marker row holds.
pub(super) fn decision_of(text: &str) -> Result<Box<Decision>> {
    serde_json::from_str(text).map(Box::new).map_err(|cause| {
        Error::permanent("read the decision at the target", "it cannot be understood")
            .caused_by(cause)
            .help(format!("Somebody, or a newer Longshore, has written to {MARKER}."))
    })
}

/// The decision as a marker row holds it.
pub(super) fn text_of(decision: &Decision) -> Result<String> {
    serde_json::to_string(decision).map_err(|cause| {
        Error::permanent("store the decision", "it cannot be written as JSON").caused_by(cause)
    })
}

/// `rows` without a value in a key column, and `keys` that come more than once, are errors of
/// class `contract`.
pub(super) fn keys_hold(key: &[String], rows: u64, keys: u64) -> Result<()> {
    let names = key.join(", ");
    let message = match (rows, keys) {
        (0, 0) => return Ok(()),
        (0, keys) => format!("{keys} values of the primary key ({names}) come more than once"),
        (rows, _) => format!("{rows} rows lack a value of the primary key ({names})"),
    };
    Err(Error::contract("merge the rows", message)
        .help("Make the query give one row for each key, or correct primary-key in [contract]."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_tables_are_known_by_run_and_fence() {
        let run = RunId::new();
        let prefix = stage_prefix(run);
        assert!(format!("{prefix}{}", i64::MAX).len() <= 63);
        assert!(staged_until(&format!("{prefix}2"), &prefix, 2));
        assert!(!staged_until(&format!("{prefix}3"), &prefix, 2));
        assert!(!staged_until(&format!("{prefix}2_mine"), &prefix, 2));
        assert!(!staged_until(&format!("{}2", stage_prefix(RunId::new())), &prefix, 2));
    }
}
