//! References to secrets, and the reading of them.
//!
//! Configuration holds references (`${env:NAME}`, `${file:/run/secrets/x}`,
//! `${vault:secret/data/shop#password}`), never values. A reference is read anew for every
//! connection, so that a rotated secret needs no restart. What was read is a [`SecretString`], which
//! neither `Debug` nor serde will print.

pub mod vault;

use std::fmt;
use std::io::Write;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Class, Error, Result};
use vault::InVault;

/// Where a secret is to be found.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// An environment variable.
    Env(String),
    /// A file; one trailing line break is not part of the secret.
    File(String),
    /// A field of what a vault keeps.
    Vault(Box<InVault>),
    /// A literal, which is refused when the configuration is validated.
    Literal(String),
}

impl Secret {
    /// Understands `${env:NAME}`, `${file:PATH}`, `${vault:PATH#FIELD}` or a literal.
    ///
    /// # Errors
    /// `config` for any other kind of reference.
    pub fn parse(text: &str) -> Result<Secret> {
        let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Ok(Secret::Literal(text.to_owned()));
        };
        match inner.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Secret::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Secret::File(path.to_owned())),
            Some(("vault", rest)) => Ok(Secret::Vault(Box::new(InVault::parse(rest)?))),
            _ => Err(Error::config(
                "read a secret reference",
                format!("`{text}` is no known kind of reference"),
            )
            .help("Write ${env:NAME}, ${file:/path/to/it} or ${vault:path#field}.")),
        }
    }

    /// Reads the secret from where the reference points, now.
    ///
    /// # Errors
    /// `config` where nothing is there, or a vault refuses to give it; `unavailable` where a vault
    /// cannot be asked. See [`Secret::read_for_job`].
    pub async fn read(&self) -> Result<SecretString> {
        match self {
            Secret::Vault(one) => Box::pin(one.read()).await,
            _ => Box::pin(self.read_here()).await,
        }
    }

    /// [`Secret::read`] for what is in no vault.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where secrets are read from the environment"
    )]
    async fn read_here(&self) -> Result<SecretString> {
        match self {
            Secret::Env(name) => std::env::var(name).map(SecretString::from).map_err(|_| {
                Error::config("resolve a reference", "the environment variable is not set")
                    .with("variable", name)
                    .help(format!("Set {name}, or correct the reference."))
            }),
            Secret::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map_err(|cause| {
                    Error::config("resolve a reference", "the file cannot be read")
                        .with("file", path)
                        .caused_by(cause)
                        .help("Check that it exists and that this user may read it.")
                })?;
                // One that is being written anew is cut to nothing first.
                given(&text).ok_or_else(|| {
                    Error::config("resolve a reference", "the file is empty")
                        .with("file", path)
                        .help("Put the secret into it; to change it, rename another file to it.")
                })
            }
            Secret::Vault(_) => {
                Err(Error::config("resolve a reference", "it is in a vault itself")
                    .help("Write ${env:NAME} or ${file:/path/to/it}."))
            }
            Secret::Literal(text) => Ok(SecretString::from(text.as_str())),
        }
    }

    /// [`Secret::read`] for a job, which can wait until somebody puts there what is missing.
    ///
    /// # Errors
    /// `unavailable`, whatever is wrong.
    pub async fn read_for_job(&self) -> Result<SecretString> {
        self.read().await.map_err(|error| error.reclass(Class::Unavailable))
    }

    /// The secret at the end of a reference, where there is one; see [`Secret::read_for_job`].
    ///
    /// # Errors
    /// As [`Secret::read_for_job`].
    pub async fn read_any_for_job(secret: Option<&Secret>) -> Result<Option<SecretString>> {
        match secret {
            Some(secret) => secret.read_for_job().await.map(Some),
            None => Ok(None),
        }
    }
}

/// What a file or a vault gives: without one trailing line break, and nothing where nothing is left.
fn given(text: &str) -> Option<SecretString> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    (!text.is_empty()).then(|| SecretString::from(text))
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
            Secret::Vault(one) => write!(f, "${{vault:{}#{}}}", one.path(), one.field()),
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

    #[tokio::test]
    async fn a_file_loses_one_line_break_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "pass word\n\n").unwrap();
        let secret = Secret::parse(&format!("${{file:{}}}", path.display())).unwrap();
        assert_eq!(secret.read().await.unwrap().expose_secret(), "pass word\n");
    }

    #[tokio::test]
    async fn an_empty_file_is_no_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let secret = Secret::parse(&format!("${{file:{}}}", file.path().display())).unwrap();
        for text in ["", "\n"] {
            std::fs::write(file.path(), text).unwrap();
            let error = secret.read_for_job().await.unwrap_err();
            assert_eq!(error.class(), Class::Unavailable);
            assert!(error.to_string().contains("the file is empty"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named_and_waited_for_by_jobs() {
        for (reference, named) in [
            ("${env:LONGSHORE_TEST_NOT_SET}", "(variable LONGSHORE_TEST_NOT_SET)"),
            ("${file:/nowhere/secret}", "(file /nowhere/secret)"),
        ] {
            let secret = Secret::parse(reference).unwrap();
            for (answer, class) in [
                (secret.read().await, Class::Config),
                (secret.read_for_job().await, Class::Unavailable),
            ] {
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

    #[test]
    fn a_reference_to_a_vault_names_path_and_field() {
        let text = "${vault:secret/data/shop#pass#word}";
        assert_eq!(Secret::parse(text).unwrap().to_string(), text);
        for wrong in ["x", "#x", "x#", "/x#y", "x/#y", "a//b#c", "a/../b#c", "a/./b#c", "a b#c"] {
            let error = Secret::parse(&format!("${{vault:{wrong}}}")).unwrap_err();
            assert_eq!(error.class(), Class::Config, "{wrong}");
            assert!(error.advice().unwrap().contains("#field}"), "{wrong}");
        }
    }
}
