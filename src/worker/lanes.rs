//! Which message is taken next, where a worker consumes several pools: by weight, among the pools
//! that have one (stride scheduling: Waldspurger and Weihl, 1995).

use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::BoxStream;

use crate::queue::Incoming;

/// One pool's stream of messages.
struct Lane {
    weight: f64,
    /// Grows by 1/weight with every message; the lane with the least goes first.
    pass: f64,
    stream: BoxStream<'static, Incoming>,
}

/// The pools that a worker consumes.
#[derive(Default)]
pub struct Lanes(Vec<Lane>);

impl Lanes {
    /// Adds a pool; `weight` is at least 1.
    pub fn add(&mut self, weight: u32, stream: BoxStream<'static, Incoming>) {
        self.0.push(Lane { weight: f64::from(weight.max(1)), pass: 0.0, stream });
    }

    /// The next message. `None` when all streams have ended.
    pub async fn next(&mut self) -> Option<Incoming> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.0.sort_by(|a, b| a.pass.total_cmp(&b.pass));
        let mut ended = 0;
        for index in 0..self.0.len() {
            let Some(lane) = self.0.get_mut(index) else { break };
            match lane.stream.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => {
                    lane.pass += 1.0 / lane.weight;
                    let pass = lane.pass;
                    // A lane that had nothing to offer does not save up its turns.
                    for idle in self.0.iter_mut().take(index) {
                        idle.pass = idle.pass.max(pass - 1.0 / idle.weight);
                    }
                    return Poll::Ready(Some(message));
                }
                Poll::Ready(None) => ended += 1,
                Poll::Pending => {}
            }
        }
        if ended == self.0.len() { Poll::Ready(None) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use crate::queue::{Properties, Settle};

    struct Nothing;

    #[async_trait::async_trait]
    impl Settle for Nothing {
        async fn ack(self: Box<Self>) -> Result<()> {
            Ok(())
        }
        async fn requeue(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    fn endless(pool: &'static str, most: usize) -> BoxStream<'static, Incoming> {
        futures::stream::iter(0..most)
            .map(move |_| Incoming {
                body: bytes::Bytes::new(),
                properties: Properties::default(),
                pool: pool.to_owned(),
                redelivered: false,
                settle: Box::new(Nothing),
            })
            .boxed()
    }

    #[tokio::test]
    async fn messages_are_taken_by_weight() {
        let mut lanes = Lanes::default();
        lanes.add(3, endless("default", 1000));
        lanes.add(1, endless("bulk", 1000));
        let mut bulk = 0;
        for _ in 0..400 {
            bulk += usize::from(lanes.next().await.unwrap().pool == "bulk");
        }
        assert!((98..=102).contains(&bulk), "{bulk}");
    }

    #[tokio::test]
    async fn a_lone_pool_gets_every_turn_and_the_end_is_seen() {
        let mut lanes = Lanes::default();
        lanes.add(1, endless("a", 3));
        lanes.add(5, endless("b", 0));
        for _ in 0..3 {
            assert_eq!(lanes.next().await.unwrap().pool, "a");
        }
        assert!(lanes.next().await.is_none());
    }
}
