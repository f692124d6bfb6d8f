//! Which message is taken next, where a worker consumes several pools: by weight, among the pools
//! that have one (stride scheduling: Waldspurger and Weihl, 1995).

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;

use crate::queue::Incoming;

/// One pool's stream of messages.
struct Lane {
    weight: f64,
    /// Grows by 1/weight with every message; the lane with the least goes first.
    pass: f64,
    stream: BoxStream<'static, Incoming>,
    /// At the most so many of its messages are unsettled at a time.
    prefetch: usize,
    /// When the last `prefetch` messages were taken, the oldest first.
    taken: VecDeque<Instant>,
    /// When it last had none that waits.
    empty: Instant,
    /// Whether it had none when it was last asked.
    idle: bool,
}

impl Lane {
    /// Since when, at the earliest, a message of it waits: after it was last empty; and none comes
    /// before the one is settled that came `prefetch` messages earlier.
    fn since(&self) -> Instant {
        match self.taken.front() {
            Some(first) if self.taken.len() == self.prefetch => self.empty.max(*first),
            _ => self.empty,
        }
    }
}

/// The pools that a worker consumes.
#[derive(Default)]
pub struct Lanes(Vec<Lane>);

impl Lanes {
    /// Adds a pool; `weight` is at least 1. Of its messages at most `prefetch` are unsettled at a time.
    pub fn add(&mut self, weight: u32, prefetch: u16, stream: BoxStream<'static, Incoming>) {
        self.0.push(Lane {
            weight: f64::from(weight.max(1)),
            pass: 0.0,
            stream,
            prefetch: usize::from(prefetch),
            taken: VecDeque::new(),
            empty: Instant::now(),
            idle: false,
        });
    }

    /// The next message. `None` when all streams have ended.
    pub async fn next(&mut self) -> Option<Incoming> {
        let mut waited = false;
        std::future::poll_fn(|context| {
            let now = Instant::now();
            if std::mem::replace(&mut waited, true) {
                // Whatever has come since was told of at once: it comes now.
                self.0.iter_mut().filter(|lane| lane.idle).for_each(|lane| lane.empty = now);
            }
            self.poll(context, now)
        })
        .await
    }

    /// For how long a message may have waited here by `now`.
    pub fn held(&self, now: Instant) -> Duration {
        let held = self.0.iter().map(|lane| now.saturating_duration_since(lane.since()));
        held.max().unwrap_or_default()
    }

    fn poll(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Option<Incoming>> {
        self.0.sort_by(|a, b| a.pass.total_cmp(&b.pass));
        let mut ended = 0;
        for index in 0..self.0.len() {
            let Some(lane) = self.0.get_mut(index) else { break };
            match lane.stream.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => {
                    lane.idle = false;
                    if lane.taken.len() == lane.prefetch {
                        lane.taken.pop_front();
                    }
                    lane.taken.push_back(now);
                    lane.pass += 1.0 / lane.weight;
                    let pass = lane.pass;
                    // A lane that had nothing to offer does not save up its turns.
                    for idle in self.0.iter_mut().take(index) {
                        idle.pass = idle.pass.max(pass - 1.0 / idle.weight);
                    }
                    return Poll::Ready(Some(message));
                }
                Poll::Ready(None) => ended += 1,
                Poll::Pending => (lane.idle, lane.empty) = (true, now),
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
        lanes.add(3, 16, endless("default", 1000));
        lanes.add(1, 16, endless("bulk", 1000));
        let mut bulk = 0;
        for _ in 0..400 {
            bulk += usize::from(lanes.next().await.unwrap().pool == "bulk");
        }
        assert!((98..=102).contains(&bulk), "{bulk}");
    }

    #[tokio::test]
    async fn a_lone_pool_gets_every_turn_and_the_end_is_seen() {
        let mut lanes = Lanes::default();
        lanes.add(1, 16, endless("a", 3));
        lanes.add(5, 16, endless("b", 0));
        for _ in 0..3 {
            assert_eq!(lanes.next().await.unwrap().pool, "a");
        }
        assert!(lanes.next().await.is_none());
    }

    #[tokio::test]
    async fn a_message_is_not_thought_to_wait_longer_than_the_prefetch_allows() {
        let mut lanes = Lanes::default();
        let start = Instant::now();
        lanes.add(1, 3, endless("a", 100));
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        lanes.next().await.unwrap();
        lanes.next().await.unwrap();
        // It may have been there from the start.
        let now = later(60);
        assert!(lanes.held(now) >= Duration::from_secs(60));
        assert!(lanes.held(now) <= now - start);
        let before = Instant::now();
        for _ in 0..3 {
            lanes.next().await.unwrap();
        }
        // What waits now has come since.
        let now = later(60);
        assert!(lanes.held(now) <= now - before);
    }

    #[tokio::test]
    async fn what_comes_to_an_idle_worker_has_not_waited() {
        let mut lanes = Lanes::default();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let stream = futures::stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        lanes.add(1, 3, stream.boxed());
        let came = async {
            tokio::task::yield_now().await;
            let before = Instant::now();
            let one = endless("a", 1).next().await.unwrap();
            assert!(sender.send(one).await.is_ok());
            before
        };
        let (taken, before) = tokio::join!(lanes.next(), came);
        assert!(taken.is_some());
        let now = Instant::now() + Duration::from_secs(60);
        assert!(lanes.held(now) <= now - before);
    }
}
