//! A node's own key, and the request for a certificate of it.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::pem;
use crate::signer::Signer;

/// ECDSA P-256. It never leaves its node: only requests that it has signed do.
pub struct NodeKey(Signer);

/// What can't be done with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("making a key")]
    Generate(#[source] rcgen::Error),
    #[error("reading a key")]
    Read(#[source] rcgen::Error),
    #[error("signing a certificate request")]
    Request(#[source] rcgen::Error),
}

impl NodeKey {
    /// A new one, of the system's randomness.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> Result<Self, KeyError> {
        Signer::generate().map(Self).map_err(KeyError::Generate)
    }

    /// From its PKCS #8.
    ///
    /// # Errors
    /// It is no key of P-256.
    pub fn read(pkcs8: &[u8]) -> Result<Self, KeyError> {
        Signer::of_p256(pkcs8).map(Self).map_err(KeyError::Read)
    }

    /// A certificate request (PKCS #10) in PEM. It says no more than the public key: the authority sets the rest.
    ///
    /// # Errors
    /// The system has no randomness for the signature.
    pub fn request(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(KeyError::Request)?;
        Ok(pem::write(pem::REQUEST, request.der()))
    }

    /// The key as PKCS #8: a secret.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.0.pkcs8()
    }

    /// The public key as a point, uncompressed.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.0.der_bytes()
    }

    pub(crate) fn for_tls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8().to_vec()).into()
    }

    pub(crate) fn signer(self) -> Signer {
        self.0
    }
}

/// Without the key, so that no log line can have it.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_and_is_not_in_debug_texts() {
        let key = NodeKey::generate().unwrap();
        let again = NodeKey::read(key.pkcs8()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(format!("{key:?}"), "NodeKey");
        assert!(matches!(NodeKey::read(b"no key"), Err(KeyError::Read(_))));
    }
}
