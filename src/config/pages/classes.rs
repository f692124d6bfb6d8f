//! The pages of the classes by which jobs and commands fail.

use super::{Page, Wrong};
use crate::error::Class;

/// The page of a class. A class without one does not compile.
pub(super) fn of_class(class: Class) -> Page {
    let (title, cause, wrong, remedy) = match class {
        Class::Transient => (
            "It may work when tried again.",
            "A server answered with a fault of its own, two transactions were in each other's way, \
             or a connection was cut.",
            "cannot read the table: the connection was cut (connection shop)",
            "Nothing, mostly: the run is tried again after a growing pause, up to [retry] attempts. \
             If it ends in a dead letter all the same, look at the other side's log, then \
             `longshore dead replay`.",
        ),
        Class::Throttled => (
            "The other side asks for patience.",
            "Too many requests were made in too short a time.",
            "cannot put the file: the store asks for fewer requests (connection lake)",
            "Nothing: the run waits as long as it was asked to, and no attempt is counted. Where it \
             happens often, set `max-requests` or `max-runs` of the connection.",
        ),
        Class::Unavailable => (
            "The other side cannot be reached, or something is missing here.",
            "A server is down or takes no writes, the network is cut, an address is wrong, a disk is \
             full, a folder is not mounted, a reference to a secret leads nowhere, or this worker \
             lacks the connection or does not understand the definition.",
            "cannot connect: PostgreSQL cannot be reached (connection shop, host db.internal)",
            "Bring the server back, correct the address, put the secret or the connection there, \
             update the worker. Runs wait, no attempt is counted, and they go on by themselves.",
        ),
        Class::Contract => (
            "The rows break the contract.",
            "A column vanished, is new or has another type, or more rows were refused than \
             max-rejected allows. Nothing was delivered.",
            "cannot plan the contract: column `email` is promised, and the rows do not have it",
            "See what changed at the source: `longshore runs show RUN` tells the rule and where \
             the refused rows are, `longshore preview EXPORT` tries the rows of now. Correct the \
             data or the contract, `longshore apply`, then `longshore dead replay`.",
        ),
        Class::Permanent => (
            "Trying again cannot help.",
            "A query is wrong, a table is not there, a login is refused.",
            "cannot read the table: there is no such table (table ordres, connection shop)",
            "Correct what the message names; `longshore check --connect` tells whether that was \
             all. Then `longshore apply` and `longshore dead replay`.",
        ),
        Class::Malformed => (
            "The job's message cannot be understood.",
            "A producer published something that is no job, or a job with keys or values that the \
             export does not take.",
            "cannot read the message: unknown field `windw`",
            "Correct the producer by `docs/messages.md` and its JSON Schema. The message is kept: \
             `longshore dead show`. It cannot succeed as it is, so publish it anew and drop it.",
        ),
        Class::Conflict => (
            "The same key came with other content.",
            "A key stands for one effect, and two different jobs claim it.",
            "cannot accept the job: another job has the same key and other content (key nightly-2026-11-19, \
             run 019a9b2e-7c2f-7a1e-8d31-5f0c2b7c9a1e)",
            "Use another key for another job. Where the key is not given, it follows from export, \
             recipient, params and window, and cannot conflict.",
        ),
        Class::Poison => (
            "The job killed its worker repeatedly.",
            "Three attempts ended without a word: the process was killed, most often for want of \
             memory.",
            "the worker died three times on this run",
            "Look at the worker's and the system's log at the times of the attempts (`longshore \
             runs show RUN`). Give the worker more memory, or let it do less at once \
             (`concurrency`), then `longshore dead replay`.",
        ),
        Class::Cancelled => (
            "Somebody cancelled the run.",
            "`longshore runs cancel`; who did it and why stands in the audit trail.",
            "longshore runs cancel 7c2f9a1e --reason \"not needed\"",
            "Nothing. If it is wanted after all, ask for it with another --key: a repeat with the same \
             one finds the cancelled run.",
        ),
        Class::Expired => (
            "The run's deadline passed before it was delivered.",
            "The job has a `deadline`, or the time of [retry] give-up-after is over.",
            "the deadline passed at 2026-11-19T06:00:00Z",
            "See what kept it (`longshore runs show RUN`); where it is still wanted, `longshore \
             dead replay`.",
        ),
        Class::Fenced => (
            "A newer attempt exists, and this one may not act any more.",
            "A worker was so slow, or so long cut off, that another took over its run.",
            "cannot decide the delivery: a newer attempt has the run",
            "Nothing: the newer attempt delivers. Where it happens often, the `lease` under \
             [worker] is too short for this machine's pauses.",
        ),
        Class::Config => (
            "The configuration is wrong.",
            "A file has a problem, or a definition does not fit this installation.",
            "cannot plan the transform: there is no column `amonut`",
            "`longshore check` points at it; correct it, then `longshore apply`.",
        ),
        Class::NotFound => (
            "What was asked for does not exist.",
            "A name or an id is misspelt, or belongs to another installation.",
            "cannot show the export: no export of this name is active (export ordres)",
            "Correct the name; the help tells what there is. Is --config the right one?",
        ),
        Class::Refused => (
            "What was asked for is not allowed as things stand.",
            "A command would undo something that others rely on, or must be said more clearly. A run \
             would have replaced a delivery or a file that stands in its place.",
            "cannot deliver to the folder: the delivery of run 019a9b2e-7c2f-7a1e-8d31-5f0c2b7c9a1e is \
             there (target lake/orders/2026-11-19)",
            "Read what the help offers: of a command, `--all`, `--reason` and the like say that it is \
             meant. Of a run that died, look at what stands there: move it away, give the export \
             another `path`, or say `if-exists = \"replace\"` under [sink] and `longshore apply`; then \
             `longshore dead replay`.",
        ),
        Class::Usage => (
            "The command line was used wrongly.",
            "An option or a value that the command does not take.",
            "cannot enqueue the job: the value is no int64 (param top)",
            "`longshore COMMAND --help` shows what it takes, with examples.",
        ),
    };
    Page { name: class.as_str(), title, cause, wrong: Wrong::Terminal(wrong), remedy }
}
