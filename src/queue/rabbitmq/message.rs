//! Properties and headers of AMQP messages, to and from ours.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::topology::short;
use crate::queue::{DeadHeaders, Properties};

/// Header frames are not split, so what goes into headers is cut.
const HEADER_BYTES: usize = 255;
const REASON_CHARS: usize = 1_000;
const PREFIX: &str = "x-longshore-";

/// `text`, cut to `limit` bytes at a character boundary.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// `text`, cut to `limit` characters.
fn cut_chars(text: &str, limit: usize) -> &str {
    text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end])
}

/// The AMQP properties of a message that is to survive the broker.
pub(super) fn to_amqp(properties: &Properties) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut set = |name: String, value: &str| {
        headers.insert(short(&name), AMQPValue::LongString(value.into()));
    };
    if let Some(traceparent) = &properties.traceparent {
        set("traceparent".to_owned(), cut(traceparent, HEADER_BYTES));
    }
    if let Some(at) = properties.first_failed_at.as_ref().filter(|_| properties.dead.is_none()) {
        set(format!("{PREFIX}first-failed-at"), cut(at, HEADER_BYTES));
    }
    if let Some(at) = &properties.unread_since {
        set(format!("{PREFIX}unread-since"), cut(at, HEADER_BYTES));
    }
    if let Some(dead) = &properties.dead {
        set(format!("{PREFIX}reason"), cut_chars(&dead.reason, REASON_CHARS));
        for (name, value) in [
            ("class", Some(&dead.class)),
            ("export", dead.export.as_ref()),
            ("run", dead.run.as_ref()),
            ("worker", Some(&dead.worker)),
            ("first-failed-at", Some(&dead.first_failed_at)),
            ("last-failed-at", Some(&dead.last_failed_at)),
            ("routing-key", Some(&dead.routing_key)),
        ] {
            if let Some(value) = value {
                set(format!("{PREFIX}{name}"), cut(value, HEADER_BYTES));
            }
        }
        for (name, value) in [("attempts", Some(dead.attempts)), ("epoch", dead.epoch)] {
            if let Some(value) = value {
                headers.insert(short(&format!("{PREFIX}{name}")), AMQPValue::LongInt(value));
            }
        }
    }
    let mut amqp = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_headers(headers);
    if let Some(kind) = &properties.kind {
        amqp = amqp.with_type(short(kind));
    }
    if let Some(id) = &properties.message_id {
        amqp = amqp.with_message_id(short(id));
    }
    if let Some(id) = &properties.correlation_id {
        amqp = amqp.with_correlation_id(short(id));
    }
    amqp
}

/// Ours of what arrived. Headers that are unknown, or of an unexpected type, are ignored.
pub(super) fn from_amqp(amqp: &BasicProperties) -> Properties {
    let owned = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
    let headers = amqp.headers().as_ref();
    let dead = headers.and_then(dead);
    // That of a letter is among the others.
    let first_failed_at = headers
        .filter(|_| dead.is_none())
        .and_then(|headers| text(headers, &format!("{PREFIX}first-failed-at")));
    Properties {
        kind: owned(amqp.kind()),
        message_id: owned(amqp.message_id()),
        correlation_id: owned(amqp.correlation_id()),
        traceparent: headers.and_then(|headers| text(headers, "traceparent")),
        first_failed_at,
        unread_since: headers.and_then(|headers| text(headers, &format!("{PREFIX}unread-since"))),
        dead,
    }
}

fn dead(headers: &FieldTable) -> Option<DeadHeaders> {
    let text = |name: &str| text(headers, &format!("{PREFIX}{name}"));
    let number = |name: &str| number(headers, &format!("{PREFIX}{name}"));
    let reason = text("reason")?;
    let must = |name: &str| text(name).unwrap_or_default();
    Some(DeadHeaders {
        reason: cut_chars(&reason, REASON_CHARS).to_owned(),
        class: must("class"),
        export: text("export"),
        run: text("run"),
        epoch: number("epoch"),
        attempts: number("attempts").unwrap_or_default(),
        worker: must("worker"),
        first_failed_at: must("first-failed-at"),
        last_failed_at: must("last-failed-at"),
        routing_key: must("routing-key"),
    })
}

/// What is known of a letter that the broker itself put aside.
pub(super) fn put_aside(amqp: &BasicProperties, pool: &str) -> Option<DeadHeaders> {
    let headers = amqp.headers().as_ref()?;
    let reason = text(headers, "x-first-death-reason").or_else(|| death_reason(headers))?;
    Some(DeadHeaders {
        reason: format!("the broker put it aside: {}", cut(&reason, HEADER_BYTES)),
        class: crate::error::Class::Poison.as_str().to_owned(),
        routing_key: pool.to_owned(),
        ..DeadHeaders::default()
    })
}

/// At-least-once dead-lettering leaves out the `x-first-death-*` headers.
fn death_reason(headers: &FieldTable) -> Option<String> {
    match headers.inner().get("x-death")? {
        AMQPValue::FieldArray(deaths) => match deaths.as_slice().first()? {
            AMQPValue::FieldTable(death) => text(death, "reason"),
            _ => None,
        },
        _ => None,
    }
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(value) => Some(value.to_string()),
        AMQPValue::ShortString(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Clients in other languages choose the width of an integer by its value.
fn number(headers: &FieldTable, name: &str) -> Option<i32> {
    match headers.inner().get(name)? {
        AMQPValue::ShortShortInt(value) => Some((*value).into()),
        AMQPValue::ShortShortUInt(value) => Some((*value).into()),
        AMQPValue::ShortInt(value) => Some((*value).into()),
        AMQPValue::ShortUInt(value) => Some((*value).into()),
        AMQPValue::LongInt(value) => Some(*value),
        AMQPValue::LongUInt(value) => (*value).try_into().ok(),
        AMQPValue::LongLongInt(value) => (*value).try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_keeps_whole_characters() {
        assert_eq!(cut("aøb", 2), "a");
        assert_eq!(cut("aøb", 9), "aøb");
        assert_eq!(cut_chars("øøø", 2), "øø");
        assert_eq!(cut_chars("øø", 2), "øø");
    }

    #[test]
    fn a_letter_without_our_headers_but_with_a_death_is_poison() {
        let mut death = FieldTable::default();
        death.insert("reason".into(), AMQPValue::LongString("delivery_limit".into()));
        let mut headers = FieldTable::default();
        headers.insert(
            "x-death".into(),
            AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()),
        );
        let amqp = BasicProperties::default().with_headers(headers);
        assert_eq!(from_amqp(&amqp).dead, None);
        let dead = put_aside(&amqp, "bulk").unwrap();
        assert_eq!((dead.class.as_str(), dead.routing_key.as_str()), ("poison", "bulk"));
        assert!(dead.reason.ends_with("delivery_limit"), "{}", dead.reason);
    }

    #[test]
    fn numbers_of_any_width_are_read_and_foreign_types_ignored() {
        let mut headers = FieldTable::default();
        headers.insert("x-longshore-reason".into(), AMQPValue::LongString("r".into()));
        headers.insert("x-longshore-attempts".into(), AMQPValue::LongLongInt(7));
        headers.insert("x-longshore-epoch".into(), AMQPValue::LongLongInt(i64::MAX));
        headers.insert("traceparent".into(), AMQPValue::Boolean(true));
        let read = from_amqp(&BasicProperties::default().with_headers(headers));
        let dead = read.dead.unwrap();
        assert_eq!((dead.attempts, dead.epoch, read.traceparent), (7, None, None));
    }
}
