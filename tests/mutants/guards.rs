//! The guards, and how each is taken away.

/// A change of the source that leaves out one guard.
pub struct Mutant {
    /// What is left out.
    pub guard: &'static str,
    /// The file of the source, and the text in it that is replaced.
    pub file: &'static str,
    pub find: &'static str,
    pub replace: &'static str,
    /// The arguments of `cargo test` for the tests one of which is to fail.
    pub test: &'static [&'static str],
}

const MODEL: &[&str] = &["--test", "model"];
const BOOK: &[&str] = &["--lib", "job::"];
const LEDGER: &[&str] = &["--test", "it", "conformance::ledger"];
const RABBITMQ: &[&str] = &["--test", "it", "conformance::rabbitmq"];
const WORKER: &[&str] = &["--lib", "worker::"];
const S3: &[&str] = &["--test", "it", "sink_files_s3::"];
const FILES: &[&str] = &["--lib", "sink::files"];
const POSTGRES: &[&str] = &["--test", "it", "sink_postgres"];
const SQLITE: &[&str] = &["--test", "it", "sink_sqlite"];
const CURSORS: &[&str] = &["--test", "it", "cursors"];

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        guard: "the fence in decide",
        file: "src/job/machine.rs",
        find: "    held_by(run, fence)?;\n    // The same again, since the answer was lost.\n    if run.state == State::Committing",
        replace: "    let _ = fence;\n    if run.state == State::Committing",
        test: MODEL,
    },
    Mutant {
        guard: "the new fence in open",
        file: "src/job/machine.rs",
        find: "    run.fence += 1;\n    run.worker",
        replace: "    run.fence = run.fence.max(1);\n    run.worker",
        test: MODEL,
    },
    Mutant {
        guard: "the living heartbeat in open",
        file: "src/job/machine.rs",
        find: "run.heartbeat.filter(|until| *until > now)",
        replace: "run.heartbeat.filter(|until| *until > Timestamp::MAX.min(now) && false)",
        test: LEDGER,
    },
    Mutant {
        guard: "the decision in record",
        file: "src/job/machine.rs",
        find: "(Proof::Decision, State::Committing) if run.decision.as_ref() == Some(&decision) => {}",
        replace: "(Proof::Decision, State::Committing) => {}",
        test: BOOK,
    },
    Mutant {
        guard: "the newer edition in decide",
        file: "src/job/machine.rs",
        find: "    if superseded {\n        shut_superseded(run, now);\n        return Err(Refusal::Superseded);\n    }\n    run.state = State::Committing;",
        replace: "    let _ = superseded;\n    run.state = State::Committing;",
        test: LEDGER,
    },
    Mutant {
        guard: "the epoch of a replay",
        file: "src/job/machine.rs",
        find: "    if run.epoch != epoch {\n        return Err(Refusal::OldEpoch);\n    }\n    if !matches!",
        replace: "    let _ = epoch;\n    if !matches!",
        test: LEDGER,
    },
    Mutant {
        guard: "the fence in the marker row (PostgreSQL)",
        file: "src/sink/table/marker.rs",
        find: "Some(marker) if marker.fence > holder.fence => Err(self.overtaken(holder)),",
        replace: "Some(marker) if marker.fence > holder.fence => Ok(marker),",
        test: POSTGRES,
    },
    Mutant {
        guard: "the fence in the marker row (SQLite)",
        file: "src/sink/table/marker.rs",
        find: "Some(marker) if marker.fence > holder.fence => Err(self.overtaken(holder)),",
        replace: "Some(marker) if marker.fence > holder.fence => Ok(marker),",
        test: SQLITE,
    },
    Mutant {
        guard: "the unique key",
        file: "migrations/V001__ledger.sql",
        find: ",\n    UNIQUE (key, edition)",
        replace: "",
        test: LEDGER,
    },
    Mutant {
        guard: "the content of a key",
        file: "src/job/book.rs",
        find: "return if there.order.content == order.content {",
        replace: "return if there.order.key == order.key {",
        test: LEDGER,
    },
    Mutant {
        guard: "the confirm, where the broker refuses",
        file: "src/queue/rabbitmq/publish.rs",
        find: "Confirmation::Nack(_) => Confirmed::Refused,",
        replace: "Confirmation::Nack(_) => Confirmed::Taken,",
        test: RABBITMQ,
    },
    Mutant {
        guard: "the confirm, where none comes",
        file: "src/queue/rabbitmq/publish.rs",
        find: "        _ => Confirmed::Unknown(words(error)),",
        replace: "        _ => Confirmed::Taken,",
        test: RABBITMQ,
    },
    Mutant {
        guard: "the mandatory flag",
        file: "src/queue/rabbitmq/publish.rs",
        find: "BasicPublishOptions { mandatory: true,",
        replace: "BasicPublishOptions { mandatory: false,",
        test: RABBITMQ,
    },
    Mutant {
        guard: "the order of record and ack",
        file: "src/worker/job.rs",
        find: "    let mut beat = worker.heart.start(",
        replace: "    message.ack().await;\n    let mut beat = worker.heart.start(",
        test: WORKER,
    },
    Mutant {
        guard: "the wake-up on refusal by a living heartbeat",
        file: "src/job/book.rs",
        find: "            if matches!(closed, Closed::Held(_) | Closed::NotYet(_)) {\n                self.wake(ask.run, Duration::ZERO);\n            }\n",
        replace: "",
        test: MODEL,
    },
    Mutant {
        guard: "the wake-up on refusal by the fence",
        file: "src/worker/settle.rs",
        find: "    match worker.apply(\"leave a wake-up\", command).await? {",
        replace: "    drop(command);\n    match worker.apply(\"look\", Command::Unpark { run: run.id }).await? {",
        test: WORKER,
    },
    Mutant {
        guard: "the wake-up of a retry",
        file: "src/job/book.rs",
        find: "            self.release(id, &run.needs, waiting::is_slot);\n            self.wake(id, Duration::ZERO);",
        replace: "            self.release(id, &run.needs, waiting::is_slot);",
        test: MODEL,
    },
    Mutant {
        guard: "the version in the dispatcher's mark",
        file: "src/ledger/postgres/queries/put_outbox.sql",
        find: "SET version = nextval('outbox_version'), epoch",
        replace: "SET epoch",
        test: LEDGER,
    },
    Mutant {
        guard: "the cursor's reservation",
        file: "src/pipeline/plan.rs",
        find: "            .chain(self.cursor().map(Need::cursor))\n",
        replace: "",
        test: CURSORS,
    },
    Mutant {
        guard: "the cursor in record",
        file: "src/job/book.rs",
        find: "if self.cursors.get(&step.name) != step.from.as_ref() {",
        replace: "if step.name.is_empty() {",
        test: BOOK,
    },
    Mutant {
        guard: "the target's reservation, kept to the end",
        file: "src/job/book.rs",
        find: "            self.release(id, &run.needs, waiting::is_slot);\n            self.wake(id, Duration::ZERO);",
        replace: "            self.release(id, &run.needs, |_| true);\n            self.wake(id, Duration::ZERO);",
        test: BOOK,
    },
    Mutant {
        guard: "the fence in the names of parts",
        file: "src/sink/files.rs",
        find: "None => format!(\"-{}-{}\", holder.run.short(), holder.fence),",
        replace: "None => format!(\"-{}\", holder.run.short()),",
        test: S3,
    },
    Mutant {
        guard: "the fence in the staging folder",
        file: "src/sink/files.rs",
        find: "format!(\"{}/{}\", self.staging(holder.run), holder.fence)",
        replace: "format!(\"{}/1\", self.staging(holder.run))",
        test: FILES,
    },
    Mutant {
        guard: "create-if-absent for the manifest",
        file: "src/sink/files/commit.rs",
        find: "Next::Create => PutMode::Create,",
        replace: "Next::Create => PutMode::Overwrite,",
        test: S3,
    },
    Mutant {
        guard: "the predecessor's hash",
        file: "src/sink/files/commit.rs",
        find: "(Some(found), Some(expected)) if found.sha256 == *expected => {",
        replace: "(Some(found), Some(_)) => {",
        test: FILES,
    },
    Mutant {
        guard: "the raised fence in close (PostgreSQL)",
        file: "src/sink/postgres.rs",
        find: "        let found = self.raise(&tx, &marker, holder).await?;\n        tx.commit().await.map_err(|error| failed(\"close the run\", error))?;",
        replace: "        let found = self.raise(&tx, &marker, holder).await?;\n        tx.rollback().await.map_err(|error| failed(\"close the run\", error))?;",
        test: POSTGRES,
    },
];
