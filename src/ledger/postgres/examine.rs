//! What of a PostgreSQL server may cost what the ledger has promised.

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Client;

use super::pool::Pool;
use super::{classify, column, migrate};
use crate::error::Result;
use crate::finding::{Clock, Examination, Finding, Level};
use crate::secret::Secret;

const DOING: &str = "examine the ledger";
/// The oldest version that still gets repairs, as a number of the server's.
const OLDEST: i32 = 140_000;

/// Looks at the server and the ledger's tables. Each process makes up to `connections` connections.
pub async fn examine(url: &str, password: Option<&Secret>, connections: usize) -> Examination {
    let mut examination = Examination::default();
    if let Err(error) = look(url, password, connections, &mut examination).await {
        let risk = "Without the ledger nothing is accepted, opened or recorded.";
        examination.findings.push(Finding::failed("connection", &error, risk));
    }
    examination
}

async fn look(
    url: &str,
    password: Option<&Secret>,
    connections: usize,
    examination: &mut Examination,
) -> Result<()> {
    let pool = Pool::new(url, password, 1)?;
    let client = pool.checkout().await?;
    examination.clock = Some(clock(&client).await?);
    let findings = &mut examination.findings;
    findings.extend(settings(&client).await?);
    findings.push(room(&client, connections).await?);
    match migrate::guard(&client).await {
        Ok(()) => findings.push(Finding::ok("schema", "up to date")),
        Err(error) => {
            let risk = "Workers and schedulers do not start on it.";
            findings.push(Finding::failed("schema", &error, risk));
            if let Err(error) = migrate::may_migrate(&client).await {
                let risk = "This user cannot migrate the ledger; another may.";
                findings.push(Finding {
                    level: Level::Warning,
                    ..Finding::failed("migrating", &error, risk)
                });
            }
        }
    }
    findings.extend(rights(&client).await?);
    Ok(())
}

async fn clock(client: &Client) -> Result<Clock> {
    let before = Timestamp::now();
    let row = client
        .query_one("SELECT clock_timestamp()", &[])
        .await
        .map_err(|cause| classify(DOING, cause))?;
    Ok(Clock::read(before, column(&row, 0)?, Timestamp::now(), SignedDuration::ZERO))
}

/// A setting of the server, the words that are right for it, and else what goes wrong and what to do.
const SETTINGS: [(&str, &[&str], &str, &str); 5] = [
    (
        "fsync",
        &["on"],
        "A power cut or a crash of the machine can take or damage what was accepted and recorded.",
        "Set fsync = on in postgresql.conf, and reload.",
    ),
    (
        "synchronous_commit",
        &["on", "local", "remote_write", "remote_apply"],
        "A crash of the server takes the last transactions: a job that was confirmed as accepted, \
         or a decision whose delivery is there.",
        "Set synchronous_commit = on for the server, the database and the role of ledger.url.",
    ),
    (
        "full_page_writes",
        &["on"],
        "A power cut can leave pages half-written, and with them the ledger damaged.",
        "Set full_page_writes = on in postgresql.conf, and reload.",
    ),
    (
        "default_transaction_read_only",
        &["off"],
        "Every transaction of the ledger fails.",
        "Set default_transaction_read_only = off for the database and the role of ledger.url.",
    ),
    (
        "pg_is_in_recovery",
        &["false"],
        "A standby takes no writes.",
        "Point ledger.url at the primary, or add target_session_attrs=read-write to it.",
    ),
];

async fn settings(client: &Client) -> Result<Vec<Finding>> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
             current_setting('fsync'), current_setting('synchronous_commit'), \
             current_setting('full_page_writes'), \
             current_setting('default_transaction_read_only'), pg_is_in_recovery()::text, \
             current_setting('autovacuum'), current_setting('track_counts')",
            &[],
        )
        .await
        .map_err(|cause| classify(DOING, cause))?;
    let (number, version): (i32, &str) = (column(&row, 0)?, column(&row, 1)?);
    let found = format!("PostgreSQL {version}");
    let mut findings = vec![if number >= OLDEST {
        Finding::ok("version", found)
    } else {
        Finding::warning(
            "version",
            found,
            "It gets no repairs any more, and Longshore is not tried with it.",
            format!("Update PostgreSQL to {} or newer.", OLDEST / 10_000),
        )
    }];
    for (index, (name, right, risk, remedy)) in SETTINGS.iter().enumerate() {
        let found: &str = column(&row, index + 2)?;
        findings.push(match right.contains(&found) {
            true => Finding::ok(*name, found),
            false => Finding::error(*name, found, *risk, *remedy),
        });
    }
    let (vacuum, counts): (&str, &str) = (column(&row, 7)?, column(&row, 8)?);
    let found = format!("autovacuum {vacuum}, track_counts {counts}");
    findings.push(if (vacuum, counts) == ("on", "on") {
        Finding::ok("autovacuum", found)
    } else {
        Finding::warning(
            "autovacuum",
            found,
            "Outbox and runs change often: their tables grow, and become slow.",
            "Set autovacuum = on and track_counts = on in postgresql.conf, and reload.",
        )
    });
    Ok(findings)
}

/// How many connections are left for processes.
async fn room(client: &Client, connections: usize) -> Result<Finding> {
    let row = client
        .query_one(
            "SELECT current_setting('max_connections')::int8 \
                    - current_setting('superuser_reserved_connections')::int8, \
                    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
                    (SELECT rolconnlimit::int8 FROM pg_roles WHERE rolname = current_user), \
                    (SELECT datconnlimit::int8 FROM pg_database WHERE datname = current_database())",
            &[],
        )
        .await
        .map_err(|cause| classify(DOING, cause))?;
    let (server, used): (i64, i64) = (column(&row, 0)?, column(&row, 1)?);
    let limits: [i64; 2] = [column(&row, 2)?, column(&row, 3)?];
    // -1: no limit of its own.
    let most = limits.into_iter().filter(|limit| *limit >= 0).fold(server, i64::min);
    let each = i64::try_from(connections).unwrap_or(i64::MAX);
    let found = format!("{most} allowed, {used} on the server now; a process makes up to {each}");
    // A worker and a scheduler.
    Ok(if most - used >= each.saturating_mul(2) {
        Finding::ok("connections", found)
    } else {
        Finding::warning(
            "connections",
            found,
            "Processes wait for connections, and jobs with them, when all are taken.",
            "Raise max_connections or the limit of role or database, or lower [worker] concurrency.",
        )
    })
}

/// Who the ledger's user is, and what it may not do.
async fn rights(client: &Client) -> Result<Vec<Finding>> {
    let row = client
        .query_one(
            "SELECT quote_ident(current_user), rolsuper, coalesce(quote_ident(current_schema()), 'public') \
             FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(|cause| classify(DOING, cause))?;
    let (name, all): (&str, bool) = (column(&row, 0)?, column(&row, 1)?);
    let schema: &str = column(&row, 2)?;
    let mut findings = vec![if all {
        Finding::warning(
            "role",
            format!("{name} is a superuser"),
            "Whoever gets hold of a worker's password can do everything to this server.",
            "Give Longshore a role of its own that owns its database, or its schema, alone.",
        )
    } else {
        Finding::ok("role", name)
    }];
    let (tables, sequences) = migrate::made();
    let there = client
        .query_one(
            "SELECT count(*) FROM unnest($1::text[]) AS t (name) WHERE to_regclass(name) IS NOT NULL",
            &[&tables],
        )
        .await
        .map_err(|cause| classify(DOING, cause))?;
    let there: i64 = column(&there, 0)?;
    if there == 0 {
        // That the schema is missing is told already.
        return Ok(findings);
    }
    let missing = client
        .query(
            "SELECT format('%s on %s', needs, string_agg(name, ', ' ORDER BY name)) \
             FROM (SELECT name, string_agg(need, ', ' ORDER BY at) AS needs \
                   FROM unnest($1::text[]) AS t (name), \
                        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) \
                            WITH ORDINALITY AS n (need, at) \
                   WHERE to_regclass(name) IS NOT NULL \
                     AND NOT has_table_privilege(to_regclass(name), need) \
                   GROUP BY name) AS lacking \
             GROUP BY needs \
             UNION ALL \
             SELECT format('USAGE on %s', name) FROM unnest($2::text[]) AS s (name) \
             WHERE to_regclass(name) IS NOT NULL \
               AND NOT has_sequence_privilege(to_regclass(name), 'USAGE')",
            &[&tables, &sequences],
        )
        .await
        .map_err(|cause| classify(DOING, cause))?;
    let missing: Vec<String> = missing.iter().map(|row| column(row, 0)).collect::<Result<_>>()?;
    findings.push(if missing.is_empty() {
        Finding::ok("privileges", format!("all that is needed on {there} tables"))
    } else {
        Finding::error(
            "privileges",
            format!("{name} lacks {}", missing.join("; ")),
            "Transactions of the ledger fail, and workers wait as if it were away.",
            format!("As the owner of the tables: {}", migrate::grants(name, schema)),
        )
    });
    Ok(findings)
}
