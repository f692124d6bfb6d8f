//! A ledger with a long history: what one job has left behind, many times over. So every table and
//! index is as large as it would be, whatever columns they have.

use tokio_postgres::Client;

use crate::support::Done;

/// A row for each run of the past, one a second: its name, whose first digits are its time, a random
/// key, and the name of its delivery.
const PAST: &str = "
    CREATE TEMPORARY TABLE past AS
    SELECT overlay(md5(random()::text || n)
                   PLACING lpad(to_hex((extract(epoch FROM ended) * 1000)::bigint), 12, '0') || '7'
                   FROM 1)::uuid AS id,
           md5(random()::text || n) AS key, gen_random_uuid() AS delivery, ended
    FROM (SELECT n, now() - (RUNS - n) * interval '1 second' - interval '1 hour' AS ended
          FROM generate_series(1, RUNS) AS n) AS times";

/// The tables in which a job that did nothing leaves rows: the column that names the run, and what
/// differs from run to run.
const TABLES: [(&str, &str, &str); 4] = [
    (
        "runs",
        "id",
        "'id', past.id, 'key', past.key, 'accepted_at', past.ended, 'opened_at', past.ended, \
         'ended_at', past.ended, 'changed_at', past.ended",
    ),
    ("attempts", "run", "'run', past.id, 'opened_at', past.ended, 'ended_at', past.ended"),
    (
        "deliveries",
        "run",
        "'id', past.delivery, 'run', past.id, 'target', 'nowhere/' || past.id::text, \
         'recorded_at', past.ended",
    ),
    ("heads", "run", "'run', past.id, 'target', 'nowhere/' || past.id::text"),
];

/// Gives a ledger so many runs more that are like the only one it has.
pub async fn make(client: &Client, runs: u64) -> Done {
    let only: String = client.query_one("SELECT id::text FROM runs", &[]).await?.get(0);
    client.batch_execute(&PAST.replace("RUNS", &runs.to_string())).await?;
    // What is copied has no need to be checked against the keys of other tables.
    client.batch_execute("SET session_replication_role = replica").await?;
    for (table, run, changes) in TABLES {
        let copying = format!(
            "INSERT INTO {table} SELECT (another).* FROM (
                 SELECT jsonb_populate_record(one, jsonb_build_object({changes})) AS another
                 FROM {table} AS one CROSS JOIN past WHERE one.{run} = '{only}'
                 OFFSET 0
             ) AS others"
        );
        let copies = client.execute(&copying, &[]).await?;
        if copies != runs {
            return Err(format!("the history has {copies} rows in {table}").into());
        }
    }
    client.batch_execute("RESET session_replication_role").await?;
    client.batch_execute("DROP TABLE past").await?;
    let tables = TABLES.map(|(table, ..)| table).join(", ");
    client.batch_execute(&format!("VACUUM (ANALYZE) {tables}")).await?;
    client.batch_execute("CHECKPOINT").await?;
    Ok(())
}
