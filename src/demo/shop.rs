//! The demo's shop: TPC-H data in an SQLite database, and a folder of files that somebody sent.

use std::io::Write;
use std::path::Path;

use rusqlite::{Connection, Transaction, params};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, OrderGenerator, SupplierGenerator,
};

use crate::connect::sqlite::classify;
use crate::error::{Error, Result};

const DOING: &str = "make the demo's shop";

/// Makes the shop's database, unless it is there already. Answers how many rows it made.
pub fn make(path: &Path, scale: f64) -> Result<u64> {
    let failed = |cause| classify(DOING, cause).with("file", path.display());
    if path.exists() {
        return Ok(0);
    }
    // Under another name until it is whole, so that an interrupted demo starts afresh.
    let part = path.with_extension("part");
    let _ = std::fs::remove_file(&part);
    let mut shop = Connection::open(&part).map_err(failed)?;
    shop.pragma_update(None, "journal_mode", "off").map_err(failed)?;
    shop.pragma_update(None, "synchronous", "off").map_err(failed)?;
    let tx = shop.transaction().map_err(failed)?;
    let rows = fill(&tx, scale).map_err(failed)?;
    tx.commit().map_err(failed)?;
    shop.close().map_err(|(_, cause)| failed(cause))?;
    std::fs::rename(&part, path).map_err(|cause| {
        Error::permanent(DOING, "the database cannot be put in place").caused_by(cause)
    })?;
    Ok(rows)
}

fn fill(tx: &Transaction<'_>, scale: f64) -> rusqlite::Result<u64> {
    tx.execute_batch(
        "CREATE TABLE customer (
            c_custkey INTEGER PRIMARY KEY, c_name TEXT NOT NULL, c_address TEXT NOT NULL,
            c_nationkey INTEGER NOT NULL, c_phone TEXT NOT NULL, c_acctbal DECIMAL(15,2) NOT NULL,
            c_mktsegment TEXT NOT NULL, c_comment TEXT NOT NULL);
         CREATE TABLE orders (
            o_orderkey INTEGER PRIMARY KEY, o_custkey INTEGER NOT NULL, o_orderstatus TEXT NOT NULL,
            o_totalprice DECIMAL(15,2) NOT NULL, o_orderdate DATE NOT NULL,
            o_orderpriority TEXT NOT NULL, o_clerk TEXT NOT NULL, o_comment TEXT NOT NULL);
         CREATE TABLE lineitem (
            l_orderkey INTEGER NOT NULL, l_linenumber INTEGER NOT NULL, l_partkey INTEGER NOT NULL,
            l_suppkey INTEGER NOT NULL, l_quantity INTEGER NOT NULL,
            l_extendedprice DECIMAL(15,2) NOT NULL, l_discount DECIMAL(15,2) NOT NULL,
            l_returnflag TEXT NOT NULL, l_shipdate DATE NOT NULL, l_shipmode TEXT NOT NULL,
            PRIMARY KEY (l_orderkey, l_linenumber));",
    )?;
    let mut rows = 0;
    let mut insert = tx.prepare("INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    for c in CustomerGenerator::new(scale, 1, 1).iter() {
        insert.execute(params![
            c.c_custkey,
            c.c_name.to_string(),
            c.c_address.to_string(),
            c.c_nationkey,
            c.c_phone.to_string(),
            c.c_acctbal.to_string(),
            c.c_mktsegment,
            c.c_comment,
        ])?;
        rows += 1;
    }
    let mut insert = tx.prepare("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    for o in OrderGenerator::new(scale, 1, 1).iter() {
        insert.execute(params![
            o.o_orderkey,
            o.o_custkey,
            o.o_orderstatus.to_string(),
            o.o_totalprice.to_string(),
            o.o_orderdate.to_string(),
            o.o_orderpriority,
            o.o_clerk.to_string(),
            o.o_comment,
        ])?;
        rows += 1;
    }
    let mut insert = tx.prepare("INSERT INTO lineitem VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    for l in LineItemGenerator::new(scale, 1, 1).iter() {
        insert.execute(params![
            l.l_orderkey,
            l.l_linenumber,
            l.l_partkey,
            l.l_suppkey,
            l.l_quantity,
            l.l_extendedprice.to_string(),
            l.l_discount.to_string(),
            l.l_returnflag,
            l.l_shipdate.to_string(),
            l.l_shipmode,
        ])?;
        rows += 1;
    }
    Ok(rows)
}

/// Writes the CSV file that a supplier's portal would send.
pub fn send_suppliers(path: &Path, scale: f64) -> Result<()> {
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        writeln!(file, "s_suppkey,s_name,s_phone,s_acctbal")?;
        for s in SupplierGenerator::new(scale, 1, 1).iter() {
            writeln!(file, "{},{},{},{}", s.s_suppkey, s.s_name, s.s_phone, s.s_acctbal)?;
        }
        file.flush()
    };
    write().map_err(|cause| {
        Error::permanent(DOING, "the file of suppliers cannot be written")
            .with("file", path.display())
            .caused_by(cause)
    })
}
