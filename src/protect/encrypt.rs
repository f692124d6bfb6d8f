//! Values that a recipient who has the key decrypts: AES-256-SIV with a nonce of its own for each.

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::Field;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};

use super::siv::{self, Key};
use super::{Keys, refuse, text};
use crate::error::{Error, Result};

/// How many bytes a nonce has.
const NONCE: usize = 16;

/// Encrypts the values of a column.
pub(super) struct Encryption(Key);

impl Encryption {
    pub(super) fn plan(name: &str, keys: &Keys, field: &Field) -> Result<Encryption> {
        text::expect(field)?;
        let column = field.name();
        let key = keys.get(name).ok_or_else(|| {
            refuse(format!("column `{column}` is to be encrypted, and there is no key `{name}`"))
                .help(format!("Set `{name}` under [keys] in longshore.toml."))
        })?;
        parsed(key).map(Encryption).map_err(|error| error.with("key", name))
    }

    /// The encrypted values of a column: base64 of nonce, synthetic initialization vector and
    /// ciphertext.
    pub(super) fn apply(&self, column: &ArrayRef) -> Result<StringArray> {
        let mut cipher = self.0.cipher();
        let mut random = rand::rng();
        let mut encrypted = StringBuilder::with_capacity(column.len(), 64 * column.len());
        let (mut nonce, mut sealed, mut written) = ([0; NONCE], Vec::new(), String::new());
        text::each(column, |value| {
            let Some(value) = value else {
                encrypted.append_null();
                return Ok(());
            };
            random.fill_bytes(&mut nonce);
            sealed.clear();
            sealed.extend_from_slice(&nonce);
            siv::seal(&mut cipher, &[&nonce], value, &mut sealed)?;
            written.clear();
            BASE64_STANDARD.encode_string(&sealed, &mut written);
            encrypted.append_value(&written);
            Ok(())
        })?;
        Ok(encrypted.finish())
    }
}

/// Whether a key of `[keys]` is fit for encrypting.
///
/// # Errors
/// `config` where it is not, without the key.
pub fn check_key(key: &SecretString) -> Result<()> {
    parsed(key).map(drop)
}

fn parsed(key: &SecretString) -> Result<Key> {
    let digits = key.expose_secret().as_bytes();
    Key::made(|bytes| hex::decode_to_slice(digits, bytes)).map_err(|_| {
        Error::config("read a key for encrypting", "it is not 128 hex digits")
            .help("Make one with `openssl rand -hex 64`.")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_a_column_is_encrypted_to_opens_and_never_repeats() {
        let text = "0123456789abcdef".repeat(8);
        let keys = Keys::from([("acme".to_owned(), SecretString::from(text))]);
        let column: ArrayRef =
            Arc::new(StringArray::from(vec![Some("åse"), Some("åse"), None, Some("")]));
        let field = Field::new("t", column.data_type().clone(), true);
        let encryption = Encryption::plan("acme", &keys, &field).unwrap();
        let done = encryption.apply(&column).unwrap();
        assert!(done.is_null(2));
        assert_ne!(done.value(0), done.value(1));
        for (row, text) in [(0, "åse"), (1, "åse"), (3, "")] {
            let bytes = BASE64_STANDARD.decode(done.value(row)).unwrap();
            let (nonce, sealed) = bytes.split_at(NONCE);
            let opened = siv::open(&mut encryption.0.cipher(), &[nonce], sealed).unwrap();
            assert_eq!(opened, text.as_bytes());
        }
    }

    #[test]
    fn a_key_is_128_hex_digits_and_never_told() {
        check_key(&SecretString::from("Ab".repeat(64))).unwrap();
        for wrong in ["", "hunter2", &"ab".repeat(63), &"ab".repeat(65), &"xy".repeat(64)] {
            let error = check_key(&SecretString::from(wrong)).unwrap_err();
            let said = format!("{} {error:?}", error.chain());
            assert!(said.contains("128 hex digits"), "{said}");
            assert!(wrong.is_empty() || !said.contains(wrong), "{said}");
        }
    }
}
