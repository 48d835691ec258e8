//! Who a certificate says that its holder is.
//!
//! Reading is not believing: [`Trust`](crate::trust::Trust) says whether the cluster signed it.

use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::node::{CaKeyId, NodeRole};
use ketch_cluster::time::Timestamp;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use crate::root::{BACKDATE, moment};
use crate::{compat, pem};

/// A node as its certificate names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The common name.
    pub node: NodeId,
    /// The organisational unit.
    pub role: NodeRole,
    /// The organisation.
    pub cluster: ClusterId,
    /// The key that signed it.
    pub issuer: CaKeyId,
    /// The first moment of its validity: an hour before it was signed.
    pub begins: Timestamp,
    /// The last moment of its validity.
    pub expires: Timestamp,
}

/// Why a certificate names no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate can't be read")]
    Unreadable,
    #[error("the certificate's {0} is missing, or there are several")]
    Field(&'static str),
    #[error("the certificate's {field} can't be {value:?}")]
    Value { field: &'static str, value: String },
}

impl Identity {
    /// Reads a certificate's DER.
    ///
    /// # Errors
    /// It is no certificate, or not of a node.
    pub fn read(certificate: &[u8]) -> Result<Self, IdentityError> {
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Unreadable)?;
        if !rest.is_empty() {
            return Err(IdentityError::Unreadable);
        }
        let subject = parsed.subject();
        let node = only(subject.iter_common_name(), "common name")?;
        let unit = only(subject.iter_organizational_unit(), "organisational unit")?;
        let cluster = only(subject.iter_organization(), "organisation")?;
        Ok(Self {
            node: node.parse().map_err(|_| refused("common name", node))?,
            role: role_of(unit).ok_or_else(|| refused("organisational unit", unit))?,
            cluster: cluster.parse().map_err(|_| refused("organisation", cluster))?,
            issuer: issuer_of(&parsed).ok_or(IdentityError::Field("authority key identifier"))?,
            begins: moment(parsed.validity().not_before.timestamp()),
            expires: moment(parsed.validity().not_after.timestamp()),
        })
    }

    /// Reads the first certificate of a chain in PEM: the node's own.
    ///
    /// # Errors
    /// The text is no chain of certificates, or the first is not of a node.
    pub fn of_chain(chain: &str) -> Result<Self, IdentityError> {
        let certificates = pem::certificates(chain).map_err(|_| IdentityError::Unreadable)?;
        certificates.first().ok_or(IdentityError::Unreadable).and_then(|leaf| Self::read(leaf))
    }

    /// When its holder asks for the next one: at 50 to 80 % of its life, which of the moments by `bits`, so that nodes that
    /// joined together don't renew together.
    #[must_use]
    pub fn renewal(&self, bits: u32) -> Timestamp {
        let signed = self.begins.after(BACKDATE);
        let life = self.expires.since(signed);
        let share = 0.5 + 0.3 * (f64::from(bits) / f64::from(u32::MAX));
        signed.after(Duration::from_secs_f64(life.as_secs_f64() * share))
    }
}

fn refused(field: &'static str, value: &str) -> IdentityError {
    IdentityError::Value { field, value: value.to_owned() }
}

fn only<'a>(
    mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
    field: &'static str,
) -> Result<&'a str, IdentityError> {
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().map_err(|_| IdentityError::Unreadable),
        _ => Err(IdentityError::Field(field)),
    }
}

fn issuer_of(certificate: &X509Certificate<'_>) -> Option<CaKeyId> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => {
            let id = authority.key_identifier.as_ref()?;
            <[u8; 20]>::try_from(id.0).ok().map(CaKeyId)
        }
        _ => None,
    })
}

/// The organisational unit of a role.
#[must_use]
pub fn unit_of(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Manager => compat::MANAGER,
        NodeRole::Worker => compat::WORKER,
    }
}

fn role_of(unit: &str) -> Option<NodeRole> {
    [NodeRole::Manager, NodeRole::Worker].into_iter().find(|role| unit_of(*role) == unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{NOW, Node, cluster};
    use proptest::prelude::*;

    fn leaf() -> Vec<u8> {
        Node::new(&cluster(1), 7, NodeRole::Worker, NOW).chain[0].to_vec()
    }

    #[test]
    fn a_certificate_says_who_its_holder_is() {
        let cluster = cluster(1);
        for role in [NodeRole::Manager, NodeRole::Worker] {
            let node = Node::new(&cluster, 7, role, NOW);
            let identity = Identity::read(&node.chain[0]).unwrap();
            assert_eq!(identity.node, NodeId::of(7));
            assert_eq!((identity.role, identity.cluster), (role, cluster.id));
            assert_eq!(identity.expires, NOW.after(Duration::from_secs(90 * 24 * 3600)));
            assert_eq!(identity.begins.after(BACKDATE), NOW);
            assert_eq!(identity.issuer, crate::root::describe(&cluster.root_ca.certificate).unwrap().id);
        }
    }

    #[test]
    fn a_root_is_no_node() {
        let root = crate::pem::certificates(&cluster(1).root_ca.certificate).unwrap().remove(0);
        let error = Identity::read(&root).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the certificate's organisational unit is missing, or there are several"
        );
        assert_eq!(Identity::read(b"no certificate"), Err(IdentityError::Unreadable));
        let behind = [leaf(), vec![0]].concat();
        assert_eq!(Identity::read(&behind), Err(IdentityError::Unreadable));
    }

    #[test]
    fn renewal_is_between_half_and_four_fifths_of_the_life() {
        let identity = Identity::read(&leaf()).unwrap();
        let day = |days: u64| NOW.after(Duration::from_secs(days * 24 * 3600));
        assert_eq!(identity.renewal(0), day(45));
        assert_eq!(identity.renewal(u32::MAX), day(72));
    }

    proptest! {
        #[test]
        fn renewal_is_in_its_span(bits: u32) {
            let identity = Identity::read(&leaf()).unwrap();
            let (first, last) = (identity.renewal(0), identity.renewal(u32::MAX));
            prop_assert!(first <= identity.renewal(bits) && identity.renewal(bits) <= last);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Identity::read(&bytes).is_err());
        }

        #[test]
        fn a_changed_certificate_is_read_without_harm(at: prop::sample::Index, bit in 0..8_u32, cut: prop::sample::Index) {
            let mut bytes = leaf();
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
            let _ = Identity::read(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = Identity::read(&bytes);
        }
    }
}
