//! Jobs that wait for memory.

use super::receive::{self, Received};
use super::*;
use crate::queue::WAKE_TYPE;

const MIB: u64 = 1 << 20;

/// A worker of a hundred mebibytes, that lets messages go soon.
fn narrow(house: House) -> Bench {
    let hold = Duration::from_millis(20);
    let memory = Size(100 * MIB);
    Bench::new(1_000, WorkerSettings { hold, memory, ..WorkerSettings::default() }, house)
}

/// A definition that declares so much.
fn declaring(memory: &str) -> Json {
    orders(&json!({"limits": {"memory": memory}}))
}

impl Bench {
    /// Takes the next message, in a task of its own.
    async fn handle_next(&self) -> tokio::task::JoinHandle<()> {
        let mut jobs = self.worker.queue.consume("default", 1).await.unwrap();
        let message = jobs.next().await.unwrap();
        let slot = Arc::clone(&self.worker.slots).acquire_owned().await.unwrap();
        let worker = Arc::clone(&self.worker);
        tokio::spawn(async move {
            job::handle(&worker, message, slot).await;
            drop(jobs);
        })
    }

    async fn until(&self, is_so: impl Fn(&Worker) -> bool) {
        let looking = async {
            while !is_so(&self.worker) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap();
    }

    fn wake_ups(&self) -> i64 {
        let ledger = rusqlite::Connection::open(&self.file).unwrap();
        let count = "SELECT count(*) FROM outbox WHERE kind = 'wake'";
        ledger.query_row(count, [], |row| row.get(0)).unwrap()
    }
}

#[tokio::test]
async fn a_job_without_memory_is_accepted_unopened_and_what_only_goes_on_needs_none() {
    let bench = narrow(House::default());
    bench.activate("d", orders(&json!({}))).await;
    let all = bench.worker.memory.take(100 * MIB).now().unwrap();
    bench.publish("default", "k").await;
    let handling = bench.handle_next().await;
    bench.until(|worker| worker.in_line().len() == 1).await;
    let run = bench.runs().await.remove(0);
    assert_eq!((run.state, run.fence, run.failures, run.waits), (State::Queued, 0, 0, 0));
    let ledger = rusqlite::Connection::open(&bench.file).unwrap();
    let later = "SELECT count(*) FROM outbox o JOIN runs r ON r.id = o.run
                 WHERE o.kind = 'wake' AND o.due_at > r.accepted_at";
    let later: i64 = ledger.query_row(later, [], |row| row.get(0)).unwrap();
    assert_eq!(later, 1, "its wake-up, so that it does not spin");

    // Nor is it opened by a look, which waits for as long as the worker is not to end.
    bench.worker.drain().await;
    handling.await.unwrap();
    assert!(bench.worker.in_line().is_empty());
    assert_eq!(bench.look(run.id).await.fence, 0);
    bench.lose(run.id, Vec::new()).await;
    let cancel = Command::Cancel { run: run.id, by: "ann".to_owned(), reason: "seen".to_owned() };
    bench.apply(cancel).await;
    assert_eq!(bench.look(run.id).await.fence, 2, "a run that is closed needs none");
    drop(all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_job_keeps_its_place_in_line_when_its_message_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let bench = narrow(house(folder.path()));
    bench.activate("d", declaring("60 MiB")).await;
    bench.publish("default", "k").await;
    let small = || bench.worker.memory.take(50 * MIB);
    let (first, second) = (small().now().unwrap(), small().now().unwrap());
    let handling = bench.handle_next().await;
    bench.until(|worker| worker.memory.waiting() == 1).await;
    // There is always a small one that takes what another gives back.
    let (mut third, mut fourth, mut fifth) = (small(), small(), small());
    drop(first);
    let third = third.now().unwrap();
    drop(second);
    let fourth = fourth.now().unwrap();
    bench.until(|worker| worker.in_line().len() == 1).await;
    let run = bench.runs().await.remove(0);
    drop(third);
    assert!(fifth.now().is_none(), "the large one is next, however long the small ones last");
    // The wake-up for a worker that has room does not make it stand in line twice.
    let wake = WakeMessage { run: run.id, epoch: run.epoch, split: None };
    let kind = Some(WAKE_TYPE.to_owned());
    let mail = job::Mail {
        body: serde_json::to_vec(&wake).unwrap().into(),
        properties: Properties { kind, ..Properties::default() },
        pool: "default".to_owned(),
    };
    let received = receive::receive(&bench.worker, &mail).await.unwrap();
    assert!(matches!(received, Received::Nothing(None)));
    assert_eq!((bench.worker.memory.waiting(), bench.wake_ups()), (2, 1));
    drop(fourth);
    handling.await.unwrap();
    assert_eq!(bench.run(run.id).await.state, State::Done);
    assert!(fifth.now().is_some() && bench.worker.in_line().is_empty());
}

#[tokio::test]
async fn the_repeat_of_a_job_takes_what_the_definition_of_its_run_declares() {
    let bench = narrow(House::default());
    let mail = job::Mail {
        body: json!({"export": "orders", "key": "k"}).to_string().into(),
        properties: Properties::default(),
        pool: "default".to_owned(),
    };
    bench.activate("d1", declaring("80 MiB")).await;
    let running = bench.worker.memory.take(50 * MIB).now().unwrap();
    let received = receive::receive(&bench.worker, &mail).await.unwrap();
    let Received::NoRoom(run, Some(turn)) = received else { panic!("it does not fit now") };
    drop(turn);
    assert_eq!(bench.wake_ups(), 0);
    bench.activate("d2", declaring("20 MiB")).await;
    bench.worker.definitions.forget("orders");
    // There is room for what is active now, and not for what the run was accepted with.
    let received = receive::receive(&bench.worker, &mail).await.unwrap();
    let Received::Nothing(Some(same)) = received else { panic!("it needs more than was taken") };
    assert_eq!((same.id, bench.wake_ups()), (run.id, 1));
    let look = || {
        let wake = WakeMessage { run: run.id, epoch: 0, split: None };
        receive::wake_up(&bench.worker, wake, Some(bench.worker.settings.hold), None)
    };
    assert!(matches!(look().await.unwrap(), Received::NoRoom(..)));
    drop(running);
    let Received::Run(_, _, _, room) = look().await.unwrap() else { panic!("it fits") };
    assert!(bench.worker.memory.take(21 * MIB).now().is_none(), "it has taken 80 of 100");
    drop(room);
}
