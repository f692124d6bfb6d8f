//! What holds of a run that several workers read, whatever happens, in whatever order.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::splits::{failed, fan, finished, lost, put_back};
use super::*;
use crate::job::split::{SplitEvent, SplitId};

/// A message: about the run or, where it names one, about a split of it.
type Mail = Option<SplitId>;

/// What a worker has in its hands.
#[derive(Debug, Clone)]
struct Hand {
    mail: Mail,
    fence: i64,
    /// Not acked yet.
    message: bool,
}

fn leave_wake_up(shelf: &mut Shelf, run: RunId, mail: Mail) {
    let delay = Duration::ZERO;
    shelf.apply(match mail {
        None => Command::Wake { run, delay },
        Some(of) => Command::Split { of, event: SplitEvent::Wake { delay } },
    });
}

/// The outcome of an attempt at the run, by what it stands at.
fn of_run(shelf: &mut Shelf, run: RunId, fence: i64, n: i32) -> Outcome {
    let failure = (Class::Permanent, "no".to_owned());
    match (shelf.run(run).state, n) {
        (State::Closing, _) => shelf.apply(Command::Close { run, fence }),
        (State::Running, 0 | 1) => shelf.apply(fan(run, fence, 2 + n.unsigned_abs())),
        (State::Fanned, 0) | (State::Committing, _) => {
            shelf.apply(Command::Decide { run, fence, decision: decision(None) });
            shelf.apply(record(run, Proof::Decision, None))
        }
        (State::Fanned, 1) => {
            shelf.apply(Command::Fail { run, fence, end: End::Dead, failure, quarantine: None })
        }
        _ => shelf.apply(retry(run, fence, LEASE / 4)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever workers, dispatcher, operators and time do, in whatever order.
    #[test]
    fn no_split_is_forgotten_and_none_counts_twice(
        steps in prop::collection::vec((0_u8..18, 0_i32..4, any::<prop::sample::Index>()), 1..160)
    ) {
        let mut shelf = Shelf::new();
        let run = shelf.accept("k");
        let needs = [Need::slot("s", 1), Need::target("t")];
        let (mut queue, mut hands): (Vec<Mail>, Vec<Hand>) = (Vec::new(), Vec::new());
        for (number, (step, n, pick)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => {
                    let now = shelf.facts.now;
                    if shelf.wakes.get(&run).is_some_and(|wake| wake.at <= now) {
                        shelf.wakes.remove(&run);
                        queue.push(None);
                    }
                    let due = shelf.split_wakes.iter().filter(|(_, wake)| wake.at <= now);
                    let due: Vec<(i32, i32)> =
                        due.map(|((_, split), wake)| (*split, wake.epoch)).collect();
                    for (split, epoch) in due {
                        shelf.split_wakes.remove(&(run, split));
                        queue.push(Some(SplitId { run, epoch, split }));
                    }
                }
                2..=6 if !queue.is_empty() => {
                    let mail = queue.swap_remove(pick.index(queue.len()));
                    let outcome = match mail {
                        None => shelf.open(run, &needs),
                        Some(of) => {
                            let worker = format!("w{number}");
                            let event = SplitEvent::Open { worker, lease: LEASE, attempts: 4 };
                            shelf.apply(Command::Split { of, event })
                        }
                    };
                    // What is not opened has left behind what it has to, and is acked.
                    if let Outcome::Opened(opened) = outcome {
                        let fence = opened.split.map_or(opened.run.fence, |split| split.fence);
                        hands.push(Hand { mail, fence, message: true });
                    }
                }
                7 => shelf.pass(LEASE / 2),
                8 => shelf.pass(LEASE * 2),
                9 if n == 0 => { shelf.apply(cancel(run)); }
                9 => { let epoch = shelf.run(run).epoch; shelf.apply(replay(run, epoch)); }
                _ if hands.is_empty() => {}
                10 => {
                    // Killed: the broker gives its message to somebody else.
                    let hand = hands.swap_remove(pick.index(hands.len()));
                    if hand.message { queue.push(hand.mail); }
                }
                11 => {
                    // Let go: the wake-up stands for the message.
                    let index = pick.index(hands.len());
                    leave_wake_up(&mut shelf, run, hands[index].mail);
                    hands[index].message = false;
                }
                12 => {
                    let Hand { mail, fence, .. } = hands[pick.index(hands.len())].clone();
                    shelf.apply(match mail {
                        None => Command::Beat { run, fence, lease: LEASE },
                        Some(of) => {
                            Command::Split { of, event: SplitEvent::Beat { fence, lease: LEASE } }
                        }
                    });
                }
                _ => {
                    let Hand { mail, fence, .. } = hands.swap_remove(pick.index(hands.len()));
                    let outcome = match mail {
                        None => of_run(&mut shelf, run, fence, n),
                        Some(of) => shelf.apply(Command::Split { of, event: match (step, n) {
                            (13, 0) => put_back(fence, true),
                            (13, 1) => put_back(fence, false),
                            (13, 2) => lost(fence, 4),
                            (13, _) => failed(fence),
                            _ => finished(fence),
                        } }),
                    };
                    let closing = shelf.run(run).state == State::Closing;
                    if !matches!(outcome, Outcome::Done(_)) || mail.is_none() && closing {
                        leave_wake_up(&mut shelf, run, mail);
                    }
                }
            }
            check(&shelf, run, &queue, &hands)?;
        }
    }
}

fn check(shelf: &Shelf, id: RunId, queue: &[Mail], hands: &[Hand]) -> Result<(), TestCaseError> {
    let run = shelf.run(id);
    let coming = |mail: Mail| {
        queue.contains(&mail) || hands.iter().any(|hand| hand.mail == mail && hand.message)
    };
    for (_, epoch, fence) in &shelf.reading {
        prop_assert!(
            run.state == State::Fanned && run.epoch == *epoch,
            "attempt {fence} at a split has no outcome, and the run is {}",
            run.state
        );
    }
    let splits = shelf.facts.splits.iter().filter(|split| split.epoch == run.epoch);
    match &run.fan {
        Some(fan) if run.state == State::Fanned => {
            let (mut all, mut done) = (0, 0);
            for split in splits {
                all += 1;
                done += i32::from(split.piece.is_some());
                let of = SplitId { run: id, epoch: run.epoch, split: split.split };
                prop_assert!(
                    split.piece.is_some()
                        || shelf.split_wakes.contains_key(&(id, split.split))
                        || coming(Some(of)),
                    "split {} is forgotten",
                    split.split
                );
            }
            prop_assert_eq!((all, done), (fan.splits, fan.done));
        }
        _ => {
            prop_assert!(shelf.split_wakes.is_empty(), "splits of what is {} are woken", run.state)
        }
    }
    let holds = (shelf.holders("slot/s"), shelf.holders("target/t"), shelf.wakes.contains_key(&id));
    if run.state.ended() {
        prop_assert_eq!(holds, (0, 0, false));
    } else if run.state != State::Fanned || run.gathers() {
        prop_assert!(holds.2 || coming(None), "it is forgotten in {}", run.state);
    }
    prop_assert_eq!(shelf.deliveries, usize::from(run.state == State::Done));
    Ok(())
}
