//! The published description of the job message, generated from the types that read it,
//! and held against the committed files.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use super::message::{JOB_TYPE, JobMessage};

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
                "payload": {"type": "object"}
            }
        }}
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
    let path = format!("{}/docs/schema/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = serde_json::to_string_pretty(generated).unwrap() + "\n";
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let regenerate = std::env::var_os("LONGSHORE_REGENERATE").is_some();
    if regenerate {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{path} is out of date: run `LONGSHORE_REGENERATE=1 cargo test --lib schema`"
    );
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
