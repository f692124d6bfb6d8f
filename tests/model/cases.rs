//! The configurations.

use crate::world::{Config, Fault, Job, Left, Way};

const ONE: Job = Job { key: 0, content: 0 };
/// The same key, with other content.
const OTHER: Job = Job { key: 0, content: 1 };
const TWO: Job = Job { key: 1, content: 0 };

const ALL: &[Fault] = &[
    Fault::Crash,
    Fault::Cut,
    Fault::AnswerLost,
    Fault::Stall,
    Fault::Flush,
    Fault::ConfirmLost,
    Fault::LetterKept,
    Fault::Snapshot,
];

/// Those that a worker does not live to see, or does not know of.
const DEADLY: &[Fault] = &[Fault::Crash, Fault::Stall];

/// Two workers, one dispatcher, and nothing to do.
fn plain(name: &'static str, way: Way) -> Config {
    Config {
        name,
        way,
        workers: 2,
        dispatchers: 1,
        published: Vec::new(),
        placed: Vec::new(),
        replace: false,
        apart: false,
        cursor: false,
        slots: None,
        deadline: false,
        attempts: 2,
        splits: 0,
        sweeper: false,
        cleanings: false,
        faults: ALL,
        left: Left { faults: 1, ..Left::default() },
    }
}

fn faults(faults: u8) -> Left {
    Left { faults, ..Left::default() }
}

fn of_one_run(way: Way, n: u8) -> Vec<Config> {
    let one = |name| Config { published: vec![ONE], left: faults(n), ..plain(name, way) };
    vec![
        one("one job"),
        Config { published: vec![ONE, ONE], ..one("one job, published twice") },
        Config {
            placed: vec![ONE],
            published: Vec::new(),
            dispatchers: 2,
            ..one("one run, two dispatchers")
        },
        Config { published: vec![ONE, OTHER], ..one("one key, two contents") },
        Config { left: Left { cancels: 1, ..faults(n) }, ..one("cancelled") },
        Config { deadline: true, ..one("with a deadline") },
        Config { attempts: 3, left: Left { failures: 2, ..faults(n) }, ..one("failing") },
        Config {
            attempts: 1,
            left: Left { failures: 1, replays: 1, ..faults(n) },
            ..one("failing, replayed")
        },
        // With two faults it has more than twenty million states.
        Config {
            attempts: 1,
            dispatchers: 2,
            left: Left { failures: 2, replays: 2, ..faults(n.min(1)) },
            ..one("failing twice, replayed twice")
        },
        Config {
            left: Left { letting_go: 1, hand_backs: 1, ..faults(n) },
            ..one("let go, handed back")
        },
        Config { left: Left { reruns: 1, ..faults(n) }, ..one("run again") },
        Config { left: Left { pauses: 1, ..faults(n) }, ..one("paused") },
        Config {
            attempts: 1,
            cleanings: true,
            left: Left { failures: 1, replays: 1, ..faults(n) },
            ..one("cleaned up a day later")
        },
        Config {
            sweeper: true,
            left: Left { cancels: 1, ..faults(n) },
            ..one("with sweepers, cancelled")
        },
    ]
}

fn of_more_runs(way: Way, n: u8) -> Vec<Config> {
    let two = |name| Config {
        published: vec![ONE, TWO],
        replace: true,
        left: faults(n),
        ..plain(name, way)
    };
    vec![
        two("two runs, one target"),
        Config {
            cursor: true,
            left: Left { growth: 1, ..faults(n) },
            ..two("two runs, one cursor")
        },
        Config {
            slots: Some(1),
            left: Left { cancels: 1, ..faults(n) },
            ..two("two runs, one slot, one cancelled")
        },
        Config { left: Left { failures: 1, ..faults(n) }, ..two("two runs, one failing") },
        Config { left: Left { pauses: 1, ..faults(n) }, ..two("two runs, paused") },
        Config {
            cursor: true,
            faults: DEADLY,
            left: Left { unfit: 1, ..faults(n) },
            ..two("two runs, a worker unfit")
        },
    ]
}

/// What `cargo test` looks at: each kind of trouble, in seconds.
pub fn small(way: Way) -> Vec<Config> {
    let one = |name| Config { published: vec![ONE], left: faults(1), ..plain(name, way) };
    let two = |name| Config { published: vec![ONE, TWO], replace: true, ..one(name) };
    vec![
        one("one job, 1 fault"),
        Config {
            faults: &[Fault::Crash, Fault::AnswerLost],
            left: faults(2),
            ..one("one job, 2 faults")
        },
        Config { published: vec![ONE, OTHER], left: faults(0), ..one("one key, two contents") },
        Config {
            placed: vec![ONE],
            published: Vec::new(),
            left: Left { failures: 1, ..faults(1) },
            ..one("one run, failing")
        },
        Config { workers: 1, left: Left { cancels: 1, ..faults(1) }, ..one("cancelled") },
        Config {
            attempts: 1,
            workers: 1,
            left: Left { failures: 2, replays: 2, ..faults(1) },
            ..one("failing twice, replayed twice")
        },
        Config { faults: DEADLY, left: Left { reruns: 1, ..faults(1) }, ..one("run again") },
        Config { left: Left { pauses: 1, ..faults(0) }, ..two("two runs, paused") },
        Config { cursor: true, faults: &[Fault::Crash], ..two("two runs, target and cursor") },
        Config {
            cursor: true,
            workers: 1,
            faults: &[Fault::Crash],
            left: Left { unfit: 1, ..faults(1) },
            ..two("two runs, the worker unfit")
        },
        Config {
            cursor: true,
            apart: way == Way::Table,
            left: Left { growth: 1, ..faults(0) },
            ..two("two runs, the source grows")
        },
    ]
}

/// What `make model` looks at: everything, most of it with two faults, and with one where there are two
/// runs.
pub fn large(way: Way) -> Vec<Config> {
    let mut cases = of_one_run(way, 2);
    cases.extend(of_more_runs(way, 1));
    cases
}

/// One run of files, which is divided into two splits.
fn divided(name: &'static str, n: u8) -> Config {
    let config = plain(name, Way::Files);
    Config { placed: vec![ONE], splits: 2, left: faults(n), ..config }
}

/// What `cargo test` looks at, where several workers read one run.
pub fn small_of_splits() -> Vec<Config> {
    vec![
        divided("2 splits", 0),
        Config { faults: &[Fault::Crash], ..divided("2 splits, a worker dies", 1) },
        Config { faults: &[Fault::Stall], ..divided("2 splits, a worker stands still", 1) },
        Config { faults: &[Fault::AnswerLost], ..divided("2 splits, an answer is lost", 1) },
        Config { faults: &[Fault::Snapshot], ..divided("2 splits, the snapshot is lost", 1) },
        Config {
            faults: &[Fault::Snapshot],
            left: Left { growth: 1, ..faults(1) },
            ..divided("2 splits, lost, the source grows", 1)
        },
        Config {
            faults: &[Fault::Snapshot],
            attempts: 1,
            left: Left { replays: 1, ..faults(1) },
            ..divided("2 splits, lost for good, replayed", 1)
        },
        Config { left: Left { cancels: 1, ..faults(0) }, ..divided("2 splits, cancelled", 0) },
        Config {
            attempts: 1,
            left: Left { failures: 1, replays: 1, ..faults(0) },
            ..divided("2 splits, failing, replayed", 0)
        },
    ]
}

/// What `make model` looks at, where several workers read one run.
pub fn large_of_splits() -> Vec<Config> {
    let one = |name| divided(name, 1);
    vec![
        one("2 splits, 1 fault"),
        Config {
            published: vec![ONE, ONE],
            placed: Vec::new(),
            ..one("2 splits, published twice")
        },
        Config { splits: 3, faults: DEADLY, ..one("3 splits") },
        Config {
            faults: &[Fault::Crash, Fault::Snapshot],
            attempts: 3,
            ..divided("2 splits, 2 faults", 2)
        },
        Config { left: Left { cancels: 1, ..faults(1) }, ..one("2 splits, cancelled") },
        Config { deadline: true, ..one("2 splits, with a deadline") },
        Config { left: Left { failures: 1, ..faults(1) }, ..one("2 splits, failing") },
        Config {
            attempts: 1,
            left: Left { failures: 1, replays: 1, ..faults(1) },
            ..one("2 splits, failing, replayed")
        },
        Config {
            left: Left { letting_go: 1, hand_backs: 1, ..faults(1) },
            ..one("2 splits, let go, handed back")
        },
        Config {
            faults: &[Fault::Snapshot, Fault::Stall],
            left: Left { growth: 1, ..faults(1) },
            ..one("2 splits, the source grows")
        },
        Config {
            faults: &[Fault::Snapshot, Fault::Crash],
            left: Left { reruns: 1, ..faults(1) },
            ..one("2 splits, run again")
        },
        Config {
            faults: &[Fault::Snapshot, Fault::Crash],
            left: Left { pauses: 1, ..faults(1) },
            ..one("2 splits, paused")
        },
    ]
}
