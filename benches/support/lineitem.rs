//! TPC-H's lineitem: as a table of PostgreSQL, as CSV, and as what a contract promises of it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use futures::SinkExt;
use tpchgen::csv::LineItemCsv;
use tpchgen::generators::LineItemGenerator;

use super::{Address, Done, connect, database};

/// The columns of the table.
pub const COLUMNS: &str = "
    l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL,
    l_linenumber integer NOT NULL, l_quantity numeric(15,2) NOT NULL,
    l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL,
    l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL,
    l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
    l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL,
    l_comment varchar(44) NOT NULL";

/// Those that tell its rows apart, as the other systems are told.
pub const KEY: &str = "l_orderkey,l_linenumber";

pub const CONTRACT: &str = r#"
[contract]
primary-key = ["l_orderkey", "l_linenumber"]
[contract.fields]
l_orderkey      = { type = "int64", required = true }
l_partkey       = { type = "int64", required = true }
l_suppkey       = { type = "int64", required = true }
l_linenumber    = { type = "int32", required = true, min = 1 }
l_quantity      = { type = "decimal(15,2)", required = true, min = 0 }
l_extendedprice = { type = "decimal(15,2)", required = true, min = 0 }
l_discount      = { type = "decimal(15,2)", required = true, min = 0, max = 1 }
l_tax           = { type = "decimal(15,2)", required = true, min = 0 }
l_returnflag    = { type = "string", required = true, values = ["A", "N", "R"] }
l_linestatus    = { type = "string", required = true, values = ["F", "O"] }
l_shipdate      = { type = "date", required = true }
l_commitdate    = { type = "date", required = true }
l_receiptdate   = { type = "date", required = true }
l_shipinstruct  = { type = "string", required = true }
l_shipmode      = { type = "string", required = true }
l_comment       = { type = "string", required = true }
"#;

/// The table in a database of its own.
pub struct Table {
    pub address: Address,
    pub rows: f64,
}

/// Makes sure of the table, which is kept for the next time.
pub async fn table(name: &str, scale: f64) -> Done<Table> {
    let address = database(name).await?;
    let client = connect(&address).await?;
    let made = format!("TPC-H scale {scale}");
    let found: Option<String> = client
        .query_one("SELECT obj_description(to_regclass('lineitem'), 'pg_class')", &[])
        .await?
        .get(0);
    if found.as_ref() != Some(&made) {
        println!("making lineitem at scale {scale} in the database {name}");
        client.batch_execute("BEGIN; DROP TABLE IF EXISTS lineitem").await?;
        client.batch_execute(&format!("CREATE TABLE lineitem ({COLUMNS})")).await?;
        let copy = client.copy_in("COPY lineitem FROM STDIN (FORMAT csv, FREEZE)").await?;
        let mut copy = pin!(copy);
        for text in lines(scale) {
            copy.send(Bytes::from(text)).await?;
        }
        copy.finish().await?;
        client.batch_execute(&format!("COMMENT ON TABLE lineitem IS '{made}'; COMMIT")).await?;
        client.batch_execute("VACUUM (ANALYZE) lineitem").await?;
        client.batch_execute("CHECKPOINT").await?;
    }
    // Counting also reads it all once, so that the first round finds what the others do.
    let rows: i64 = client.query_one("SELECT count(*) FROM lineitem", &[]).await?.get(0);
    Ok(Table { address, rows: rows as f64 })
}

/// Writes the rows to a CSV file with a header. Answers how many they are.
pub fn csv(path: &Path, scale: f64) -> Done<f64> {
    let mut file = File::create(path)?;
    writeln!(file, "{}", LineItemCsv::header())?;
    let mut rows = 0;
    for text in lines(scale) {
        rows += text.bytes().filter(|byte| *byte == b'\n').count();
        file.write_all(text.as_bytes())?;
    }
    file.sync_all()?;
    Ok(rows as f64)
}

/// The names of the columns, as SQL lists them.
pub fn columns() -> &'static str {
    LineItemCsv::header()
}

/// The rows as lines of CSV, about a mebibyte at a time.
fn lines(scale: f64) -> impl Iterator<Item = String> {
    let mut rows = LineItemGenerator::new(scale, 1, 1).iter();
    std::iter::from_fn(move || {
        let mut text = String::new();
        for row in rows.by_ref() {
            // A text takes whatever is written to it.
            let _ = writeln!(text, "{}", LineItemCsv::new(row));
            if text.len() >= 1 << 20 {
                break;
            }
        }
        (!text.is_empty()).then_some(text)
    })
}
