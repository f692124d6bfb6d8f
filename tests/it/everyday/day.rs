//! A day of Oslo as one CSV file with a trigger: docs/how-to/deliver-a-day-as-csv.md; the clock's
//! time by docs/reference/config.md (`[sink.csv]`) and docs/reference/types.md.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{deliver, execute, manifest, query, read, start, verify};
use crate::support::installation;
use crate::support::processes::succeeded;

const PATIENCE: Duration = Duration::from_secs(60);

const DAY: &str = r#"
description = "Yesterday's orders, as the partner's system reads them"
timezone    = "Europe/Oslo"

[schedule]
cron     = "15 4 * * *"
window   = "day"
start    = 2026-10-24
catch-up = "latest"

[source]
connection = "shop"
query      = """
  SELECT id, customer, amount, created_at AT TIME ZONE 'Europe/Oslo' AS created_at FROM orders
  WHERE created_at >= :window_start AND created_at < :window_end
  ORDER BY id
"""

[contract.fields]
id         = { type = "int64", required = true }
customer   = { type = "string" }
amount     = { type = "decimal(12,2)", required = true, min = 0 }
created_at = { type = "timestamp(us)", required = true }

[sink]
connection = "lake"
path       = "partner"
file       = "ORDERS_{window_start:%Y%m%d}.csv"
trigger    = "{file}.done"
empty      = "deliver"

[sink.csv]
delimiter = ";"
decimal   = ","
encoding  = "windows-1252"
newline   = "\r\n"
timestamp = "%d.%m.%Y %H:%M:%S"
"#;

/// What each day of October is to be, byte by byte: the 25th has 25 hours, the 26th no orders.
const DAYS: [(&str, usize, &[u8]); 3] = [
    (
        "20261024",
        2,
        b"id;customer;amount;created_at\r\n\
          1;\xC5se Holm;120,50;24.10.2026 00:00:00\r\n\
          2;\"B\xF8; \"\"AS\"\"\";1200,00;24.10.2026 23:59:59\r\n",
    ),
    (
        "20261025",
        4,
        b"id;customer;amount;created_at\r\n\
          3;5 \x80;0,00;25.10.2026 00:00:00\r\n\
          4;;9999999999,99;25.10.2026 02:30:00\r\n\
          5;\"\";7,10;25.10.2026 02:30:00\r\n\
          6;Zo\xEB;7,00;25.10.2026 23:59:59\r\n",
    ),
    ("20261026", 0, b"id;customer;amount;created_at\r\n"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_day_of_oslo_is_one_csv_with_a_trigger() {
    installation::with("", async |installation| {
        execute(
            installation,
            "CREATE TABLE orders (id int8 PRIMARY KEY, customer text, amount numeric(12,2), created_at timestamptz);
             INSERT INTO orders VALUES (0, 'before', 1, '2026-10-23 23:59:59+02'),
                 (1, 'Åse Holm', 120.5, '2026-10-24 00:00+02'), (2, 'Bø; \"AS\"', 1200, '2026-10-24 23:59:59+02'),
                 (3, '5 €', 0, '2026-10-25 00:00+02'), (4, NULL, 9999999999.99, '2026-10-25 02:30+02'),
                 (5, '', 7.1, '2026-10-25 02:30+01'), (6, 'Zoë', 7, '2026-10-25 23:59:59+01'),
                 (7, 'after', 1, '2026-10-27 00:00+01')",
        )
        .await;
        installation.export("daily-orders", DAY);
        installation.apply().await;
        let processes = start(installation);
        let span = ["--window", "2026-10-24..2026-10-26"];
        let ended = deliver(installation, "daily-orders", &span).await;
        assert_eq!(ended.len(), 3);
        // The same days again are the same jobs.
        let again = deliver(installation, "daily-orders", &span).await;
        // They are told as they end, whichever ends first.
        let runs = |ended: &[Json]| -> BTreeSet<String> {
            ended.iter().map(|run| run["run"].to_string()).collect()
        };
        assert_eq!(runs(&again), runs(&ended));

        let folder = installation.lake().join("partner");
        for (day, rows, text) in DAYS {
            let name = format!("ORDERS_{day}.csv");
            let file = folder.join(&name);
            assert_eq!(std::fs::read(&file).unwrap(), text, "{name}");
            let told = verify(installation, &file).await;
            assert!(told.contains("intact: daily-orders"), "{told}");
            let manifest = manifest(&folder.join(format!("{name}.manifest.json")));
            assert_eq!(manifest["counts"]["written"], json!(rows), "{manifest}");
            let records = read(&["csv", file.to_str().unwrap(), "cp1252", ";"]).await;
            assert_eq!(records.len(), rows + 1, "{records:?}");
            // The trigger is what a partner checks with what every system has.
            let mut check = Command::new("sha256sum");
            check.arg("--check").arg(format!("{name}.done")).current_dir(&folder);
            let told = succeeded("sha256sum", check.output().unwrap());
            assert_eq!(told, format!("{name}.manifest.json: OK\n"));
        }
        // What the schedule finds to be due it asks for by itself: days without orders.
        let scheduled = "FROM runs WHERE window_start > '2026-10-27' AND state = 'done'";
        let any = format!("SELECT count(*) > 0 {scheduled}");
        installation.until("the schedule has delivered a day", PATIENCE, &any).await;
        let days = format!("SELECT to_char(window_start AT TIME ZONE 'Europe/Oslo', 'YYYYMMDD') {scheduled}");
        for day in query(installation, &days).await.into_iter().flatten().flatten() {
            let file = folder.join(format!("ORDERS_{day}.csv"));
            assert_eq!(std::fs::read(&file).unwrap(), DAYS[2].2, "{day}");
            verify(installation, &file).await;
        }
        let listed = installation.objects(&["windows", "daily-orders", span[0], span[1]]).await;
        assert_eq!(listed.len(), 3);
        assert!(listed.iter().all(|window| window["state"] == "done"), "{listed:?}");
        installation.end(processes, 0).await;
    })
    .await;
}
