//! What changed, by `updated_at` with late rows: docs/how-to/export-what-changed.md.

use tokio_postgres::NoTls;

use super::{deliver, execute, later, query, start};
use crate::support::installation;

const CHANGES: &str = r#"
description = "Customers, kept in step with the warehouse"

[schedule]
cron = "*/10 * * * *"

[source]
connection = "shop"
table      = "crm.customers"
cursor     = { column = "updated_at", lookback = "10m" }

[contract]
primary-key = ["id"]

[contract.fields]
id         = { type = "int64", required = true }
name       = { type = "string" }
credit     = { type = "decimal(12,2)" }
updated_at = { type = "timestamp(us, UTC)", required = true }
deleted_at = { type = "timestamp(us, UTC)" }

[sink]
connection  = "warehouse"
table       = "dw.customers"
mode        = "upsert"
deleted     = "deleted_at IS NOT NULL"
new-columns = "add"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_arrives_though_it_became_visible_late() {
    installation::with("", async |installation| {
        execute(
            installation,
            "CREATE SCHEMA crm; CREATE SCHEMA dw;
             CREATE TABLE crm.customers (id int8 PRIMARY KEY, name text, credit numeric(12,2),
                 updated_at timestamptz NOT NULL, deleted_at timestamptz);
             INSERT INTO crm.customers SELECT n, 'Åse ' || n, n / 4.0,
                 now() - interval '30 days' + n * interval '1 hour' FROM generate_series(1, 500) AS n",
        )
        .await;
        installation.export("customers", &later(CHANGES));
        installation.apply().await;
        let processes = start(installation);
        let all = |table: &str| {
            format!(
                "SELECT id::text, name, credit::text, updated_at::text, deleted_at::text
                 FROM {table} WHERE deleted_at IS NULL ORDER BY id"
            )
        };
        let same = async || {
            let (source, target) = (all("crm.customers"), all("dw.customers"));
            assert_eq!(query(installation, &target).await, query(installation, &source).await);
        };
        let ended = deliver(installation, "customers", &[]).await;
        assert_eq!(ended[0]["counts"]["read"], 500);
        same().await;

        // A transaction has taken its time and is not visible; later changes are delivered.
        let url = installation.database.url.as_str();
        let (late, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        late.batch_execute(
            "BEGIN; INSERT INTO crm.customers VALUES (600, 'late', 6, now());
             UPDATE crm.customers SET name = 'changed late', updated_at = now() WHERE id = 7",
        )
        .await
        .unwrap();
        execute(
            installation,
            "UPDATE crm.customers SET credit = 0.01, updated_at = clock_timestamp() WHERE id <= 3;
             UPDATE crm.customers SET deleted_at = now(), updated_at = clock_timestamp() WHERE id = 9;
             INSERT INTO crm.customers VALUES (601, NULL, NULL, clock_timestamp())",
        )
        .await;
        let ended = deliver(installation, "customers", &[]).await;
        assert_eq!(ended[0]["counts"]["read"], 6, "what the cursor stands at is read once more");
        same().await;
        let there = "SELECT count(*) FROM dw.customers WHERE id IN (9, 600)";
        assert_eq!(installation.database.number(there).await, 0);
        late.batch_execute("COMMIT").await.unwrap();
        let ended = deliver(installation, "customers", &[]).await;
        assert_eq!(ended[0]["counts"]["read"], 7, "ten minutes are read once more");
        same().await;
        let there = "SELECT count(*) FROM dw.customers WHERE name IN ('late', 'changed late')";
        assert_eq!(installation.database.number(there).await, 2);
        let rows = "SELECT count(*) FROM dw.customers";
        assert_eq!(installation.database.number(rows).await, 501);
        let shown = installation.objects(&["cursors", "show", "customers"]).await;
        assert_eq!(shown[0]["name"], "cursor/customers:crm.customers.updated_at");
        installation.end(processes, 0).await;
    })
    .await;
}
