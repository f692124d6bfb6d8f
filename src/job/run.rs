//! The ledger's record of a run, and the states it goes through (PROTOCOL, "States").

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::decision::Decision;
use super::split::Fan;
use super::supplement::{Gone, Supplement};
use super::waiting::Need;
use super::{RunId, Window};
use crate::error::Class;
use crate::rows::Counts;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits for a worker, for a time, or, parked, for what another run holds.
    Queued,
    /// A worker holds it by a fence and a heartbeat.
    Running,
    /// Its rows are read by several workers, a split each; the last of them wakes it.
    Fanned,
    /// It is decided what is delivered; from here only forward.
    Committing,
    /// It is to end without a delivery, once the commit point is known to be empty and blocked.
    Closing,
    /// Delivered and recorded.
    Done,
    /// Given up; its dead letter waits for an operator.
    Dead,
    /// Ended by somebody, or superseded.
    Cancelled,
    /// Its deadline passed.
    Expired,
}

impl State {
    /// All states.
    pub const ALL: [State; 9] = [
        State::Queued,
        State::Running,
        State::Fanned,
        State::Committing,
        State::Closing,
        State::Done,
        State::Dead,
        State::Cancelled,
        State::Expired,
    ];

    /// The word in the ledger, in tables and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Fanned => "fanned",
            State::Committing => "committing",
            State::Closing => "closing",
            State::Done => "done",
            State::Dead => "dead",
            State::Cancelled => "cancelled",
            State::Expired => "expired",
        }
    }

    /// The state that `word` names.
    pub fn parse(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the run has ended.
    pub fn ended(self) -> bool {
        matches!(self, State::Done | State::Dead | State::Cancelled | State::Expired)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run ends without a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Given up.
    Dead,
    /// Ended by somebody, or superseded.
    Cancelled,
    /// Its deadline passed.
    Expired,
}

impl End {
    /// The state that it ends in.
    pub fn state(self) -> State {
        match self {
            End::Dead => State::Dead,
            End::Cancelled => State::Cancelled,
            End::Expired => State::Expired,
        }
    }
}

/// What last went wrong with a run; fit to be shown, since it is scrubbed and holds no row value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class of the error.
    pub class: Class,
    /// What went wrong, and what to do about it.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// What makes a run the run it is: fixed when it is accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The idempotency key.
    pub key: String,
    /// Which delivery of the key this is: 1, and one more with every rerun.
    pub edition: i32,
    /// SHA-256 (hex) of what must agree between two messages of one key.
    pub content: String,
    /// The export's name.
    pub export: String,
    /// Hash of the definition that it is bound to.
    pub definition: String,
    /// The ledger's number of that definition.
    pub revision: i32,
    /// Who receives it, where it is for somebody.
    pub recipient: Option<String>,
    /// The params as the job gave them.
    pub params: Map<String, Json>,
    /// The span of time that it delivers.
    #[serde(flatten, with = "window_columns")]
    pub window: Option<Window>,
    /// The pool whose workers run it.
    pub pool: String,
    /// The body as it was published first. The ledger keeps it beside the record: it is empty in
    /// a run that was loaded.
    #[serde(skip)]
    pub body: String,
    /// Carried to the outcome event.
    pub correlation_id: Option<String>,
    /// Carried to the traces.
    pub traceparent: Option<String>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// The slot of its backfill, which it takes like those of connections: so many runs of that go
    /// on at once.
    pub cap: Option<Need>,
    /// The run that was spread, of whose parts it is one.
    pub parent: Option<RunId>,
    /// The exports whose runs for the same window must be done before it is first opened.
    #[serde(default)]
    pub after: Vec<String>,
    /// It does not start before this.
    pub not_before: Option<Timestamp>,
    /// It is given up when it has not ended by then.
    pub deadline: Option<Timestamp>,
    /// The refused rows that it delivers, where it reads no source.
    pub supplements: Option<Box<Supplement>>,
}

/// The ledger's record of a key's edition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// What it is.
    #[serde(flatten)]
    pub order: Order,
    /// Where it stands.
    pub state: State,
    /// In `closing`: how it is to end.
    pub end: Option<End>,
    /// One more with every replay, and with every snapshot that is lost.
    pub epoch: i32,
    /// One more with every attempt, whether that is of the run or of a split of it.
    pub fence: i64,
    /// Who opened it last.
    pub worker: Option<String>,
    /// In `running`, `committing`, `closing`, and in `fanned` once all splits are done: until when its
    /// worker is believed to live.
    pub heartbeat: Option<Timestamp>,
    /// Failures of the job itself, since it was accepted or last replayed. Those of its splits are theirs.
    pub failures: i32,
    /// Heartbeats that expired without an outcome, since it was accepted or last replayed.
    pub crashes: i32,
    /// Waits that use up no attempts (outages, throttling), since the last progress.
    pub waits: i32,
    /// What last went wrong.
    pub failure: Option<Failure>,
    /// When something first went wrong, in whatever epoch.
    pub first_failed_at: Option<Timestamp>,
    /// What is decided, from `committing` on.
    pub decision: Option<Decision>,
    /// Into how many runs it was spread, when done, where it stands for many tables.
    pub parts: Option<u32>,
    /// What became of the rows, when done.
    pub counts: Option<Counts>,
    /// Where the refused rows are: those that the delivery goes without, or, of a run that failed,
    /// those that it last failed for.
    pub quarantine: Option<String>,
    /// What became of those rows, where they are not there any more.
    #[serde(rename = "kept")]
    pub gone: Option<Gone>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was first opened, in this epoch.
    pub opened_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When anything last changed; in `committing` and `closing`, since when it is.
    pub changed_at: Timestamp,
    /// The names of the resources that it takes when it is opened; known from its first open.
    pub needs: Vec<String>,
    /// What it is parked on: the name of a resource. Kept in the ledger's list of waiters.
    pub parked: Option<String>,
    /// Since when it waits for resources; keeps its place among the waiters until it is opened.
    pub waiting_since: Option<Timestamp>,
    /// Into which splits it was divided last, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan: Option<Fan>,
}

impl Run {
    /// A run as it is accepted.
    pub fn new(id: RunId, order: Order, now: Timestamp) -> Run {
        Run {
            id,
            order,
            state: State::Queued,
            end: None,
            epoch: 0,
            fence: 0,
            worker: None,
            heartbeat: None,
            failures: 0,
            crashes: 0,
            waits: 0,
            failure: None,
            first_failed_at: None,
            decision: None,
            parts: None,
            counts: None,
            quarantine: None,
            gone: None,
            accepted_at: now,
            opened_at: None,
            ended_at: None,
            changed_at: now,
            needs: Vec::new(),
            parked: None,
            waiting_since: None,
            fan: None,
        }
    }

    /// Whether all its splits are done, so that what they have read is to become one delivery.
    pub fn gathers(&self) -> bool {
        self.state == State::Fanned && self.fan.as_ref().is_some_and(Fan::is_whole)
    }

    /// Whether a worker holds it and is believed to live.
    pub fn alive(&self, now: Timestamp) -> bool {
        self.heartbeat.is_some_and(|until| until > now)
    }

    /// Which attempt of its epoch it is at, or ended with; 0 before the first. What it fails by itself
    /// counts, and waiting for what is away does not.
    pub fn tries(&self) -> i32 {
        if self.opened_at.is_none() {
            return 0;
        }
        let under_way =
            matches!(self.state, State::Running | State::Fanned | State::Committing | State::Done);
        (self.failures + i32::from(under_way)).max(1)
    }

    /// When its wake-up is due, if it is open: a held run's when the heartbeat expires, one that was
    /// put back when it may be gone on with.
    pub fn wake_at(&self, now: Timestamp) -> Timestamp {
        let held_until = self.heartbeat.unwrap_or(now);
        self.order.not_before.unwrap_or(now).max(held_until).max(now)
    }
}

/// A window as two columns that may both be null.
mod window_columns {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Window;

    #[derive(Serialize, Deserialize)]
    struct Columns {
        window_start: Option<Timestamp>,
        window_end: Option<Timestamp>,
    }

    pub fn serialize<S: Serializer>(window: &Option<Window>, to: S) -> Result<S::Ok, S::Error> {
        Columns {
            window_start: window.map(|window| window.start),
            window_end: window.map(|window| window.end),
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Window>, D::Error> {
        let columns = Columns::deserialize(from)?;
        Ok(columns.window_start.zip(columns.window_end).map(|(start, end)| Window { start, end }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a job of the export `orders` orders.
    pub(crate) fn order(key: &str) -> Order {
        Order {
            key: key.to_owned(),
            edition: 1,
            content: "c".to_owned(),
            export: "orders".to_owned(),
            definition: "d".to_owned(),
            revision: 1,
            recipient: None,
            params: serde_json::Map::new(),
            window: None,
            pool: "default".to_owned(),
            body: "{}".to_owned(),
            correlation_id: None,
            traceparent: None,
            requested_by: None,
            cap: None,
            parent: None,
            after: Vec::new(),
            not_before: None,
            deadline: None,
            supplements: None,
        }
    }

    #[test]
    fn a_record_without_splits_is_as_it_was_before_there_were_any() {
        let run = Run::new(RunId::new(), order("k"), Timestamp::UNIX_EPOCH);
        let text = serde_json::to_string(&run).unwrap();
        assert!(!text.contains("fan"), "{text}");
        let read: Run = serde_json::from_str(&text).unwrap();
        assert_eq!(read.fan, None);
    }

    #[test]
    fn waiting_for_what_is_away_is_no_try() {
        let now = Timestamp::UNIX_EPOCH;
        let run = |state: State, failures: i32, waits: i32| {
            let mut run = Run::new(RunId::new(), order("k"), now);
            (run.state, run.failures, run.waits) = (state, failures, waits);
            run.fence = i64::from(failures + waits + 1);
            run.opened_at = Some(now);
            run.tries()
        };
        assert_eq!(Run::new(RunId::new(), order("k"), now).tries(), 0);
        assert_eq!(run(State::Running, 0, 0), 1);
        assert_eq!(run(State::Queued, 0, 7), 1, "an outage: it is at its first still");
        assert_eq!(run(State::Queued, 2, 0), 2);
        assert_eq!(run(State::Running, 2, 3), 3);
        assert_eq!(run(State::Fanned, 2, 0), 3, "whatever its splits go through");
        assert_eq!(run(State::Done, 2, 0), 3);
        assert_eq!((run(State::Dead, 8, 0), run(State::Closing, 8, 0)), (8, 8));
        assert_eq!(run(State::Expired, 0, 0), 1);
    }
}
