//! New files of a bucket into a table: docs/how-to/load-files-into-a-table.md; `cursor = "file"` by
//! docs/operations.md (Cursors).

use longshore::connect::files::Store;
use object_store::ObjectStoreExt;

use super::{deliver, execute, later, query, start};
use crate::support::installation;
use crate::support::s3::S3;

const FILES: &str = r#"
description = "Price lists that partners put into the bucket"

[schedule]
cron = "*/15 * * * *"

[source]
connection = "partners"
path       = "in/**/prices-*.csv"
cursor     = "file"
csv        = { delimiter = ";", decimal = ",", encoding = "windows-1252", date = "%d.%m.%Y" }

[contract]
primary-key = ["sku"]

[contract.fields]
sku        = { type = "string", required = true }
label      = { type = "string" }
price      = { type = "decimal(10,2)", required = true, min = 0 }
valid_from = { type = "date", required = true }

[sink]
connection = "warehouse"
table      = "sales.prices"
mode       = "upsert"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_files_of_a_bucket_are_upserted_once() {
    let bucket = S3::moto().await;
    let store = Store::open(&bucket.connection("partners")).unwrap();
    installation::with("", async |installation| {
        let put = async |name: &str, rows: &str| {
            let text = format!("sku;label;price;valid_from\r\n{rows}");
            let (bytes, ..) = encoding_rs::WINDOWS_1252.encode(&text);
            let path = store.path(&format!("in/{name}")).unwrap();
            store.objects.put(&path, bytes.into_owned().into()).await.unwrap();
        };
        execute(
            installation,
            "CREATE SCHEMA sales;
             CREATE TABLE sales.prices (sku text PRIMARY KEY, label text, price numeric(10,2) NOT NULL,
                 valid_from date NOT NULL);
             INSERT INTO sales.prices VALUES ('A-1', 'old', 9.5, '2025-01-01'), ('B-2', NULL, 4, '2025-01-01')",
        )
        .await;
        installation.bucket("partners", &bucket);
        installation.export("prices", &later(FILES));
        installation.apply().await;
        let processes = start(installation);
        let round = async |read: i64, expected: &[&str]| {
            let ended = deliver(installation, "prices", &[]).await;
            assert_eq!(ended[0]["counts"]["read"], read, "{ended:?}");
            let table = "SELECT concat_ws(' ', sku, coalesce(label, '-'), price, valid_from)
                         FROM sales.prices ORDER BY sku";
            let found: Vec<String> =
                query(installation, table).await.into_iter().flatten().flatten().collect();
            assert_eq!(found, expected);
        };
        let before = ["A-1 old 9.50 2025-01-01", "B-2 - 4.00 2025-01-01"];
        round(0, &before).await;
        put("north/prices-1.csv", "A-1;Smør;10,25;01.04.2026\r\nC-3;5 €;7,00;01.04.2026\r\n").await;
        put("south/prices-1.csv", "D-4;;1,99;02.04.2026\r\n").await;
        put("south/notes.csv", "X-9;;1,99;02.04.2026\r\n").await;
        let [a, b] = ["A-1 Smør 10.25 2026-04-01", before[1]];
        let [c, d] = ["C-3 5 € 7.00 2026-04-01", "D-4 - 1.99 2026-04-02"];
        round(3, &[a, b, c, d]).await;
        // What somebody corrects in the table stays, since no file is read again.
        execute(installation, "UPDATE sales.prices SET price = 2 WHERE sku = 'D-4'").await;
        let d = "D-4 - 2.00 2026-04-02";
        round(0, &[a, b, c, d]).await;
        // One more, whose name comes before those that are known; and one that is written anew.
        put("north/prices-0.csv", "B-2;Brød;4,50;01.05.2026\r\n").await;
        let b = "B-2 Brød 4.50 2026-05-01";
        round(1, &[a, b, c, d]).await;
        put("north/prices-1.csv", "A-1;Smør;11,00;01.06.2026\r\n").await;
        let a = "A-1 Smør 11.00 2026-06-01";
        round(1, &[a, b, c, d]).await;
        let shown = installation.objects(&["cursors", "show", "prices"]).await;
        assert_eq!(shown[0]["files"], 3, "{shown:?}");

        // A price that is none: nothing of the run is loaded, and the file is new until it is right.
        put("west/prices-1.csv", "E-5;;free;01.04.2026\r\nF-6;;1,00;01.04.2026\r\n").await;
        let mut command = installation.command(&["enqueue", "prices", "--wait"]);
        let output =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let letters = installation.letters(1).await;
        assert_eq!(letters[0]["class"], "contract", "{letters:?}");
        put("west/prices-1.csv", "E-5;;3,00;01.04.2026\r\nF-6;;1,00;01.04.2026\r\n").await;
        let replay = ["dead", "replay", "--export", "prices", "--canary", "1", "--reason", "corrected"];
        let report = installation.objects(&replay).await;
        assert_eq!(report[0]["replayed"], 1, "{report:?}");
        let [e, f] = ["E-5 - 3.00 2026-04-01", "F-6 - 1.00 2026-04-01"];
        round(0, &[a, b, c, d, e, f]).await;
        installation.end(processes, 0).await;
    })
    .await;
}
