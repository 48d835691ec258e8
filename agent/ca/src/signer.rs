//! A key that certificates and requests are signed with: rcgen's, and in the simulation one of its seed. Called by `key` and `root`.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::PrivatePkcs8KeyDer;

pub(crate) struct Signer(KeyPair);

impl Signer {
    /// A new one of P-256.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        #[cfg(feature = "seeded")]
        if let Some(pkcs8) = crate::seeded::key() {
            return Self::of_p256(&pkcs8);
        }
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// From PKCS #8, of P-256 only.
    pub(crate) fn of_p256(pkcs8: &[u8]) -> Result<Self, rcgen::Error> {
        let der = PrivatePkcs8KeyDer::from(pkcs8);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// From PKCS #8, of any kind.
    pub(crate) fn of(pkcs8: &[u8]) -> Result<Self, rcgen::Error> {
        KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8)).map(Self)
    }

    /// A secret.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        #[cfg(feature = "seeded")]
        if let Some(signature) = crate::seeded::signature(self.pkcs8(), message) {
            return Ok(signature);
        }
        self.0.sign(message)
    }
}
