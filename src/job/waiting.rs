//! Resources that runs wait for: slots of a connection, and reservations of a cursor or a target
//! (PROTOCOL, "Waiting" and "Reservations").
//!
//! What a run needs is taken all or none, when it is opened. A run that cannot have it is parked
//! on the first resource that is full; every transaction that frees something, or that could have
//! left something free untaken, wakes the first waiter of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::RunId;

/// A resource that a run needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Need {
    /// Its name: `slot/<connection>`, `slot/backfill/<id>`, `cursor/<…>`, `target/<connection>/<place>` or
    /// `own/<connection>/<place>`.
    pub name: String,
    /// How many runs may hold it at once.
    pub capacity: u32,
}

impl Need {
    /// One of so many slots of a connection.
    pub fn slot(connection: &str, capacity: u32) -> Need {
        Need { name: format!("slot/{connection}"), capacity }
    }

    /// One of so many slots of a backfill.
    pub fn backfill(id: &str, capacity: u32) -> Need {
        Need { name: format!("slot/backfill/{id}"), capacity }
    }

    /// The one reservation of a target.
    pub fn target(target: &str) -> Need {
        Need { name: format!("{TARGET}{target}"), capacity: 1 }
    }

    /// A target that carries the run's own name, so that no other run can want it: it is noted like a
    /// reservation, and neither held nor waited for.
    pub fn own_target(target: &str) -> Need {
        Need { name: format!("{OWN}{target}"), capacity: 1 }
    }

    /// The one reservation of a cursor, which has the cursor's own name.
    pub fn cursor(cursor: &str) -> Need {
        Need { name: cursor.to_owned(), capacity: 1 }
    }
}

const TARGET: &str = "target/";
const OWN: &str = "own/";

/// Whether others may want it too, so that it is held by one and waited for by others.
pub fn is_shared(name: &str) -> bool {
    !name.starts_with(OWN)
}

/// The target among what a run needs.
pub fn target_of(needs: &[String]) -> Option<&str> {
    needs.iter().find_map(|need| need.strip_prefix(TARGET).or_else(|| need.strip_prefix(OWN)))
}

/// Whether the resource is a slot, which is given back at every outcome; reservations are kept
/// until the end.
pub fn is_slot(name: &str) -> bool {
    name.starts_with("slot/")
}

/// Whether the resource is a slot of a connection: whoever waits for one was let go in his turn, and is
/// ahead of those that are not.
pub fn is_slot_of_connection(name: &str) -> bool {
    is_slot(name) && !name.starts_with("slot/backfill/")
}

/// A parked run, in the list of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Waiter {
    /// Since when it waits; the longest is woken first.
    pub since: Timestamp,
    /// The run.
    pub run: RunId,
    /// Its pool, for the wake-up.
    pub pool: String,
    /// Its epoch, for the wake-up.
    pub epoch: i32,
}

/// A resource, with who holds it and who waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// How many may hold it.
    pub capacity: u32,
    /// The runs that hold it.
    pub holders: BTreeSet<RunId>,
    /// The runs that wait for it.
    pub waiters: BTreeSet<Waiter>,
}

impl Resource {
    /// Whether `run` holds it or could.
    pub fn admits(&self, run: RunId) -> bool {
        self.holders.contains(&run) || self.free()
    }

    fn free(&self) -> bool {
        self.holders.len() < self.capacity as usize
    }
}

/// Takes all that `run` needs, or nothing.
///
/// # Errors
/// The name of the first resource that is full.
pub fn take(
    resources: &mut BTreeMap<String, Resource>,
    run: RunId,
    needs: &[Need],
) -> Result<(), String> {
    for need in needs {
        resources.entry(need.name.clone()).or_default().capacity = need.capacity;
    }
    let full = needs
        .iter()
        .find(|need| resources.get(&need.name).is_some_and(|resource| !resource.admits(run)));
    if let Some(need) = full {
        return Err(need.name.clone());
    }
    for need in needs {
        if let Some(resource) = resources.get_mut(&need.name) {
            resource.holders.insert(run);
        }
    }
    Ok(())
}

/// Takes the first waiter off the list of each of the named resources that has a free place; with the
/// name.
pub fn wake<'a>(
    resources: &mut BTreeMap<String, Resource>,
    names: impl IntoIterator<Item = &'a String>,
) -> Vec<(&'a String, Waiter)> {
    names
        .into_iter()
        .filter_map(|name| {
            let resource = resources.get_mut(name)?;
            let first = if resource.free() { resource.waiters.pop_first() } else { None };
            Some((name, first?))
        })
        .collect()
}
