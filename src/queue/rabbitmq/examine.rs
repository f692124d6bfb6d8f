//! What of a broker may cost jobs or dead letters. Over AMQP as far as that tells; the rest by the
//! management API, where there is one.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use lapin::options::BasicPublishOptions;
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Connection};
use tokio::time::{Instant, timeout};

use super::link::{self, Target};
use super::management::Management;
use super::topology::{Standing, Topology};
use super::{Settings, lost, parse};
use crate::error::{Error, Result};
use crate::finding::{Examination, Finding};
use crate::queue::Destination;

const DOING: &str = "examine the broker";
/// No greeting is longer.
const GREETING: u32 = 128 * 1024;
/// How soon a broker that is short of memory or disk tells so after something was published.
const BLOCKS: Duration = Duration::from_millis(500);
/// The oldest version that has everything that is declared.
const OLDEST: (u32, u32) = (3, 10);

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The pools whose queues are looked at.
    pub pools: Vec<String>,
    /// The management API, where it may be asked: `http://host:15672`.
    pub management: Option<String>,
    /// For how long a worker may hold a message.
    pub hold: Duration,
}

/// Looks at the broker and the queues, and changes nothing. Waits `within` for each answer.
pub async fn examine(settings: &Settings, expected: &Expected, within: Duration) -> Examination {
    let mut examination = Examination::default();
    if let Err(error) = amqp(settings, expected, within, &mut examination.findings).await {
        examination.findings.push(Finding::failed(
            "connection",
            &error,
            "No job is taken or published until the broker answers.",
        ));
    }
    let Some(url) = &expected.management else {
        examination.findings.push(Finding::warning(
            "consumer timeout",
            "a node's own setting cannot be read over AMQP",
            timeout_risk(expected.hold),
            "Compare `rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'` with \
             [worker] hold. Policies are looked at where [queue] management is set.",
        ));
        return examination;
    };
    let topology = Topology::new(settings.prefix.clone(), settings.max_length);
    match Management::open(url, settings, within).await {
        Ok(management) => management.examine(&topology, expected, &mut examination).await,
        Err(error) => examination.findings.push(Finding::failed("management", &error, "")),
    }
    examination
}

/// What a consumer timeout does that is too short.
pub(super) fn timeout_risk(hold: Duration) -> String {
    format!(
        "A timeout shorter than [worker] hold ({} s) closes a worker's channel while it works: all \
         of its messages come again.",
        hold.as_secs()
    )
}

async fn amqp(
    settings: &Settings,
    expected: &Expected,
    within: Duration,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let target = Target { uri: parse(&settings.url)?, password: settings.password.clone() };
    let late = |_| {
        Error::unavailable(DOING, format!("no answer within {} s", within.as_secs_f32()))
            .with("broker", &target.uri.authority.host)
            .help("Check that the broker runs and that queue.url is right.")
    };
    let greeting = timeout(within, greeting(&target.uri)).await.map_err(late)??;
    findings.push(version(&greeting));
    let topology = Topology::new(settings.prefix.clone(), settings.max_length);
    let opening = link::once("doctor", &target, &topology);
    let connection = timeout(within, opening).await.map_err(late)??;
    findings.push(blocked(&connection).await?);
    for pool in &expected.pools {
        for to in [Destination::Jobs(pool.clone()), Destination::Dead(pool.clone())] {
            let queue = topology.queue(&to);
            let standing = timeout(within, topology.standing(&connection, &to));
            findings.push(judge(queue.as_str(), &to, &standing.await.map_err(late)??));
        }
    }
    // All is told already, however the goodbye goes.
    let _ = connection.close(200, "OK".into()).await;
    Ok(())
}

/// What a broker says of itself before anybody has logged in. The client keeps it to itself.
async fn greeting(uri: &AMQPUri) -> Result<FieldTable> {
    let away = |cause: std::io::Error| {
        Error::unavailable(DOING, "the broker did not greet").caused_by(cause)
    };
    let strange = || Error::permanent(DOING, "what answers is no AMQP 0-9-1 broker");
    let runtime = lapin::runtime::default_runtime().map_err(|error| lost(DOING, error))?;
    let tls = OwnedTLSConfig::default();
    let mut stream = uri.connect_with_config_async(tls.as_ref(), &runtime).await.map_err(away)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.map_err(away)?;
    // Type, channel and length of a frame; then class, method and the protocol's two numbers.
    let mut head = [0; 7 + 6];
    stream.read_exact(&mut head).await.map_err(away)?;
    let [kind, _, _, a, b, c, d, _, class, _, method, ..] = head;
    let length = u32::from_be_bytes([a, b, c, d]);
    if (kind, class, method) != (1, 10, 10) || !(6..=GREETING).contains(&length) {
        return Err(strange());
    }
    let mut table = vec![0; length as usize - 6];
    stream.read_exact(&mut table).await.map_err(away)?;
    let (_, properties) = parse_field_table(table.as_slice()).map_err(|_| strange())?;
    Ok(properties)
}

fn version(greeting: &FieldTable) -> Finding {
    let text = |name: &str| match greeting.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        Some(AMQPValue::ShortString(text)) => text.to_string(),
        _ => String::new(),
    };
    let (product, version) = (text("product"), text("version"));
    judge_version(&product, &version)
}

fn judge_version(product: &str, version: &str) -> Finding {
    let found = format!("{product} {version}");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if product != "RabbitMQ" {
        return Finding::warning(
            "version",
            found.trim(),
            "Longshore relies on RabbitMQ's quorum queues and is tried with nothing else.",
            "Use RabbitMQ 3.10 or newer.",
        );
    }
    if number >= OLDEST {
        return Finding::ok("version", found);
    }
    Finding::error(
        "version",
        found,
        "Before 3.10 dead letters are published at most once: a crash of the broker loses them.",
        "Update RabbitMQ to 3.10 or newer.",
    )
}

/// A broker tells those who publish that it takes nothing. What is published here goes nowhere.
async fn blocked(connection: &Connection) -> Result<Finding> {
    let channel = connection.create_channel().await.map_err(|error| lost(DOING, error))?;
    let nowhere = format!("longshore.doctor.{}", uuid::Uuid::now_v7().simple());
    let (options, none) = (BasicPublishOptions::default(), BasicProperties::default());
    channel
        .basic_publish("".into(), nowhere.into(), options, b"", none)
        .await
        .map_err(|error| lost(DOING, error))?;
    let began = Instant::now();
    while !connection.status().blocked() && began.elapsed() < BLOCKS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(match connection.status().blocked() {
        false => Finding::ok("alarms", "it takes messages"),
        true => Finding::error(
            "alarms",
            "it takes no messages: it is short of memory or disk space",
            "Nothing is enqueued, and no dead letter is set aside, until that is over.",
            "Free memory or disk space; `rabbitmq-diagnostics alarms` names the node.",
        ),
    })
}

/// What it means for a queue to be there as it is.
fn judge(name: &str, to: &Destination, standing: &Standing) -> Finding {
    let check = format!("queue {name}");
    let difference = match standing {
        Standing::AsWanted => return Finding::ok(check, "declared as wanted"),
        Standing::Absent => {
            return Finding::warning(
                check,
                "it is not there",
                "What is published to this pool is returned to its producer.",
                "Start a worker or scheduler with the pool in [worker] pools: they declare it.",
            );
        }
        Standing::Forbidden(words) => {
            return Finding::warning(
                check,
                format!("this user may not look at it: {words}"),
                "It may have other arguments than Longshore relies on.",
                "Give the user of queue.url the permission to configure, or compare the arguments \
                 with those in docs/operations.md.",
            );
        }
        Standing::Differs(words) => words,
    };
    const REMEDY: &str = "Drain it, delete it, and let a worker declare it; or declare it as \
        docs/operations.md says.";
    // The broker names the first argument that differs, and no other way tells that over AMQP.
    let argument = difference.split('\'').nth(1).unwrap_or_default();
    if argument == "x-max-length" {
        let risk = "Producers are refused sooner or later than [queue] max-length says.";
        return Finding::warning(check, difference, risk, REMEDY);
    }
    Finding::error(check, difference, risk_of(argument, to), REMEDY)
}

/// What goes wrong where an argument is another.
pub(super) fn risk_of(argument: &str, to: &Destination) -> &'static str {
    match (argument, to) {
        ("x-delivery-limit", Destination::Dead(_)) => {
            "Looking at dead letters uses up their deliveries, and the broker then drops them."
        }
        ("x-delivery-limit", Destination::Jobs(_)) => {
            "Without a limit a job that kills its workers comes for ever; with a low one innocent \
             jobs beside it are given up."
        }
        ("x-dead-letter-exchange" | "x-dead-letter-routing-key", _) => {
            "What the broker gives up is dropped, or goes where nobody looks for it."
        }
        ("x-dead-letter-strategy" | "x-overflow", _) => {
            "Dead-lettering falls back, in silence, to at most once: a crash loses dead letters."
        }
        ("x-queue-type", _) => "It is on one node alone: with that node its messages are gone.",
        _ => "Messages may be lost or delivered otherwise than Longshore expects.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    #[test]
    fn only_old_or_strange_brokers_are_found_fault_with() {
        for (product, version, level) in [
            ("RabbitMQ", "3.10.0", Level::Ok),
            ("RabbitMQ", "3.13.7", Level::Ok),
            ("RabbitMQ", "4.2.0-rc.1", Level::Ok),
            ("RabbitMQ", "3.9.29", Level::Error),
            ("RabbitMQ", "", Level::Error),
            ("LavinMQ", "2.4.0", Level::Warning),
        ] {
            assert_eq!(judge_version(product, version).level, level, "{product} {version}");
        }
    }

    #[test]
    fn the_argument_that_differs_says_what_goes_wrong() {
        let jobs = Destination::Jobs("p".to_owned());
        let differs = |argument: &str| {
            let words = format!(
                "PRECONDITION_FAILED - inequivalent arg '{argument}' for queue 'q' in vhost '/'"
            );
            judge("q", &jobs, &Standing::Differs(words))
        };
        let found = differs("x-overflow");
        assert_eq!(found.level, Level::Error);
        assert!(found.risk.unwrap().contains("at most once"));
        assert_eq!(differs("x-max-length").level, Level::Warning);
        assert_eq!(judge("q", &jobs, &Standing::Absent).level, Level::Warning);
    }
}
