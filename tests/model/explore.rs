//! Every state that can be reached, breadth first, so that a counterexample is as short as can be.
//!
//! A state is kept as its fingerprint; its whole only until its successors are known. Afterwards
//! the steps are walked backwards from where nothing is left to be done: a state from which that
//! cannot be reached without faults, and without anybody who may as well do nothing, is a
//! counterexample too.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use crate::world::{Action, Config, World};

/// More states than this are not explored: the memory would not do, or there is no end to them.
const MOST: usize = 40_000_000;

/// What was explored.
pub struct Report {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    pub took: Duration,
}

/// How a promise is broken.
pub struct Counterexample {
    pub broken: String,
    pub steps: Vec<Action>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after {} steps:", self.broken, self.steps.len())?;
        for (n, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:4}. {step:?}", n + 1)?;
        }
        Ok(())
    }
}

/// A fingerprint is a hash already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed")
    }
    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// States that were seen: how each was first reached.
struct Seen {
    numbers: HashMap<u64, u32, BuildHasherDefault<Same>>,
    from: Vec<Option<(u32, Action)>>,
}

impl Seen {
    /// The number of a state, and whether it is new.
    fn number(&mut self, world: &World, from: Option<(u32, Action)>) -> (u32, bool) {
        let new = u32::try_from(self.from.len()).expect("fewer than four thousand million states");
        let number = *self.numbers.entry(world.fingerprint()).or_insert(new);
        if number == new {
            self.from.push(from);
        }
        (number, number == new)
    }

    fn way(&self, to: u32) -> Vec<Action> {
        let mut steps = Vec::new();
        let mut at = to;
        while let Some((before, action)) = self.from[at as usize] {
            steps.push(action);
            at = before;
        }
        steps.reverse();
        steps
    }
}

/// Explores a configuration.
///
/// # Errors
/// The first promise that is broken, by the fewest steps.
pub fn explore(config: &Config) -> Result<Report, Counterexample> {
    let started = Instant::now();
    let mut seen = Seen { numbers: HashMap::default(), from: Vec::new() };
    let first = World::new(config);
    seen.number(&first, None);
    let (mut layer, mut depth, mut steps) = (vec![(0_u32, first)], 0, 0);
    // Steps that need nobody's mercy, backwards; and where they end.
    let mut towards: Vec<(u32, u32)> = Vec::new();
    let mut rests: Vec<u32> = Vec::new();
    while !layer.is_empty() {
        let mut following = Vec::new();
        for (number, world) in layer {
            if world.rests() {
                rests.push(number);
            }
            for (action, sure) in world.next(config) {
                let after = world.after(config, action).map_err(|broken| {
                    let mut steps = seen.way(number);
                    steps.push(action);
                    Counterexample { broken, steps }
                })?;
                let (to, new) = seen.number(&after, Some((number, action)));
                steps += 1;
                if sure {
                    towards.push((to, number));
                }
                if new {
                    following.push((to, after));
                }
                assert!(seen.from.len() <= MOST, "{}: too many states", config.name);
            }
        }
        depth += usize::from(!following.is_empty());
        layer = following;
    }
    let states = seen.from.len();
    if let Some(stuck) = stuck(states, towards, rests) {
        let broken = "no end can be reached any more".to_owned();
        return Err(Counterexample { broken, steps: seen.way(stuck) });
    }
    Ok(Report { states, steps, depth, took: started.elapsed() })
}

/// The first state from which there is no way to an end.
fn stuck(states: usize, mut towards: Vec<(u32, u32)>, rests: Vec<u32>) -> Option<u32> {
    towards.sort_unstable();
    let mut reached = vec![false; states];
    let mut open = rests;
    open.iter().for_each(|state| reached[*state as usize] = true);
    while let Some(state) = open.pop() {
        let begin = towards.partition_point(|(to, _)| *to < state);
        for (_, from) in towards[begin..].iter().take_while(|(to, _)| *to == state) {
            if !std::mem::replace(&mut reached[*from as usize], true) {
                open.push(*from);
            }
        }
    }
    reached.iter().position(|reached| !reached).and_then(|state| u32::try_from(state).ok())
}
