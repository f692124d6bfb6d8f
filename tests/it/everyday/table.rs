//! A whole table, replaced each time: docs/how-to/export-a-table.md; into a table by `mode =
//! "replace"` of docs/reference/config.md.

use serde_json::{Value as Json, json};

use super::{deliver, execute, later, parts, query, read, start, verify};
use crate::support::installation;
use crate::support::processes::python;

const WHOLE: &str = r#"
description = "All customers with an account, anew every night"
owner       = "crm@shop.example"
timezone    = "Europe/Oslo"

[schedule]
cron = "30 2 * * *"

[source]
connection = "shop"
table      = "crm.customers"
columns    = ["id", "name", "credit", "since", "changed_at"]
where      = "NOT closed"

[sink]
connection = "lake"
path       = "customers"
"#;

const WHOLE_TABLE: &str = r#"
description = "The same, as a table of the warehouse"
timezone    = "Europe/Oslo"

[schedule]
cron = "40 2 * * *"

[source]
connection = "shop"
table      = "crm.customers"
columns    = ["id", "name", "credit", "since", "changed_at"]
where      = "NOT closed"

[sink]
connection  = "warehouse"
table       = "dw.customers"
mode        = "replace"
new-columns = "add"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_table_is_replaced_each_time() {
    installation::with("", async |installation| {
        execute(
            installation,
            "CREATE SCHEMA crm; CREATE SCHEMA dw;
             CREATE TABLE crm.customers (id int8 PRIMARY KEY, name text, credit numeric(12,2), since date,
                 changed_at timestamptz, closed boolean NOT NULL, secret text DEFAULT 'x');
             INSERT INTO crm.customers SELECT n, CASE WHEN n % 7 > 0 THEN 'Åse ' || n END, n * 1.25,
                 date '2020-02-28' + n, timestamptz '2026-10-25 00:59:59.999999Z' + n * interval '1 us',
                 n % 10 = 0 FROM generate_series(1, 500) AS n",
        )
        .await;
        installation.export("customers", &later(WHOLE));
        installation.export("customer-table", &later(WHOLE_TABLE));
        installation.apply().await;
        let processes = start(installation);
        let folder = installation.lake().join("customers");
        let expected = |table: &str, which: &str| {
            format!(
                "SELECT id::text, name, credit::text, since::text,
                     to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')
                 FROM {table} {which} ORDER BY id::text COLLATE \"C\""
            )
        };
        let open = expected("crm.customers", "WHERE NOT closed");
        let change = "DELETE FROM crm.customers WHERE id <= 20;
             UPDATE crm.customers SET closed = true WHERE id % 3 = 0;
             UPDATE crm.customers SET name = 'Bø', credit = NULL WHERE id = 22;
             INSERT INTO crm.customers VALUES (501, '', 0, '2026-11-20', now(), false)";
        for (round, change) in ["", change, "DELETE FROM crm.customers"].into_iter().enumerate() {
            execute(installation, change).await;
            let source = query(installation, &open).await;
            let written = json!(source.len());
            for export in ["customers", "customer-table"] {
                let ended = deliver(installation, export, &[]).await;
                assert_eq!(ended[0]["counts"]["written"], written, "{export}: {ended:?}");
            }
            verify(installation, &folder).await;
            let parts = parts(&folder);
            assert_eq!(parts.len(), 1, "round {round}");
            let found = read(&["read", parts[0].to_str().unwrap(), "parquet"]).await;
            assert_eq!(found, source, "round {round}");
            let found = query(installation, &expected("dw.customers", "")).await;
            assert_eq!(found, source, "round {round}");
            if round == 0 {
                let place = folder.to_str().unwrap();
                let text = python("reader.py", &[place, "credit"], String::new()).await;
                let found: Json = serde_json::from_str(&text).unwrap();
                let sum = "SELECT trim_scale(sum(credit))::text FROM crm.customers WHERE NOT closed";
                let sum = installation.database.text(sum).await;
                assert_eq!((&found["rows"], &found["sums"]["credit"]), (&written, &json!(sum)));
            }
        }
        installation.end(processes, 0).await;
    })
    .await;
}
