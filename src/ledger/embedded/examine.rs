//! What of an embedded file may cost what is in it: queue, ledger and claims at once.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::file::BUSY;
use super::migrate;
use crate::connect::sqlite::classify;
use crate::error::Result;
use crate::finding::{Examination, Finding};

const DOING: &str = "examine the embedded database";

/// Looks at the file, and changes nothing. Blocks for as long as reading all of it takes.
pub fn examine(path: &Path) -> Examination {
    let mut examination = Examination::default();
    if !path.exists() {
        examination.findings.push(Finding::warning(
            "file",
            format!("{} is not there yet", path.display()),
            "Nothing is accepted before it is there.",
            "`longshore apply`, `longshore run` and `longshore dev` make it. Is --config right?",
        ));
        return examination;
    }
    if let Err(error) = look(path, &mut examination.findings) {
        let risk = "Nothing is accepted, run or recorded while the file cannot be used.";
        examination.findings.push(Finding::failed("file", &error, risk));
    }
    examination
}

fn look(path: &Path, findings: &mut Vec<Finding>) -> Result<()> {
    let failed = |cause| classify(DOING, cause).with("file", path.display());
    let mode = std::fs::metadata(path).map(|file| file.permissions().mode() & 0o777).unwrap_or(0);
    findings.push(permissions(path, mode));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    // Whether it may be written is found out without writing.
    findings.push(match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
        Ok(()) => Finding::ok("writing", "this user may write it"),
        Err(cause) => {
            let risk = "Nothing can be accepted or recorded.";
            let found = Finding::failed("writing", &failed(cause), risk);
            let remedy = "Give this user the right to write the file and its folder.";
            Finding { remedy: found.remedy.or(Some(remedy.to_owned())), ..found }
        }
    });
    let journal: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(failed)?;
    findings.push(match journal.as_str() {
        "wal" => Finding::ok("journal", "write-ahead log"),
        other => Finding::warning(
            "journal",
            format!("journal_mode {other}"),
            "Readers and writers wait for one another; commands may end with `busy`.",
            "Keep the file on a local disk; `longshore migrate` switches it to its log.",
        ),
    });
    let mut statement = connection.prepare("PRAGMA integrity_check(5)").map_err(failed)?;
    let lines: Vec<String> =
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
    findings.push(match lines.as_slice() {
        [one] if one == "ok" => Finding::ok("integrity", "sound"),
        damage => Finding::error(
            "integrity",
            damage.join("; "),
            "What is damaged may be lost, and may become more.",
            "Stop all processes, copy the file, and restore a backup; `sqlite3 FILE .recover` saves \
             what can be read.",
        ),
    });
    let missing = migrate::status(path)?.iter().filter(|migration| !migration.applied).count();
    findings.push(match missing {
        0 => Finding::ok("schema", "up to date"),
        _ => Finding::warning(
            "schema",
            format!("it lacks {missing} of this Longshore's migrations"),
            "None: whatever opens it next applies them. An older Longshore refuses it then.",
            "`longshore migrate` applies them now.",
        ),
    });
    Ok(())
}

fn permissions(path: &Path, mode: u32) -> Finding {
    const CHECK: &str = "permissions";
    let found = format!("{} {mode:03o}", path.display());
    let remedy = format!("chmod 600 {}", path.display());
    match (mode & 0o022, mode & 0o044) {
        (0, 0) => Finding::ok(CHECK, found),
        (0, _) => Finding::warning(
            CHECK,
            found,
            "Others on this machine can read parameters of jobs and manifests.",
            remedy,
        ),
        _ => Finding::error(
            CHECK,
            found,
            "Others on this machine can change what was decided and delivered.",
            remedy,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;
    use crate::ledger::embedded::EmbeddedLedger;

    fn levels(path: &Path) -> Vec<(String, Level)> {
        let found = examine(path).findings;
        found.into_iter().map(|found| (found.check, found.level)).collect()
    }

    #[test]
    fn a_sound_file_and_one_that_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("longshore.db");
        assert_eq!(levels(&path), [("file".to_owned(), Level::Warning)]);
        assert!(!path.exists(), "looking makes nothing");
        drop(EmbeddedLedger::open(&path).unwrap());
        let chmod = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
        chmod(0o600).unwrap();
        let found = levels(&path);
        assert!(found.iter().all(|(_, level)| *level == Level::Ok), "{found:?}");
        assert_eq!(found.len(), 5);
        for (mode, level) in [(0o644, Level::Warning), (0o666, Level::Error)] {
            chmod(mode).unwrap();
            assert!(levels(&path).contains(&("permissions".to_owned(), level)));
        }
        std::fs::write(&path, "no database at all, but a text").unwrap();
        assert!(levels(&path).contains(&("file".to_owned(), Level::Error)));
    }
}
