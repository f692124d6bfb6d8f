//! Problems of the configuration: what is wrong, where, and what to do about it.

use std::fmt;

use serde::Serialize;

use super::tree::Place;
use crate::suggest::nearest;

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $code:literal),* $(,)?) => {
        /// What kind of problem it is. Each kind has a code that never changes its meaning, and a
        /// page in the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $doc] $name),* }

        impl Code {
            /// All of them.
            pub const ALL: [Code; [$($code),*].len()] = [$(Code::$name),*];

            /// The code as it is printed: `LS0201`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code),* }
            }

            /// What it is, as a sentence.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $doc),* }.trim_start()
            }
        }
    };
}

codes! {
    /// A file is missing or cannot be read.
    Unreadable = "LS0101",
    /// A file is no TOML.
    Syntax = "LS0102",
    /// Two files define an export of the same name.
    Duplicate = "LS0103",
    /// A name has characters that it may not have.
    Name = "LS0104",
    /// A key that nobody knows.
    UnknownKey = "LS0201",
    /// A key that must be there is not.
    MissingKey = "LS0202",
    /// A value of another type.
    WrongType = "LS0203",
    /// A word that is none of those known.
    UnknownValue = "LS0204",
    /// A value that cannot be understood, or is out of range.
    BadValue = "LS0205",
    /// An export names a connection that does not exist.
    UnknownConnection = "LS0301",
    /// A key that the kind of system does not have.
    Unfit = "LS0302",
    /// A pool that no worker serves.
    UnknownPool = "LS0304",
    /// A time zone that does not exist.
    Timezone = "LS0305",
    /// A cron expression that cannot be understood.
    Cron = "LS0306",
    /// A window without a start.
    NoStart = "LS0307",
    /// A query uses a parameter that is not declared.
    UndeclaredParam = "LS0308",
    /// A path has a placeholder that nobody fills.
    UnknownPlaceholder = "LS0309",
    /// Two deliveries would meet in one place.
    Meeting = "LS0310",
    /// An upsert without a primary key.
    NoPrimaryKey = "LS0311",
    /// A field is not in the contract.
    NoSuchField = "LS0312",
    /// Hashes or tokens without a key for pseudonyms.
    NoPseudonyms = "LS0313",
    /// An export may use more memory than its worker has, or less than it takes.
    Memory = "LS0314",
    /// A personal or secret field is delivered as it is (a note).
    Unprotected = "LS0315",
    /// A schedule without windows, of an export that uses the window.
    NoWindow = "LS0316",
    /// An export reads from and writes to one SQLite file.
    OneFile = "LS0317",
    /// A cursor, and a sink or a schedule that does not go with it.
    Cursor = "LS0318",
    /// Quarantine without a key.
    NoQuarantineKey = "LS0319",
    /// A `for-each` that does not go with the params.
    ForEach = "LS0320",
    /// A param that has no value in the runs of the schedule.
    NoValue = "LS0321",
    /// Many tables by one definition: their patterns, or where they go.
    Tables = "LS0322",
    /// An export comes after one that does not exist.
    AfterUnknown = "LS0323",
    /// Exports come after one another in a circle.
    AfterCircle = "LS0324",
    /// An export comes after one that has other windows.
    AfterWindows = "LS0325",
    /// Every window of a schedule would deliver the same rows (a note).
    SameRows = "LS0330",
    /// The SQL of a transform is refused.
    Transform = "LS0331",
    /// A contract promises what the rows do not have.
    Promise = "LS0332",
    /// A column cannot be protected in that way.
    Protection = "LS0333",
    /// A protection has an option too many, or lacks one.
    ProtectOption = "LS0340",
    /// Encryption under a key that nobody has named.
    NoKey = "LS0341",
    /// A protected column is one that the sink goes by.
    ProtectedKey = "LS0342",
    /// A reference whose key is none.
    ReferenceKey = "LS0345",
    /// A reference that the transform does not use (a note).
    UnusedReference = "LS0346",
    /// A secret is in a vault, and none is configured.
    NoVault = "LS0350",
    /// A secret stands in the configuration.
    LiteralSecret = "LS0401",
    /// A password stands in an address.
    SecretInUrl = "LS0402",
    /// Some addresses are of servers, others of files.
    Mixture = "LS0501",
    /// The embedded parts name different files.
    Apart = "LS0502",
    /// An address that cannot be understood.
    BadUrl = "LS0503",
    /// An address of another machine, without TLS.
    NoTls = "LS0504",
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The configuration is refused.
    Error,
    /// It is accepted, and worth knowing.
    Note,
}

/// One problem, fit to be shown: secrets in the offending line are hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How much it matters.
    pub level: Level,
    /// Its kind.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// The file, or the environment variable.
    pub file: String,
    /// Where in the file, from 1. `None`: the file as a whole.
    pub position: Option<Position>,
    /// What is said beside the caret.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A place in a file, and the line that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The whole line.
    pub text: String,
}

impl Problem {
    /// Says what to do about it.
    pub(super) fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Note => "note",
        };
        writeln!(f, "{level}[{}]: {}", self.code.as_str(), self.message)?;
        let gutter = match &self.position {
            Some(at) => {
                let gutter = at.line.to_string().len();
                writeln!(f, "{:gutter$}--> {}:{}:{}", "", self.file, at.line, at.column)?;
                writeln!(f, "{:gutter$} |", "")?;
                writeln!(f, "{} | {}", at.line, at.text)?;
                let caret = format!("{:1$}{2}", "", at.column - 1, "^".repeat(at.width));
                writeln!(f, "{:gutter$} | {}", "", format!("{caret} {}", self.label).trim_end())?;
                gutter
            }
            None => {
                writeln!(f, "  --> {}", self.file)?;
                if !self.label.is_empty() {
                    writeln!(f, "   = note: {}", self.label)?;
                }
                2
            }
        };
        if let Some(help) = &self.help {
            writeln!(f, "{:gutter$} = help: {help}", "")?;
        }
        writeln!(f, "{:gutter$} = more: longshore explain {}", "", self.code.as_str())
    }
}

/// All problems of a configuration, in the order of files and lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds a problem at `place`.
    pub(super) fn add(
        &mut self,
        code: Code,
        place: &Place,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Problem {
        let problem = Problem {
            level: Level::Error,
            code,
            message: message.into(),
            file: place.file.name.clone(),
            position: place.position(),
            label: label.into(),
            help: None,
        };
        self.0.push(problem);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Puts them in order, each once, and sets the notes apart.
    pub(super) fn sort(mut self) -> (Problems, Vec<Problem>) {
        let at = |problem: &Problem| problem.position.as_ref().map(|p| (p.line, p.column));
        self.0.sort_by(|a, b| (&a.file, at(a), a.code).cmp(&(&b.file, at(b), b.code)));
        self.0.dedup();
        let (errors, notes) = self.0.into_iter().partition(|one| one.level == Level::Error);
        (Problems(errors), notes)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Words that are named where none was probably meant.
const NAMED: usize = 30;

/// The help that names what was probably meant, or else what is known.
pub(crate) fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.collect();
    match nearest(word, known.iter().copied()) {
        Some(one) => Some(format!("did you mean `{one}`?")),
        None if known.is_empty() => None,
        None if known.len() > NAMED => {
            Some(format!("known here: {}, ...", known[..NAMED].join(", ")))
        }
        None => Some(format!("known here: {}", known.join(", "))),
    }
}
