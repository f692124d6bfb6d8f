//! The key of the quarantine: identities of age. The first encrypts, all of them decrypt, so that
//! a new key can be put before an old one.

use std::str::FromStr;
use std::sync::Arc;

use age::x25519::{Identity, Recipient};
use secrecy::{ExposeSecret, SecretString};

use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::secret::Secret;

const DOING: &str = "open the quarantine";

/// Where refused rows are kept, and the key that they are kept under.
#[derive(Debug, Clone)]
pub struct Vault {
    /// The files connection.
    pub connection: Arc<Connection>,
    /// Identities of age, one a line; lines that begin with `#` are passed over.
    pub key: Secret,
}

impl Vault {
    /// Whom new files are encrypted to.
    ///
    /// # Errors
    /// `unavailable` where the key's reference leads nowhere, `config` where it leads to no key.
    pub(super) async fn recipient(&self) -> Result<Recipient> {
        let identities = self.identities().await?;
        identities.first().map(Identity::to_public).ok_or_else(no_key)
    }

    /// Those that files may be encrypted to.
    ///
    /// # Errors
    /// As [`Vault::recipient`].
    pub(super) async fn identities(&self) -> Result<Vec<Identity>> {
        let text = self.key.read_for_job().await?;
        let lines = text.expose_secret().lines().map(str::trim);
        let identities = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Identity::from_str(line).map_err(|_| no_key()))
            .collect::<Result<Vec<_>>>()?;
        if identities.is_empty() { Err(no_key()) } else { Ok(identities) }
    }

    /// Whether the key is one, from here.
    ///
    /// # Errors
    /// `unavailable` where its reference leads nowhere, `config` where it leads to no key.
    pub async fn check_key(&self) -> Result<()> {
        self.identities().await.map(drop)
    }
}

/// The error that tells nothing of what stands in the key's place.
fn no_key() -> Error {
    Error::config(DOING, "what `[quarantine] key` refers to is no key")
        .help("It begins with AGE-SECRET-KEY-1; make one with `longshore quarantine key`.")
}

/// A key that nobody else has.
pub struct NewKey {
    /// The identity, which is the secret: `AGE-SECRET-KEY-1…`.
    pub identity: SecretString,
    /// Whom files are encrypted to by it: `age1…`.
    pub recipient: String,
}

impl NewKey {
    /// The file that holds it.
    pub fn to_file(&self) -> SecretString {
        let (recipient, identity) = (&self.recipient, self.identity.expose_secret());
        SecretString::from(format!("# public key: {recipient}\n{identity}\n"))
    }
}

/// Makes a key.
pub fn new_key() -> NewKey {
    let identity = Identity::generate();
    NewKey { recipient: identity.to_public().to_string(), identity: identity.to_string() }
}
