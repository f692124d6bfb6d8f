//! The servers of a test's own, which the other tests here rely on.

use crate::support::own::{Postgres, Redis};
use crate::support::servers::connect;

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_of_ones_own_keeps_what_was_committed_however_it_ends() {
    let mut server = Postgres::start(&["max_connections=30"]).await;
    connect(&server.url()).await.batch_execute("CREATE TABLE kept (id int)").await.unwrap();
    server.kill();
    server.restart().await;
    server.restart().await;
    let client = connect(&server.url()).await;
    client.query("SELECT * FROM kept", &[]).await.unwrap();
    let most: String = client.query_one("SHOW max_connections", &[]).await.unwrap().get(0);
    assert_eq!(most, "30");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_ones_own_is_empty_when_it_is_started_again() {
    let mut server = Redis::start().await;
    let client = redis::Client::open(server.url().as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("SET").arg("a").arg(1).query_async(&mut connection).await.unwrap();
    server.restart(&[]).await;
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    assert_eq!(keys, 0);
    server.signal("STOP");
    assert!(client.get_multiplexed_async_connection().await.is_err());
    server.signal("CONT");
    client.get_multiplexed_async_connection().await.unwrap();
}
