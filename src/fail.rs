//! Fail points: named places on the way of a job where a process can be made to die, to stand still,
//! or to get an error, so that tests see what a crash just there leaves behind.
//!
//! Only builds with debug assertions have them; in a release build [`point`] is nothing. They are set
//! by `LONGSHORE_FAIL`, for one process: `decided=kill`, or several of these with commas between them.
//! `@3` behind a point's name means the third time that it is reached: `part-staged@3=error`. Each is
//! done once.
//!
//! | word | what happens |
//! |---|---|
//! | `kill` | the process dies by SIGKILL |
//! | `stop` | the process stands still by SIGSTOP, until somebody sends SIGCONT |
//! | `error` | the step fails with an error of class `transient` |

/// Every fail point, and where it stands.
pub const POINTS: [(&str, &str); 35] = [
    ("consumed", "a worker has a message, and has looked at nothing yet"),
    ("claimed", "the key's claim is answered"),
    ("accepted", "the ledger has the job, and has opened it, where that could be"),
    ("parked", "the run is parked; its message is not acked"),
    ("opened", "the attempt has its fence; its heart does not beat yet"),
    ("begun", "the target knows the fence, where it can"),
    ("part-staged", "a file's part, or a batch of a table's rows, is staged"),
    ("upload-noted", "an upload under a fixed name is noted; no piece of it is sent"),
    ("quarantined", "the file of refused rows is complete"),
    ("staged", "all rows are staged and counted"),
    ("decided", "the decision stands in the ledger, or the target decides by itself"),
    ("merged", "a table has the rows, in the transaction that is not committed"),
    ("part-brought", "a part has its final name"),
    ("manifest-put", "the manifest stands at the target; the trigger does not"),
    ("committed", "recipients see the delivery; the ledger has not recorded it"),
    ("recorded", "the ledger has the delivery"),
    ("done-marked", "the claim says that the key is done"),
    ("acking", "everything is stored; the message is not acked"),
    ("put-back", "the ledger has the run due again"),
    ("failing", "the ledger has the failure; the run is closing"),
    ("target-closed", "the target takes nothing of the run any more; the ledger has not ended it"),
    ("closed", "the run has ended without a delivery"),
    ("listed", "the tables of a run that is spread are known"),
    ("spread", "the ledger has the runs of the tables"),
    ("let-go", "the wake-up stands for the message of a long job; it is not acked"),
    ("refused", "a message that nobody can work on is on the dead-letter queue; it is not acked"),
    ("forwarded", "a message is on another pool's queue; it is not acked"),
    ("dispatch-taken", "the dispatcher has taken what is due"),
    ("dispatch-published", "the queue has confirmed; the outbox is not marked"),
    ("dispatch-marked", "the outbox is marked"),
    ("ticked", "the scheduler has placed the jobs of one schedule that are due"),
    ("swept", "the sweeper has woken and closed"),
    ("replay-queued", "the ledger has the run in a new epoch; its letter is not acked"),
    ("replay-published", "a letter without a run is on its job queue; it is not acked"),
    ("cleaning", "what the run staged is about to be removed"),
];

#[cfg(not(debug_assertions))]
/// Nothing.
///
/// # Errors
/// None.
#[inline(always)]
pub fn point(_name: &'static str) -> crate::error::Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
pub use set::point;

#[cfg(debug_assertions)]
mod set {
    use std::process::{Command, id};
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::time::Duration;

    use super::POINTS;
    use crate::error::{Error, Result};

    const DOING: &str = "pass a fail point";
    /// How long a signal may take to arrive where many processes want the machine: another thread may
    /// be the one that takes it. Who stands still loses nothing by it, since the time passes meanwhile.
    const ARRIVAL: Duration = Duration::from_secs(5);

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Kill,
        Stop,
        Error,
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Armed {
        point: String,
        /// How often it is passed before.
        left: u32,
        action: Action,
    }

    static ARMED: LazyLock<std::result::Result<Mutex<Vec<Armed>>, String>> = LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "set by tests, for debug builds alone")]
        let text = std::env::var("LONGSHORE_FAIL").unwrap_or_default();
        read(&text).map(Mutex::new)
    });

    /// Does what `LONGSHORE_FAIL` says is to happen here.
    ///
    /// # Errors
    /// `transient` where it is to fail here; `config` where `LONGSHORE_FAIL` cannot be read.
    pub fn point(name: &'static str) -> Result<()> {
        let armed = match &*ARMED {
            Ok(armed) => armed,
            Err(wrong) => return Err(Error::config(DOING, wrong.clone())),
        };
        let mut armed = armed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = armed.iter().position(|armed| armed.point == name) else { return Ok(()) };
        if let Some(before) = armed.get_mut(at).filter(|armed| armed.left > 0) {
            before.left -= 1;
            return Ok(());
        }
        let action = armed.remove(at).action;
        drop(armed);
        tracing::warn!(point = name, ?action, "a fail point is reached");
        match action {
            Action::Kill => signal("KILL"),
            Action::Stop => signal("STOP"),
            Action::Error => return Err(Error::transient(DOING, format!("{name} is set to fail"))),
        }
        Ok(())
    }

    /// Sends this process a signal, and waits until it has arrived.
    fn signal(name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id().to_string()).status();
        if !sent.is_ok_and(|status| status.success()) {
            tracing::error!(name, "the signal of a fail point was not sent");
        }
        #[expect(clippy::disallowed_methods, reason = "nothing of this process is to go on here")]
        std::thread::sleep(ARRIVAL);
    }

    fn read(text: &str) -> std::result::Result<Vec<Armed>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| one(word).ok_or_else(|| wrong(word))).collect()
    }

    fn one(word: &str) -> Option<Armed> {
        let (place, action) = word.split_once('=')?;
        let (point, time) = place.split_once('@').unwrap_or((place, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "stop" => Action::Stop,
            "error" => Action::Error,
            _ => return None,
        };
        POINTS.iter().find(|(name, _)| *name == point)?;
        let left = time.parse::<u32>().ok()?.checked_sub(1)?;
        Some(Armed { point: point.to_owned(), left, action })
    }

    fn wrong(word: &str) -> String {
        let points = POINTS.map(|(name, _)| name).join(", ");
        format!(
            "LONGSHORE_FAIL has `{word}`; expected point=action or point@time=action, where action \
             is kill, stop or error, and point one of: {points}"
        )
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_setting_says_where_and_when_and_what() {
            let armed = |point: &str, left, action| Armed { point: point.to_owned(), left, action };
            assert_eq!(read(""), Ok(Vec::new()));
            assert_eq!(
                read("decided=kill, part-staged@3=error,acking=stop"),
                Ok(vec![
                    armed("decided", 0, Action::Kill),
                    armed("part-staged", 2, Action::Error),
                    armed("acking", 0, Action::Stop)
                ])
            );
            for bad in
                ["decided", "decided=die", "nowhere=kill", "decided@0=kill", "decided@x=kill"]
            {
                let wrong = read(bad).unwrap_err();
                assert!(wrong.contains(bad) && wrong.contains("part-staged"), "{wrong}");
            }
        }

        #[test]
        fn every_point_stands_in_the_source_and_no_other_does() {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            let mut found = Vec::new();
            let mut folders = vec![root];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                        continue;
                    }
                    let text = std::fs::read_to_string(&path).unwrap();
                    let calls = text.split("fail::point(\"").skip(1);
                    found.extend(calls.filter_map(|call| Some(call.split_once('"')?.0.to_owned())));
                }
            }
            found.sort();
            found.dedup();
            let mut points = POINTS.map(|(name, _)| name.to_owned()).to_vec();
            points.sort();
            assert_eq!(found, points);
        }
    }
}
