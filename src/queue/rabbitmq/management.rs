//! What the broker's management API tells beyond AMQP: alarms of every node, policies that override
//! what was declared, and the clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use secrecy::ExposeSecret;
use serde_json::Value as Json;

use super::examine::{Expected, risk_of, timeout_risk};
use super::topology::Topology;
use super::{Settings, parse};
use crate::error::{Error, Result};
use crate::finding::{Clock, Examination, Finding, Level};
use crate::queue::Destination;

const DOING: &str = "ask the management API";
/// No answer about one queue or all nodes is longer.
const LONGEST: usize = 4 << 20;
/// A job is delivered so often at the least: below, jobs that were prefetched beside one that kills
/// its workers are given up with it.
const FEWEST_DELIVERIES: i64 = 20;

/// The management API of a broker.
pub(super) struct Management {
    client: reqwest::Client,
    url: String,
    user: String,
    password: String,
    vhost: String,
}

impl Management {
    /// Nothing is asked yet. The user is that of the queue.
    pub(super) async fn open(
        url: &str,
        settings: &Settings,
        within: Duration,
    ) -> Result<Management> {
        let uri = parse(&settings.url)?;
        let password = match &settings.password {
            Some(password) => password.read().await?.expose_secret().to_owned(),
            None => uri.authority.userinfo.password,
        };
        let client = reqwest::Client::builder()
            .timeout(within)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|cause| {
                Error::config(DOING, "no HTTP client can be made").caused_by(cause.without_url())
            })?;
        Ok(Management {
            client,
            url: url.trim_end_matches('/').to_owned(),
            user: uri.authority.userinfo.username,
            password,
            vhost: uri.vhost,
        })
    }

    /// Adds what it tells.
    pub(super) async fn examine(
        &self,
        topology: &Topology,
        expected: &Expected,
        examination: &mut Examination,
    ) {
        match self.nodes(examination).await {
            Ok(()) => {}
            Err(error) => {
                let risk = "Alarms of other nodes, and policies, go unseen.";
                examination.findings.push(Finding::failed("management", &error, risk));
                return;
            }
        }
        let mut timeouts = Vec::new();
        for pool in &expected.pools {
            for to in [Destination::Jobs(pool.clone()), Destination::Dead(pool.clone())] {
                let name = topology.queue(&to);
                match self.queue(name.as_str()).await {
                    // Over AMQP it was told already that it is not there.
                    Ok(None) => {}
                    Ok(Some(queue)) => {
                        examination.findings.extend(policies(name.as_str(), &to, &queue));
                        if let Destination::Jobs(_) = to {
                            timeouts
                                .push((name.to_string(), effective(&queue, "consumer-timeout")));
                        }
                    }
                    Err(error) => {
                        let check = format!("policies of {name}");
                        let risk = "A policy that overrides what was declared goes unseen.";
                        examination.findings.push(Finding::failed(check, &error, risk));
                    }
                }
            }
        }
        examination.findings.push(consumer_timeout(&timeouts, expected.hold));
    }

    /// The nodes, and the broker's clock.
    async fn nodes(&self, examination: &mut Examination) -> Result<()> {
        let before = Timestamp::now();
        let (date, nodes) = self.get("/api/nodes").await?;
        let after = Timestamp::now();
        let nodes = nodes.unwrap_or_default();
        examination.clock =
            date.map(|said| Clock::read(before, said, after, SignedDuration::from_secs(1)));
        let nodes = nodes.as_array().map_or(&[][..], Vec::as_slice);
        let mut alarms = Vec::new();
        for node in nodes {
            let name = node["name"].as_str().unwrap_or("?");
            for (key, what) in
                [("mem_alarm", "is short of memory"), ("disk_free_alarm", "is short of disk space")]
            {
                if node[key] == true {
                    alarms.push(format!("{name} {what}"));
                }
            }
            if node["running"] == false {
                alarms.push(format!("{name} does not run"));
            }
            if node["partitions"].as_array().is_some_and(|others| !others.is_empty()) {
                alarms.push(format!("{name} is cut off from others"));
            }
        }
        examination.findings.push(if alarms.is_empty() {
            Finding::ok("nodes", format!("{} without an alarm", nodes.len()))
        } else {
            Finding::error(
                "nodes",
                alarms.join(", "),
                "Publishing stops on all nodes while one has an alarm; without a majority of nodes \
                 queues stand still.",
                "Free memory or disk space, start the node, or mend the network.",
            )
        });
        Ok(())
    }

    async fn queue(&self, name: &str) -> Result<Option<Json>> {
        let part = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let (_, queue) =
            self.get(&format!("/api/queues/{}/{}", part(&self.vhost), part(name))).await?;
        Ok(queue)
    }

    /// What is at a path, with the time of the answer; nothing where nothing is there.
    async fn get(&self, path: &str) -> Result<(Option<Timestamp>, Option<Json>)> {
        let away = |cause: reqwest::Error| {
            Error::unavailable(DOING, "it does not answer")
                .with("url", &self.url)
                .caused_by(cause.without_url())
                .help("Check [queue] management and that the management plugin is enabled.")
        };
        let request = self.client.get(format!("{}{path}", self.url));
        let request = request.basic_auth(&self.user, Some(&self.password));
        let mut answer = request.send().await.map_err(away)?;
        let date = answer.headers().get(reqwest::header::DATE);
        let date = date.and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
        let date = date.map(|date| date.timestamp());
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok((date, None)),
            status @ (401 | 403) => {
                return Err(Error::permanent(DOING, format!("it refuses the user ({status})"))
                    .with("url", &self.url)
                    .help("Give the user of queue.url the tag `monitoring`."));
            }
            status => {
                return Err(Error::unavailable(DOING, format!("it answers {status}"))
                    .with("url", &self.url)
                    .help("Check [queue] management."));
            }
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > LONGEST {
                return Err(Error::permanent(DOING, "its answer is too long")
                    .with("url", &self.url)
                    .help("Check [queue] management."));
            }
            body.extend_from_slice(&chunk);
        }
        let json = serde_json::from_slice(&body).map_err(|cause| {
            Error::permanent(DOING, "its answer is no JSON")
                .with("url", &self.url)
                .caused_by(cause)
                .help("Check [queue] management.")
        })?;
        Ok((date, Some(json)))
    }
}

/// What a queue's policies make of a number: the least of what policy and argument say.
fn effective(queue: &Json, key: &str) -> Option<i64> {
    let policy = queue["effective_policy_definition"][key].as_i64();
    let argument = queue["arguments"][format!("x-{key}")].as_i64();
    policy.into_iter().chain(argument).min()
}

/// What policies do to a queue that its arguments do not say.
fn policies(name: &str, to: &Destination, queue: &Json) -> Vec<Finding> {
    let check = format!("policies of {name}");
    let by = [&queue["policy"], &queue["operator_policy"]];
    let by: Vec<&str> =
        by.iter().filter_map(|name| name.as_str()).filter(|name| !name.is_empty()).collect();
    let of = |key: &str| queue["effective_policy_definition"][key].as_i64();
    let remedy = format!("Change policy {}, or let it leave out this queue.", by.join(", "));
    let mut findings = Vec::new();
    let mut tell = |level: Level, found: String, risk: &str| {
        findings.push(Finding { level, ..Finding::warning(&check, found, risk, &remedy) });
    };
    let jobs = matches!(to, Destination::Jobs(_));
    if of("delivery-limit").is_some() {
        let limit = effective(queue, "delivery-limit").unwrap_or(-1);
        if limit >= 0 && (!jobs || limit < FEWEST_DELIVERIES) {
            let risk = risk_of("x-delivery-limit", to);
            tell(Level::Error, format!("delivery-limit {limit}"), risk);
        }
    }
    if let Some(millis) = of("message-ttl") {
        let risk = match jobs {
            true => "Jobs that wait longer are given up without being tried.",
            false => "Dead letters are dropped when they are that old.",
        };
        tell(Level::Error, format!("message-ttl {millis} ms"), risk);
    }
    if let Some(millis) = of("expires") {
        let risk = "The queue is deleted, with its messages, when nobody uses it for so long.";
        tell(Level::Error, format!("expires {millis} ms"), risk);
    }
    for key in ["max-length", "max-length-bytes"] {
        let Some(most) = of(key) else { continue };
        let declared = queue["arguments"][format!("x-{key}")].as_i64();
        if !jobs {
            let risk = "The oldest dead letters are dropped when there are more.";
            tell(Level::Error, format!("{key} {most}"), risk);
        } else if declared.is_none_or(|declared| most < declared) {
            let risk = "Producers are refused sooner than [queue] max-length says.";
            tell(Level::Warning, format!("{key} {most}"), risk);
        }
    }
    if findings.is_empty() {
        let mut found = match by.is_empty() {
            true => "none".to_owned(),
            false => format!("{} changes nothing that Longshore relies on", by.join(", ")),
        };
        if let Some(limit) = effective(queue, "delivery-limit").filter(|_| jobs) {
            found.push_str(&format!("; a job is delivered {limit} times at the most"));
        }
        findings.push(Finding::ok(check, found));
    }
    findings
}

/// The consumer timeout that policies or arguments set, in milliseconds, for each job queue.
fn consumer_timeout(queues: &[(String, Option<i64>)], hold: Duration) -> Finding {
    const CHECK: &str = "consumer timeout";
    let set: Vec<(&String, i64)> =
        queues.iter().filter_map(|(name, millis)| Some((name, (*millis)?))).collect();
    let hold_millis = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX);
    if let Some((name, millis)) = set.iter().find(|(_, millis)| *millis <= hold_millis) {
        return Finding::error(
            CHECK,
            format!("{} s on {name}", millis / 1000),
            timeout_risk(hold),
            "Raise it well above [worker] hold, or make hold shorter.",
        );
    }
    if set.len() == queues.len() && !set.is_empty() {
        let shortest = set.iter().map(|(_, millis)| *millis).min().unwrap_or(0);
        return Finding::ok(CHECK, format!("{} s or more, by policy", shortest / 1000));
    }
    Finding::warning(
        CHECK,
        "it is set by no policy, and the node's own cannot be read",
        timeout_risk(hold),
        "Compare `rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'` with [worker] \
         hold.",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_that_costs_messages_is_an_error() {
        let jobs = Destination::Jobs("p".to_owned());
        let dead = Destination::Dead("p".to_owned());
        let queue = |policy: Json| {
            json!({
                "arguments": {"x-max-length": 1000, "x-delivery-limit": 100},
                "policy": "ours", "operator_policy": null, "effective_policy_definition": policy,
            })
        };
        for (to, policy, level) in [
            (&jobs, json!({}), Level::Ok),
            (&jobs, json!({"delivery-limit": 50}), Level::Ok),
            (&jobs, json!({"delivery-limit": 5}), Level::Error),
            (&dead, json!({"delivery-limit": 50}), Level::Error),
            (&jobs, json!({"message-ttl": 60000}), Level::Error),
            (&jobs, json!({"expires": 60000}), Level::Error),
            (&jobs, json!({"max-length": 2000}), Level::Ok),
            (&jobs, json!({"max-length": 10}), Level::Warning),
            (&dead, json!({"max-length": 10}), Level::Error),
            // The argument of the queue counts, not the policy.
            (&jobs, json!({"overflow": "drop-head"}), Level::Ok),
        ] {
            let found = policies("q", to, &queue(policy.clone()));
            assert_eq!(found.len(), 1, "{policy}");
            assert_eq!(found[0].level, level, "{policy}: {found:?}");
            let told = found[0].remedy.as_deref().unwrap_or("policy ours");
            assert!(told.contains("policy ours"), "{told}");
        }
    }

    #[test]
    fn the_consumer_timeout_is_held_against_hold() {
        let hold = Duration::from_secs(600);
        let level = |queues: &[Option<i64>]| {
            let named: Vec<_> = queues.iter().map(|one| ("q".to_owned(), *one)).collect();
            consumer_timeout(&named, hold).level
        };
        assert_eq!(level(&[Some(1_800_000)]), Level::Ok);
        assert_eq!(level(&[Some(1_800_000), None]), Level::Warning);
        assert_eq!(level(&[]), Level::Warning);
        assert_eq!(level(&[None, Some(300_000)]), Level::Error);
    }
}
