//! References to secrets, and the reading of them.
//!
//! Configuration holds references (`${env:NAME}`, `${file:/run/secrets/x}`), never values. A
//! reference is read anew for every connection, so that a rotated secret needs no restart. What
//! was read is a [`SecretString`], which neither `Debug` nor serde will print.

use std::fmt;
use std::io::Write;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Class, Error, Result};

/// Where a secret is to be found.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// An environment variable.
    Env(String),
    /// A file; one trailing line break is not part of the secret.
    File(String),
    /// A literal, which is refused when the configuration is validated.
    Literal(String),
}

impl Secret {
    /// Understands `${env:NAME}`, `${file:PATH}` or a literal.
    pub fn parse(text: &str) -> Result<Secret> {
        let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Ok(Secret::Literal(text.to_owned()));
        };
        match inner.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Secret::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Secret::File(path.to_owned())),
            _ => Err(Error::config(
                "read a secret reference",
                format!("`{text}` is no known kind of reference"),
            )
            .help("Write ${env:NAME} or ${file:/path/to/it}.")),
        }
    }

    /// Reads the secret from where the reference points, now.
    ///
    /// # Errors
    /// `config` where nothing is there; see [`Secret::read_for_job`].
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where secrets are read from the environment"
    )]
    pub fn read(&self) -> Result<SecretString> {
        match self {
            Secret::Env(name) => std::env::var(name).map(SecretString::from).map_err(|_| {
                Error::config("resolve a reference", "the environment variable is not set")
                    .with("variable", name)
                    .help(format!("Set {name}, or correct the reference."))
            }),
            Secret::File(path) => std::fs::read_to_string(path)
                .map(|text| {
                    let text = text.strip_suffix('\n').unwrap_or(&text);
                    SecretString::from(text.strip_suffix('\r').unwrap_or(text))
                })
                .map_err(|cause| {
                    Error::config("resolve a reference", "the file cannot be read")
                        .with("file", path)
                        .caused_by(cause)
                        .help("Check that it exists and that this user may read it.")
                })
                // One that is being written anew is cut to nothing first.
                .and_then(|secret| match secret.expose_secret().is_empty() {
                    false => Ok(secret),
                    true => Err(Error::config("resolve a reference", "the file is empty")
                        .with("file", path)
                        .help("Put the secret into it; to change it, rename another file to it.")),
                }),
            Secret::Literal(text) => Ok(SecretString::from(text.as_str())),
        }
    }

    /// [`Secret::read`] for a job, which can wait until somebody puts there what is missing.
    ///
    /// # Errors
    /// `unavailable` where nothing is there.
    pub fn read_for_job(&self) -> Result<SecretString> {
        self.read().map_err(|error| error.reclass(Class::Unavailable))
    }
}

/// Writes a secret to a new file that only this user may read.
///
/// # Errors
/// Those of the file system; also where the file is there already.
pub fn write_private(path: &Path, secret: &SecretString) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(secret.expose_secret().as_bytes())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Env(name) => write!(f, "${{env:{name}}}"),
            Secret::File(path) => write!(f, "${{file:{path}}}"),
            Secret::Literal(_) => f.write_str("(literal)"),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Secret::parse(&text).map_err(|error| {
            let advice = error.advice().unwrap_or_default();
            serde::de::Error::custom(format!("{}. {advice}", error.message()))
        })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_loses_one_line_break_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "pass word\n\n").unwrap();
        let secret = Secret::parse(&format!("${{file:{}}}", path.display())).unwrap();
        assert_eq!(secret.read().unwrap().expose_secret(), "pass word\n");
    }

    #[test]
    fn an_empty_file_is_no_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let secret = Secret::parse(&format!("${{file:{}}}", file.path().display())).unwrap();
        for text in ["", "\n"] {
            std::fs::write(file.path(), text).unwrap();
            let error = secret.read_for_job().unwrap_err();
            assert_eq!(error.class(), Class::Unavailable);
            assert!(error.to_string().contains("the file is empty"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_waited_for_by_jobs() {
        for (reference, named) in [
            ("${env:LONGSHORE_TEST_NOT_SET}", "(variable LONGSHORE_TEST_NOT_SET)"),
            ("${file:/nowhere/secret}", "(file /nowhere/secret)"),
        ] {
            let secret = Secret::parse(reference).unwrap();
            for (answer, class) in
                [(secret.read(), Class::Config), (secret.read_for_job(), Class::Unavailable)]
            {
                let error = answer.unwrap_err();
                assert_eq!(error.class(), class);
                assert!(error.to_string().ends_with(named), "{error}");
            }
        }
    }

    #[test]
    fn a_literal_is_never_printed() {
        let secret = Secret::parse("hunter2").unwrap();
        assert!(
            !format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap())
                .contains("hunter2")
        );
    }

    #[test]
    fn unknown_kinds_are_refused() {
        assert!(Secret::parse("${vualt:x}").unwrap_err().to_string().contains("no known kind"));
    }
}
