//! Locks: what others see meanwhile, and how long anything is waited for.

use super::*;
use crate::sink_table::merge;

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
