//! What of a Redis may keep claims from doing their work.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::claims::link::Link;
use crate::error::{Error, Result};
use crate::finding::{Clock, Examination, Finding};
use crate::secret::Secret;

const DOING: &str = "examine Redis";
/// The oldest version that Longshore's tests run on.
const TRIED: u32 = 7;

/// Looks at the server behind `url`.
pub async fn examine(url: &str, password: Option<Secret>) -> Examination {
    let mut examination = Examination::default();
    if let Err(error) = look(url, password, &mut examination).await {
        examination.findings.push(Finding::failed(
            "connection",
            &error,
            "Workers take no jobs while claims cannot be asked.",
        ));
    }
    examination
}

async fn look(url: &str, password: Option<Secret>, examination: &mut Examination) -> Result<()> {
    let link = Link::new(url, password)?;
    let before = Timestamp::now();
    let (seconds, micros): (i64, i64) = link.ask(DOING, &redis::cmd("TIME")).await?;
    let said = Timestamp::from_microsecond(seconds.saturating_mul(1_000_000) + micros);
    examination.clock =
        said.ok().map(|said| Clock::read(before, said, Timestamp::now(), SignedDuration::ZERO));
    let info = match link.ask::<String>(DOING, &redis::cmd("INFO")).await {
        Ok(text) => read(&text),
        Err(error) => {
            examination.findings.push(untold(&error));
            return Ok(());
        }
    };
    examination.findings.extend(judge(&info));
    Ok(())
}

/// Where the user may not ask.
fn untold(error: &Error) -> Finding {
    Finding::warning(
        "settings",
        format!("INFO is not answered: {error}"),
        "An eviction policy or a replica would go unnoticed.",
        "Allow the user INFO for this look, or see to it that maxmemory-policy is noeviction and \
         that [claims] url leads to the primary.",
    )
}

/// The lines `name:value` of an answer to INFO.
fn read(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn judge(info: &BTreeMap<String, String>) -> Vec<Finding> {
    let of = |name: &str| info.get(name).map_or("", String::as_str);
    let mut findings = Vec::new();
    let version = of("redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    findings.push(match major {
        Some(major) if major >= TRIED => Finding::ok("version", format!("Redis {version}")),
        _ => Finding::warning(
            "version",
            format!("Redis {version}"),
            format!("Longshore is not tried with versions before {TRIED}."),
            format!("Update Redis to {TRIED} or newer."),
        ),
    });
    let (policy, most) = (of("maxmemory_policy"), of("maxmemory_human"));
    findings.push(if policy == "noeviction" {
        Finding::ok("eviction", format!("maxmemory-policy noeviction, maxmemory {most}"))
    } else {
        Finding::error(
            "eviction",
            format!("maxmemory-policy {policy}, maxmemory {most}"),
            "Claims, done-marks and rates vanish when memory is short: jobs are begun in vain, and \
             rate limits are exceeded.",
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf.",
        )
    });
    let role = of("role");
    findings.push(if role == "master" {
        Finding::ok("role", "primary".to_owned() + &replicas(of("connected_slaves")))
    } else {
        Finding::error(
            "role",
            if role == "slave" { "replica" } else { role },
            "A replica refuses writes, so that no job can be claimed.",
            "Point [claims] url at the primary.",
        )
    });
    if of("cluster_enabled") == "1" {
        findings.push(Finding::error(
            "cluster",
            "cluster mode",
            "Scripts that touch several claims are refused there.",
            "Point [claims] url at a Redis that is not in cluster mode.",
        ));
    }
    let save = match (of("aof_enabled"), of("rdb_last_bgsave_status")) {
        ("1", _) => "append-only file".to_owned(),
        (_, "ok" | "") => "snapshots or none; what is lost costs speed alone".to_owned(),
        (_, status) => format!("the last snapshot: {status}"),
    };
    findings.push(match of("rdb_last_bgsave_status") {
        "err" => Finding::warning(
            "persistence",
            save,
            "By default Redis refuses writes while snapshots fail.",
            "Give its folder room and rights, or turn snapshots off: claims need none.",
        ),
        _ => Finding::ok("persistence", save),
    });
    findings
}

fn replicas(number: &str) -> String {
    match number {
        "" | "0" => String::new(),
        "1" => ", 1 replica".to_owned(),
        number => format!(", {number} replicas"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    const SOUND: &str = "# Server\r\nredis_version:7.0.15\r\nmaxmemory_human:0B\r\n\
        maxmemory_policy:noeviction\r\nrole:master\r\nconnected_slaves:2\r\naof_enabled:0\r\n\
        rdb_last_bgsave_status:ok\r\ncluster_enabled:0\r\n";

    fn levels(text: &str) -> Vec<(String, Level)> {
        judge(&read(text)).into_iter().map(|found| (found.check, found.level)).collect()
    }

    #[test]
    fn what_loses_claims_is_an_error() {
        assert!(levels(SOUND).iter().all(|(_, level)| *level == Level::Ok));
        for (from, to, check, level) in [
            ("noeviction", "allkeys-lru", "eviction", Level::Error),
            ("role:master", "role:slave", "role", Level::Error),
            ("cluster_enabled:0", "cluster_enabled:1", "cluster", Level::Error),
            ("7.0.15", "6.2.1", "version", Level::Warning),
            ("status:ok", "status:err", "persistence", Level::Warning),
        ] {
            let found = levels(&SOUND.replace(from, to));
            let bad: Vec<_> = found.into_iter().filter(|(_, level)| *level != Level::Ok).collect();
            assert_eq!(bad, [(check.to_owned(), level)]);
        }
    }
}
