//! A node's keys on its disk: `swarm-node.pem`, and the roots beside it in `swarm-root-ca.crt`.
//!
//! Everything that must agree is in the one file: the key, its certificate, and the keys of a manager's raft log, so that a
//! crash leaves the old ones or the new ones and never a mixture. The secrets in it are sealed when the cluster locks its
//! managers. A file is written beside, made durable, and renamed.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ketch_cluster::token::UnlockKey;

use crate::compat;
use crate::join::check_key;
use crate::key::{KeyError, NodeKey};
use crate::pem::{self, Block, PemError};
use crate::seal::{SealError, open, seal};

const NODE: &str = "swarm-node.pem";
const ROOTS: &str = "swarm-root-ca.crt";
const KEY: &str = "PRIVATE KEY";
const RAFT_KEY: &str = "KETCH RAFT KEY";
const NEXT_RAFT_KEY: &str = "KETCH NEXT RAFT KEY";
/// In front of a label: the block's contents are sealed, for the purpose that the rest of the label names.
const SEALED: &str = "SEALED ";

/// Why a node's keys can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{action} {path:?}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Docker's words: an unlock key is needed.
    #[error("{}", compat::LOCKED)]
    Locked,
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("{NODE} can't be read")]
    Pem(#[from] PemError),
    #[error("{NODE} has {0}")]
    Contents(&'static str),
    #[error("the key in {NODE}")]
    Key(#[from] KeyError),
    #[error("the key in {NODE} is not that of the certificate")]
    Mismatch,
}

/// The keys that a manager's raft log is encrypted with. After a change both are there until nothing is left that the old
/// one has encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RaftKeys {
    pub current: [u8; 32],
    pub next: Option<[u8; 32]>,
}

impl RaftKeys {
    /// With a next key; one that was not in use yet is replaced. Called at each change of the unlock key to a new one, and
    /// when a cluster begins to lock itself: until then the current key lay on the disk in the clear.
    #[must_use]
    pub fn rotate(self, next: [u8; 32]) -> Self {
        Self { next: Some(next), ..self }
    }

    /// With the next key alone: nothing is left of the old one.
    #[must_use]
    pub fn finish(self) -> Self {
        Self { current: self.next.unwrap_or(self.current), next: None }
    }
}

/// Without the keys, so that no log line can have them.
impl fmt::Debug for RaftKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.next.is_some() { "RaftKeys, two" } else { "RaftKeys, one" })
    }
}

/// What a node keeps.
#[derive(Debug)]
pub struct Kept {
    pub key: NodeKey,
    /// Its certificate and what leads to a root; PEM.
    pub chain: String,
    /// Of a manager.
    pub raft: Option<RaftKeys>,
}

/// The folder: only root may look into it.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, made when it is not there; its parent must be.
    ///
    /// # Errors
    /// It can't be made.
    pub fn at(path: &Path) -> Result<Self, FolderError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("making", path)(error)),
            _ => Ok(Self(path.to_owned())),
        }
    }

    /// Keeps a node's keys, sealed when there is an unlock key: a manager's of a cluster that locks itself. What was kept
    /// before is gone at once or, when this fails, still there.
    ///
    /// # Errors
    /// The disk's, or the system has no randomness.
    pub fn write(&self, kept: &Kept, unlock: Option<&UnlockKey>) -> Result<(), FolderError> {
        let mut text = kept.chain.clone();
        let secrets = [
            Some((KEY, kept.key.pkcs8())),
            kept.raft.as_ref().map(|raft| (RAFT_KEY, raft.current.as_slice())),
            kept.raft
                .as_ref()
                .and_then(|raft| raft.next.as_ref())
                .map(|next| (NEXT_RAFT_KEY, next.as_slice())),
        ];
        for (label, secret) in secrets.into_iter().flatten() {
            text += &match unlock {
                Some(unlock) => pem::write(&format!("{SEALED}{label}"), &seal(unlock, label, secret)?),
                None => pem::write(label, secret),
            };
        }
        self.replace(NODE, &text, 0o600)
    }

    /// What is kept; none when there is nothing. An unlock key is used where it is needed.
    ///
    /// # Errors
    /// [`FolderError::Locked`] when it is needed and missing, [`SealError::WrongKey`] when it is another; or the file is
    /// damaged, which a rename can't have done.
    pub fn read(&self, unlock: Option<&UnlockKey>) -> Result<Option<Kept>, FolderError> {
        let Some(text) = self.text_of(NODE)? else { return Ok(None) };
        let (mut chain, mut key, mut current, mut next) = (String::new(), None, None, None);
        for block in pem::read(&text)? {
            if block.label == pem::CERTIFICATE {
                chain += &pem::write(pem::CERTIFICATE, &block.bytes);
                continue;
            }
            let (label, secret) = unsealed(block, unlock)?;
            let place = match label.as_str() {
                KEY => &mut key,
                RAFT_KEY => &mut current,
                NEXT_RAFT_KEY => &mut next,
                _ => return Err(FolderError::Contents("a block of an unknown kind")),
            };
            if place.replace(secret).is_some() {
                return Err(FolderError::Contents("two blocks of one kind"));
            }
        }
        let key = NodeKey::read(&key.ok_or(FolderError::Contents("no key"))?)?;
        check_key(&pem::certificates(&chain)?, &key).map_err(|_| FolderError::Mismatch)?;
        Ok(Some(Kept { key, chain, raft: raft_keys(current, next)? }))
    }

    /// Keeps the cluster's roots (PEM).
    ///
    /// # Errors
    /// The disk's.
    pub fn write_roots(&self, roots: &str) -> Result<(), FolderError> {
        self.replace(ROOTS, roots, 0o644)
    }

    /// The cluster's roots (PEM); none when none are kept.
    ///
    /// # Errors
    /// The disk's.
    pub fn read_roots(&self) -> Result<Option<String>, FolderError> {
        self.text_of(ROOTS)
    }

    fn text_of(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.0.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading", &path)(error)),
        }
    }

    fn replace(&self, name: &str, text: &str, mode: u32) -> Result<(), FolderError> {
        let (path, beside) = (self.0.join(name), self.0.join(format!(".{name}.new")));
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", &beside)(error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)
            .map_err(failed("making", &beside))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("writing", &beside))?;
        std::fs::rename(&beside, &path).map_err(failed("replacing", &path))?;
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(failed("making durable", &self.0))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { action, path, source }
}

fn unsealed(block: Block, unlock: Option<&UnlockKey>) -> Result<(String, Vec<u8>), FolderError> {
    let Some(label) = block.label.strip_prefix(SEALED) else { return Ok((block.label, block.bytes)) };
    let unlock = unlock.ok_or(FolderError::Locked)?;
    Ok((label.to_owned(), open(unlock, label, &block.bytes)?))
}

fn raft_keys(current: Option<Vec<u8>>, next: Option<Vec<u8>>) -> Result<Option<RaftKeys>, FolderError> {
    let key = |bytes: Vec<u8>| {
        <[u8; 32]>::try_from(bytes).map_err(|_| FolderError::Contents("a raft key that is not 32 bytes"))
    };
    match (current, next) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(FolderError::Contents("a next raft key without a current one")),
        (Some(current), next) => {
            Ok(Some(RaftKeys { current: key(current)?, next: next.map(key).transpose()? }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use ketch_cluster::objects::node::NodeRole;
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{self, NOW, Node, cluster};

    fn kept(raft: Option<RaftKeys>) -> Kept {
        let node = Node::new(&cluster(1), 1, NodeRole::Manager, NOW);
        Kept { key: node.key, chain: node.pem, raft }
    }

    fn folder(test: &str) -> Folder {
        Folder::at(&fixture::folder(test).join("certificates")).unwrap()
    }

    fn remove(folder: &Folder) {
        std::fs::remove_dir_all(folder.0.parent().unwrap()).unwrap();
    }

    const TWO: RaftKeys = RaftKeys { current: [7; 32], next: Some([8; 32]) };

    #[test]
    fn keys_come_back_sealed_or_not() {
        let folder = folder("back");
        assert!(folder.read(None).unwrap().is_none());
        for raft in [None, Some(RaftKeys { next: None, ..TWO }), Some(TWO)] {
            for unlock in [None, Some(UnlockKey([3; 32]))] {
                let kept = kept(raft);
                folder.write(&kept, unlock.as_ref()).unwrap();
                let read = folder.read(unlock.as_ref()).unwrap().unwrap();
                assert_eq!(read.key.pkcs8(), kept.key.pkcs8());
                assert_eq!((read.chain, read.raft), (kept.chain, kept.raft));
                let text = folder.text_of(NODE).unwrap().unwrap();
                assert_eq!(text.contains(&pem::write(KEY, kept.key.pkcs8())), unlock.is_none());
            }
        }
        remove(&folder);
    }

    #[test]
    fn a_missing_and_a_wrong_unlock_key_are_told_in_dockers_words() {
        let folder = folder("locked");
        folder.write(&kept(Some(TWO)), Some(&UnlockKey([3; 32]))).unwrap();
        let locked = folder.read(None).unwrap_err().to_string();
        assert_eq!(
            locked,
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it."
        );
        let wrong = folder.read(Some(&UnlockKey([4; 32]))).unwrap_err().to_string();
        assert_eq!(wrong, "swarm could not be unlocked: invalid key provided");
        folder.write(&kept(None), None).unwrap();
        folder.read(Some(&UnlockKey([4; 32]))).unwrap().unwrap();
        remove(&folder);
    }

    #[test]
    fn only_root_may_read_and_openssl_finds_the_certificate() {
        let folder = folder("modes");
        std::fs::write(folder.0.join(".swarm-node.pem.new"), "of a crash").unwrap();
        let kept = kept(None);
        folder.write(&kept, None).unwrap();
        folder.write_roots("roots").unwrap();
        assert_eq!(folder.read_roots().unwrap().as_deref(), Some("roots"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&folder.0.join(NODE))), (0o700, 0o600));
        let names: Vec<_> =
            std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        if let Ok(out) = Command::new("openssl").args(["x509", "-in"]).arg(folder.0.join(NODE)).output() {
            assert_eq!(String::from_utf8_lossy(&out.stdout), kept.chain);
        }
        remove(&folder);
    }

    #[test]
    fn a_file_that_does_not_hold_together_is_told() {
        let folder = folder("torn");
        let (one, other) = (kept(None), kept(None));
        let write = |text: &str| std::fs::write(folder.0.join(NODE), text).unwrap();
        let reason = || folder.read(None).unwrap_err();
        write(&format!("{}{}", one.chain, pem::write(KEY, other.key.pkcs8())));
        assert!(matches!(reason(), FolderError::Mismatch));
        write(&one.chain);
        assert_eq!(reason().to_string(), "swarm-node.pem has no key");
        let key = pem::write(KEY, one.key.pkcs8());
        write(&format!("{}{key}{key}", one.chain));
        assert_eq!(reason().to_string(), "swarm-node.pem has two blocks of one kind");
        write(&format!("{}{key}{}", one.chain, pem::write(NEXT_RAFT_KEY, &[1; 32])));
        assert_eq!(reason().to_string(), "swarm-node.pem has a next raft key without a current one");
        write(&format!("{}{key}{}", one.chain, pem::write(RAFT_KEY, &[1; 31])));
        assert_eq!(reason().to_string(), "swarm-node.pem has a raft key that is not 32 bytes");
        write(&format!("{}{}", one.chain, pem::write("X", &[])));
        assert_eq!(reason().to_string(), "swarm-node.pem has a block of an unknown kind");
        write(&one.chain[..one.chain.len() - 40]);
        assert!(matches!(reason(), FolderError::Pem(PemError::Ending(_))));
        write(&key);
        assert!(matches!(reason(), FolderError::Pem(PemError::Empty)));
        remove(&folder);
    }

    #[test]
    fn a_sealed_key_in_another_ones_place_is_refused() {
        let folder = folder("swapped");
        let unlock = UnlockKey([3; 32]);
        folder.write(&kept(Some(TWO)), Some(&unlock)).unwrap();
        let text = folder.text_of(NODE).unwrap().unwrap();
        let swapped = text
            .replace("KETCH RAFT", "A")
            .replace("KETCH NEXT RAFT", "KETCH RAFT")
            .replace("A KEY", "KETCH NEXT RAFT KEY");
        std::fs::write(folder.0.join(NODE), swapped).unwrap();
        assert!(matches!(folder.read(Some(&unlock)), Err(FolderError::Seal(SealError::WrongKey))));
        remove(&folder);
    }

    #[test]
    fn raft_keys_change_in_two_steps() {
        let first = RaftKeys { current: [1; 32], next: None };
        let both = first.rotate([2; 32]);
        assert_eq!(both, RaftKeys { current: [1; 32], next: Some([2; 32]) });
        assert_eq!(both.rotate([3; 32]).finish(), RaftKeys { current: [3; 32], next: None });
        assert_eq!(first.finish(), first);
        assert_eq!(format!("{first:?} {both:?}"), "RaftKeys, one RaftKeys, two");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// A crash of the machine leaves whole files; a changed bit must not be believed all the same, nor end the process.
        #[test]
        fn a_changed_file_is_read_without_harm(at: prop::sample::Index, bit in 0..7_u32) {
            let folder = folder(&format!("bits-{bit}-{}", at.index(1_000_000)));
            let unlock = UnlockKey([3; 32]);
            let kept = kept(Some(TWO));
            folder.write(&kept, Some(&unlock)).unwrap();
            let mut bytes = std::fs::read(folder.0.join(NODE)).unwrap();
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
            std::fs::write(folder.0.join(NODE), &bytes).unwrap();
            if let Ok(Some(read)) = folder.read(Some(&unlock)) {
                prop_assert_eq!(read.key.pkcs8(), kept.key.pkcs8());
                prop_assert_eq!(read.raft, kept.raft);
            }
            remove(&folder);
        }
    }
}
