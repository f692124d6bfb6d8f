//! What must be so when all is over, whatever went wrong on the way.

use std::time::Instant;

use super::scenario::{Action, FIRST, ROWS, Scenario, Way, kind};
use super::target::{Target, To};
use super::{SOON, json};
use crate::support::installation::Installation;
use crate::support::quarantine;

/// The ledger: one delivery of every run that is done, attempts that are counted as they should be,
/// rows that add up, and cursors where the deliveries end.
pub async fn ledger(installation: &Installation, scenarios: &[Scenario], to: To, action: Action) {
    for one in scenarios {
        let name = one.name();
        let told = json(
            installation,
            &format!(
                "SELECT json_object_agg(r.key, json_build_object('state', r.state,
                     'attempts', (SELECT string_agg(a.fence || ' ' || coalesce(a.outcome, '-'), ', '
                                                    ORDER BY a.fence) FROM attempts a WHERE a.run = r.id),
                     'crashes', r.crashes, 'failures', r.failures, 'counts', r.counts,
                     'quarantine', r.quarantine,
                     'deliveries', (SELECT count(*) FROM deliveries d WHERE d.run = r.id)))::text
                 FROM runs r WHERE r.export = '{name}'"
            ),
        )
        .await;
        let runs = told.as_object().unwrap();
        let jobs = one.first_runs() + usize::from(one.goes_on());
        assert_eq!(runs.len(), jobs, "{name}: {told}");
        let (mut read, mut written, mut kept) = (0, 0, 0);
        for (key, run) in runs {
            let (attempts, crashes, failures) = match *key == one.key() {
                true => one.expected(to, action),
                false => ("1 done", 0, 0),
            };
            assert_eq!(run["attempts"], attempts, "{key}: {run}");
            assert_eq!(
                (&run["crashes"], &run["failures"]),
                (&crashes.into(), &failures.into()),
                "{key}"
            );
            let (state, deliveries) = if one.is_dead() { ("dead", 0) } else { ("done", 1) };
            assert_eq!(
                (&run["state"], &run["deliveries"]),
                (&state.into(), &deliveries.into()),
                "{key}"
            );
            let place = run["quarantine"].as_str();
            let rows =
                place.map_or(0, |place| quarantine::rows(&installation.lake().join(place)).len());
            if one.is_dead() {
                assert_eq!(rows as i64, of_kind("bad", FIRST), "{key}: {run}");
                continue;
            }
            let count = |name: &str| run["counts"][name].as_i64().unwrap();
            let parts = ["written", "filtered", "quarantined"].map(count);
            assert_eq!(count("read"), parts.iter().sum::<i64>(), "{key}: {run}");
            assert_eq!(rows as i64, count("quarantined"), "{key}: {run}");
            read += count("read");
            written += count("written");
            kept += count("quarantined");
        }
        let all = match one.way {
            Way::New | Way::Upsert => ROWS,
            // The first job took half of what the second took.
            Way::Again => FIRST + FIRST / 2,
            Way::Refused => continue,
        };
        assert_eq!(read, all, "{name}: {told}");
        if one.goes_on() {
            assert_eq!((written, kept), (of_kind("good", ROWS), of_kind("bad", ROWS)), "{name}");
        }
    }
    let cursors = "SELECT coalesce(json_object_agg(c.value, c.n), '{}')::text
                   FROM (SELECT value, count(*) AS n FROM cursors GROUP BY value) AS c";
    let moved = scenarios.iter().filter(|one| one.goes_on()).count();
    let expected = serde_json::json!({ROWS.to_string(): moved});
    assert_eq!(json(installation, cursors).await, expected, "where the cursors stand");
    for (what, sql) in [
        ("attempts without an outcome", "SELECT count(*) FROM attempts WHERE outcome IS NULL"),
        ("cleaning that is still to be done", "SELECT count(*) FROM outbox WHERE kind = 'clean'"),
        (
            "keys of two editions",
            "SELECT count(*) FROM (SELECT key FROM runs GROUP BY key HAVING count(*) > 1) AS k",
        ),
    ] {
        assert_eq!(installation.database.number(sql).await, 0, "{what}");
    }
}

fn of_kind(of: &str, rows: i64) -> i64 {
    (1..=rows).filter(|id| kind(*id) == of).count() as i64
}

/// Redis: what is done, and nothing that is held. Who died has released nothing; that ends with its
/// lease.
pub async fn claims(installation: &Installation) {
    let started = Instant::now();
    loop {
        let keys: Vec<String> = installation.redis.ask(redis::cmd("KEYS").arg("*:claim:*")).await;
        let mut held = Vec::new();
        for key in keys {
            let value: Option<String> = installation.redis.ask(redis::cmd("GET").arg(&key)).await;
            held.extend(value.filter(|value| !value.starts_with("d:")).map(|_| key));
        }
        if held.is_empty() {
            return;
        }
        assert!(started.elapsed() < SOON, "still claimed: {held:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The target: each row of the source that is to be there, once.
pub async fn rows(installation: &Installation, target: &Target, one: &Scenario) {
    assert_eq!(target.rows(installation, one).await, one.delivered(), "{}", one.name());
}
