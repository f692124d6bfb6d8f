//! The catalogue of errors: for every code and every class what it means, how it comes about, and
//! what to do. `longshore explain` prints it, and `docs/reference/errors.md` is generated from it.

mod classes;

use std::fmt::Write;

use self::classes::of_class;
use super::problem::Code;
use crate::error::{Class, Error, Result};
use crate::suggest::suggest;

/// What is to be known about a code or a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// `LS0312`, or the word for a class.
    pub name: &'static str,
    /// What it is, as a sentence.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What is wrong in this way: a file, or a line as it is told or typed.
    pub wrong: Wrong,
    /// What to do about it.
    pub remedy: &'static str,
}

/// An example of what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Such a text in such a file of the configuration.
    File(&'static str, &'static str),
    /// What is typed at, or told on, a terminal.
    Terminal(&'static str),
}

/// All pages: the codes first, then the classes.
pub fn pages() -> impl Iterator<Item = Page> {
    Code::ALL.into_iter().map(of_code).chain(Class::ALL.into_iter().map(of_class))
}

/// The page of a code, in any case, or of a class.
///
/// # Errors
/// `not-found`, with what was probably meant.
pub fn page(word: &str) -> Result<Page> {
    let plain = word.trim().to_ascii_lowercase();
    pages().find(|page| page.name.to_ascii_lowercase() == plain).ok_or_else(|| {
        let error = Error::not_found("explain the error", "there is no such code or class")
            .with("code", word);
        let classes = Class::ALL.map(Class::as_str);
        if plain.starts_with("ls") || plain.starts_with(|c: char| c.is_ascii_digit()) {
            return error.help("`longshore explain` alone lists them all.");
        }
        error.help(suggest(&plain, classes))
    })
}

/// The whole catalogue as the page of the documentation.
pub fn markdown() -> String {
    let mut text = "# Errors\n\n\
        Generated from the catalogue in the program; `longshore explain CODE` shows one of these \
        pages.\n\n\
        A problem of the configuration has a code, which never changes its meaning. `longshore \
        check` finds all of them at once. Everything else that fails has a class, which alone \
        decides what becomes of a job.\n\n## Codes\n"
        .to_owned();
    let mut classes = false;
    for page in pages() {
        if !classes && !page.name.starts_with("LS") {
            classes = true;
            text.push_str("\n## Classes\n");
        }
        // Writing to a text never fails.
        let _ = write!(text, "\n### {}\n\n{}\n\n{}\n\n", page.name, page.title, page.cause);
        let _ = match page.wrong {
            Wrong::File(file, wrong) => {
                write!(text, "```toml\n# {file}\n{}\n```\n", wrong.trim_end())
            }
            Wrong::Terminal(wrong) => write!(text, "```text\n{}\n```\n", wrong.trim_end()),
        };
        let _ = write!(text, "\n**Remedy.** {}\n", page.remedy);
    }
    text
}

const EXPORT: &str = "exports/orders.toml";
const SETTINGS: &str = "longshore.toml";
const CONNECTIONS: &str = "connections.toml";

/// The page of a code. A code without one does not compile.
fn of_code(code: Code) -> Page {
    let (cause, wrong, remedy) = match code {
        Code::Unreadable => (
            "longshore.toml is not in the folder that was named, a file may not be read by this \
             user or is no UTF-8, or LONGSHORE_ENV names an environment that no file is for.",
            Wrong::Terminal("LONGSHORE_ENV=prdo longshore check"),
            "Name the right folder with --config or LONGSHORE_CONFIG, correct the name of the \
             environment, or let this user read the file. `longshore init DIR` makes a folder to \
             start from.",
        ),
        Code::Syntax => (
            "A file breaks the rules of TOML: a text without quotes, a quote or bracket without \
             its other, a key that is there twice.",
            Wrong::File(EXPORT, "description = Orders of one day"),
            "Correct the place that the caret points at; what stands after it may be misread \
             because of it. Texts stand in quotes, and a key stands once in its table.",
        ),
        Code::Duplicate => (
            "The name of a file is the name of its export, whatever folder it is in, and two files \
             have one name.",
            Wrong::File(
                "exports/acme/orders.toml",
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"acme/orders\" }",
            ),
            "Rename one of the files, for instance to acme-orders.toml. Its runs and deliveries so \
             far stay under the old name.",
        ),
        Code::Name => (
            "Names become parts of queues, routing keys and paths, and therefore have letters, \
             digits, `-` and `_` only; those of exports have lowercase letters. A parameter cannot be called like a placeholder that has a \
             meaning of its own: window_start, window_end, run, export, cursor.",
            Wrong::File(EXPORT, "params = { run = { type = \"string\" } }"),
            "Choose another name: at most 100 letters, digits, `-` and `_`, a letter or digit \
             first.",
        ),
        Code::UnknownKey => (
            "A table has a key that it does not know. Nothing is ignored, since a misspelt key \
             would else have no effect without a word.",
            Wrong::File(EXPORT, "retyr = { attempts = 3 }"),
            "Correct the spelling as the help suggests, move the key to the table that it belongs \
             to, or remove it.",
        ),
        Code::MissingKey => (
            "A key that has no default is not there, or a system needs one that others do not \
             need.",
            Wrong::File(EXPORT, "source = { connection = \"shop\", table = \"orders\" }"),
            "Add the key that is named, in the table that is pointed at. `_defaults.toml` in the \
             export's folder, or in one above it, may have it too.",
        ),
        Code::WrongType => (
            "A value is of another type than its key takes: a text where a number belongs, one \
             value where a list does.",
            Wrong::File(EXPORT, "retry = { attempts = \"three\" }"),
            "Write a value of the type that stands beside the caret.",
        ),
        Code::UnknownValue => (
            "A key takes one of a few words, and this is none of them.",
            Wrong::File(EXPORT, "schedule = { cron = \"5 * * * *\", catch-up = \"al\" }"),
            "Write one of the words that the help names.",
        ),
        Code::BadValue => (
            "A value is of the right type and cannot be what it is meant to be: a duration \
             without a unit, a type that does not exist, a number out of range, a rule that its \
             column's type cannot have, a path that leads elsewhere.",
            Wrong::File(EXPORT, "limits = { timeout = \"2 hours\" }"),
            "Write it as the help shows: durations \"10m\", sizes \"256 MiB\", shares \"0.1%\", \
             types \"decimal(15,2)\".",
        ),
        Code::UnknownConnection => (
            "Exports name connections, and connections.toml (with its overlay for the environment) \
             has none of this name.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shpo\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"orders\" }",
            ),
            "Correct the name, or add the connection to connections.toml.",
        ),
        Code::Unfit => (
            "A key is known, but makes no sense here: for another kind of system, or beside \
             another key.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"orders\", mode = \"append\" }",
            ),
            "Remove the key, or name the connection that it was meant for.",
        ),
        Code::UnknownPool => (
            "A pool is served by workers that have it under [worker] pools. A job of another pool \
             would wait for ever.",
            Wrong::File(EXPORT, "pool = \"defualt\""),
            "Correct the name, or add the pool under [worker] pools in longshore.toml.",
        ),
        Code::Timezone => (
            "Windows, cron and the times in paths follow the export's time zone, and there is none \
             of this name.",
            Wrong::File(EXPORT, "timezone = \"Europe/Olso\""),
            "Use a name of the IANA database: \"Europe/Oslo\", \"UTC\".",
        ),
        Code::Cron => (
            "The schedule's cron has another form than five fields, or names a day that never \
             comes.",
            Wrong::File(EXPORT, "schedule = { cron = \"61 * * * *\" }"),
            "Write minute, hour, day of the month, month and day of the week: \"15 4 * * *\" is \
             every day at 04:15.",
        ),
        Code::NoStart => (
            "Windows tile time from the first on. Without a start there would be no end to those \
             that were missed.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"orders/{window_start:%Y-%m-%d}\" }\n\
                 schedule = { cron = \"15 4 * * *\", window = \"day\" }",
            ),
            "Add `start = 2026-11-01` under [schedule], the day of the first window.",
        ),
        Code::UndeclaredParam => (
            "A query or condition has a `:name` that is neither in [params] nor one of \
             window_start and window_end. What is declared has a type, and is bound as a value.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\", where = \"country = :land\" }\n\
                 sink   = { connection = \"lake\", path = \"orders\" }",
            ),
            "Declare it: `[params] land = { type = \"string\" }`, or correct the name.",
        ),
        Code::UnknownPlaceholder => (
            "A path has a `{name}` that nothing fills: neither a parameter nor one of those that \
             every path knows.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"orders/{land}\" }",
            ),
            "Declare the parameter under [params], or use one of the placeholders that the help \
             names.",
        ),
        Code::Meeting => (
            "Two exports, or two windows of one, would deliver into one folder or table, and each \
             would replace the other's delivery without a word.",
            Wrong::File(
                "exports/twin.toml",
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"orders\" }",
            ),
            "Give each export a path of its own (or put {export} into it), and let the path tell \
             the windows apart: {window_start:%Y-%m-%d}. Where windows are shorter than a day and the \
             clock of the time zone repeats an hour, that takes the offset: \
             {window_start:%Y-%m-%dT%H%M%z}.",
        ),
        Code::NoPrimaryKey => (
            "An upsert replaces the rows that are the same as new ones, and the primary key tells \
             which those are.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"shop\", table = \"copy\", mode = \"upsert\" }",
            ),
            "Add `primary-key = [\"id\"]` under [contract], which names its fields too.",
        ),
        Code::NoSuchField => (
            "A primary key or a protection names a column that the rows do not have. Protection \
             that protects nothing would be worse than an error.",
            Wrong::File(
                EXPORT,
                "contract = { fields = { email = { type = \"string\" } } }\n\
                 protect = { emial = \"redact\" }",
            ),
            "Correct the name, or add the column to [contract.fields].",
        ),
        Code::NoPseudonyms => (
            "`hash` and `tokenize` make the same value the same pseudonym by a key of the \
             installation, and there is none.",
            // Shown without the [keys] that would make it right.
            Wrong::File(EXPORT, "protect = { email = \"hash\" }"),
            "Add `pseudonyms = \"${file:/run/secrets/pseudonyms}\"` under [keys] in \
             longshore.toml. Keep the key: with another, every pseudonym is another.",
        ),
        Code::NoQuarantineKey => (
            "Refused rows are kept as they were before protection, so that they are encrypted, and \
             [quarantine] names no key for it.",
            Wrong::File("longshore.toml", "[quarantine]\nconnection = \"lake\""),
            "Make a key with `longshore quarantine key`, keep it where only the workers and those \
             who look after refused rows can read it, and refer to it: \
             `key = \"${file:/run/secrets/quarantine}\"` under [quarantine]. Keep the key as long as \
             the rows: without it nobody can read them.",
        ),
        Code::Memory => (
            "An export may use more memory than a worker has for all its jobs, so that it could \
             never run; or less than any run takes, so that it would fail: 4 MiB, or 32 MiB to an \
             object store, and 10 MiB more where refused rows go to quarantine.",
            Wrong::File(EXPORT, "limits = { memory = \"2 GiB\" }"),
            "Lower `memory` under [limits], or raise it under [worker] in longshore.toml. Where it is \
             too little, raise it under [limits], or leave it out.",
        ),
        Code::Unprotected => (
            "The contract calls a field personal or secret, and [protect] does not say what \
             happens to it. It is delivered as it is; this is a note, no error.",
            Wrong::File(
                EXPORT,
                "[contract.fields]\nemail = { type = \"string\", classification = \"personal\" }",
            ),
            "Say under [protect] what happens to it: drop, mask, redact, hash, tokenize, generalize \
             or encrypt.",
        ),
        Code::NoWindow => (
            "The export uses the window of its job, and the jobs of its schedule have none. All of \
             them would fail.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"orders/{window_start}\" }\n\
                 schedule = { cron = \"15 4 * * *\" }",
            ),
            "Add `window = \"day\"` and `start = 2026-11-01` under [schedule].",
        ),
        Code::SameRows => (
            "The export has windows, and nothing in [source] tells one window from another: each \
             delivery would have all rows. That is what a copy of a whole table each night wants; \
             this is a note, no error.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink   = { connection = \"lake\", path = \"orders/{window_start:%Y-%m-%d}\" }\n\
                 schedule = { cron = \"15 4 * * *\", window = \"day\", start = 2026-11-01 }",
            ),
            "Use `:window_start` and `:window_end` in the query or in `where`, or {window_start} in \
             the path of files.",
        ),
        Code::OneFile => (
            "An export reads from and writes to one SQLite file. While it is read it is locked \
             against writing, so that no run could ever end.",
            Wrong::File(
                CONNECTIONS,
                "[shop]\ntype = \"sqlite\"\nurl = \"sqlite:shop.db\"\n\
                 [lake] # where exports/orders.toml delivers what it reads of shop\n\
                 type = \"sqlite\"\nurl = \"sqlite:shop.db\"",
            ),
            "Deliver to another SQLite file, or to a folder.",
        ),
        Code::Cursor => (
            "A run by a cursor delivers the rows that are new, and no others. A table or files that \
             each run replaces would lose those before; with a `lookback` rows come again, which \
             only an upsert takes once; and a run with a window reads by that, not by the cursor. Files \
             know one cursor, `file`, by which each run takes those that are new.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\", cursor = \"updated_at\" }\n\
                 sink   = { connection = \"lake\", path = \"orders\" }",
            ),
            "Put {run} into the path or the file\'s name, or deliver to a table by append or, with \
             `lookback`, by upsert; leave `window` out of the schedule.",
        ),
        Code::ForEach => (
            "Each time the schedule asks for a run of every combination of the values in `for-each`. \
             Its names are params that [params] declares, its values of their types and among their \
             `values`, each named once; there are at most 1,000 combinations.",
            Wrong::File(
                EXPORT,
                "params = { top = { type = \"int64\", default = 1 } }\n\
                 schedule = { cron = \"15 4 * * *\", for-each = { top = [] } }",
            ),
            "Correct the name or the values that are pointed at, or declare the param.",
        ),
        Code::NoValue => (
            "The export has a schedule, and a param for which its runs have no value: it has no \
             default, and `for-each` does not name it. None of them could ever be asked for.",
            Wrong::File(
                EXPORT,
                "params = { country = { type = \"string\" } }\n\
                 schedule = { cron = \"15 4 * * *\" }",
            ),
            "Name its values in `for-each` under [schedule], which makes a run of each, or give it a \
             `default`.",
        ),
        Code::Tables => (
            "An export of many `tables` has a run for each. Its patterns name them as \
             `schema.table` (in SQLite `table`), at least one without `!`; each table goes to a place \
             of its own, by {table} and, where there are several schemas, {schema}; and the param \
             `table`, which names the table of a run, is there without being declared.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", tables = [\"public.*\"] }\n\
                 sink   = { connection = \"lake\", path = \"shop\" }",
            ),
            "Put {table}, and {schema} where it is asked for, into `path`, `file` or `table` of the \
             sink, or correct the pattern that is pointed at.",
        ),
        Code::AfterUnknown => (
            "`after` names an export that is not in the folder. A run waits for those of the same \
             window, and of this there are none.",
            Wrong::File(
                "exports/daily.toml",
                "source = { connection = \"shop\", table = \"daily\" }\n\
                 sink   = { connection = \"lake\", path = \"daily/{window_start:%Y-%m-%d}\" }\n\
                 [schedule]\ncron = \"15 4 * * *\"\nwindow = \"day\"\nstart = 2026-11-01\n\
                 after = [\"custmers\"]",
            ),
            "Correct the name, or take it out of `after` if that export has gone.",
        ),
        Code::AfterCircle => (
            "Each of these exports waits for the next and the last for the first, or one waits for \
             itself: none of them could ever begin.",
            Wrong::File(
                "exports/daily.toml",
                "source = { connection = \"shop\", table = \"daily\" }\n\
                 sink   = { connection = \"lake\", path = \"daily/{window_start:%Y-%m-%d}\" }\n\
                 [schedule]\ncron = \"15 4 * * *\"\nwindow = \"day\"\nstart = 2026-11-01\n\
                 after = [\"daily\"]",
            ),
            "Take one of them out of an `after`. What two exports both need belongs into a third, \
             which both come after.",
        ),
        Code::AfterWindows => (
            "A run waits for the runs of another export for exactly the same window. Where one of \
             them has no windows, or they differ in length, time zone or first day, no such run \
             would ever come.",
            Wrong::File(
                "exports/daily.toml",
                "source = { connection = \"shop\", table = \"daily\" }\n\
                 sink   = { connection = \"lake\", path = \"daily/{window_start:%Y-%m-%d}\" }\n\
                 [schedule]\ncron = \"15 4 * * *\"\nwindow = \"day\"\nstart = 2026-11-01\n\
                 after = [\"orders\"] # which has no [schedule]",
            ),
            "Give both a [schedule] with the same `window` and `start`, and the same `timezone`.",
        ),
        Code::Transform => (
            "The SQL of [transform] cannot be understood, is not row by row, names what is not \
             there, or would lose digits. Where the types of the rows are declared, all of it is \
             checked; else its form is, and `longshore check --connect` does the rest.",
            Wrong::File(EXPORT, "transform = { sql = \"SELECT id amount vat FROM input\" }"),
            "Correct the place that is pointed at. A transform is one SELECT … FROM input \
             [LEFT JOIN reference ON …] [WHERE …], where a reference is found by its whole key; \
             other joins, aggregates and sorting belong into the source's query. Where digits \
             would be lost, say by a CAST how many are wanted.",
        ),
        Code::Promise => (
            "The contract promises columns or types that the rows do not have, as far as the \
             definition itself tells what they have.",
            Wrong::File(
                EXPORT,
                "[source]\nconnection = \"lake\"\npath = \"in/*.csv\"\n\
                 fields = { id = { type = \"int64\" } }\n\
                 [sink]\nconnection = \"lake\"\npath = \"orders\"\n\
                 [contract.fields]\nid = { type = \"int64\" }\nemail = { type = \"string\" }",
            ),
            "Correct the contract, or make the column in [transform]; a CAST there gives it the \
             promised type.",
        ),
        Code::Protection => (
            "A column cannot be protected in that way: only text can be masked, each type is \
             generalized by an option of its own, and something must be left to deliver.",
            Wrong::File(
                EXPORT,
                "contract = { fields = { id = { type = \"int64\" } } }\n\
                 protect = { id = \"mask\" }",
            ),
            "Use drop, redact or hash, or CAST the column in [transform].",
        ),
        Code::ProtectOption => (
            "An option stands at a protection that does not have it, or one that it needs is \
             missing: `generalize` needs `step`, `to` or `keep`, and `encrypt` a `key`.",
            Wrong::File(EXPORT, "protect = { email = { method = \"hash\", keep = 4 } }"),
            "Remove the option, or add the one that is missing. Without options a protection is a \
             word: `email = \"hash\"`.",
        ),
        Code::NoKey => (
            "`encrypt` names a key that longshore.toml does not have.",
            Wrong::File(EXPORT, "protect = { email = { method = \"encrypt\", key = \"acme\" } }"),
            "Correct the name, or make a key with `openssl rand -hex 64` and refer to it under \
             [keys] in longshore.toml: `acme = \"${file:/run/secrets/acme}\"`. Every worker needs \
             it.",
        ),
        Code::ProtectedKey => (
            "A table is brought up to date by columns of the rows that are delivered, and a \
             protection changes what one of them tells: different rows would be taken for one, or \
             the same row for another.",
            Wrong::File(
                EXPORT,
                "source = { connection = \"shop\", table = \"orders\" }\n\
                 sink = { connection = \"shop\", table = \"copy\", mode = \"upsert\" }\n\
                 protect = { id = \"mask\" }\n\
                 [contract]\nprimary-key = [\"id\"]\nfields = { id = { type = \"string\" } }",
            ),
            "Deliver the column as it is. For the primary key of an upsert `hash` and `tokenize` will \
             do, which keep equal values equal; what `deleted`, `window-column` and `scope` name must \
             be as it is, since it is compared after protection.",
        ),
        Code::ReferenceKey => (
            "The key of a reference must name columns that it has, each once: by their values a row \
             is found.",
            Wrong::File(
                EXPORT,
                "transform = { sql = \"SELECT o.* FROM input o JOIN countries c ON o.country = c.code\" }\n\
                 [reference.countries]\nconnection = \"shop\"\ntable = \"countries\"\n\
                 columns = [\"code\", \"name\"]\nkey = [\"cod\"]",
            ),
            "Name the columns by which a row is found.",
        ),
        Code::UnusedReference => (
            "The SQL of [transform] does not join a reference, which is read whole all the same at \
             the start of each attempt.",
            Wrong::File(
                EXPORT,
                "[reference.countries]\nconnection = \"shop\"\ntable = \"countries\"\n\
                 key = [\"code\"]",
            ),
            "Join it: LEFT JOIN countries ON input.country = countries.code. Or remove it.",
        ),
        Code::NoVault => (
            "A secret is said to be in a vault, and longshore.toml does not tell which vault that is.",
            Wrong::File(
                CONNECTIONS,
                "[warehouse]\ntype = \"postgres\"\nurl = \"postgres://loader@dw.internal/dw\"\n\
                 password = \"${vault:secret/data/warehouse#password}\"",
            ),
            "Add [vault] with `url` and `token` to longshore.toml, or refer to the environment or a file.",
        ),
        Code::LiteralSecret => (
            "A password or key stands in the configuration itself, where everybody reads it who \
             reads the repository.",
            Wrong::File(
                CONNECTIONS,
                "[warehouse]\ntype = \"postgres\"\nurl = \"postgres://loader@dw.internal/dw\"\n\
                 password = \"hunter2\"",
            ),
            "Change the secret, which is no longer one; put the new one into the environment or a \
             file and refer to it: \"${env:NAME}\", \"${file:/run/secrets/name}\".",
        ),
        Code::SecretInUrl => (
            "An address has a password in it. Addresses are shown in logs, errors and tables.",
            Wrong::File(
                CONNECTIONS,
                "[warehouse]\ntype = \"postgres\"\nurl = \"postgres://loader:hunter2@dw.internal/dw\"",
            ),
            "Keep the user in the address, and put the password into `password` as a reference: \
             \"${env:NAME}\", \"${file:/run/secrets/name}\".",
        ),
        Code::Mixture => (
            "Queue, ledger and claims are either all in one file or all on servers: they could not \
             keep their promises to each other else.",
            Wrong::File(
                SETTINGS,
                "[queue]\nurl = \"amqp://longshore@localhost/%2f\"\n\
                 [ledger]\nurl = \"sqlite:longshore.db\"\n\
                 [claims]\nurl = \"sqlite:longshore.db\"",
            ),
            "Write \"sqlite:longshore.db\" in all three, or amqp:, postgres: and redis:.",
        ),
        Code::Apart => (
            "The embedded queue, ledger and claims share one file, and these name several.",
            Wrong::File(
                SETTINGS,
                "[queue]\nurl = \"sqlite:queue.db\"\n\
                 [ledger]\nurl = \"sqlite:longshore.db\"\n\
                 [claims]\nurl = \"sqlite:longshore.db\"",
            ),
            "Write the same address in all three.",
        ),
        Code::BadUrl => (
            "An address has another form than its system takes, or lacks its host.",
            Wrong::File(CONNECTIONS, "[warehouse]\ntype = \"postgres\"\nurl = \"dw.internal\""),
            "Write it as the help shows: \"postgres://user@host/database\", \"s3://bucket/folder\", \
             \"file:folder\", \"sqlite:file.db\".",
        ),
        Code::NoTls => (
            "The server is on another machine, and what goes there could be read on the way.",
            Wrong::File(
                SETTINGS,
                "[queue]\nurl = \"amqp://longshore@queue.internal/%2f\"\n\
                 [ledger]\nurl = \"postgres://longshore@ledger.internal/longshore\"\n\
                 [claims]\nurl = \"rediss://claims.internal\"",
            ),
            "Write amqps:// or rediss://. Without TLS only this machine is reached: localhost, \
             127.0.0.1, [::1].",
        ),
    };
    Page { name: code.as_str(), title: code.title(), cause, wrong, remedy }
}
