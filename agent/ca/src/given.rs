//! A root that a user brings (`swarm ca --rotate --ca-cert --ca-key`): read as Docker's users write it, and tried out before the
//! cluster depends on it.
//!
//! [`GivenRoot`] is what was read and fits together; [`rotation::begin_with`](crate::rotation::begin_with) makes a rotation of it.
//! The manager's `swarm/update` calls both.

use std::time::Duration;

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::Cluster;
use ketch_cluster::objects::cluster::SecretBytes;
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::time::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::PrivatePkcs8KeyDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::authority::{Authority, AuthorityError};
use crate::compat;
use crate::key::NodeKey;
use crate::pem::{self, PemError};
use crate::root::{self, Root};
use crate::trust::{Side, Trust};

/// SwarmKit's: whoever rotates should not have to do it again soon.
const LEAST_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 4;
/// `AlgorithmIdentifier`s (RFC 5480, 2.1.1; RFC 8017, A.1): the key's kind, and its curve.
const P256: &[u8] =
    &[0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];
const RSA: &[u8] = &[0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

/// Why a root is not taken. Docker's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum GivenRootError {
    #[error("{}", compat::NO_CERTIFICATE)]
    Certificate(#[source] PemError),
    #[error("{}", compat::SEVERAL_ROOTS)]
    Several,
    #[error("{}", compat::UNREADABLE_ROOT)]
    Unreadable,
    #[error("{}", compat::ROOT_EXPIRES)]
    Expires,
    #[error("{}", compat::NO_KEY)]
    Key,
    #[error("{}", compat::KEY_MISMATCH)]
    Mismatch,
    #[error("{}", compat::SAME_KEY)]
    SameKey,
    #[error("{}: {reason}", compat::UNUSABLE_ROOT)]
    Unusable { reason: String },
}

impl From<AuthorityError> for GivenRootError {
    fn from(error: AuthorityError) -> Self {
        Self::Unusable { reason: error.to_string() }
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct GivenRoot(pub(crate) Root);

impl GivenRoot {
    /// Reads both from PEM. What is around the blocks is passed over, as openssl writes it.
    ///
    /// # Errors
    /// [`GivenRootError`].
    pub fn read(certificate: &str, key: &str, now: Timestamp) -> Result<Self, GivenRootError> {
        let certificate = read_certificate(certificate, now)?;
        let der = pem::certificates(&certificate).map_err(GivenRootError::Certificate)?.remove(0);
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| GivenRootError::Unreadable)?;
        let key = read_key(key).ok_or(GivenRootError::Key)?;
        let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_slice()));
        let pair = pair.map_err(|_| GivenRootError::Key)?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.der_bytes() {
            return Err(GivenRootError::Mismatch);
        }
        Ok(Self(Root { certificate, key: SecretBytes(key) }))
    }
}

fn read_certificate(text: &str, now: Timestamp) -> Result<String, GivenRootError> {
    let blocks = blocks_of(text, |label| label == pem::CERTIFICATE);
    let certificates = pem::certificates(&blocks).map_err(GivenRootError::Certificate)?;
    let [certificate] = certificates.as_slice() else { return Err(GivenRootError::Several) };
    let text = pem::write(pem::CERTIFICATE, certificate);
    let described = root::describe(&text).map_err(|_| GivenRootError::Unreadable)?;
    if described.expires < now.after(LEAST_LIFE) {
        return Err(GivenRootError::Expires);
    }
    Ok(text)
}

/// The first private key as PKCS #8.
fn read_key(text: &str) -> Option<Vec<u8>> {
    let blocks = blocks_of(text, |label| label.ends_with("PRIVATE KEY"));
    let block = pem::read(&blocks).ok()?.into_iter().next()?;
    let kinds: &[&[u8]] = match block.label.as_str() {
        "PRIVATE KEY" => return Some(block.bytes),
        "EC PRIVATE KEY" => &[P256, P384],
        "RSA PRIVATE KEY" => &[RSA],
        _ => return None,
    };
    let wrapped = kinds.iter().map(|kind| wrapped(kind, &block.bytes));
    wrapped.into_iter().find(|key| KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_slice())).is_ok())
}

/// An older form of a key (SEC 1, PKCS #1) inside of PKCS #8 (RFC 5208, 5): version 0, what it is, the key.
fn wrapped(kind: &[u8], key: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&[2, 1, 0], kind, &element(OCTETS, key)].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let length = match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => vec![short],
        _ => [&[0x80 | u8::try_from(significant.len()).unwrap_or(8)][..], significant].concat(),
    };
    [&[tag][..], &length, content].concat()
}

/// The blocks of these labels, without what is around them.
fn blocks_of(text: &str, is_meant: impl Fn(&str) -> bool) -> String {
    let mut blocks = String::new();
    let mut open = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            open = is_meant(label).then_some(label);
        }
        if open.is_some() {
            blocks += line;
            blocks.push('\n');
        }
        if line.starts_with("-----END ") {
            open = None;
        }
    }
    blocks
}

/// A certificate of the cluster's next root is believed by who trusts that one alone, and by who trusts the present one alone.
/// Certificates have more ways not to fit than can be told one by one: a name that is not read back as it was written, a constraint
/// on what is below; and with a root that does not hold, every node would be shut out.
pub(crate) fn holds(begun: &Cluster, now: Timestamp) -> Result<(), GivenRootError> {
    let unusable = |error: &dyn std::error::Error| GivenRootError::Unusable { reason: error.to_string() };
    let Some(rotation) = &begun.root_ca.rotation else { return Ok(()) };
    let request = NodeKey::generate().and_then(|key| key.request()).map_err(|error| unusable(&error))?;
    let node = (NodeId::of(0), NodeRole::Manager);
    let chain = Authority::of(begun)?.issue(&request, node, now)?;
    let chain = pem::certificates(&chain).map_err(|error| unusable(&error))?;
    let by = |roots: &str, chain: &[_]| {
        let trust = Trust::in_roots(roots).map_err(|error| unusable(&error))?;
        for side in [Side::Client, Side::Server] {
            let _peer = trust.check(chain, side, now).map_err(|error| unusable(&error))?;
        }
        Ok::<_, GivenRootError>(())
    };
    by(&rotation.certificate, &chain[..1])?;
    by(&begun.root_ca.certificate, &chain)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::fixture::{NOW, cluster, openssl};
    use crate::rotation::begin_with;

    fn read(certificate: &str, key: &str) -> Result<GivenRoot, String> {
        GivenRoot::read(certificate, key, NOW).map_err(|error| error.to_string())
    }

    fn own() -> (String, String) {
        let root = Root::create(NOW).unwrap();
        (root.certificate, pem::write("PRIVATE KEY", &root.key.0))
    }

    #[test]
    fn what_does_not_fit_is_told_in_dockers_words() {
        let ((certificate, key), (other, _)) = (own(), own());
        read(&format!("subject=CN = x\n{certificate}"), &key).unwrap();
        assert_eq!(read(&other, &key).unwrap_err(), "certificate key mismatch");
        assert_eq!(
            read(&format!("{certificate}{other}"), &key).unwrap_err(),
            "the desired CA certificate cannot contain multiple certificates"
        );
        assert_eq!(read("junk", &key).unwrap_err(), compat::NO_CERTIFICATE);
        assert_eq!(read(&certificate, "junk").unwrap_err(), compat::NO_KEY);
        let late = NOW.after(root::ROOT_LIFE.saturating_sub(Duration::from_secs(3600)));
        let error = GivenRoot::read(&certificate, &key, late).unwrap_err();
        assert_eq!(error.to_string(), "CA certificate expires too soon");
    }

    #[test]
    fn a_root_is_replaced_by_a_given_one_and_back_again_by_the_same() {
        let cluster = cluster(1);
        let (certificate, key) = own();
        let begun = begin_with(&cluster, read(&certificate, &key).unwrap(), NOW).unwrap();
        let rotation = begun.root_ca.rotation.clone().unwrap();
        assert_eq!(rotation.certificate, certificate);
        let again = begin_with(&begun, read(&certificate, &key).unwrap(), NOW).unwrap();
        assert_eq!(again.root_ca.rotation, Some(rotation), "it is under way already");
        // The present one is the end of whatever was under way.
        let present = pem::write("PRIVATE KEY", &cluster.root_ca.key.0);
        let back = begin_with(&begun, read(&cluster.root_ca.certificate, &present).unwrap(), NOW).unwrap();
        assert_eq!((back.root_ca.rotation, &back.root_ca.certificate), (None, &cluster.root_ca.certificate));
        // Another certificate of the same key.
        let same = Root::of_key(&cluster.root_ca.key, NOW).unwrap();
        let error = begin_with(&cluster, read(&same, &present).unwrap(), NOW).unwrap_err();
        assert_eq!(error.to_string(), "Cannot update to a cert with an identical key");
    }

    /// As users make theirs, of every kind that there is a way to.
    #[test]
    fn roots_of_openssl_are_taken() {
        let Some(folder) = openssl("given") else { return };
        let cluster = cluster(1);
        let now = Timestamp(u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap());
        let sh = |script: &str| {
            let out = Command::new("sh").args(["-ec", script]).current_dir(&folder).output().unwrap();
            assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        };
        let keys = [
            "openssl ecparam -name prime256v1 -genkey -out key",
            "openssl ecparam -name secp384r1 -genkey -noout -out key",
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key",
            "openssl genpkey -algorithm ED25519 -out key",
            "openssl genrsa -out key 2048",
            "openssl genrsa -out rsa 2048; openssl rsa -in rsa -traditional -out key",
        ];
        let names = ["/CN=mine", "/C=DE/O=Some Organisation/CN=the root"];
        for (make, name) in keys.iter().zip(names.iter().cycle()) {
            sh(&format!("{make}; openssl req -x509 -new -key key -days 800 -subj '{name}' -out crt"));
            let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
            let given = GivenRoot::read(&text("crt"), &text("key"), now).unwrap();
            let begun = begin_with(&cluster, given, now).unwrap_or_else(|error| panic!("{make}: {error}"));
            assert!(begun.root_ca.rotation.is_some());
        }
        // Not every certificate is an authority, and a name that has a part twice is not read back as it is.
        for (what, text) in [
            ("-subj /CN=x -addext basicConstraints=critical,CA:FALSE", compat::UNREADABLE_ROOT),
            ("-subj /OU=a/OU=b/CN=x", compat::UNUSABLE_ROOT),
        ] {
            sh(&format!("openssl req -x509 -new -key key -days 800 {what} -out crt"));
            let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
            let given = GivenRoot::read(&file("crt"), &file("key"), now);
            let error = given.and_then(|it| begin_with(&cluster, it, now)).unwrap_err().to_string();
            assert!(error.starts_with(text), "{what}: {error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
