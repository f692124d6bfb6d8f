//! Tables that are reloaded while a read waits for them, of every kind, and the order of their rows.

use std::panic::AssertUnwindSafe;

use arrow::array::ArrayRef;
use futures::FutureExt;
use longshore::error::Result;
use longshore::rows::Rows;
use longshore::source::Since;
use tokio_postgres::Client;
use url::Url;

use super::*;
use crate::support::own;

const SEVEN: [i32; 7] = [1, 2, 3, 4, 5, 6, 7];

fn at(url: &Url, config: serde_json::Value) -> Box<dyn Source> {
    let mut config = config;
    config["connection"] = "shop".into();
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let connection = json!({"type": "postgres", "url": url.as_str()});
    let mut connection: Connection = serde_json::from_value(connection).unwrap();
    connection.name = "shop".to_owned();
    build(&config, &connection, None, &Budget::default()).unwrap()
}

/// The numbers in the first column of what is read.
async fn numbers(rows: Rows) -> Result<Vec<i32>> {
    let batches = rows.stream.map_ok(|batch| batch.rows.column(0).clone());
    let columns: Vec<ArrayRef> = batches.try_collect().await?;
    let numbers = columns.iter().flat_map(|column| column.as_primitive::<Int32Type>().values());
    Ok(numbers.copied().collect())
}

async fn read(source: &dyn Source) -> Result<Vec<i32>> {
    numbers(source.read(&Bindings::new()).await?).await
}

/// Nothing is missing, in whatever order.
fn assert_seven(read: Result<Vec<i32>>, what: &str) {
    let mut ids = read.unwrap_or_else(|error| panic!("{what}: {error}"));
    ids.sort_unstable();
    assert_eq!(ids, SEVEN, "{what}");
}

/// A session that reloads tables, and one that looks who waits for it.
struct Loader {
    client: Client,
    watch: Client,
}

impl Loader {
    async fn connect(url: &Url) -> Loader {
        Loader { client: servers::connect(url).await, watch: servers::connect(url).await }
    }

    async fn execute(&self, sql: &str) {
        let done = self.client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Reads while a transaction is open that has reloaded something, and commits when the reader waits
    /// for it. Tells what was read, and in which statement it waited.
    async fn during<T>(&self, reload: &str, read: impl Future<Output = T>) -> (T, String) {
        self.execute(&format!("BEGIN; {reload}")).await;
        let pid: i32 = self.client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        tokio::join!(read, async {
            let sql = "SELECT query FROM pg_stat_activity
                       WHERE application_name = 'longshore source'
                         AND $1 = ANY (pg_blocking_pids(pid))";
            let waits = loop {
                if let Some(row) = self.watch.query_opt(sql, &[&pid]).await.unwrap() {
                    break row.get::<_, String>(0);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            self.execute("COMMIT").await;
            waits
        })
    }
}

/// Runs a test with a schema of its own, in which its session makes such tables.
async fn with(tables: &str, test: impl AsyncFnOnce(&Loader, &str)) {
    let loader = Loader::connect(&servers::postgres()).await;
    let schema = format!("source_{}", uuid::Uuid::now_v7().simple());
    loader.execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}")).await;
    let tested = AssertUnwindSafe(async {
        loader.execute(tables).await;
        test(&loader, &schema).await;
    });
    let outcome = FutureExt::catch_unwind(tested).await;
    loader.execute("ROLLBACK").await;
    loader.execute(&format!("DROP SCHEMA {schema} CASCADE")).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// To a snapshot from before, it would be empty: the lock is waited for without one.
#[tokio::test]
async fn a_table_that_is_reloaded_meanwhile_is_read_whole() {
    let tables = "
        CREATE TABLE t AS SELECT generate_series(1, 7) AS id;
        CREATE TABLE parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE one PARTITION OF parted DEFAULT;
        INSERT INTO parted SELECT id FROM t";
    with(tables, async |loader, schema| {
        for (table, reload) in [
            ("t", "TRUNCATE t; INSERT INTO t SELECT generate_series(1, 7)"),
            ("t", "ALTER TABLE t ALTER id TYPE int USING id + 0"),
            ("t", "CREATE TABLE next AS TABLE t; DROP TABLE t; ALTER TABLE next RENAME TO t"),
            ("parted", "TRUNCATE parted; INSERT INTO parted SELECT id FROM t"),
        ] {
            let source = source(json!({"table": format!("{schema}.{table}")}), None);
            let (ids, waited) = loader.during(reload, read(&*source)).await;
            assert_seven(ids, reload);
            assert!(waited.contains("LOCK TABLE"), "{reload}: {waited}");
        }
    })
    .await;
}

/// What is known only when it is planned is locked after the snapshot: where that has something else
/// than there is now, another one is taken.
#[tokio::test]
async fn whatever_else_is_read_and_reloaded_meanwhile_is_read_whole() {
    let tables = "
        CREATE TABLE t AS SELECT generate_series(1, 7) AS id;
        CREATE VIEW shown AS SELECT id FROM t;
        CREATE TABLE plain AS TABLE t;
        CREATE TABLE spare (LIKE t);
        CREATE TABLE other AS TABLE t;
        CREATE MATERIALIZED VIEW kept AS TABLE t;
        CREATE TABLE parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE one PARTITION OF parted DEFAULT;
        CREATE TABLE later (id int);
        INSERT INTO parted SELECT id FROM t";
    with(tables, async |loader, schema| {
        // Two tables that change their places there keep their names.
        let aside = format!("{schema}_aside");
        loader.execute(&format!("CREATE SCHEMA {aside}")).await;
        let query = |from: &str| json!({"query": format!("SELECT id FROM {schema}.{from}")});
        let table = |name: &str| json!({"table": format!("{schema}.{name}")});
        let mut filtered = table("t");
        filtered["where"] = format!("id IN (SELECT id FROM {schema}.other)").into();
        for (config, reload) in [
            (query("t"), "TRUNCATE t; INSERT INTO t SELECT generate_series(1, 7)"),
            (table("shown"), "TRUNCATE t; INSERT INTO t SELECT generate_series(1, 7)"),
            (filtered, "TRUNCATE other; INSERT INTO other TABLE t"),
            (query("plain"), "ALTER TABLE plain ALTER id TYPE int USING id + 0"),
            (query("plain"), "DROP TABLE plain; CREATE TABLE plain AS TABLE t"),
            (
                query("plain"),
                "INSERT INTO spare TABLE t; ALTER TABLE plain RENAME TO old; \
                 ALTER TABLE spare RENAME TO plain",
            ),
            (
                table("shown"),
                "CREATE TABLE green AS TABLE t; CREATE OR REPLACE VIEW shown AS SELECT id FROM green",
            ),
            (
                query("plain"),
                "ALTER TABLE plain SET SCHEMA {aside}; CREATE TABLE {aside}.fresh AS TABLE t; \
                 ALTER TABLE {aside}.plain RENAME TO past; \
                 ALTER TABLE {aside}.fresh RENAME TO plain; ALTER TABLE {aside}.plain SET SCHEMA {schema}",
            ),
            (table("kept"), "REFRESH MATERIALIZED VIEW kept"),
            (table("parted"), "TRUNCATE one; INSERT INTO one TABLE t"),
            (query("parted"), "TRUNCATE one; INSERT INTO one TABLE t"),
            (
                query("parted"),
                "INSERT INTO later TABLE t; ALTER TABLE parted DETACH PARTITION one; \
                 ALTER TABLE parted ATTACH PARTITION later DEFAULT",
            ),
        ] {
            let source = source(config, None);
            let reload = reload.replace("{schema}", schema).replace("{aside}", &aside);
            let (ids, _) = loader.during(&reload, read(&*source)).await;
            assert_seven(ids, &reload);
        }
        loader.execute(&format!("DROP SCHEMA {aside} CASCADE")).await;

        let mut by_id = query("t");
        by_id["cursor"] = "id".into();
        let source = source(by_id, None);
        let reload = "TRUNCATE t; INSERT INTO t SELECT generate_series(1, 7)";
        let (bindings, since) = (Bindings::new(), Since::default());
        let (fresh, _) = loader.during(reload, source.read_since(&bindings, &since)).await;
        let fresh = fresh.unwrap();
        assert_eq!(fresh.to.as_deref(), Some("7"));
        assert_seven(numbers(fresh.rows).await, "by a cursor");
    })
    .await;
}

/// An index is no table that could be reloaded: one that is made while the read goes on hurts nobody.
#[tokio::test]
async fn an_index_may_be_made_meanwhile() {
    with("CREATE TABLE t AS SELECT generate_series(1, 7) AS id", async |loader, schema| {
        let source = source(json!({"query": format!("SELECT id FROM {schema}.t")}), None);
        let rows = source.read(&Bindings::new()).await.unwrap();
        loader.execute("CREATE INDEX made ON t (id)").await;
        assert_seven(numbers(rows).await, "with a new index");
    })
    .await;
}

#[tokio::test]
async fn what_a_function_has_read_too_early_is_not_delivered() {
    with("CREATE TABLE t AS SELECT generate_series(1, 7) AS id", async |loader, schema| {
        let known = format!(
            "CREATE FUNCTION known(int) RETURNS boolean STABLE LANGUAGE plpgsql
             AS 'BEGIN RETURN EXISTS (SELECT FROM {schema}.t WHERE id = $1); END'"
        );
        loader.execute(&known).await;
        let sql = format!("SELECT i AS id FROM generate_series(1, 9) i WHERE {schema}.known(i)");
        let source = source(json!({"query": sql}), None);
        let reload = "TRUNCATE t; INSERT INTO t SELECT generate_series(1, 7)";
        let (ids, waited) = loader.during(reload, read(&*source)).await;
        assert!(waited.starts_with("COPY"), "{waited}");
        let error = ids.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{error}");
        assert!(error.to_string().contains("reloaded"), "{error}");
        assert!(error.to_string().contains(&format!("tables {schema}.t")), "{error}");
        assert_seven(read(&*source).await, "once more");
    })
    .await;
}

/// What cannot be locked by its name, and what this user may not lock, is read as well.
#[tokio::test]
async fn every_kind_of_table_is_read_with_no_more_rights_than_to_read() {
    let server = own::Postgres::start(&[]).await;
    let loader = Loader::connect(&server.url()).await;
    loader
        .execute(
            "CREATE ROLE reader LOGIN; CREATE ROLE author;
             CREATE TABLE plain AS SELECT i AS id, 'no' AS secret FROM generate_series(1, 7) i;
             CREATE TABLE parted (id int) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF parted FOR VALUES FROM (1) TO (4);
             CREATE TABLE high PARTITION OF parted DEFAULT;
             INSERT INTO parted SELECT id FROM plain;
             CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent);
             INSERT INTO child SELECT id FROM plain;
             CREATE VIEW shown AS SELECT id FROM plain;
             CREATE MATERIALIZED VIEW kept AS SELECT id FROM plain;
             CREATE TABLE guarded AS SELECT id FROM plain;
             ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
             CREATE POLICY known ON guarded USING (id IN (SELECT id FROM shown));
             CREATE TABLE narrow AS TABLE plain;
             CREATE VIEW of_narrow AS SELECT id FROM narrow;
             ALTER VIEW of_narrow OWNER TO author;
             GRANT SELECT ON plain, parted, parent, shown, kept, guarded, of_narrow TO reader;
             GRANT SELECT (id) ON narrow TO reader, author",
        )
        .await;
    let kinds = ["plain", "parted", "parent", "shown", "kept", "guarded", "narrow", "of_narrow"];
    let mut kinds = kinds.to_vec();
    let has_foreign = "SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'";
    if loader.watch.query_opt(has_foreign, &[]).await.unwrap().is_some() {
        let port = server.url().port().unwrap();
        loader
            .execute(&format!(
                "CREATE EXTENSION postgres_fdw;
                 CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw
                     OPTIONS (host '127.0.0.1', port '{port}', dbname 'postgres');
                 CREATE USER MAPPING FOR reader SERVER itself
                     OPTIONS (user 'postgres', password_required 'false');
                 CREATE FOREIGN TABLE away (id int) SERVER itself OPTIONS (table_name 'plain');
                 GRANT SELECT ON away TO reader"
            ))
            .await;
        kinds.push("away");
    } else {
        println!("no foreign table is read: this PostgreSQL has no postgres_fdw");
    }

    let mut reader = server.url();
    reader.set_username("reader").unwrap();
    for kind in kinds {
        let source = at(&reader, json!({"table": kind, "columns": ["id"]}));
        source.schema(&Bindings::new()).await.unwrap();
        assert_seven(read(&*source).await, kind);
    }
    let reload = "TRUNCATE narrow; INSERT INTO narrow TABLE plain";
    for kind in ["narrow", "of_narrow"] {
        let source = at(&reader, json!({"table": kind, "columns": ["id"]}));
        let (ids, _) = loader.during(reload, read(&*source)).await;
        assert_seven(ids, kind);
    }
    let whole = at(&reader, json!({"table": "narrow"})).schema(&Bindings::new()).await;
    let error = whole.unwrap_err();
    assert_eq!(error.class(), Class::Permanent, "{error}");
    assert!(error.to_string().contains("42501"), "{error}");
}

#[tokio::test]
async fn a_table_that_is_read_whole_is_read_as_it_lies() {
    // A scan of what is greater than a quarter of the buffers begins where another one was.
    let server = own::Postgres::start(&["shared_buffers=1MB"]).await;
    let loader = Loader::connect(&server.url()).await;
    loader
        .execute(
            "CREATE TABLE t (id int, v text); ALTER TABLE t ALTER v SET STORAGE PLAIN;
             INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i",
        )
        .await;
    let mut hasty = server.url();
    hasty.set_query(Some(
        "options=-c%20parallel_setup_cost%3D0%20-c%20parallel_tuple_cost%3D0\
         %20-c%20min_parallel_table_scan_size%3D0",
    ));
    for url in [server.url(), hasty] {
        loader.execute("SELECT FROM t LIMIT 10000").await;
        let ids = read(&*at(&url, json!({"table": "t"}))).await.unwrap();
        assert!(ids.iter().copied().eq(1..=20_000), "it begins with {:?}", ids.first());
    }
}
