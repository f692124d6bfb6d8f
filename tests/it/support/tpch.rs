//! TPC-H data in PostgreSQL.

use std::fmt::Display;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;
use tpchgen::csv::{CustomerCsv, LineItemCsv, OrderCsv};
use tpchgen::generators::{CustomerGenerator, LineItemGenerator, OrderGenerator};

/// The columns of `orders`.
pub const ORDERS: &str = "o_orderkey bigint PRIMARY KEY, o_custkey bigint NOT NULL,
     o_orderstatus text NOT NULL, o_totalprice numeric(15,2) NOT NULL, o_orderdate date NOT NULL,
     o_orderpriority text NOT NULL, o_clerk text NOT NULL, o_shippriority integer NOT NULL,
     o_comment text NOT NULL";

/// Makes the schema `shop` with customers, orders and their lines.
pub async fn fill(client: &Client, scale: f64) {
    client
        .batch_execute(&format!(
            "CREATE SCHEMA shop;
             CREATE TABLE shop.customer (c_custkey bigint PRIMARY KEY, c_name text NOT NULL,
                 c_address text NOT NULL, c_nationkey bigint NOT NULL, c_phone text NOT NULL,
                 c_acctbal numeric(15,2) NOT NULL, c_mktsegment text NOT NULL,
                 c_comment text NOT NULL);
             CREATE TABLE shop.orders ({ORDERS});
             CREATE TABLE shop.lineitem (l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL,
                 l_suppkey bigint NOT NULL, l_linenumber integer NOT NULL,
                 l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL,
                 l_discount numeric(15,2) NOT NULL, l_tax numeric(15,2) NOT NULL,
                 l_returnflag text NOT NULL, l_linestatus text NOT NULL, l_shipdate date NOT NULL,
                 l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
                 l_shipinstruct text NOT NULL, l_shipmode text NOT NULL, l_comment text NOT NULL,
                 PRIMARY KEY (l_orderkey, l_linenumber))"
        ))
        .await
        .unwrap();
    let customers = CustomerGenerator::new(scale, 1, 1);
    copy(client, "shop.customer", customers.iter().map(CustomerCsv::new)).await;
    let orders = OrderGenerator::new(scale, 1, 1);
    copy(client, "shop.orders", orders.iter().map(OrderCsv::new)).await;
    let lines = LineItemGenerator::new(scale, 1, 1);
    copy(client, "shop.lineitem", lines.iter().map(LineItemCsv::new)).await;
    client.batch_execute("CREATE INDEX ON shop.orders (o_orderdate); ANALYZE").await.unwrap();
}

async fn copy(client: &Client, table: &str, rows: impl Iterator<Item = impl Display>) {
    let statement = format!("COPY {table} FROM STDIN (FORMAT csv)");
    let sink = client.copy_in::<_, Bytes>(&statement).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let mut text = String::new();
    for row in rows {
        text.push_str(&format!("{row}\n"));
        if text.len() > 1 << 16 {
            sink.send(std::mem::take(&mut text).into()).await.unwrap();
        }
    }
    sink.send(text.into()).await.unwrap();
    sink.finish().await.unwrap();
}
