//! What happens where: one job's way, and the point of it at which something goes wrong.

use serde_json::{Value as Json, json};

use super::target::To;
use crate::support::installation::{Installation, message};

/// How many rows the source has, before and after it has grown.
pub const FIRST: i64 = 40;
pub const ROWS: i64 = 60;

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Kill,
    Stop,
    Error,
}

impl Action {
    pub fn word(self) -> &'static str {
        match self {
            Action::Kill => "kill",
            Action::Stop => "stop",
            Action::Error => "error",
        }
    }
}

/// What is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What is new by a cursor, with rows that are filtered and rows that are refused. Once its
    /// first job has ended, a second one takes what the source has since.
    New,
    /// The same into a table by its key.
    Upsert,
    /// All of it, in the place of what an earlier job has delivered.
    Again,
    /// Nothing: a row is refused, by the table where it goes to one, and none may be.
    Refused,
}

/// A job, and the point at which something goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub way: Way,
    pub point: &'static str,
}

/// All scenarios of a kind of sink.
pub fn scenarios(to: To) -> Vec<Scenario> {
    let of = |way, points: &[&'static str]| -> Vec<Scenario> {
        points.iter().map(|point| Scenario { way, point }).collect()
    };
    let commit: &[_] = if to.is_table() { &["merged"] } else { &["part-brought", "manifest-put"] };
    let mut all = of(
        Way::New,
        &["consumed", "claimed", "accepted", "opened", "begun", "part-staged", "quarantined"],
    );
    if to == To::StoreNamed {
        all.extend(of(Way::New, &["upload-noted"]));
    }
    all.extend(of(Way::New, &["staged", "decided"]));
    all.extend(of(Way::New, commit));
    all.extend(of(
        Way::New,
        &["committed", "recorded", "done-marked", "acking", "cleaning", "put-back"],
    ));
    all.extend(of(Way::Again, &["decided", "committed"]));
    all.extend(of(Way::Again, commit));
    if to.is_table() {
        all.extend(of(Way::Upsert, &["part-staged", "staged", "merged", "committed", "recorded"]));
        all.extend(of(Way::Refused, &["target-closed"]));
    }
    all.extend(of(Way::Refused, &["failing", "closed"]));
    all
}

impl Scenario {
    /// The name of its export, and of what is its own alone.
    pub fn name(&self) -> String {
        let way = match self.way {
            Way::New => "new",
            Way::Upsert => "upsert",
            Way::Again => "again",
            Way::Refused => "refused",
        };
        format!("{way}-{}", self.point)
    }

    /// What its worker is told.
    pub fn fail(&self, action: Action) -> String {
        let (point, action) = (self.point, action.word());
        match self.way {
            // The first job passes it.
            Way::Again => format!("{point}@2={action}"),
            _ if point == "put-back" => format!("staged=error,put-back={action}"),
            _ => format!("{point}={action}"),
        }
    }

    /// Whether its delivery has several files, where it is one of files.
    pub fn is_large(&self) -> bool {
        self.way == Way::New
            && ["part-staged", "part-brought", "upload-noted"].contains(&self.point)
    }

    /// Whether a second job follows.
    pub fn goes_on(&self) -> bool {
        matches!(self.way, Way::New | Way::Upsert)
    }

    /// Whether it ends without a delivery.
    pub fn is_dead(&self) -> bool {
        self.way == Way::Refused
    }

    /// How many runs there are before the second job of those that go on.
    pub fn first_runs(&self) -> usize {
        if self.way == Way::Again { 2 } else { 1 }
    }

    /// The key of the run in which something goes wrong.
    pub fn key(&self) -> String {
        format!("{}-{}", self.name(), self.first_runs())
    }

    /// The jobs that are published first, or second.
    pub fn jobs(&self, installation: &Installation, action: Action, number: u32) -> Vec<Json> {
        let name = self.name();
        let job = |number: u32| {
            let mut body = json!({"export": name, "key": format!("{name}-{number}")});
            if self.way == Way::Again {
                body["params"] = json!({"most": FIRST / 2 * i64::from(number)});
            }
            message(&installation.pool_of(&name), &body)
        };
        match (number, self.way) {
            (1, Way::Again) => vec![job(1), job(2)],
            // Who stands still keeps the message, and nobody else knows of the job: another one
            // comes in by a repeat.
            (1, _) if action == Action::Stop && ["consumed", "claimed"].contains(&self.point) => {
                vec![job(1), job(1)]
            }
            (1, _) => vec![job(1)],
            (_, _) if self.goes_on() => vec![job(2)],
            _ => Vec::new(),
        }
    }

    /// Whether a worker that stood still there has lost the run when it goes on. Elsewhere it has
    /// not begun, or stores once more what was decided.
    pub fn is_refused(&self, to: To) -> bool {
        match self.point {
            "accepted" | "opened" | "begun" | "part-staged" | "quarantined" | "upload-noted"
            | "staged" => true,
            "decided" => to.is_table(),
            "merged" => to == To::Postgres,
            _ => false,
        }
    }

    /// The attempts of the run in which something goes wrong, and its crashes and failures.
    pub fn expected(&self, to: To, action: Action) -> (&'static str, i64, i64) {
        const CRASHED: &str = "1 crashed, 2 done";
        const AGAIN: &str = "1 retry, 2 done";
        let is_error = action == Action::Error;
        match self.point {
            // Before it is opened, or after it is recorded.
            "consumed" | "claimed" | "recorded" | "done-marked" | "acking" | "cleaning" => {
                ("1 done", 0, 0)
            }
            // Of an error there nothing is stored: the heartbeat runs out.
            "accepted" | "opened" => (CRASHED, 1, 1),
            "begun" | "part-staged" | "quarantined" | "upload-noted" | "staged" => match is_error {
                true => (AGAIN, 0, 1),
                false => (CRASHED, 1, 1),
            },
            "put-back" => (AGAIN, 0, 1),
            "failing" | "target-closed" => ("1 crashed, 2 dead", 0, 1),
            "closed" => ("1 dead", 0, 1),
            // What the ledger has decided only goes forward: nothing is counted.
            _ => match (to.is_table(), is_error) {
                (false, true) => (AGAIN, 0, 0),
                (false, false) => (CRASHED, 0, 0),
                (true, true) => (AGAIN, 0, 1),
                (true, false) => (CRASHED, 1, 1),
            },
        }
    }

    /// The rows that are at the target in the end: the ids of the good ones.
    pub fn delivered(&self) -> Vec<i64> {
        let good = |id: &i64| kind(*id) == "good";
        match self.way {
            Way::New | Way::Upsert => (1..=ROWS).filter(good).collect(),
            Way::Again => (1..=FIRST).filter(good).collect(),
            Way::Refused => Vec::new(),
        }
    }
}

/// What becomes of a row.
pub fn kind(id: i64) -> &'static str {
    match id % 10 {
        3 => "dropped",
        7 => "bad",
        _ => "good",
    }
}
