//! What the suites need of Redis: a prefix of one's own, and a user of one's own.

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::support::servers;

/// Where the Redis of the tests is.
pub fn url() -> String {
    servers::redis().into()
}

/// A prefix that nobody else uses.
pub fn prefix() -> String {
    format!("longshore-test-{}", uuid::Uuid::now_v7())
}

/// A connection beside those under test.
pub async fn connection() -> MultiplexedConnection {
    let client = redis::Client::open(url()).unwrap();
    client.get_multiplexed_async_connection().await.expect("the tests need a Redis")
}

/// Every key under a prefix.
pub async fn keys(prefix: &str) -> Vec<String> {
    let mut connection = connection().await;
    let mut found = Vec::new();
    let mut cursor = 0u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}:*"))
            .arg("COUNT")
            .arg(1_000)
            .query_async(&mut connection)
            .await
            .unwrap();
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return found;
        }
    }
}

/// Deletes every key under a prefix, and answers how many there were.
pub async fn wipe(prefix: &str) -> usize {
    let keys = keys(prefix).await;
    let mut connection = connection().await;
    for key in &keys {
        let _: i64 = connection.del(key).await.unwrap();
    }
    keys.len()
}
