//! The guards, and how each is taken away.

/// A change of the source that leaves out one guard.
pub struct Mutant {
    /// What is left out.
    pub guard: &'static str,
    /// The file of the source, and the text in it that is replaced.
    pub file: &'static str,
    pub find: &'static str,
    /// In Rust, `LEFT_OUT` stands for whether it is this guard's turn.
    pub replace: &'static str,
    /// The arguments of `cargo test`, once for each sink or so; a test of each is to fail.
    pub tests: &'static [&'static [&'static str]],
}

const MODEL: &[&str] = &["--test", "model"];
const BOOK: &[&str] = &["--lib", "job::"];
const LEDGER: &[&str] = &["--test", "it", "conformance::ledger"];
const RABBITMQ: &[&str] = &["--test", "it", "conformance::rabbitmq"];
const WORKER: &[&str] = &["--lib", "worker::"];
const S3: &[&str] = &["--test", "it", "sink_files_s3::"];
const STORE: &[&str] = &["--test", "it", "a_manifest_that_comes_between"];
const FILES: &[&str] = &["--lib", "sink::files"];
const POSTGRES: &[&str] = &["--test", "it", "sink_postgres"];
const SQLITE: &[&str] = &["--test", "it", "sink_sqlite"];
const CURSORS: &[&str] = &["--test", "it", "cursors"];
const SNAPSHOT: &[&str] = &["--test", "it", "source_postgres::snapshot"];

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        guard: "the fence in decide",
        file: "src/job/machine.rs",
        find: "    held_by(run, fence)?;\n    // The same again, since the answer was lost.\n    if run.state == State::Committing",
        replace: "    if !LEFT_OUT {\n        held_by(run, fence)?;\n    }\n    if run.state == State::Committing",
        tests: &[MODEL],
    },
    Mutant {
        guard: "the new fence in open",
        file: "src/job/machine.rs",
        find: "    run.fence += 1;\n    run.worker",
        replace: "    run.fence = if LEFT_OUT { run.fence.max(1) } else { run.fence + 1 };\n    run.worker",
        tests: &[MODEL],
    },
    Mutant {
        guard: "the living heartbeat in open",
        file: "src/job/machine.rs",
        find: "run.heartbeat.filter(|until| *until > now)",
        replace: "run.heartbeat.filter(|until| *until > now && !LEFT_OUT)",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the decision in record",
        file: "src/job/machine.rs",
        find: "(Proof::Decision, State::Committing) if run.decision.as_ref() == Some(&decision) => {}",
        replace: "(Proof::Decision, State::Committing) if LEFT_OUT || run.decision.as_ref() == Some(&decision) => {}",
        tests: &[BOOK],
    },
    Mutant {
        guard: "the newer edition in decide",
        file: "src/job/machine.rs",
        find: "    if superseded {\n        shut_superseded(run, now);\n        return Err(Refusal::Superseded);\n    }\n    run.state = State::Committing;",
        replace: "    if superseded && !LEFT_OUT {\n        shut_superseded(run, now);\n        return Err(Refusal::Superseded);\n    }\n    run.state = State::Committing;",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the epoch of a replay",
        file: "src/job/machine.rs",
        find: "    if run.epoch != epoch {\n        return Err(Refusal::OldEpoch);\n    }\n    if !matches!",
        replace: "    if run.epoch != epoch && !LEFT_OUT {\n        return Err(Refusal::OldEpoch);\n    }\n    if !matches!",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the fence in spread",
        file: "src/job/machine.rs",
        find: "    held_by(run, fence)?;\n    if run.state != State::Running {\n        return Err(Refusal::Stands(run.state));\n    }\n    if superseded {\n        shut_superseded(run, now);\n        return Err(Refusal::Superseded);\n    }\n    run.parts",
        replace: "    if !LEFT_OUT {\n        held_by(run, fence)?;\n    }\n    if run.state != State::Running {\n        return Err(Refusal::Stands(run.state));\n    }\n    if superseded {\n        shut_superseded(run, now);\n        return Err(Refusal::Superseded);\n    }\n    run.parts",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the fence in the marker row",
        file: "src/sink/table/marker.rs",
        find: "Some(marker) if marker.fence > holder.fence => Err(self.overtaken(holder)),",
        replace: "Some(marker) if marker.fence > holder.fence && !LEFT_OUT => Err(self.overtaken(holder)),\n            Some(marker) if marker.fence > holder.fence => Ok(marker),",
        tests: &[POSTGRES, SQLITE],
    },
    Mutant {
        guard: "the content of a key",
        file: "src/job/book.rs",
        find: "return if there.order.content == order.content {",
        replace: "return if LEFT_OUT || there.order.content == order.content {",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the confirm, where the broker refuses",
        file: "src/queue/rabbitmq/publish.rs",
        find: "Confirmation::Nack(_) => Confirmed::Refused,",
        replace: "Confirmation::Nack(_) if LEFT_OUT => Confirmed::Taken,\n                        Confirmation::Nack(_) => Confirmed::Refused,",
        tests: &[RABBITMQ],
    },
    Mutant {
        guard: "the confirm, where none comes",
        file: "src/queue/rabbitmq/publish.rs",
        find: "        _ => Confirmed::Unknown(words(error)),",
        replace: "        _ if LEFT_OUT => Confirmed::Taken,\n        _ => Confirmed::Unknown(words(error)),",
        tests: &[RABBITMQ],
    },
    Mutant {
        guard: "the mandatory flag",
        file: "src/queue/rabbitmq/publish.rs",
        find: "BasicPublishOptions { mandatory: true,",
        replace: "BasicPublishOptions { mandatory: !LEFT_OUT,",
        tests: &[RABBITMQ],
    },
    Mutant {
        guard: "the order of record and ack",
        file: "src/worker/job.rs",
        find: "    let mut beat = worker.heart.start(",
        replace: "    if LEFT_OUT {\n        message.ack().await;\n    }\n    let mut beat = worker.heart.start(",
        tests: &[WORKER],
    },
    Mutant {
        guard: "the wake-up on refusal by a living heartbeat",
        file: "src/job/book.rs",
        find: "            if matches!(closed, Closed::Held(_) | Closed::NotYet(_)) {\n                self.wake(ask.run, Duration::ZERO);\n            }\n",
        replace: "            if matches!(closed, Closed::Held(_) | Closed::NotYet(_)) && !LEFT_OUT {\n                self.wake(ask.run, Duration::ZERO);\n            }\n",
        tests: &[MODEL],
    },
    Mutant {
        guard: "the wake-up on refusal by the fence",
        file: "src/worker/settle.rs",
        find: "    match worker.apply(\"leave a wake-up\", command).await? {",
        replace: "    let command = if LEFT_OUT { Command::Unpark { run: run.id } } else { command };\n    match worker.apply(\"leave a wake-up\", command).await? {",
        tests: &[WORKER],
    },
    Mutant {
        guard: "the wake-up of a retry",
        file: "src/job/book.rs",
        find: "            self.wake(id, Duration::ZERO);\n        }\n        outcome\n    }\n",
        replace: "            if !LEFT_OUT {\n                self.wake(id, Duration::ZERO);\n            }\n        }\n        outcome\n    }\n",
        tests: &[MODEL],
    },
    Mutant {
        guard: "the cursor's reservation",
        file: "src/pipeline/plan.rs",
        find: ".chain(self.cursor().map(Need::cursor))",
        replace: ".chain(self.cursor().filter(|_| !LEFT_OUT).map(Need::cursor))",
        tests: &[CURSORS],
    },
    Mutant {
        guard: "the cursor in record",
        file: "src/job/book/recording.rs",
        find: "if self.cursors.get(&step.name) != step.from.as_ref() {",
        replace: "if self.cursors.get(&step.name) != step.from.as_ref() && !LEFT_OUT {",
        tests: &[BOOK],
    },
    Mutant {
        guard: "the target's reservation, kept to the end",
        file: "src/job/book.rs",
        find: "self.release(id, &run.needs, waiting::is_slot);",
        replace: "self.release(id, &run.needs, |need| LEFT_OUT || waiting::is_slot(need));",
        tests: &[BOOK],
    },
    Mutant {
        guard: "the fence in the names of parts",
        file: "src/sink/files.rs",
        find: "None => format!(\"-{}-{}\", holder.run.short(), holder.fence),",
        replace: "None if LEFT_OUT => format!(\"-{}\", holder.run.short()),\n                    None => format!(\"-{}-{}\", holder.run.short(), holder.fence),",
        tests: &[S3],
    },
    Mutant {
        guard: "the fence in the staging folder",
        file: "src/sink/files.rs",
        find: "format!(\"{}/{}\", self.staging(holder.run), holder.fence)",
        replace: "format!(\"{}/{}\", self.staging(holder.run), if LEFT_OUT { 1 } else { holder.fence })",
        tests: &[FILES],
    },
    Mutant {
        guard: "create-if-absent for the manifest",
        file: "src/sink/files/commit.rs",
        find: "Next::Create => PutMode::Create,",
        replace: "Next::Create if LEFT_OUT => PutMode::Overwrite,\n        Next::Create => PutMode::Create,",
        tests: &[STORE],
    },
    Mutant {
        guard: "the predecessor's hash",
        file: "src/sink/files/commit.rs",
        find: "(Some(found), Some(expected)) if found.sha256 == *expected => {",
        replace: "(Some(found), Some(expected)) if LEFT_OUT || found.sha256 == *expected => {",
        tests: &[FILES],
    },
    Mutant {
        guard: "the raised fence in close (PostgreSQL)",
        file: "src/sink/postgres.rs",
        find: "        tx.commit().await.map_err(|error| failed(\"close the run\", error))?;",
        replace: "        let ended = if LEFT_OUT { tx.rollback().await } else { tx.commit().await };\n        ended.map_err(|error| failed(\"close the run\", error))?;",
        tests: &[POSTGRES],
    },
    // In SQL, each of them a build of its own.
    Mutant {
        guard: "the unique key",
        file: "migrations/V001__ledger.sql",
        find: ",\n    UNIQUE (key, edition)",
        replace: "",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the version in the dispatcher's mark",
        file: "src/ledger/postgres/queries/put_outbox.sql",
        find: "SET version = nextval('outbox_version'), epoch",
        replace: "SET epoch",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the transaction that a remembered run was written by",
        file: "src/ledger/postgres/transaction.rs",
        find: "writers.get(&run.id.0) == Some(written_by)",
        replace: "(LEFT_OUT || writers.get(&run.id.0) == Some(written_by))",
        tests: &[LEDGER],
    },
    Mutant {
        guard: "the lock before the snapshot",
        file: "src/source/postgres/snapshot.rs",
        find: "        && is_lockable(client",
        replace: "        && !LEFT_OUT\n        && is_lockable(client",
        tests: &[SNAPSHOT],
    },
    Mutant {
        guard: "the look at what is locked",
        file: "src/source/postgres/snapshot.rs",
        find: "        Some(tables) => Look::Past(outdated(&tables)),\n        None => ",
        replace: "        Some(tables) if !LEFT_OUT => Look::Past(outdated(&tables)),\n        _ => ",
        tests: &[SNAPSHOT],
    },
];
