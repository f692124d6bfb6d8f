//! The published description of the job message, generated from the types that read it,
//! and held against the committed files.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use super::message::{JOB_TYPE, JobMessage};
use crate::generated::expect_committed;

/// The JSON Schema (2020-12) of `longshore.job.v1`: docs/schema/job.v1.json.
fn job_schema() -> Json {
    schema::<JobMessage>(SchemaSettings::draft2020_12())
}

/// The AsyncAPI 3.0 description of what producers publish and may hear: docs/schema/asyncapi.json.
fn asyncapi() -> Json {
    // AsyncAPI's own schema dialect is a superset of draft 07.
    let mut payload = schema::<JobMessage>(SchemaSettings::draft07());
    if let Some(object) = payload.as_object_mut() {
        object.shift_remove("$schema");
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Longshore",
            "version": "1",
            "description": "Jobs that any producer may publish, and the outcomes that come back."
        },
        "defaultContentType": "application/json",
        "channels": {
            "jobs": {
                "address": "{pool}",
                "description": "Publish persistent, with `mandatory` and publisher confirms. A job \
                                that is confirmed and not returned is never lost.",
                "parameters": {
                    "pool": {
                        "description": "The export's pool; a wrong one is forwarded.",
                        "default": "default"
                    }
                },
                "messages": {"job": {"$ref": "#/components/messages/job"}},
                "bindings": {"amqp": {
                    "is": "routingKey",
                    "exchange": {
                        "name": "longshore", "type": "direct", "durable": true, "autoDelete": false
                    },
                    "bindingVersion": "0.3.0"
                }}
            },
            "events": {
                "address": "run.{state}.{export}",
                "description": "Outcomes, best effort. For certain, ask the \
                                ledger: longshore runs show RUN.",
                "parameters": {
                    "state": {"description": "The state that the run came to."},
                    "export": {"description": "The export."}
                },
                "messages": {"outcome": {"$ref": "#/components/messages/outcome"}},
                "bindings": {"amqp": {
                    "is": "routingKey",
                    "exchange": {
                        "name": "longshore.events", "type": "topic", "durable": true,
                        "autoDelete": false
                    },
                    "bindingVersion": "0.3.0"
                }}
            }
        },
        "operations": {
            "takeJob": {
                "action": "receive",
                "channel": {"$ref": "#/channels/jobs"},
                "messages": [{"$ref": "#/channels/jobs/messages/job"}],
                "bindings": {"amqp": {
                    "deliveryMode": 2, "mandatory": true, "bindingVersion": "0.3.0"
                }}
            },
            "announceOutcome": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "messages": [{"$ref": "#/channels/events/messages/outcome"}]
            }
        },
        "components": {"messages": {
            "job": {
                "name": JOB_TYPE,
                "title": "A job",
                "contentType": "application/json",
                "correlationId": {
                    "description": "The AMQP property `correlation_id`; the outcome carries it.",
                    "location": "$message.header#/correlation_id"
                },
                "headers": {
                    "type": "object",
                    "properties": {
                        "traceparent": {
                            "type": "string",
                            "description": "W3C Trace Context, carried to the end."
                        }
                    }
                },
                "payload": payload,
                "bindings": {"amqp": {
                    "messageType": JOB_TYPE, "bindingVersion": "0.3.0"
                }},
                "examples": [{"payload": {
                    "export": "daily-orders",
                    "window": {
                        "start": "2026-11-19T00:00:00+01:00",
                        "end": "2026-11-20T00:00:00+01:00"
                    },
                    "params": {"country": "SE"}
                }}]
            },
            "outcome": {
                "name": "longshore.outcome",
                "title": "What became of a run",
                "contentType": "application/json",
                "correlationId": {
                    "description": "The job's own.",
                    "location": "$message.header#/correlation_id"
                },
                "payload": outcome()
            }
        }}
    })
}

/// The body of an outcome; which of these are there depends on what is told.
fn outcome() -> Json {
    let text = |meaning: &str| json!({"type": ["string", "null"], "description": meaning});
    let number = |meaning: &str| json!({"type": "integer", "description": meaning});
    json!({
        "type": "object",
        "properties": {
            "run": text("The run's id; absent where a message was refused or a window skipped."),
            "key": text("Its key, which a message in conflict has too."),
            "edition": number("Which delivery of the key it is."),
            "export": text("The export, as far as the message named one."),
            "window": {
                "type": ["object", "null"],
                "description": "The window that it delivers.",
                "properties": {
                    "start": {"type": "string", "format": "date-time"},
                    "end": {"type": "string", "format": "date-time"}
                }
            },
            "state": text("What the run came to; `skipped` where catch-up left its window out."),
            "rows": number("Rows written."),
            "bytes": number("Bytes written."),
            "class": text("The class of the last error."),
            "reason": text("The last error in words, without secrets and values."),
            "ended_at": text("When it ended.")
        }
    })
}

fn schema<T: JsonSchema>(settings: SchemaSettings) -> Json {
    settings
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The committed file says what the types say. After a change of the message:
/// `LONGSHORE_REGENERATE=1 cargo test --lib schema`.
fn same_as_committed(name: &str, generated: &Json) {
    let text = serde_json::to_string_pretty(generated).unwrap() + "\n";
    expect_committed(&format!("docs/schema/{name}"), &text);
}

#[test]
fn the_schema_of_the_job_is_committed() {
    same_as_committed("job.v1.json", &job_schema());
}

#[test]
fn the_asyncapi_document_is_committed() {
    same_as_committed("asyncapi.json", &asyncapi());
}

#[test]
fn the_schema_names_every_field_and_nothing_else() {
    let schema = job_schema();
    assert_eq!(schema["required"], json!(["export"]));
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["properties"].as_object().unwrap().len(), 9);
    let window = schema["properties"]["window"].to_string();
    assert!(window.contains("date-time") && window.contains("\"end\""), "{window}");
    assert!(!schema.to_string().contains("$ref"), "the schema stands alone");
}

#[test]
fn the_documented_example_is_a_job() {
    let document = asyncapi();
    let example = &document["components"]["messages"]["job"]["examples"][0]["payload"];
    JobMessage::read(example.to_string().as_bytes()).unwrap();
}

/// Whether a schema takes a value, as far as the words that this one has go.
fn takes(schema: &Json, value: &Json) -> bool {
    let kind = match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    let kinds = match &schema["type"] {
        Json::Array(kinds) => kinds.clone(),
        one => vec![one.clone()],
    };
    if !kinds.iter().any(|one| one == kind) {
        return false;
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        let short = schema["minLength"].as_u64().is_some_and(|least| length < least);
        let long = schema["maxLength"].as_u64().is_some_and(|most| length > most);
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let name = |text: &str| {
            text.starts_with(lower) && text.chars().all(|c| lower(c) || "_-".contains(c))
        };
        let fits = match schema["pattern"].as_str() {
            None => true,
            Some("^[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*$") => text.split('/').all(name),
            Some("^[a-z0-9][a-z0-9_-]*$") => name(text),
            Some("^[0-9a-f]{64}$") => {
                text.len() == 64
                    && text.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
            }
            Some(other) => panic!("the test does not know the pattern {other}"),
        };
        let instant = schema["format"] != "date-time" || text.parse::<jiff::Timestamp>().is_ok();
        return !short && !long && fits && instant;
    }
    let Some(object) = value.as_object() else { return true };
    let needed = schema["required"].as_array().into_iter().flatten();
    let all = needed.filter_map(Json::as_str).all(|name| object.contains_key(name));
    all && object.iter().all(|(name, value)| match schema["properties"].get(name) {
        Some(known) => takes(known, value),
        None => schema["additionalProperties"] == true,
    })
}

#[test]
fn the_schema_takes_and_refuses_what_the_code_does() {
    let schema = job_schema();
    let window = json!({"start": "2026-11-19T00:00:00+01:00", "end": "2026-11-20T00:00:00+01:00"});
    let good = [
        json!({"export": "orders"}),
        json!({"export": "acme/daily-orders", "key": "k", "window": null}),
        json!({"export": "orders", "window": window, "params": {"country": "SE", "n": 1}}),
        json!({"export": "orders", "not_before": "2026-11-19T05:00:00Z", "requested_by": "me"}),
        json!({"export": "orders", "recipient": "acme", "definition": "0a".repeat(32)}),
    ];
    for job in good {
        let read = JobMessage::read(job.to_string().as_bytes());
        assert!(takes(&schema, &job) && read.is_ok(), "{job}: {read:?}");
    }
    let bad = [
        json!([]),
        json!("orders"),
        json!({}),
        json!({"export": 1}),
        json!({"export": ""}),
        json!({"export": "Orders"}),
        json!({"export": "a/../b"}),
        json!({"export": "x".repeat(101)}),
        json!({"export": "orders", "exprot": "orders"}),
        json!({"export": "orders", "params": ["SE"]}),
        json!({"export": "orders", "params": null}),
        json!({"export": "orders", "key": ""}),
        json!({"export": "orders", "key": "k".repeat(513)}),
        json!({"export": "orders", "window": "2026-11-19"}),
        json!({"export": "orders", "window": {"start": "2026-11-19T00:00:00Z"}}),
        json!({"export": "orders", "window": {"start": "2026-11-19", "end": "2026-11-20"}}),
        json!({"export": "orders", "deadline": "tomorrow"}),
        json!({"export": "orders", "requested_by": 7}),
        json!({"export": "orders", "definition": "newest"}),
        json!({"export": "orders", "recipient": "Acme Ltd"}),
    ];
    for job in bad {
        let read = JobMessage::read(job.to_string().as_bytes());
        assert!(!takes(&schema, &job) && read.is_err(), "{job}: {read:?}");
    }
}
