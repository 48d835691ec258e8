//! Keys, numbers and signatures of a seed, for the thread that asks for them: the simulation, whose runs must be the same to the last
//! byte. (A signature is of 70 to 72 bytes and a key of more or less digits in JSON, by their bits; so are bodies, frames, windows, and the
//! moments at which messages arrive.)
//!
//! Only with the feature `seeded`, which the simulation alone turns on. Threads that never call [`begin`] have the system's randomness.

use std::cell::RefCell;

use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use sha2::{Digest, Sha256};

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// SHA-256 of the seed and of a number that counts.
struct Source {
    seed: u64,
    blocks: u64,
}

/// From now on this thread's keys, numbers and signatures are of that seed.
pub fn begin(seed: u64) {
    SOURCE.set(Some(Source { seed, blocks: 0 }));
}

/// Whether this thread has a seed: else nothing is filled.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    SOURCE.with_borrow_mut(|source| source.as_mut().map(|source| source.fill(bytes)).is_some())
}

/// A new key of P-256 as PKCS #8; none without a seed, and by a chance of 2^-32.
pub(crate) fn key() -> Option<Vec<u8>> {
    let mut scalar = [0; 32];
    let key = SecretKey::from_slice(fill(&mut scalar).then_some(&scalar)?).ok()?;
    Some(key.to_pkcs8_der().ok()?.as_bytes().to_vec())
}

/// The one of the message by a key of P-256 (RFC 6979), as DER; none without a seed, and by another kind of key.
pub(crate) fn signature(pkcs8: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    if SOURCE.with_borrow(Option::is_none) {
        return None;
    }
    let signature: Signature = SigningKey::from_pkcs8_der(pkcs8).ok()?.sign(message);
    Some(signature.to_der().as_bytes().to_vec())
}

impl Source {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(32) {
            let block =
                Sha256::new().chain_update(self.seed.to_be_bytes()).chain_update(self.blocks.to_be_bytes());
            part.copy_from_slice(&block.finalize()[..part.len()]);
            self.blocks += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{NOW, Node, cluster};
    use crate::key::NodeKey;
    use crate::root::Root;
    use crate::trust::{Side, Trust};
    use ketch_cluster::id::NodeId;
    use ketch_cluster::objects::node::NodeRole;

    /// What this thread makes by a seed, which it has no more then.
    fn by<T>(seed: u64, make: impl FnOnce() -> T) -> T {
        begin(seed);
        let made = make();
        SOURCE.set(None);
        made
    }

    #[test]
    fn what_is_of_one_seed_is_the_same_to_the_last_byte() {
        let of =
            |seed| by(seed, || (Root::create(NOW).unwrap(), NodeKey::generate().unwrap().request().unwrap()));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let (one, other) = by(1, || (key(), key()));
        assert!(one.is_some());
        assert_ne!(one, other, "of one seed each key is another");
    }

    #[test]
    fn what_is_of_a_seed_is_believed() {
        let (cluster, node) = by(7, || {
            let cluster = cluster(1);
            let node = Node::new(&cluster, 3, NodeRole::Manager, NOW);
            (cluster, node)
        });
        let identity = Trust::of(&cluster).unwrap().check(&node.chain, Side::Client, NOW).unwrap();
        assert_eq!(identity.node, NodeId::of(3));
    }

    #[test]
    fn without_a_seed_nothing_is_drawn() {
        let mut bytes = [0; 8];
        assert!(!fill(&mut bytes));
        assert_eq!((bytes, key()), ([0; 8], None));
        let key = NodeKey::generate().unwrap();
        assert_eq!(signature(key.pkcs8(), b"text"), None);
        assert_ne!(key.request().unwrap(), key.request().unwrap(), "its signatures are of random numbers");
    }
}
