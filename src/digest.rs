//! The hash by which definitions, manifests and files are told apart.

use sha2::{Digest, Sha256};

/// SHA-256 (FIPS 180-4) in lower-case hex.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}
