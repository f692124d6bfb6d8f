//! What a job is: message, key, window, parameters, and the state machine of its run. Pure: no
//! clock, no network, no file.

pub mod after;
pub mod book;
pub mod changes;
pub mod command;
pub mod cron;
pub mod decision;
pub mod key;
pub mod machine;
pub mod manifest;
pub mod message;
pub mod param;
pub mod pause;
pub mod retry;
pub mod run;
#[cfg(test)]
mod schema;
pub mod span;
pub mod split;
pub mod supplement;
pub mod template;
pub mod waiting;
pub mod window;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use window::Window;

/// The ending of a name of hex digits, as somebody gave it: at least four of them, and dashes do
/// not matter. `None` where it is none.
pub fn ending(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let is_ending = plain.len() >= 4 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ending.then(|| plain.to_lowercase())
}

/// A run's name: a UUIDv7, so that names sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub Uuid);

impl RunId {
    /// A new name, later than all before it on this machine.
    pub fn new() -> RunId {
        RunId(Uuid::now_v7())
    }

    /// The ending that tables show: the last eight characters.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl Default for RunId {
    fn default() -> Self {
        RunId::new()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<RunId, uuid::Error> {
        Uuid::parse_str(text).map(RunId)
    }
}
