//! Roots: what all of a cluster's certificates come from.
//!
//! A manager makes one at `swarm init` and at each `swarm ca --rotate`; its key is in the replicated store, and nowhere
//! outside of the managers.

use std::time::Duration;

use ketch_cluster::objects::cluster::{RootCa, SecretBytes};
use ketch_cluster::objects::node::CaKeyId;
use ketch_cluster::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use sha2::{Digest, Sha256};
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use crate::authority::AuthorityError;
use crate::compat;
use crate::key::{KeyError, NodeKey};
use crate::pem;
use crate::randomness;
use crate::signer::Signer;

/// 20 years of 365 days.
pub const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How far before the moment of signing a certificate begins: a node whose clock is that far behind takes it.
pub const BACKDATE: Duration = Duration::from_secs(3600);

/// A root with the key that signs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// PEM.
    pub certificate: String,
    /// PKCS #8.
    pub key: SecretBytes,
}

/// What Docker's API tells of a root as `TLSInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDescription {
    /// The subject key identifier, by which nodes say whose certificate they have.
    pub id: CaKeyId,
    /// The subject as DER.
    pub subject: Vec<u8>,
    /// The SubjectPublicKeyInfo as DER.
    pub public_key: Vec<u8>,
    /// The last moment of its validity.
    pub expires: Timestamp,
}

impl Root {
    /// A new one that begins an hour before `now`.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn create(now: Timestamp) -> Result<Self, AuthorityError> {
        let key = NodeKey::generate()?;
        let secret = SecretBytes(key.pkcs8().to_vec());
        let params = authority_params(Validity::from(now, ROOT_LIFE), 1)?;
        let certificate = params.self_signed(&key.signer()).map_err(AuthorityError::Sign)?;
        Ok(Self { certificate: pem::write(pem::CERTIFICATE, certificate.der()), key: secret })
    }

    /// Another certificate of a key.
    #[cfg(test)]
    pub(crate) fn of_key(key: &SecretBytes, now: Timestamp) -> Result<String, AuthorityError> {
        let certificate = authority_params(Validity::from(now, ROOT_LIFE), 1)?.self_signed(&signer_of(key)?);
        Ok(pem::write(pem::CERTIFICATE, certificate.map_err(AuthorityError::Sign)?.der()))
    }

    /// The same name and key, signed by the key of `old`: whoever trusts the old root only can follow a chain from this
    /// one's certificates through it.
    ///
    /// # Errors
    /// One of both is no root, or the system has no randomness.
    pub fn cross_signed_by(&self, old: &Self, now: Timestamp) -> Result<String, AuthorityError> {
        let key = signer_of(&self.key)?;
        let described = describe(&self.certificate)?;
        let ends = described.expires.min(describe(&old.certificate)?.expires);
        let mut params = authority_params(Validity::from(now, ROOT_LIFE).until(ends), 0)?;
        // A root that a user has brought has a name of its own, and another way to make an identifier of a key.
        params.distinguished_name = name_of(&self.certificate)?;
        params.key_identifier_method = KeyIdMethod::PreSpecified(described.id.0.to_vec());
        let certificate = params.signed_by(&key, &old.issuer()?).map_err(AuthorityError::Sign)?;
        Ok(pem::write(pem::CERTIFICATE, certificate.der()))
    }

    pub(crate) fn issuer(&self) -> Result<Issuer<'static, Signer>, AuthorityError> {
        let certificate = pem::certificates(&self.certificate)?.remove(0);
        let key = signer_of(&self.key)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| AuthorityError::Certificate)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(AuthorityError::Mismatch);
        }
        Issuer::from_ca_cert_der(&certificate, key).map_err(AuthorityError::Sign)
    }
}

/// A root's key may be of any kind that certificates are signed with.
fn signer_of(key: &SecretBytes) -> Result<Signer, AuthorityError> {
    Signer::of(&key.0).map_err(|error| KeyError::Read(error).into())
}

/// The subject of a certificate in PEM, in the kinds of text that it is in: names are compared as bytes.
fn name_of(certificate: &str) -> Result<DistinguishedName, AuthorityError> {
    let der = pem::certificates(certificate)?.remove(0);
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| AuthorityError::Certificate)?;
    let mut name = DistinguishedName::new();
    for attribute in parsed.subject().iter_attributes() {
        let kind = attribute.attr_type().iter().ok_or(AuthorityError::Certificate)?;
        let text = attribute.as_str().map_err(|_| AuthorityError::Certificate)?;
        let value = match attribute.attr_value().tag() {
            Tag::PrintableString => text.try_into().map(DnValue::PrintableString),
            Tag::Ia5String => text.try_into().map(DnValue::Ia5String),
            Tag::Utf8String => Ok(DnValue::Utf8String(text.to_owned())),
            _ => return Err(AuthorityError::Certificate),
        };
        name.push(DnType::from_oid(&kind.collect::<Vec<_>>()), value.map_err(AuthorityError::Sign)?);
    }
    Ok(name)
}

/// What a join token says of a root: SHA-256 of its PEM text, as SwarmKit takes it (`ca/config.go`).
#[must_use]
pub fn digest(certificate: &str) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Whether two texts hold one certificate.
///
/// # Errors
/// One of both holds none.
pub(crate) fn is_same(one: &str, other: &str) -> Result<bool, AuthorityError> {
    Ok(pem::certificates(one)?.first() == pem::certificates(other)?.first())
}

/// All roots that a certificate of the cluster may come from, as PEM: two while nodes are moved to a new one.
#[must_use]
pub fn trusted(root_ca: &RootCa) -> String {
    let next = root_ca.rotation.as_ref().map_or("", |rotation| rotation.certificate.as_str());
    format!("{}{next}", root_ca.certificate)
}

/// Reads an authority's certificate in PEM; the first when there are more.
///
/// # Errors
/// It is none.
pub fn describe(certificate: &str) -> Result<RootDescription, AuthorityError> {
    let der = pem::certificates(certificate)?.remove(0);
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| AuthorityError::Certificate)?;
    let id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => <[u8; 20]>::try_from(id.0).ok(),
        _ => None,
    });
    Ok(RootDescription {
        id: CaKeyId(id.filter(|_| parsed.is_ca()).ok_or(AuthorityError::Certificate)?),
        subject: parsed.subject().as_raw().to_vec(),
        public_key: parsed.public_key().raw.to_vec(),
        expires: moment(parsed.validity().not_after.timestamp()),
    })
}

/// A certificate's moment: seconds since 1970.
pub(crate) fn moment(seconds: i64) -> Timestamp {
    Timestamp::default().after(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    begins: Timestamp,
    ends: Timestamp,
}

impl Validity {
    /// Begins [`BACKDATE`] before `now`.
    pub(crate) fn from(now: Timestamp, life: Duration) -> Self {
        let epoch = Timestamp::default();
        let begins = epoch.after(now.since(epoch.after(BACKDATE)));
        Self { begins, ends: now.after(life) }
    }

    pub(crate) fn until(self, limit: Timestamp) -> Self {
        Self { ends: self.ends.min(limit), ..self }
    }

    /// Parameters with nothing else but a serial number.
    pub(crate) fn params(self) -> Result<CertificateParams, AuthorityError> {
        let since_1970 =
            |moment: Timestamp| Duration::from_secs(moment.since(Timestamp::default()).as_secs());
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut params = CertificateParams::default();
        params.not_before = epoch + since_1970(self.begins);
        params.not_after = epoch + since_1970(self.ends);
        params.serial_number = Some(serial_number()?);
        params.distinguished_name = DistinguishedName::new();
        Ok(params)
    }
}

fn authority_params(validity: Validity, authorities_below: u8) -> Result<CertificateParams, AuthorityError> {
    let mut params = validity.params()?;
    // The kind of text that Docker's have: `docker info` shows the subject's bytes.
    let name = compat::AUTHORITY.try_into().map_err(AuthorityError::Sign)?;
    params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(name));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(authorities_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits, positive and never zero (RFC 5280, 4.1.2.2).
fn serial_number() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    randomness::fill(&mut bytes).map_err(|_| AuthorityError::Randomness)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::NOW;

    #[test]
    fn a_root_is_described() {
        let root = Root::create(NOW).unwrap();
        let described = describe(&root.certificate).unwrap();
        assert_eq!(described.expires, NOW.after(ROOT_LIFE));
        assert_eq!(described.public_key.len(), 91, "a SubjectPublicKeyInfo of P-256");
        let name =
            [&[0x30, 0x13, 0x31, 0x11, 0x30, 0x0f, 6, 3, 0x55, 4, 3, 0x13, 8][..], b"swarm-ca"].concat();
        assert_eq!(described.subject, name);
        assert_eq!(root.issuer().unwrap().key().der_bytes().len(), 65);
    }

    #[test]
    fn the_digest_is_of_the_pem_text() {
        // `printf '' | sha256sum`
        assert_eq!(digest("")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        let root = Root::create(NOW).unwrap();
        assert_ne!(
            digest(&root.certificate),
            digest(root.certificate.trim_end()),
            "the last line's end counts"
        );
    }

    #[test]
    fn a_key_of_another_root_is_told() {
        let (one, other) = (Root::create(NOW).unwrap(), Root::create(NOW).unwrap());
        let mixed = Root { key: other.key, ..one };
        assert!(matches!(mixed.issuer(), Err(AuthorityError::Mismatch)));
    }

    #[test]
    fn a_cross_signed_root_has_the_name_and_the_key_of_the_new_one() {
        let (old, new) = (Root::create(NOW).unwrap(), Root::create(NOW).unwrap());
        let later = NOW.after(Duration::from_secs(1000));
        let crossed = describe(&new.cross_signed_by(&old, later).unwrap()).unwrap();
        assert_eq!(crossed, describe(&new.certificate).unwrap());
    }
}
