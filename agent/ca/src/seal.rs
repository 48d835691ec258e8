//! What a manager that locks itself seals its secrets with: ChaCha20-Poly1305 under the cluster's unlock key.
//!
//! A sealed secret names what it is for, and opens as nothing else: a raft key that somebody put in the place of the node's
//! key is refused as a wrong key is.

use ketch_cluster::token::UnlockKey;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::compat;
use crate::randomness;

/// What can't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Docker's words. Or somebody has changed the file: both look the same.
    #[error("{}", compat::WRONG_UNLOCK_KEY)]
    WrongKey,
    #[error("the system has no randomness")]
    Randomness,
    #[error("sealing failed")]
    Failed,
}

/// Seals a secret for `purpose`: the nonce, then the cipher text with its tag.
///
/// # Errors
/// The system has no randomness.
pub fn seal(key: &UnlockKey, purpose: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_LEN];
    randomness::fill(&mut nonce).map_err(|_| SealError::Randomness)?;
    let mut text = secret.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut text)
        .map_err(|_| SealError::Failed)?;
    Ok([nonce.as_slice(), &text].concat())
}

/// Opens what was sealed for `purpose`.
///
/// # Errors
/// It was sealed with another key, for another purpose, or was changed since.
pub fn open(key: &UnlockKey, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError::WrongKey)?;
    let mut text = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let secret =
        cipher(key)?.open_in_place(nonce, Aad::from(purpose), &mut text).map_err(|_| SealError::WrongKey)?;
    Ok(secret.to_vec())
}

fn cipher(key: &UnlockKey) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&CHACHA20_POLY1305, &key.0).map(LessSafeKey::new).map_err(|_| SealError::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wrong_key_is_told_in_dockers_words() {
        let sealed = seal(&UnlockKey([1; 32]), "key", b"secret").unwrap();
        let error = open(&UnlockKey([2; 32]), "key", &sealed).unwrap_err();
        assert_eq!(error.to_string(), "swarm could not be unlocked: invalid key provided");
        assert_eq!(open(&UnlockKey([1; 32]), "other", &sealed), Err(SealError::WrongKey));
    }

    #[test]
    fn no_two_seals_are_the_same() {
        let key = UnlockKey([1; 32]);
        assert_ne!(seal(&key, "key", b"secret"), seal(&key, "key", b"secret"));
    }

    #[test]
    fn the_cipher_is_that_of_rfc_8439() {
        // Section 2.8.2: the key, the nonce and the tag of its example, with its additional data and plain text.
        let mut key = [0; 32];
        key.iter_mut().zip(0x80..=0x9f).for_each(|(byte, value)| *byte = value);
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plain = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let mut text = plain.as_bytes().to_vec();
        let cipher = cipher(&UnlockKey(key)).unwrap();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text)
            .unwrap();
        let tag =
            [0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91];
        assert_eq!(text[plain.len()..], tag);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_until_a_bit_changes(key: [u8; 32], secret: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32) {
            let key = UnlockKey(key);
            let mut sealed = seal(&key, "key", &secret).unwrap();
            prop_assert_eq!(open(&key, "key", &sealed), Ok(secret));
            let index = at.index(sealed.len());
            sealed[index] ^= 1 << bit;
            prop_assert_eq!(open(&key, "key", &sealed), Err(SealError::WrongKey));
        }

        #[test]
        fn any_bytes_are_refused(key: [u8; 32], sealed: Vec<u8>) {
            prop_assert_eq!(open(&UnlockKey(key), "key", &sealed), Err(SealError::WrongKey));
        }
    }
}
