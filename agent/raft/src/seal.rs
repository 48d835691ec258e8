//! Seals what is kept on disk: nobody without the data key reads it, and no record takes the place of another.
//!
//! A sealed record is a format byte, a nonce of 24 bytes, and XChaCha20-Poly1305's ciphertext with its tag of 16 bytes.
//! The associated data are the format byte and the record's place, so a record that was moved does not open.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

/// Of a record: how it is sealed, and that JSON is in it.
pub(crate) const FORMAT: u8 = 1;

const NONCE: usize = 24;

/// Fills a buffer with random bytes: the system's generator, or the simulation's. Nonces are drawn from it: of 192 random
/// bits no two are ever the same, with no counter that a crash or a restored copy of the disk could turn back.
pub type Entropy = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Where a record is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'a str,
    pub(crate) key: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("format {0} of a newer version of ketch")]
    Newer(u8),
    /// Wrong key, another record's place, or other bytes than were written: the seal can't tell.
    #[error("broken seal")]
    Broken,
}

pub(crate) struct Seal {
    cipher: XChaCha20Poly1305,
    entropy: Entropy,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    pub(crate) fn new(key: &[u8; 32], entropy: Entropy) -> Self {
        Self { cipher: XChaCha20Poly1305::new(&Key::from(*key)), entropy }
    }

    pub(crate) fn close(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = self.random::<NONCE>();
        let bound = bound(place);
        let payload = Payload { msg: plain, aad: &bound };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Broken)?;
        Ok([&[FORMAT][..], &nonce, &sealed].concat())
    }

    pub(crate) fn open(&self, place: Place<'_>, record: &[u8]) -> Result<Vec<u8>, SealError> {
        let (format, rest) = record.split_first().ok_or(SealError::Broken)?;
        match *format {
            FORMAT => {}
            newer if newer > FORMAT => return Err(SealError::Newer(newer)),
            _ => return Err(SealError::Broken),
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(SealError::Broken)?;
        let bound = bound(place);
        let payload = Payload { msg: sealed, aad: &bound };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Broken)
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.entropy)(&mut bytes);
        bytes
    }
}

/// The format and the place as bytes; tables have names without a zero byte.
fn bound(place: Place<'_>) -> Vec<u8> {
    [&[FORMAT][..], place.table.as_bytes(), &[0], place.key].concat()
}
