//! Seals what is kept on disk: nobody without the data key reads it, and no record takes the place of another.
//!
//! A sealed record is a format byte, a nonce of 24 bytes, and XChaCha20-Poly1305's ciphertext with its tag of 16 bytes.
//! The associated data are the format byte and the record's place, so a record that was moved does not open.
//!
//! The data key changes in steps: [`Seal::rotate`] seals by the next one from then on, and what the one before has sealed opens
//! still; the owner seals all of that anew, and [`Seal::forget`] ends it. A file that takes long to write holds an [`Era`]: until
//! those of before are gone, there may be more of the old key.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

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

/// The keys of one manager's log and snapshots. While they change there are two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DataKeys {
    pub current: [u8; 32],
    /// What is sealed from now on; what the other one has sealed is not all gone yet.
    pub next: Option<[u8; 32]>,
}

impl DataKeys {
    /// One that does not change.
    #[must_use]
    pub fn one(current: [u8; 32]) -> Self {
        Self { current, next: None }
    }
}

/// Without the keys, so that no log line can have them.
impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKeys")
    }
}

pub(crate) struct Seal {
    ciphers: RwLock<Arc<Ciphers>>,
    entropy: Entropy,
}

/// What opens records, as of one moment.
pub(crate) struct Ciphers {
    newest: XChaCha20Poly1305,
    era: Era,
    before: Option<(XChaCha20Poly1305, Era)>,
}

/// The time in which one key seals.
#[derive(Debug, Clone, Default)]
pub(crate) struct Era(Arc<()>);

/// What a record was sealed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Newest,
    Before,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    pub(crate) fn new(keys: &DataKeys, entropy: Entropy) -> Self {
        let current = (cipher_of(&keys.current), Era::default());
        let ciphers = match &keys.next {
            None => Ciphers { newest: current.0, era: current.1, before: None },
            Some(next) => Ciphers { newest: cipher_of(next), era: Era::default(), before: Some(current) },
        };
        Self { ciphers: RwLock::new(Arc::new(ciphers)), entropy }
    }

    /// Seals by this key from now on. There must be none of before any more.
    pub(crate) fn rotate(&self, next: &[u8; 32]) {
        self.replace(|now| Ciphers {
            newest: cipher_of(next),
            era: Era::default(),
            before: Some((now.newest.clone(), now.era.clone())),
        });
    }

    /// Opens nothing any more that was sealed by the key of before.
    pub(crate) fn forget(&self) {
        self.replace(|now| Ciphers { newest: now.newest.clone(), era: now.era.clone(), before: None });
    }

    /// Whether there is a key of before.
    pub(crate) fn has_before(&self) -> bool {
        self.ciphers().before.is_some()
    }

    /// Whether nothing is written any more that was begun with the key of before.
    pub(crate) fn is_written_out(&self) -> bool {
        // One of them is held here.
        self.ciphers().before.as_ref().is_none_or(|(_, era)| Arc::strong_count(&era.0) == 1)
    }

    /// Held by what is written now until it is where the owner finds it.
    pub(crate) fn era(&self) -> Era {
        self.ciphers().era.clone()
    }

    /// What opens records as of now: whoever reads a file to its end holds it.
    pub(crate) fn ciphers(&self) -> Arc<Ciphers> {
        Arc::clone(&self.ciphers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, with: impl FnOnce(&Ciphers) -> Ciphers) {
        let mut ciphers = self.ciphers.write().unwrap_or_else(PoisonError::into_inner);
        *ciphers = Arc::new(with(&ciphers));
    }

    pub(crate) fn close(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = self.random::<NONCE>();
        let bound = bound(place);
        let payload = Payload { msg: plain, aad: &bound };
        let sealed =
            self.ciphers().newest.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Broken)?;
        Ok([&[FORMAT][..], &nonce, &sealed].concat())
    }

    pub(crate) fn open(&self, place: Place<'_>, record: &[u8]) -> Result<Vec<u8>, SealError> {
        self.ciphers().open(place, record).map(|(plain, _)| plain)
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.entropy)(&mut bytes);
        bytes
    }
}

impl Ciphers {
    pub(crate) fn open(&self, place: Place<'_>, record: &[u8]) -> Result<(Vec<u8>, By), SealError> {
        let (format, rest) = record.split_first().ok_or(SealError::Broken)?;
        match *format {
            FORMAT => {}
            newer if newer > FORMAT => return Err(SealError::Newer(newer)),
            _ => return Err(SealError::Broken),
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(SealError::Broken)?;
        let bound = bound(place);
        let opened = |cipher: &XChaCha20Poly1305| {
            cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &bound }).ok()
        };
        let by_before = || self.before.as_ref().and_then(|(cipher, _)| opened(cipher));
        let newest = opened(&self.newest).map(|plain| (plain, By::Newest));
        newest.or_else(|| by_before().map(|plain| (plain, By::Before))).ok_or(SealError::Broken)
    }
}

fn cipher_of(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*key))
}

/// The format and the place as bytes; tables have names without a zero byte.
fn bound(place: Place<'_>) -> Vec<u8> {
    [&[FORMAT][..], place.table.as_bytes(), &[0], place.key].concat()
}
