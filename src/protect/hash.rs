//! Pseudonyms: HMAC-SHA-256 (RFC 2104, FIPS 180-4) of a value's canonical text.

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::Field;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

use super::{Keys, pseudonyms, text, unplanned};
use crate::error::Result;

/// The key, taken in once: what is kept is the state of the two hashes after it.
pub(super) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    pub(super) fn new(keys: &Keys, field: &Field) -> Result<Pseudonyms> {
        text::expect(field)?;
        let key = pseudonyms(keys, field)?;
        // HMAC takes keys of any length.
        Hmac::new_from_slice(key.expose_secret().as_bytes())
            .map(Pseudonyms)
            .map_err(|_| unplanned())
    }

    /// The pseudonyms of a column. Nothing is allocated for a value but its place in the result.
    pub(super) fn apply(&self, column: &ArrayRef) -> Result<StringArray> {
        let mut hashes = StringBuilder::with_capacity(column.len(), 64 * column.len());
        let mut digits = [0; 64];
        text::each(column, |value| {
            let Some(value) = value else {
                hashes.append_null();
                return Ok(());
            };
            let mut mac = self.0.clone();
            mac.update(value);
            let digest = mac.finalize().into_bytes();
            hex::encode_to_slice(digest, &mut digits).map_err(|_| unplanned())?;
            hashes.append_value(std::str::from_utf8(&digits).map_err(|_| unplanned())?);
            Ok(())
        })?;
        Ok(hashes.finish())
    }
}
