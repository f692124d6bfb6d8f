//! How the rows of a delivery meet those that a table has.

use super::Span;
use crate::error::{Error, Result};
use crate::job::param;
use crate::sink::{Mode, NewColumns, Occasion, SinkConfig};

/// What a definition and a run say of that.
#[derive(Debug, Clone, Default)]
pub struct Merge {
    /// The mode.
    pub mode: Mode,
    /// The contract's primary key.
    pub key: Vec<String>,
    /// `replace-window`: the rows that give way.
    pub span: Option<Span>,
    /// `upsert`: the condition by which a row removes its key.
    pub deleted: Option<String>,
    /// What becomes of columns that the table lacks.
    pub new_columns: NewColumns,
}

impl Merge {
    /// What `config` says, on this occasion.
    pub(in crate::sink) fn new(config: &SinkConfig, occasion: Occasion<'_>) -> Result<Merge> {
        let mode = config.mode();
        let span = match &config.window_column {
            Some(column) if mode == Mode::ReplaceWindow => Some(span(column, config, &occasion)?),
            _ => None,
        };
        Ok(Merge {
            mode,
            key: occasion.key,
            span,
            deleted: config.deleted.clone(),
            new_columns: config.new_columns.unwrap_or_default(),
        })
    }
}

fn span(column: &str, config: &SinkConfig, occasion: &Occasion<'_>) -> Result<Span> {
    const DOING: &str = "plan the sink";
    let window = occasion.window.ok_or_else(|| {
        Error::malformed(DOING, "the job has no window, which the sink is to replace")
            .help("Give the job a window.")
    })?;
    let scope = config.scope.iter().map(|name| {
        let value = occasion.params.get(name).cloned().ok_or_else(|| {
            Error::config(DOING, "a column of `scope` bears the name of no param")
                .with("column", name)
                .help(param::advice(name, occasion.params))
        })?;
        Ok((name.clone(), value))
    });
    let scope = scope.collect::<Result<_>>()?;
    Ok(Span { column: column.to_owned(), window, zone: occasion.zone.clone(), scope })
}
