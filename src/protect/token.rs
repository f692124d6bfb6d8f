//! Tokens: a value's canonical text, encrypted so that equal values have equal tokens, and that the
//! holder of the key for pseudonyms can turn them back.

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::Field;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha512;

use super::siv::{self, Key};
use super::{Keys, pseudonyms, text, unplanned};
use crate::error::Result;

/// How a token begins.
const PREFIX: &str = "tok_";
/// What the key for tokens is made of, besides the key for pseudonyms.
const LABEL: &[u8] = b"longshore/tokenize/v1";

/// Makes tokens, and turns them back.
pub struct Tokens(Key);

impl Tokens {
    pub(super) fn plan(keys: &Keys, field: &Field) -> Result<Tokens> {
        text::expect(field)?;
        Tokens::new(pseudonyms(keys, field)?)
    }

    /// Those of an installation with this key for pseudonyms.
    ///
    /// # Errors
    /// None that input could cause.
    pub fn new(pseudonyms: &SecretString) -> Result<Tokens> {
        // HMAC takes keys of any length.
        let mac = Hmac::<Sha512>::new_from_slice(pseudonyms.expose_secret().as_bytes());
        let mut mac = mac.map_err(|_| unplanned())?;
        mac.update(LABEL);
        let made = |key: &mut [u8; 64]| {
            key.copy_from_slice(&mac.finalize().into_bytes());
            Ok(())
        };
        Key::made(made).map(Tokens)
    }

    /// The tokens of a column. Nothing is allocated for a value but its place in the result.
    pub(super) fn apply(&self, column: &ArrayRef) -> Result<StringArray> {
        let mut cipher = self.0.cipher();
        let mut tokens = StringBuilder::with_capacity(column.len(), 48 * column.len());
        let (mut sealed, mut token) = (Vec::new(), String::new());
        text::each(column, |value| {
            let Some(value) = value else {
                tokens.append_null();
                return Ok(());
            };
            sealed.clear();
            siv::seal(&mut cipher, &[], value, &mut sealed)?;
            token.clear();
            token.push_str(PREFIX);
            BASE64_URL_SAFE_NO_PAD.encode_string(&sealed, &mut token);
            tokens.append_value(&token);
            Ok(())
        })?;
        Ok(tokens.finish())
    }

    /// The canonical text of a token's value: UTF-8, unless the column was of bytes. `None` where it
    /// was not made with this key.
    pub fn open(&self, token: &str) -> Option<Vec<u8>> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
        siv::open(&mut self.0.cipher(), &[], &sealed)
    }
}
