//! The memory of a worker, in bytes: a job takes what its export declares before its run is opened,
//! and gives it back when it has ended.
//!
//! First come, first served, but that a job for which there is room need not wait behind one for which
//! there is none: it may pass, as long as whoever is passed has not been passed by as many bytes as
//! there are in all. So small jobs go on beside a large one that waits, and none starves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::telemetry::metrics;

/// What the jobs of a worker share.
pub struct Memory {
    all: u64,
    line: Mutex<Line>,
}

struct Line {
    free: u64,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    bytes: u64,
    /// By how many bytes it was passed.
    passed: u64,
    grant: oneshot::Sender<Room>,
}

/// Bytes that a job has; dropping it gives them back.
pub struct Room {
    memory: Arc<Memory>,
    bytes: u64,
}

/// A place in the line; dropping it leaves the line.
pub struct Turn {
    memory: Arc<Memory>,
    grant: oneshot::Receiver<Room>,
}

impl Memory {
    /// So many bytes.
    pub fn new(all: u64) -> Arc<Memory> {
        let line = Line { free: all, waiting: VecDeque::new() };
        Arc::new(Memory { all, line: Mutex::new(line) })
    }

    /// Whether it has so many bytes at all.
    pub fn has(&self, bytes: u64) -> bool {
        bytes <= self.all
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    /// What a job has that needs no memory to speak of.
    pub fn nothing(self: &Arc<Memory>) -> Room {
        Room { memory: Arc::clone(self), bytes: 0 }
    }

    /// Stands in line for bytes, of which there are so many in all.
    pub fn take(self: &Arc<Memory>, bytes: u64) -> Turn {
        let (sender, grant) = oneshot::channel();
        self.line().waiting.push_back(Waiter { bytes, passed: 0, grant: sender });
        self.serve();
        Turn { memory: Arc::clone(self), grant }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives whoever may have it what there is.
    fn serve(self: &Arc<Memory>) {
        let mut granted = Vec::new();
        {
            let mut line = self.line();
            let Line { free, waiting } = &mut *line;
            waiting.retain(|waiter| !waiter.grant.is_closed());
            let mut at = 0;
            while let Some(bytes) = waiting.get(at).map(|waiter| waiter.bytes) {
                let passes =
                    waiting.iter().take(at).all(|before| before.passed + bytes <= self.all);
                if bytes > *free || !passes {
                    at += 1;
                    continue;
                }
                *free -= bytes;
                waiting.iter_mut().take(at).for_each(|before| before.passed += bytes);
                granted.extend(waiting.remove(at).map(|waiter| (waiter.grant, bytes)));
            }
            metrics::memory(self.all, self.all - *free, waiting.len());
        }
        for (grant, bytes) in granted {
            // Whoever has left meanwhile gives it back by that.
            let _ = grant.send(Room { memory: Arc::clone(self), bytes });
        }
    }
}

impl Turn {
    /// What it stood in line for, if it may have that now.
    pub fn now(&mut self) -> Option<Room> {
        self.grant.try_recv().ok()
    }

    /// Waits for it. Whoever gives up waiting keeps his place.
    pub async fn wait(&mut self) -> Option<Room> {
        (&mut self.grant).await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.grant.close();
        self.memory.serve();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.line().free += self.bytes;
        self.memory.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_come_first_come_first_served_and_never_take_more_than_there_is() {
        let memory = Memory::new(100);
        let first = memory.take(60).now().unwrap();
        let mut second = memory.take(60);
        let mut third = memory.take(60);
        assert!(second.now().is_none() && third.now().is_none());
        drop(first);
        let second = second.now().unwrap();
        assert!(third.now().is_none(), "only one of them fits");
        drop(second);
        assert!(third.now().is_some());
        assert!(memory.has(100) && !memory.has(101));
    }

    #[test]
    fn a_small_job_passes_a_large_one_and_the_large_one_does_not_starve() {
        let memory = Memory::new(100);
        let running = memory.take(50).now().unwrap();
        let mut large = memory.take(80);
        // Ten small ones, one after the other, take as many bytes as there are in all.
        for _ in 0..10 {
            assert!(memory.take(10).now().is_some());
        }
        let mut late = memory.take(10);
        assert!(late.now().is_none() && large.now().is_none(), "{}", memory.waiting());
        drop(running);
        let large = large.now().unwrap();
        // Beside it there is room again.
        assert!(late.now().is_some());
        drop(large);
        assert_eq!((memory.waiting(), memory.line().free), (0, 100));
    }

    #[tokio::test]
    async fn who_leaves_the_line_lets_the_others_go_on_and_keeps_nothing() {
        let memory = Memory::new(100);
        let running = memory.take(90).now().unwrap();
        let large = memory.take(100);
        for _ in 0..10 {
            assert!(memory.take(10).now().is_some());
        }
        let mut late = memory.take(10);
        assert_eq!(memory.waiting(), 2);
        drop(large);
        assert_eq!(memory.waiting(), 0);
        drop(late.wait().await.unwrap());
        // What was granted and never looked at is given back as well.
        let granted = memory.take(10);
        assert_eq!(memory.line().free, 0);
        drop(granted);
        drop(running);
        assert_eq!(memory.line().free, 100);
    }
}
