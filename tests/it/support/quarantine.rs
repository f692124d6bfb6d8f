//! Refused rows as an operator with the key reads them.

use std::io::Read;
use std::path::Path;

use serde_json::Value as Json;

/// The settings that keep refused rows in the connection `lake`.
pub const QUARANTINE: &str =
    "[quarantine]\nconnection = \"lake\"\nkey = \"${env:TEST_QUARANTINE}\"\n";

/// The key that `TEST_QUARANTINE` has.
pub const KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

/// The refused rows in a file, one object each, as `age --decrypt` would give them.
pub fn rows(file: &Path) -> Vec<Json> {
    let lines = decrypted(file);
    let objects = lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    objects.filter(|one| one.get("rule").is_some()).collect()
}

fn decrypted(file: &Path) -> String {
    let stored = std::fs::read(file).unwrap();
    let key: age::x25519::Identity = KEY.parse().unwrap();
    let decryptor = age::Decryptor::new_buffered(&stored[..]).unwrap();
    let mut text = String::new();
    decryptor
        .decrypt(std::iter::once(&key as &dyn age::Identity))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}
