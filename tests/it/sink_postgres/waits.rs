//! Locks and cuts: what others see meanwhile and after, and how long anything is waited for.

use super::*;
use crate::sink_table::merge;
use longshore::sink::NewColumns;

/// Waits until a session of the sink waits for a lock in a statement on this target.
async fn blocked(target: &Postgres) {
    let sql = "SELECT FROM pg_stat_activity
               WHERE wait_event_type = 'Lock' AND application_name = 'longshore sink'
                 AND strpos(query, $1) > 0";
    while target.client.query_opt(sql, &[&target.schema]).await.unwrap().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn readers_see_the_old_rows_or_the_new_ones() {
    with(async |target| {
        target.execute("INSERT INTO {}t VALUES (1, 'old'), (2, 'old')").await;
        let mut reader = postgres::connect(&connection(), "reader").await.unwrap();
        let snapshot = reader
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .start()
            .await
            .unwrap();
        let seen = format!("SELECT count(*) FROM {}.t WHERE name = 'old'", target.schema);
        let seen = async |snapshot: &tokio_postgres::Transaction<'_>| {
            snapshot.query_one(&seen, &[]).await.unwrap().get::<_, i64>(0)
        };
        assert_eq!(seen(&snapshot).await, 2);
        // The reader's lock does not keep the delivery out, nor the delivery the reader.
        let sink = target.sink(Mode::Replace);
        deliver(&*sink, &first(), vec![batch(&[(3, Some("new"))])]).await.unwrap();
        assert_eq!(seen(&snapshot).await, 2);
        drop(snapshot);
        assert_eq!(target.rows().await, [(3, Some("new".to_owned()))]);
    })
    .await;
}

#[tokio::test]
async fn a_lock_is_waited_for_no_longer_than_allowed() {
    with(async |target| {
        let mut connection = connection();
        let mark = if connection.url.contains('?') { '&' } else { '?' };
        connection.url = format!("{}{mark}options=-c%20lock_timeout%3D50ms", connection.url);
        let table = format!("{}.t", target.schema);
        let sink = PostgresSink::new(&connection, &table, merge(Mode::Replace, &[])).unwrap();
        let (holder, rows) = (first(), || stream(vec![batch(&[(1, None)])]));
        sink.begin(&holder).await.unwrap();
        sink.stage(&holder, rows()).await.unwrap();
        let mut other = postgres::connect(&connection, "other").await.unwrap();
        let lock = other.transaction().await.unwrap();
        lock.batch_execute(&format!("LOCK TABLE {table} IN ROW EXCLUSIVE MODE")).await.unwrap();
        let error = sink.commit(&holder, &decision(1)).await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{error}");
        assert!(error.to_string().contains("a lock was not free in time"), "{error}");
        assert!(error.advice().unwrap().contains("pg_locks"));
        drop(lock);
        other.close().await;
        sink.commit(&holder, &decision(1)).await.unwrap();
        assert_eq!(target.rows().await, [(1, None)]);
    })
    .await;
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    with(async |target| {
        target.execute("INSERT INTO {}t VALUES (1, 'old'), (2, 'old')").await;
        let (sink, holder) = (target.sink(Mode::Upsert), first());
        sink.begin(&holder).await.unwrap();
        let rows = batch(&[(1, Some("new")), (2, Some("new"))]);
        sink.stage(&holder, stream(vec![rows])).await.unwrap();
        let mut other = postgres::connect(&connection(), "other").await.unwrap();
        let tx = other.transaction().await.unwrap();
        let touch =
            |id: i64| format!("UPDATE {}.t SET name = 'theirs' WHERE id = {id}", target.schema);
        // So that it is the sink who gives way.
        tx.batch_execute("SET LOCAL deadlock_timeout = '1h'").await.unwrap();
        tx.batch_execute(&touch(2)).await.unwrap();
        let decision = decision(2);
        let (committed, ()) = tokio::join!(sink.commit(&holder, &decision), async {
            // It holds the first row and waits for the second.
            blocked(target).await;
            tx.batch_execute(&touch(1)).await.unwrap();
        });
        let error = committed.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{error}");
        tx.commit().await.unwrap();
        other.close().await;
        sink.commit(&holder, &decision).await.unwrap();
        let all = [(1, Some("new".to_owned())), (2, Some("new".to_owned()))];
        assert_eq!(target.rows().await, all);
    })
    .await;
}

/// Waits until a session inserts into the target, and tells which.
async fn merging(target: &Postgres) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity
               WHERE state = 'active' AND starts_with(query, 'INSERT INTO \"' || $1 || '\".\"t\"')";
    loop {
        if let Some(row) = target.client.query_opt(sql, &[&target.schema]).await.unwrap() {
            return row.get(0);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_commit_that_is_cut_off_leaves_nothing() {
    with(async |target| {
        target
            .execute(
                "CREATE FUNCTION {}wait() RETURNS trigger LANGUAGE plpgsql
                     AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'",
            )
            .await;
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        let wider = RecordBatch::try_from_iter([("id", ids), ("extra", text("x"))]).unwrap();
        let add = Merge { new_columns: NewColumns::Add, ..merge(Mode::Replace, &[]) };
        let first_rows = batch(&[(1, None)]);
        for (how, rows, before, after) in [
            (merge(Mode::Append, &[]), first_rows, vec![], vec![(1, None)]),
            (add, wider, vec![(1, None)], vec![(2, None)]),
        ] {
            target
                .execute(
                    "CREATE TRIGGER waits BEFORE INSERT ON {}t
                         FOR EACH ROW EXECUTE FUNCTION {}wait()",
                )
                .await;
            let (sink, mut holder) = (target.sink_with("t", how), first());
            let decision = decision(1);
            for killed in [true, false] {
                sink.begin(&holder).await.unwrap();
                sink.stage(&holder, stream(vec![rows.clone()])).await.unwrap();
                let cut = async {
                    let pid = merging(target).await;
                    if killed {
                        let kill = "SELECT pg_terminate_backend($1)";
                        target.client.query_one(kill, &[&pid]).await.unwrap();
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    outcome = sink.commit(&holder, &decision) => {
                        let class = outcome.unwrap_err().class();
                        assert!(matches!(class, Class::Transient | Class::Unavailable), "{class}");
                    }
                    () = cut => assert!(!killed),
                }
                // Its locks go with it, so that the next attempt need not wait for them.
                holder = next(&holder);
                assert_eq!(target.rows().await, before);
                let columns = "SELECT count(*)::text FROM pg_attribute
                               WHERE attrelid = '{}t'::regclass AND attname = 'extra'";
                assert_eq!(target.value(columns).await, "0");
            }
            sink.begin(&holder).await.unwrap();
            target.execute("DROP TRIGGER waits ON {}t").await;
            deliver(&*sink, &next(&holder), vec![rows]).await.unwrap();
            assert_eq!(target.rows().await, after);
            assert!(target.stages().await.is_empty());
        }
    })
    .await;
}
