//! Parameters: their declarations, their typed values, and the values that a query is given.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Result};

/// The `[params]` of a definition.
pub type Params = BTreeMap<String, Param>;

/// The declaration of one parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Param {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// Its value when the job gives none. Without it, the job must.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Json>,
    /// The values that are allowed. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Json>>,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ParamType {
    /// A JSON string.
    String,
    /// A whole number of 64 bits.
    Int64,
    /// true or false.
    Bool,
    /// A day, `2026-11-19`.
    Date,
    /// An instant, `2026-11-19T05:00:00Z`.
    Timestamp,
}

impl fmt::Display for ParamType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParamType::String => "string",
            ParamType::Int64 => "int64",
            ParamType::Bool => "bool",
            ParamType::Date => "date",
            ParamType::Timestamp => "timestamp",
        })
    }
}

/// A typed value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Int64(i64),
    /// true or false.
    Bool(bool),
    /// A day.
    Date(Date),
    /// An instant.
    Timestamp(Timestamp),
}

/// What a query's `:name` parameters stand for: the job's parameters, and `window_start` and
/// `window_end` where the run has a window.
pub type Bindings = BTreeMap<String, Value>;

/// What a query may ask for besides the job's parameters: the start and the end of its window.
pub const WINDOW: [&str; 2] = ["window_start", "window_end"];

impl Value {
    /// The value of `kind` that `json` is.
    pub fn typed(kind: ParamType, json: &Json) -> Option<Value> {
        Some(match (kind, json) {
            (ParamType::String, Json::String(text)) => Value::String(text.clone()),
            (ParamType::Int64, Json::Number(number)) => Value::Int64(number.as_i64()?),
            (ParamType::Bool, Json::Bool(flag)) => Value::Bool(*flag),
            // A time of day would be dropped in silence.
            (ParamType::Date, Json::String(text)) => {
                Value::Date(text.parse().ok().filter(|day: &Date| day.to_string() == *text)?)
            }
            (ParamType::Timestamp, Json::String(text)) => Value::Timestamp(text.parse().ok()?),
            _ => return None,
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::String(text) => f.write_str(text),
            Value::Int64(number) => number.fmt(f),
            Value::Bool(flag) => flag.fmt(f),
            Value::Date(date) => date.fmt(f),
            Value::Timestamp(at) => at.fmt(f),
        }
    }
}

/// What to do about a name in a query or a path for which a run has no value.
pub fn advice(name: &str, bindings: &Bindings) -> String {
    if WINDOW.contains(&name) {
        return "Give the job a window.".to_owned();
    }
    let known: Vec<&str> = bindings.keys().map(String::as_str).collect();
    match known.as_slice() {
        [] => "This run has no parameters; declare it in [params].".to_owned(),
        known => format!("Declare it in [params]; this run has {}.", known.join(", ")),
    }
}

/// Checks what a job gives against what the export declares, and fills in the defaults.
///
/// # Errors
/// `malformed`, naming the parameter: one that is not declared, missing, of another type, or not
/// among the allowed values.
pub fn resolve(declared: &Params, given: &serde_json::Map<String, Json>) -> Result<Bindings> {
    const DOING: &str = "read the job's params";
    if let Some(unknown) = given.keys().find(|name| !declared.contains_key(*name)) {
        let known: Vec<_> = declared.keys().map(String::as_str).collect();
        return Err(Error::malformed(DOING, "the export has no such parameter")
            .with("param", unknown)
            .help(if known.is_empty() {
                "This export takes no params.".to_owned()
            } else {
                format!("It takes: {}.", known.join(", "))
            }));
    }
    let mut bindings = Bindings::new();
    for (name, param) in declared {
        let json = given.get(name).or(param.default.as_ref()).ok_or_else(|| {
            Error::malformed(DOING, "a parameter without default is missing").with("param", name)
        })?;
        let value = Value::typed(param.kind, json).ok_or_else(|| {
            Error::malformed(DOING, format!("the value is no {}", param.kind)).with("param", name)
        })?;
        if let Some(allowed) = &param.values {
            let mut allowed = allowed.iter().filter_map(|one| Value::typed(param.kind, one));
            let shown: Vec<String> = allowed.clone().map(|one| one.to_string()).collect();
            if !allowed.any(|one| one == value) {
                return Err(Error::malformed(DOING, "the value is not among those allowed")
                    .with("param", name)
                    .help(format!("Allowed are: {}.", shown.join(", "))));
            }
        }
        bindings.insert(name.clone(), value);
    }
    Ok(bindings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn declared() -> Params {
        serde_json::from_value(json!({
            "country": {"type": "string", "values": ["NO", "SE"]},
            "top": {"type": "int64", "default": 10},
        }))
        .unwrap()
    }

    fn given(json: Json) -> serde_json::Map<String, Json> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn defaults_fill_in_and_types_hold() {
        let bindings = resolve(&declared(), &given(json!({"country": "SE"}))).unwrap();
        assert_eq!(bindings["top"], Value::Int64(10));
        assert_eq!(bindings["country"], Value::String("SE".into()));
    }

    #[test]
    fn a_date_with_a_time_is_no_date() {
        let day = |text: &str| Value::typed(ParamType::Date, &json!(text));
        assert!(day("2026-11-19").is_some());
        for wrong in ["2026-11-19T05:00", "2026-11-19T05:00:00Z", "20261119", "2026-11-31"] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_mistake_names_its_parameter() {
        for (bad, word) in [
            (json!({"country": "DK"}), "allowed"),
            (json!({"country": 5}), "no string"),
            (json!({}), "missing"),
            (json!({"country": "NO", "tip": 1}), "no such parameter"),
            (json!({"country": "NO", "top": 1.5}), "no int64"),
        ] {
            let error = resolve(&declared(), &given(bad)).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        let error = resolve(&declared(), &given(json!({"country": "DK"}))).unwrap_err();
        assert_eq!(error.advice(), Some("Allowed are: NO, SE."));
    }

    #[test]
    fn the_window_is_not_declared_but_given() {
        let bindings = resolve(&declared(), &given(json!({"country": "SE"}))).unwrap();
        assert_eq!(advice("window_end", &bindings), "Give the job a window.");
        assert_eq!(advice("x", &bindings), "Declare it in [params]; this run has country, top.");
        assert!(advice("x", &Bindings::new()).ends_with("declare it in [params]."));
    }
}
