//! One error type for the whole of Longshore.
//!
//! An [`Error`] says what class of failure it is (which alone decides whether a job is tried
//! again), what was being done, where, and what to do about it. `Display` prints the message and
//! its context, never the source: a source may quote a row or a server's answer. Logs print the
//! chain through [`Error::chain`] after scrubbing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What class of failure an error is. Retry is decided by this and by nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It may work when tried again: a 5xx, a serialization failure, a deadlock, a cut connection.
    Transient,
    /// The other side asks for patience (429). Uses up no attempts.
    Throttled,
    /// The other side cannot be reached. Uses up no attempts.
    Unavailable,
    /// The data broke the contract: drift of the schema, or too many refused rows.
    Contract,
    /// Trying again cannot help: a bad query, refused credentials, a missing table.
    Permanent,
    /// The message cannot be understood.
    Malformed,
    /// The same key came with other content.
    Conflict,
    /// The job killed its worker repeatedly.
    Poison,
    /// Somebody cancelled the run.
    Cancelled,
    /// The run's deadline passed.
    Expired,
    /// The work was overtaken: a newer fence exists, and this one may not act.
    Fenced,
    /// The configuration is wrong.
    Config,
    /// What was asked for does not exist.
    NotFound,
    /// What was asked for is not allowed as things stand.
    Refused,
    /// The command line was used wrongly.
    Usage,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 15] = [
        Class::Transient,
        Class::Throttled,
        Class::Unavailable,
        Class::Contract,
        Class::Permanent,
        Class::Malformed,
        Class::Conflict,
        Class::Poison,
        Class::Cancelled,
        Class::Expired,
        Class::Fenced,
        Class::Config,
        Class::NotFound,
        Class::Refused,
        Class::Usage,
    ];

    /// The word used in headers, logs, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Transient => "transient",
            Class::Throttled => "throttled",
            Class::Unavailable => "unavailable",
            Class::Contract => "contract",
            Class::Permanent => "permanent",
            Class::Malformed => "malformed",
            Class::Conflict => "conflict",
            Class::Poison => "poison",
            Class::Cancelled => "cancelled",
            Class::Expired => "expired",
            Class::Fenced => "fenced",
            Class::Config => "config",
            Class::NotFound => "not-found",
            Class::Refused => "refused",
            Class::Usage => "usage",
        }
    }

    /// Whether a dependency that answers so is away for now: whoever cannot do without it asks again.
    pub fn is_away(self) -> bool {
        matches!(self, Class::Unavailable | Class::Transient)
    }

    /// The class named by `word`, as [`Class::as_str`] writes it.
    pub fn parse(word: &str) -> Option<Class> {
        serde::Deserialize::deserialize(
            serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word),
        )
        .ok()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong, while doing what, where, and what to do about it.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    class: Class,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    help: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $class:ident),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(operation: &'static str, message: impl Into<String>) -> Error {
            Error::new(Class::$class, operation, message)
        })*
    };
}

impl Error {
    /// An error of `class` that happened during `operation` (a short verb phrase: "open the run").
    pub fn new(class: Class, operation: &'static str, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            class,
            operation,
            message: message.into(),
            context: Vec::new(),
            help: None,
            retry_after: None,
            source: None,
        }))
    }

    constructors! {
        /// See [`Class::Transient`].
        transient => Transient,
        /// See [`Class::Throttled`].
        throttled => Throttled,
        /// See [`Class::Unavailable`].
        unavailable => Unavailable,
        /// See [`Class::Contract`].
        contract => Contract,
        /// See [`Class::Permanent`].
        permanent => Permanent,
        /// See [`Class::Malformed`].
        malformed => Malformed,
        /// See [`Class::Fenced`].
        fenced => Fenced,
        /// See [`Class::Config`].
        config => Config,
        /// See [`Class::NotFound`].
        not_found => NotFound,
        /// See [`Class::Refused`].
        refused => Refused,
        /// See [`Class::Usage`].
        usage => Usage,
    }

    /// Adds where it happened: a connection, a file and line, a column. Never a row's value or a
    /// secret. What is there already is not told twice.
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Error {
        let pair = (name, value.to_string());
        if !self.0.context.contains(&pair) {
            self.0.context.push(pair);
        }
        self
    }

    /// Takes out what [`Error::with`] put there by this name, and gives its value.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.context.iter().position(|(one, _)| *one == name)?;
        Some(self.0.context.remove(at).1)
    }

    /// Says what to do about it, as a full sentence.
    pub fn help(mut self, help: impl Into<String>) -> Error {
        self.0.help = Some(help.into());
        self
    }

    /// How long the other side asked to be left alone.
    pub fn retry_after(mut self, wait: Duration) -> Error {
        self.0.retry_after = Some(wait);
        self
    }

    /// Keeps the error that caused this one, for the log.
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The same error under another class: what is permanent for a statement may be an outage for
    /// whoever depends on the server.
    pub fn reclass(mut self, class: Class) -> Error {
        self.0.class = class;
        self
    }

    /// The same error told once more, with its causes as words: for several who wait for one thing.
    pub fn again(&self) -> Error {
        Error(Box::new(Inner {
            class: self.0.class,
            operation: self.0.operation,
            message: self.0.message.clone(),
            context: self.0.context.clone(),
            help: self.0.help.clone(),
            retry_after: self.0.retry_after,
            source: std::error::Error::source(self).map(|cause| causes(cause).into()),
        }))
    }

    /// The class, by which retry is decided.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What was being done.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The message alone, without operation and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The names and values added by [`Error::with`].
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// How long the other side asked to be left alone, if it did.
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The error with all its causes on one line, for the log.
    pub fn chain(&self) -> String {
        causes(self)
    }
}

/// An error and its causes on one line, without those whose words stand there already.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !line.contains(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
        next = cause.source();
    }
    line
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.0.operation, self.0.message)?;
        for (index, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name} {value}", if index == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// The first among `error` and its causes that is a `T`. Looks into what [`std::io::Error`] and
/// [`Arc`] wrap as well, which they do not give as their source.
pub(crate) fn cause<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| {
        if let Some(shared) = error.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>() {
            return Some(&**shared);
        }
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    })
    .find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shows_operation_message_and_context_but_not_the_source() {
        let error = Error::permanent("read the table", "table `ordres` does not exist")
            .with("connection", "shop")
            .with("export", "orders")
            .caused_by("a server's own words");
        assert_eq!(
            error.to_string(),
            "cannot read the table: table `ordres` does not exist (connection shop, export orders)"
        );
        assert!(error.chain().ends_with("orders): a server's own words"));
        assert_eq!(error.again().chain(), error.chain());
    }

    #[test]
    fn a_cause_is_found_however_it_is_wrapped() {
        let inner = std::io::Error::other(std::io::Error::other(fmt::Error));
        let shared: Arc<dyn std::error::Error + Send + Sync> = Arc::new(inner);
        let error = Error::transient("try", "it failed").caused_by(shared);
        assert!(cause::<fmt::Error>(&error).is_some());
        assert!(cause::<Error>(&error).is_some());
        assert!(cause::<std::num::ParseIntError>(&error).is_none());
    }

    #[test]
    fn nothing_is_told_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Driver(#[source] std::io::Error);
        let error = Error::unavailable("claim the key", "Redis cannot be reached")
            .with("connection", "away")
            .with("table", "away")
            .with("connection", "away")
            .caused_by(Driver(std::io::Error::other("refused (os error 111)")));
        assert_eq!(
            error.chain(),
            "cannot claim the key: Redis cannot be reached (connection away, table away): \
             refused (os error 111)"
        );
    }

    #[test]
    fn class_words_read_back() {
        for class in Class::ALL {
            assert_eq!(Class::parse(class.as_str()), Some(class));
        }
        assert_eq!(Class::parse("else"), None);
    }
}
