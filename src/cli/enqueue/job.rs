//! Which jobs a command asks for.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::DOING;
use crate::cli::arguments;
use crate::error::{Error, Result};
use crate::export::Export;
use crate::job::message::JobMessage;
use crate::job::param::{ParamType, Params};
use crate::job::{Window, span, window};

/// Jobs that one command asks for.
const JOBS: usize = 1000;

/// Which job is asked for.
#[derive(Debug, Args)]
pub struct Job {
    /// The export's name
    pub export: String,
    /// What to deliver: 2026-11-19, 2026-11-19T05, 2026-11, yesterday, or A..B with both ends
    /// included; one job for each window of the export in it
    #[arg(long)]
    pub window: Option<String>,
    /// The value of a parameter; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = arguments::pair)]
    pub params: Vec<(String, String)>,
    /// Every combination of the schedule's `for-each`, but for the parameters that are given
    #[arg(long)]
    pub each: bool,
    /// The idempotency key. Default: it follows from export, parameters and window; a job without
    /// a window gets a new one
    #[arg(long)]
    pub key: Option<String>,
    /// Who receives it
    #[arg(long)]
    pub recipient: Option<String>,
    /// Not to be started before: 2h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = arguments::future)]
    pub not_before: Option<Timestamp>,
    /// Given up when it has not ended by: 2h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = arguments::future)]
    pub deadline: Option<Timestamp>,
}

impl Job {
    /// The jobs that are asked for: one for each window and, with `--each`, each combination of
    /// params.
    ///
    /// # Errors
    /// `usage`: a window that cannot be understood, a value that is not of its parameter's type,
    /// one key for several jobs, too many of them, or a deadline before they may start.
    pub fn messages(
        &self,
        name: &str,
        export: &Export,
        by: String,
        now: Timestamp,
    ) -> Result<Vec<JobMessage>> {
        if let (Some(deadline), Some(not_before)) = (self.deadline, self.not_before)
            && deadline <= not_before
        {
            return Err(Error::usage(DOING, "the deadline is not after the time of --not-before")
                .help("Both count from now: --not-before 2h --deadline 3h."));
        }
        let windows = self.windows(export, now)?;
        let params = self.combinations(export)?;
        let several = if windows.len() > 1 { "windows" } else { "combinations of params" };
        if windows.len() * params.len() > 1 && self.key.is_some() {
            return Err(Error::usage(
                DOING,
                format!("one key cannot be that of several {several}"),
            )
            .help("Leave --key out: the key follows from window and params."));
        }
        if windows.len() * params.len() > JOBS {
            return Err(Error::usage(DOING, format!("that is more than {JOBS} jobs"))
                .help("Ask for fewer windows at a time, or fix some params by --param."));
        }
        let all =
            windows.into_iter().flat_map(|window| params.iter().map(move |one| (window, one)));
        Ok(all
            .map(|(window, params)| JobMessage {
                export: name.to_owned(),
                window,
                params: params.clone(),
                key: self.key.clone(),
                recipient: self.recipient.clone(),
                not_before: self.not_before,
                deadline: self.deadline,
                requested_by: Some(by.clone()),
                definition: None,
            })
            .collect())
    }

    /// The params of the jobs.
    fn combinations(&self, export: &Export) -> Result<Vec<Map<String, Json>>> {
        let params = typed(&export.params, &self.params)?;
        if !self.each {
            return Ok(vec![params]);
        }
        if !export.has_each() {
            return Err(Error::usage(DOING, "the export has no `for-each`")
                .with("export", &self.export)
                .help("Leave --each out."));
        }
        Ok(export.combinations(&params))
    }

    fn windows(&self, export: &Export, now: Timestamp) -> Result<Vec<Option<Window>>> {
        let Some(text) = &self.window else { return Ok(vec![None]) };
        let zone = window::zone(&export.timezone)?;
        let spec = export.schedule.as_ref().and_then(|schedule| schedule.window);
        let span = span::parse_span(text, spec, &zone, now)?;
        let Some(spec) = spec else { return Ok(vec![Some(span)]) };
        let windows: Vec<Option<Window>> =
            spec.within(span, &zone).take(JOBS + 1).map(Some).collect();
        if windows.len() > JOBS {
            return Err(Error::usage(DOING, format!("that is more than {JOBS} windows"))
                .with("window", text)
                .help("Ask for a part of them at a time."));
        }
        Ok(windows)
    }
}

/// The values by the types that the export declares; what it does not declare stays text, and is
/// refused with the others' mistakes.
pub fn typed(declared: &Params, given: &[(String, String)]) -> Result<Map<String, Json>> {
    let mut params = Map::new();
    for (name, text) in given {
        let kind = declared.get(name).map(|param| param.kind);
        let value = match kind {
            Some(ParamType::Int64) => text.parse::<i64>().ok().map(Json::from),
            Some(ParamType::Bool) => text.parse::<bool>().ok().map(Json::from),
            Some(ParamType::String | ParamType::Date | ParamType::Timestamp) | None => {
                Some(Json::from(text.as_str()))
            }
        };
        let value = value.ok_or_else(|| {
            let kind = kind.map(|kind| kind.to_string()).unwrap_or_default();
            Error::usage(DOING, format!("the value is no {kind}")).with("param", name)
        })?;
        if params.insert(name.clone(), value).is_some() {
            return Err(Error::usage(DOING, "a parameter is given twice").with("param", name));
        }
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use serde_json::json;

    #[test]
    fn values_take_the_types_of_their_declarations() {
        let declared: Params = serde_json::from_value(json!({
            "country": {"type": "string"},
            "top": {"type": "int64"},
            "all": {"type": "bool"},
        }))
        .unwrap();
        let given = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let pairs = [("country", "1"), ("top", "10"), ("all", "true"), ("else", "x")];
        let params = typed(&declared, &given(&pairs)).unwrap();
        let expected = json!({"country": "1", "top": 10, "all": true, "else": "x"});
        assert_eq!(Json::Object(params), expected);
        for bad in [vec![("top", "1.5")], vec![("all", "yes")], vec![("top", "1"), ("top", "2")]] {
            assert_eq!(typed(&declared, &given(&bad)).unwrap_err().class(), Class::Usage);
        }
    }
}
