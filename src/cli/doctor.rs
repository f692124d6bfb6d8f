//! `longshore doctor`

mod pools;

use clap::Args;
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use serde_json::json;
use uuid::Uuid;

use super::output::{counted, plain};
use super::{Context, Ended, Failure, Verdict};
use crate::config::{Backing, Config};
use crate::connect::Connection;
use crate::error::{Class, Error};
use crate::finding::{Clock, Finding, Level};
use crate::pipeline::{self, Vault};
use crate::protect::{self, PSEUDONYMS};
use crate::scrub::scrub;
use crate::secret::Secret;
use crate::wiring;

/// Clocks that differ by more are told of.
const APART: SignedDuration = SignedDuration::from_secs(1);
/// Keys for hashes that are shorter can be guessed.
const SHORT: usize = 16;

/// Look at broker, database, Redis and clocks for what is unsafe, with the remedy
///
/// Exit 1 where an error was found, 4 where something could not be reached.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore doctor
  longshore doctor --json | jq 'select(.level != \"ok\")'")]
pub struct Doctor {}

/// A finding, and of what.
struct Row {
    part: &'static str,
    finding: Finding,
}

impl Doctor {
    pub async fn run(self, context: &Context) -> Ended {
        // What goes wrong is told as a finding.
        context.log_from("off")?;
        let config = context.read(false)?;
        let mut rows = Vec::new();
        let mut clocks = vec![("this machine", Clock { ahead: ZERO, within: ZERO })];
        let served = matches!(config.settings.backing, Backing::Servers { .. });
        for examined in wiring::examine(&config.settings).await {
            clocks.extend(examined.examination.clock.map(|clock| (examined.part, clock)));
            rows.extend(
                examined
                    .examination
                    .findings
                    .into_iter()
                    .map(|finding| Row { part: examined.part, finding }),
            );
        }
        if served {
            let lease = SignedDuration::try_from(config.settings.worker.lease);
            let finding = clock(&clocks, lease.unwrap_or(SignedDuration::MAX));
            rows.push(Row { part: "clocks", finding });
        }
        let workers = pools::pools(&config.settings).await;
        rows.extend(workers.into_iter().map(|finding| Row { part: "pools", finding }));
        rows.extend(
            secrets(&config).await.into_iter().map(|finding| Row { part: "secrets", finding }),
        );
        let keys = &config.settings.keys;
        rows.push(Row { part: "keys", finding: pseudonyms(keys.get(PSEUDONYMS)).await });
        for (name, key) in keys.iter().filter(|(name, _)| *name != PSEUDONYMS) {
            rows.push(Row { part: "keys", finding: encryption(name, key).await });
        }
        if let Some(vault) = wiring::vault(&config) {
            rows.push(Row { part: "quarantine", finding: quarantine(&vault.connection).await });
            rows.push(Row { part: "quarantine", finding: quarantine_key(&vault).await });
        }
        tell(context, &rows)?;
        let has = |level| rows.iter().any(|row| row.finding.level == level);
        Ok(match (has(Level::Away), has(Level::Error)) {
            (true, _) => Verdict::Away,
            (_, true) => Verdict::Found,
            _ => Verdict::Done,
        })
    }
}

const ZERO: SignedDuration = SignedDuration::ZERO;

fn tell(context: &Context, rows: &[Row]) -> Result<(), Failure> {
    if context.out.json {
        return rows.iter().try_for_each(|row| {
            let finding = &row.finding;
            context.out.object(&json!({
                "part": row.part,
                "check": finding.check,
                "level": finding.level,
                "found": scrub(&finding.found),
                "risk": finding.risk,
                "remedy": finding.remedy,
            }))
        });
    }
    let table = rows
        .iter()
        .map(|row| {
            vec![
                row.part.to_owned(),
                row.finding.check.clone(),
                row.finding.level.as_str().to_owned(),
                scrub(&row.finding.found),
            ]
        })
        .collect();
    context.out.table(&["PART", "CHECK", "LEVEL", "FOUND"], table)?;
    let count = |level| rows.iter().filter(|row| row.finding.level == level).count() as u64;
    for row in rows.iter().filter(|row| row.finding.level != Level::Ok) {
        let finding = &row.finding;
        context.out.line(format!(
            "\n{}: {}, {}: {}",
            finding.level.as_str(),
            row.part,
            finding.check,
            plain(&scrub(&finding.found)),
        ))?;
        for (name, text) in [("risk", &finding.risk), ("help", &finding.remedy)] {
            if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                context.out.line(format!("   = {name}: {}", plain(text)))?;
            }
        }
    }
    let away = match count(Level::Away) {
        0 => String::new(),
        away => format!(", {away} could not be looked at"),
    };
    context.out.line(format!(
        "\nlooked at {}: {}, {}{away}",
        counted(rows.len() as u64, "thing"),
        counted(count(Level::Error), "error"),
        counted(count(Level::Warning), "warning"),
    ))
}

/// Whether the clocks agree well enough: leases and windows are by the ledger's, times in the log by
/// each machine's own.
fn clock(clocks: &[(&str, Clock)], lease: SignedDuration) -> Finding {
    const CHECK: &str = "difference";
    let told: Vec<String> = clocks
        .iter()
        .skip(1)
        .map(|(name, clock)| {
            let (ahead, within) = (clock.ahead.as_secs_f64(), clock.within.as_secs_f64());
            format!("{name} {ahead:+.3} s (± {within:.3})")
        })
        .collect();
    let found = match told.is_empty() {
        true => "none but this machine's could be read".to_owned(),
        false => format!("beside this machine's: {}", told.join(", ")),
    };
    let pairs = clocks.iter().flat_map(|(_, one)| clocks.iter().map(|(_, two)| one.apart(*two)));
    let apart = pairs.max().unwrap_or_default();
    let remedy = "Let all machines follow one time server (chrony, systemd-timesyncd).";
    if apart > lease / 3 {
        let risk = "Heartbeats, claims and deadlines mean other instants on each machine: living \
            workers are taken for dead.";
        return Finding::error(CHECK, found, risk, remedy);
    }
    if apart > APART {
        let risk = "Times in logs and manifests do not go together, and windows end at other \
            instants than people here expect.";
        return Finding::warning(CHECK, found, risk, remedy);
    }
    Finding::ok(CHECK, found)
}

/// Whether every reference leads somewhere, from here.
async fn secrets(config: &Config) -> Vec<Finding> {
    let settings = &config.settings;
    let mut references: Vec<(String, &Secret)> = Vec::new();
    if let Backing::Servers { amqp, postgres, redis } = &settings.backing {
        for (section, server) in [("queue", amqp), ("ledger", postgres), ("claims", redis)] {
            references
                .extend(server.password.iter().map(|one| (format!("[{section}] password"), one)));
        }
    }
    let notify = settings.notify.as_ref().and_then(|notify| notify.secret.as_ref());
    references.extend(notify.map(|one| ("[notify] secret".to_owned(), one)));
    let token = settings.vault.as_ref().map(|vault| &vault.token);
    references.extend(token.map(|one| ("[vault] token".to_owned(), one)));
    for (name, connection) in &config.connections {
        references.extend(connection.secrets().map(|one| (format!("connection {name}"), one)));
    }
    let read = references.iter().map(async |(of, secret)| {
        let error = secret.read().await.err()?;
        let risk = "Whatever needs it waits, or is refused by its server.";
        Some(unread(of.clone(), secret, &error, risk))
    });
    let missing: Vec<Finding> =
        futures::future::join_all(read).await.into_iter().flatten().collect();
    match (missing.is_empty(), references.len()) {
        (true, 0) => vec![Finding::ok("references", "there are none")],
        (true, all) => {
            let all = counted(all as u64, "reference");
            vec![Finding::ok("references", format!("{all} can be followed"))]
        }
        _ => missing,
    }
}

/// Whether another key of `[keys]` is fit for encrypting.
async fn encryption(name: &str, key: &Secret) -> Finding {
    const RISK: &str = "Runs of exports that encrypt with it wait for it.";
    let found = match key.read().await {
        Ok(found) => found,
        Err(error) => return unread(name, key, &error, RISK),
    };
    match protect::check_key(&found) {
        Ok(()) => Finding::ok(name, "there is a key"),
        Err(error) => Finding::error(
            name,
            format!("{key}: {}", error.message()),
            RISK,
            error.advice().unwrap_or("Correct the key."),
        ),
    }
}

/// That a reference cannot be followed.
fn unread(check: impl Into<String>, secret: &Secret, error: &Error, risk: &str) -> Finding {
    match error.class() {
        Class::Unavailable => Finding::failed(check, error, risk),
        _ => Finding::error(
            check,
            format!("{secret} leads nowhere: {}", error.message()),
            risk,
            error.advice().unwrap_or("Correct the reference."),
        ),
    }
}

/// Whether `[keys] pseudonyms` is fit for hashing.
async fn pseudonyms(key: Option<&Secret>) -> Finding {
    const CHECK: &str = "pseudonyms";
    const RISK: &str =
        "Whoever has hashes or tokens can try keys, and find out whose the values are.";
    let Some(key) = key else {
        return Finding::ok(CHECK, "no key: no export may hash or tokenize");
    };
    match key.read().await {
        Err(error) => {
            unread(CHECK, key, &error, "Runs of exports that hash or tokenize wait for it.")
        }
        Ok(key) if key.expose_secret().len() < SHORT => Finding::warning(
            CHECK,
            format!("the key is shorter than {SHORT} bytes"),
            RISK,
            "Make one with `openssl rand -hex 32`. Hashes and tokens made with another key differ.",
        ),
        Ok(_) => Finding::ok(CHECK, "there is a key"),
    }
}

/// Whether refused rows can be kept.
async fn quarantine(connection: &Connection) -> Finding {
    let probe = Uuid::now_v7().simple().to_string();
    match pipeline::try_quarantine(connection, &probe).await {
        Ok(()) => Finding::ok("writing", format!("connection {} can be written", connection.name)),
        Err(error) => {
            let risk = "A run that refuses rows fails, since they cannot be kept.";
            Finding::failed("writing", &error.with("connection", &connection.name), risk)
        }
    }
}

/// Whether refused rows can be encrypted, and read again.
async fn quarantine_key(vault: &Vault) -> Finding {
    const CHECK: &str = "key";
    match vault.check_key().await {
        Ok(()) => Finding::ok(CHECK, "there is a key"),
        Err(error) => Finding::error(
            CHECK,
            format!("{}: {}", vault.key, error.message()),
            "Runs wait or fail: a row that they refuse could not be kept.",
            error.advice().unwrap_or("Make one with `longshore quarantine key`."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_held_against_the_lease() {
        let ahead = |ms| Clock { ahead: SignedDuration::from_millis(ms), within: ZERO };
        let lease = SignedDuration::from_secs(60);
        for (ledger, redis, level) in [
            (0, 0, Level::Ok),
            (900, 0, Level::Ok),
            (600, -600, Level::Warning),
            (1_100, 0, Level::Warning),
            (-20_100, 0, Level::Error),
        ] {
            let clocks = [("here", ahead(0)), ("ledger", ahead(ledger)), ("claims", ahead(redis))];
            assert_eq!(clock(&clocks, lease).level, level, "{ledger} {redis}");
        }
    }

    #[tokio::test]
    async fn a_short_key_is_told_of() {
        assert_eq!(pseudonyms(None).await.level, Level::Ok);
        for (key, level) in [("hunter2", Level::Warning), (&"k".repeat(64), Level::Ok)] {
            let key = Secret::Literal(key.to_owned());
            assert_eq!(pseudonyms(Some(&key)).await.level, level);
        }
        let missing = Secret::File("/nowhere/key".to_owned());
        assert_eq!(pseudonyms(Some(&missing)).await.level, Level::Error);
        assert_eq!(encryption("acme", &missing).await.level, Level::Error);
        for (key, level) in [("0a".repeat(64), Level::Ok), ("0a".repeat(32), Level::Error)] {
            let finding = encryption("acme", &Secret::Literal(key.clone())).await;
            assert_eq!(finding.level, level);
            assert!(!finding.found.contains(&key), "{}", finding.found);
        }
    }
}
