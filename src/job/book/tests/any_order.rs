//! What holds whatever happens, in whatever order.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

/// What a worker has in its hands: a message, and perhaps the run.
#[derive(Debug, Clone)]
struct Hand {
    run: RunId,
    fence: i64,
    /// Not acked yet.
    message: bool,
}

const RUNS: usize = 4;

fn needs_of(n: usize) -> Vec<Need> {
    let (slot, target) = (Need::slot("s", 2), Need::target("t"));
    match n {
        0 => vec![slot],
        1 => vec![slot, target],
        2 => vec![target, slot],
        _ => vec![Need::slot("s2", 1), target],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever workers, dispatcher, operators and time do, in whatever order.
    #[test]
    fn nothing_is_held_twice_and_nothing_is_forgotten(
        steps in prop::collection::vec((0_u8..18, 0_usize..RUNS, any::<prop::sample::Index>()), 1..120)
    ) {
        let mut shelf = Shelf::new();
        // The newest edition of each key, and which key a run is of.
        let mut runs: Vec<RunId> = (0..RUNS).map(|n| shelf.accept(&n.to_string())).collect();
        let mut keys: BTreeMap<RunId, usize> = runs.iter().copied().zip(0..).collect();
        let mut queue: Vec<RunId> = Vec::new();
        let mut hands: Vec<Hand> = Vec::new();
        let mut done: BTreeSet<RunId> = BTreeSet::new();
        let mut fences: BTreeMap<RunId, i64> = BTreeMap::new();
        for (step, n, pick) in steps {
            let run = runs[n];
            match step {
                0 | 1 => {
                    let now = shelf.facts.now;
                    let due: Vec<RunId> = shelf.wakes.iter()
                        .filter(|(_, wake)| wake.at <= now).map(|(run, _)| *run).collect();
                    for run in due {
                        shelf.wakes.remove(&run);
                        queue.push(run);
                    }
                }
                2..=4 if !queue.is_empty() => {
                    let run = queue.swap_remove(pick.index(queue.len()));
                    let n = keys[&run];
                    // What is not opened has left behind what it has to, and is acked.
                    let before = shelf.run(run).fence;
                    let outcome = shelf.open(run, &needs_of(n));
                    if let Outcome::Opened(opened) = outcome {
                        // What is decided or closing goes on, and who asks once more is told again.
                        prop_assert!(
                            shelf.facts.pauses.is_empty()
                                || opened.run.state != State::Running
                                || opened.run.fence == before
                        );
                        hands.push(Hand { run, fence: opened.run.fence, message: true });
                    }
                }
                5 => shelf.pass(LEASE / 2),
                6 => shelf.pass(LEASE * 2),
                7 => { shelf.apply(cancel(run)); }
                14 => {
                    let all = ["all", "export/orders", "pool/default", "connection/shop"];
                    shelf.facts.pauses.insert(format!("pause/{}", all[n]));
                }
                15 | 16 => shelf.resume(),
                17 => {
                    // Of any edition: it is refused unless that is done and the newest has ended.
                    let of = *keys.iter().filter(|(_, key)| **key == n).nth(
                        pick.index(keys.values().filter(|key| **key == n).count())).unwrap().0;
                    let (id, order) = (RunId::new(), Box::new(order(&n.to_string())));
                    let (by, reason) = ("ann".to_owned(), "again".to_owned());
                    let again = Command::Rerun { of, id, order, pinned: false, by, reason };
                    let newest = shelf.run(run).clone();
                    if let Outcome::Accepted(accepted) = shelf.apply(again) {
                        prop_assert!(newest.state.ended(), "two editions are open");
                        prop_assert_eq!(accepted.order.edition, newest.order.edition + 1);
                        runs[n] = id;
                        keys.insert(id, n);
                    }
                }
                8 => { let epoch = shelf.run(run).epoch; shelf.apply(replay(run, epoch)); }
                _ if hands.is_empty() => {}
                9 => {
                    // Killed: the broker gives its message to somebody else.
                    let hand = hands.swap_remove(pick.index(hands.len()));
                    if hand.message { queue.push(hand.run); }
                }
                10 => {
                    // Let go: the wake-up stands for the message.
                    let index = pick.index(hands.len());
                    let run = hands[index].run;
                    shelf.apply(Command::Wake { run, delay: Duration::ZERO });
                    hands[index].message = false;
                }
                11 => {
                    let Hand { run, fence, .. } = hands[pick.index(hands.len())];
                    shelf.apply(Command::Beat { run, fence, lease: LEASE });
                }
                _ => {
                    // An outcome, by what the worker believes; refused, it leaves a wake-up.
                    let Hand { run, fence, .. } = hands.swap_remove(pick.index(hands.len()));
                    let state = shelf.run(run).state;
                    let failure = (Class::Permanent, "no".to_owned());
                    let outcome = match (step, n) {
                        (12, 0) => shelf.apply(Command::Fail { run, fence, end: End::Dead, failure, quarantine: None }),
                        (12, _) if state == State::Closing => shelf.apply(Command::Close { run, fence }),
                        (12, _) => {
                            shelf.apply(Command::Decide { run, fence, decision: decision(None) });
                            shelf.apply(record(run, Proof::Decision, None))
                        }
                        (_, 0) => {
                            shelf.apply(Command::Decide { run, fence, decision: decision(None) });
                            shelf.apply(retry(run, fence, LEASE))
                        }
                        _ => shelf.apply(retry(run, fence, LEASE / 4)),
                    };
                    if !matches!(outcome, Outcome::Done(ref run) if run.state != State::Closing) {
                        shelf.apply(Command::Wake { run, delay: Duration::ZERO });
                    }
                }
            }
            check(&shelf, &queue, &hands, &mut done, &mut fences)?;
        }
    }
}

fn check(
    shelf: &Shelf,
    queue: &[RunId],
    hands: &[Hand],
    done: &mut BTreeSet<RunId>,
    fences: &mut BTreeMap<RunId, i64>,
) -> Result<(), TestCaseError> {
    let coming = |run: RunId| {
        shelf.wakes.contains_key(&run)
            || queue.contains(&run)
            || hands.iter().any(|hand| hand.run == run && hand.message)
    };
    for run in &shelf.facts.runs {
        let id = run.id;
        let fence = fences.insert(id, run.fence).unwrap_or(0);
        prop_assert!(run.fence >= fence, "a fence fell");
        prop_assert!(run.heartbeat.is_none() || !run.state.ended());
        if done.contains(&id) || run.state == State::Done {
            prop_assert_eq!(run.state, State::Done);
            if done.insert(id) && run.needs.iter().any(|need| need == "target/t") {
                let newer = |other: &&Run| {
                    other.order.key == run.order.key && other.order.edition > run.order.edition
                };
                let overtaken =
                    shelf.facts.runs.iter().filter(newer).any(|other| other.state == State::Done);
                prop_assert!(!overtaken, "an old edition replaced a newer one");
            }
        }
        let lists = shelf
            .facts
            .resources
            .values()
            .filter(|resource| resource.waiters.iter().any(|waiter| waiter.run == id))
            .count();
        let holds = shelf.facts.resources.values().any(|resource| resource.holders.contains(&id));
        if run.state.ended() {
            prop_assert!(lists == 0 && !holds, "an ended run holds or waits");
            prop_assert!(!shelf.wakes.contains_key(&id), "an ended run is woken");
        } else if lists > 0 {
            prop_assert_eq!((lists, run.state), (1, State::Queued));
            prop_assert!(!shelf.wakes.contains_key(&id), "a parked run is woken");
        } else {
            prop_assert!(coming(id), "{id} is forgotten in {}", run.state);
        }
        prop_assert_eq!(
            shelf.letters.iter().filter(|(letter, _)| *letter == id).count(),
            usize::from(matches!(run.state, State::Dead | State::Expired))
        );
    }
    prop_assert_eq!(shelf.deliveries, done.len());
    for (name, resource) in &shelf.facts.resources {
        if name.starts_with("pause/") && !resource.waiters.is_empty() {
            prop_assert!(
                shelf.facts.pauses.contains(name),
                "{name} is lifted, and runs wait for it"
            );
        }
    }
    for (name, resource) in &shelf.facts.resources {
        prop_assert!(resource.holders.len() <= resource.capacity as usize, "{name} is too full");
        if !resource.waiters.is_empty() && resource.holders.len() < resource.capacity as usize {
            let turn =
                shelf.facts.runs.iter().any(|run| {
                    !run.state.ended() && run.parked.is_none() && run.needs.contains(name)
                });
            prop_assert!(turn, "{name} is free, and nobody is woken for it");
        }
    }
    Ok(())
}
