//! AES-256-SIV (RFC 5297): encryption that tells whether what is decrypted was made with the key.

use aes_siv::siv::Aes256Siv;
use aes_siv::{KeyInit, Tag};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};

use super::unplanned;
use crate::error::Result;

/// How many bytes stand before what is encrypted.
pub(super) const LONGER: usize = 16;

/// A key: 32 bytes for what is synthesized, 32 for what is encrypted.
pub(super) struct Key(SecretBox<[u8; 64]>);

impl Key {
    /// The key that `fill` writes.
    pub(super) fn made<E>(fill: impl FnOnce(&mut [u8; 64]) -> Result<(), E>) -> Result<Key, E> {
        let mut key = SecretBox::new(Box::new([0; 64]));
        fill(key.expose_secret_mut())?;
        Ok(Key(key))
    }

    pub(super) fn cipher(&self) -> Aes256Siv {
        Aes256Siv::new(self.0.expose_secret().into())
    }
}

/// Puts the encrypted `text` at the end of `to`: the synthetic initialization vector, and as many
/// bytes as the text has.
pub(super) fn seal(
    cipher: &mut Aes256Siv,
    associated: &[&[u8]],
    text: &[u8],
    to: &mut Vec<u8>,
) -> Result<()> {
    let at = to.len();
    to.extend_from_slice(&[0; LONGER]);
    to.extend_from_slice(text);
    let (vector, text) = to.split_at_mut(at + LONGER);
    let made = cipher.encrypt_inout_detached(associated, text.into()).map_err(|_| unplanned())?;
    vector.get_mut(at..).ok_or_else(unplanned)?.copy_from_slice(&made);
    Ok(())
}

/// What was encrypted. `None` where that was not done with this key, and the same associated data.
pub(super) fn open(cipher: &mut Aes256Siv, associated: &[&[u8]], sealed: &[u8]) -> Option<Vec<u8>> {
    let (vector, text) = sealed.split_at_checked(LONGER)?;
    let vector = Tag::try_from(vector).ok()?;
    let mut text = text.to_vec();
    cipher.decrypt_inout_detached(associated, text.as_mut_slice().into(), &vector).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use aes_siv::siv::Aes128Siv;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text.replace(char::is_whitespace, "")).unwrap()
    }

    /// RFC 5297, A.1 and A.2: the crate makes what the standard says. (Its vectors are of keys half
    /// as long.)
    #[test]
    fn the_cipher_is_the_published_one() {
        let header = bytes("101112131415161718191a1b1c1d1e1f2021222324252627");
        let mut text = bytes("112233445566778899aabbccddee");
        let key = bytes("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let mut cipher = Aes128Siv::new_from_slice(&key).unwrap();
        let vector = cipher.encrypt_inout_detached([&header], text.as_mut_slice().into()).unwrap();
        assert_eq!(vector.to_vec(), bytes("85632d07c6e8f37f950acd320a2ecc93"));
        assert_eq!(text, bytes("40c02b9690c4dc04daef7f6afe5c"));

        let headers = [
            bytes(
                "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
            ),
            bytes("102030405060708090a0"),
            bytes("09f911029d74e35bd84156c5635688c0"),
        ];
        let mut text = b"this is some plaintext to encrypt using SIV-AES".to_vec();
        let key = bytes("7f7e7d7c7b7a79787776757473727170 404142434445464748494a4b4c4d4e4f");
        let mut cipher = Aes128Siv::new_from_slice(&key).unwrap();
        let vector = cipher.encrypt_inout_detached(&headers, text.as_mut_slice().into()).unwrap();
        assert_eq!(vector.to_vec(), bytes("7bdb6e3b432667eb06f4d14bff2fbd0f"));
        assert_eq!(
            text,
            bytes(
                "cb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829
                 ea64ad544a272e9c485b62a3fd5c0d"
            )
        );
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_alone() {
        let key = |byte: u8| {
            Key::made(|bytes| {
                *bytes = [byte; 64];
                Ok::<(), ()>(())
            })
            .unwrap()
            .cipher()
        };
        for text in [&b""[..], b"a", &[0xff; 100]] {
            let mut sealed = b"before".to_vec();
            seal(&mut key(1), &[b"nonce"], text, &mut sealed).unwrap();
            let sealed = sealed.strip_prefix(b"before").unwrap();
            assert_eq!(sealed.len(), LONGER + text.len());
            assert_eq!(open(&mut key(1), &[b"nonce"], sealed).as_deref(), Some(text));
            assert_eq!(open(&mut key(2), &[b"nonce"], sealed), None);
            assert_eq!(open(&mut key(1), &[b"other"], sealed), None);
            assert_eq!(open(&mut key(1), &[], sealed), None);
            for at in 0..sealed.len() {
                let mut changed = sealed.to_vec();
                changed[at] ^= 1;
                assert_eq!(open(&mut key(1), &[b"nonce"], &changed), None);
            }
        }
        assert_eq!(open(&mut key(1), &[], &[0; LONGER - 1]), None);
    }
}
