//! Schedule 17: the server of a target crashes, which empties its unlogged tables: with the rows
//! staged, with them merged and not committed, and when it has committed and nobody was told.

use super::jobs::{self, SOON, until_count};
use crate::support::installation::message;
use crate::support::own;
use serde_json::json;

const ROWS: i64 = 2_000;

/// At which point each worker stands when the server crashes, and what its run comes to.
const POINTS: [(&str, &str); 3] =
    [("staged", "1 retry, 2 done"), ("merged", "1 retry, 2 done"), ("committed", "1 done")];

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_crashes_has_every_row_once_wherever_its_runs_were() {
    jobs::with("concurrency = 1", async |installation| {
        let mut server = own::Postgres::start(&[]).await;
        let url = server.url();
        installation
            .add_connections(&format!("[crashing]\ntype = \"postgres\"\nurl = \"{url}\"\n"));
        let (client, connection) =
            tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        for (point, _) in POINTS {
            let table = format!("CREATE TABLE {point} (id bigint)");
            client.batch_execute(&table).await.unwrap();
            let export = format!(
                "[source]\nconnection = \"shop\"\n\
                 query = \"SELECT n AS id FROM generate_series(1, {ROWS}) AS n\"\n\
                 [retry]\nattempts = 3\nbackoff = \"100ms..200ms\"\n\
                 [sink]\nconnection = \"crashing\"\ntable = \"public.{point}\"\nmode = \"append\"\n"
            );
            installation.export(point, &export);
        }
        drop(client);
        let _ = connection.await.unwrap();
        installation.run(&["apply"]).await;
        let scheduler = installation.start("scheduler", "scheduler");
        let mut workers = Vec::new();
        for (id, (point, _)) in (1..).zip(POINTS) {
            let mut command = installation.failing(&["worker"], &format!("{point}=stop"));
            // For longer than they stand still: no other is to take them up.
            command.env("LONGSHORE__WORKER__LEASE", "60s");
            let worker = installation.start_command(command, point);
            let job = json!({"export": point, "key": format!("job-{id}")});
            installation.publish(&[message(&installation.pool, &job)]).await;
            worker.stopped(SOON).await;
            workers.push(worker);
        }
        server.kill();
        server.restart().await;
        workers.iter().for_each(|worker| worker.signal("CONT"));
        until_count(installation, 3, "runs WHERE state = 'done'").await;
        let (client, connection) =
            tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        for (id, (point, told)) in (1..).zip(POINTS) {
            installation.until_state(id, "done").await;
            assert_eq!(installation.attempts(id).await, told, "{point}");
            let counts = format!("SELECT count(*), count(DISTINCT id) FROM {point}");
            let row = client.query_one(&counts, &[]).await.unwrap();
            assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (ROWS, ROWS), "{point}");
            let written = installation.of_run(id, "counts ->> 'written'").await;
            assert_eq!(written, ROWS.to_string());
        }
        installation.end(workers.into_iter().chain([scheduler]), 0).await;
        let staged = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'longshore_stage_%'";
        assert_eq!(client.query_one(staged, &[]).await.unwrap().get::<_, i64>(0), 0);
    })
    .await;
}
