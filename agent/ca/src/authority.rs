//! The authority: signs nodes' certificates with the cluster's root, or with the next one while nodes are moved to it.
//!
//! Only managers can make one, since only they have the key. What a request says of itself is ignored but for its key:
//! the caller says who it is.

use std::fmt;
use std::time::Duration;

use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::Cluster;
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::time::Timestamp;
use rcgen::{
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;

use crate::compat;
use crate::identity::unit_of;
use crate::key::KeyError;
use crate::pem::{self, PemError};
use crate::root::{self, Root, Validity};
use crate::signer::Signer;

/// No node certificate is shorter.
pub const LEAST_LIFE: Duration = Duration::from_secs(3600);
/// An uncompressed point of P-256: a byte that says so, and two numbers of 32.
const P256_POINT: usize = 65;

/// What an authority can't do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("reading PEM")]
    Pem(#[from] PemError),
    #[error("the authority's certificate can't be read")]
    Certificate,
    #[error("the authority's key is of another certificate")]
    Mismatch,
    #[error("the authority's key")]
    Key(#[from] KeyError),
    #[error("reading a certificate request")]
    Request(#[source] rcgen::Error),
    #[error("a certificate request must be of an ECDSA key on P-256")]
    RequestKey,
    #[error("signing a certificate")]
    Sign(#[source] rcgen::Error),
    #[error("the system has no randomness")]
    Randomness,
}

/// Signs for one cluster. Made anew when the cluster's root or its certificate expiry has changed.
pub struct Authority {
    cluster: ClusterId,
    issuer: Issuer<'static, Signer>,
    /// The issuer's: nothing that it signs lives longer.
    expires: Timestamp,
    /// What leads from the issuer to the root that everyone trusts; PEM, empty when that is the issuer.
    intermediates: String,
    life: Duration,
}

impl Authority {
    /// The authority of a cluster at this moment.
    ///
    /// # Errors
    /// Its certificate or key can't be read, or they are of two authorities.
    pub fn of(cluster: &Cluster) -> Result<Self, AuthorityError> {
        let root_ca = &cluster.root_ca;
        let (root, intermediates) = match &root_ca.rotation {
            None => {
                (Root { certificate: root_ca.certificate.clone(), key: root_ca.key.clone() }, String::new())
            }
            Some(next) => (
                Root { certificate: next.certificate.clone(), key: next.key.clone() },
                next.cross_signed.clone(),
            ),
        };
        Ok(Self {
            cluster: cluster.id,
            issuer: root.issuer()?,
            expires: root::describe(&root.certificate)?.expires,
            intermediates,
            life: cluster.spec.ca.node_certificate_expiry.max(LEAST_LIFE),
        })
    }

    /// A certificate for the key in `request` (PEM of PKCS #10), which says that it is this node in this role; followed by
    /// what leads to the root. PEM.
    ///
    /// # Errors
    /// The request is none, its signature is wrong, its key is not of P-256, or the system has no randomness.
    pub fn issue(
        &self,
        request: &str,
        (node, role): (NodeId, NodeRole),
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        let der = CertificateSigningRequestDer::from(pem::only(request, pem::REQUEST)?);
        let request = CertificateSigningRequestParams::from_der(&der).map_err(AuthorityError::Request)?;
        if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256
            || request.public_key.der_bytes().len() != P256_POINT
        {
            return Err(AuthorityError::RequestKey);
        }
        let mut params = Validity::from(now, self.life).until(self.expires).params()?;
        params.distinguished_name.push(DnType::OrganizationName, self.cluster.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit_of(role));
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.subject_alt_names = names_of(node, role)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate =
            params.signed_by(&request.public_key, &self.issuer).map_err(AuthorityError::Sign)?;
        Ok(format!("{}{}", pem::write(pem::CERTIFICATE, certificate.der()), self.intermediates))
    }
}

/// SwarmKit's: the role, the node, and of a manager that it can be asked for certificates.
fn names_of(node: NodeId, role: NodeRole) -> Result<Vec<SanType>, AuthorityError> {
    let mut names = vec![unit_of(role).to_owned(), node.to_string()];
    if role == NodeRole::Manager {
        names.push(compat::AUTHORITY.to_owned());
    }
    let name = |text: String| text.try_into().map(SanType::DnsName).map_err(AuthorityError::Sign);
    names.into_iter().map(name).collect()
}

/// Without the key, so that no log line can have it.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority of {}", self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::fixture::{NOW, Node, cluster, openssl};
    use crate::identity::Identity;
    use crate::key::NodeKey;
    use crate::root::BACKDATE;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, SigningKey};

    fn request_of(params: &CertificateParams, key: &impl SigningKey) -> String {
        pem::write(pem::REQUEST, params.serialize_request(key).unwrap().der())
    }

    #[test]
    fn what_a_request_says_of_itself_is_ignored() {
        let cluster = cluster(1);
        let key = NodeKey::generate().unwrap().signer();
        let mut params = CertificateParams::new([compat::AUTHORITY.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.distinguished_name.push(DnType::OrganizationalUnitName, compat::MANAGER);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let request = request_of(&params, &key);
        let issued =
            Authority::of(&cluster).unwrap().issue(&request, (NodeId::of(3), NodeRole::Worker), NOW).unwrap();
        let leaf = pem::certificates(&issued).unwrap().remove(0);
        let identity = Identity::read(&leaf).unwrap();
        assert_eq!((identity.node, identity.role), (NodeId::of(3), NodeRole::Worker));
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        assert!(!parsed.is_ca());
        let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value);
        assert!(!names.contains(compat::AUTHORITY) && names.contains(compat::WORKER), "{names}");
    }

    #[test]
    fn requests_that_are_none_or_of_another_kind_of_key_are_refused() {
        let authority = Authority::of(&cluster(1)).unwrap();
        let issue = |request: &str| authority.issue(request, (NodeId::of(3), NodeRole::Worker), NOW);
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let request = request_of(&CertificateParams::default(), &other);
        assert!(matches!(issue(&request), Err(AuthorityError::RequestKey)));
        let request = NodeKey::generate().unwrap().request().unwrap();
        let mut bytes = pem::only(&request, pem::REQUEST).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let forged = issue(&pem::write(pem::REQUEST, &bytes));
        assert!(matches!(
            forged,
            Err(AuthorityError::Request(rcgen::Error::InvalidCertificationRequestSignature))
        ));
        assert!(matches!(issue(""), Err(AuthorityError::Pem(PemError::Empty))));
        assert!(issue(&request.replace("REQUEST", "THING")).is_err());
    }

    #[test]
    fn a_certificate_lives_an_hour_at_least_and_no_longer_than_its_root() {
        let mut cluster = cluster(1);
        let expires = |cluster: &Cluster, now| {
            let node = Node::new(cluster, 3, NodeRole::Worker, now);
            Identity::read(&node.chain[0]).unwrap().expires
        };
        cluster.spec.ca.node_certificate_expiry = Duration::from_secs(1);
        assert_eq!(expires(&cluster, NOW), NOW.after(Duration::from_secs(3600)));
        let end = NOW.after(root::ROOT_LIFE);
        let almost = NOW.after(root::ROOT_LIFE - Duration::from_secs(60));
        assert_eq!(expires(&cluster, almost), end);
    }

    #[test]
    fn the_key_is_not_in_debug_texts() {
        let cluster = cluster(1);
        assert_eq!(format!("{:?}", Authority::of(&cluster).unwrap()), format!("Authority of {}", cluster.id));
    }

    #[test]
    fn openssl_reads_and_believes_a_certificate() {
        let cluster = cluster(1);
        let node = Node::new(&cluster, 3, NodeRole::Manager, NOW);
        let Some(folder) = openssl("authority") else { return };
        let (root, leaf) = (folder.join("root.crt"), folder.join("node.crt"));
        std::fs::write(&root, &cluster.root_ca.certificate).unwrap();
        std::fs::write(&leaf, &node.pem).unwrap();
        let at = NOW.since(Timestamp::default()).as_secs();
        let verify = |at: u64, purpose: &str| {
            let out = Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", purpose, "-attime", &at.to_string(), "-CAfile"])
                .args([&root, &leaf])
                .output()
                .unwrap();
            (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
        };
        for purpose in ["sslserver", "sslclient"] {
            assert_eq!(verify(at, purpose), (true, String::new()));
            assert_eq!(verify(at - BACKDATE.as_secs(), purpose), (true, String::new()));
        }
        let (believed, why) = verify(at + 91 * 24 * 3600, "sslserver");
        assert!(!believed && why.contains("certificate has expired"), "{why}");
        let (believed, why) = verify(at - BACKDATE.as_secs() - 1, "sslserver");
        assert!(!believed && why.contains("certificate is not yet valid"), "{why}");

        let out =
            Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&leaf).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let subject = format!("Subject: O = {}, OU = swarm-manager, CN = {}", cluster.id, NodeId::of(3));
        let compact = |text: &str| text.replace(" = ", "=");
        for wanted in [
            subject.as_str(),
            "Issuer: CN = swarm-ca",
            "Not Before: Nov 26 11:00:00 2026 GMT",
            "Not After : Feb 24 12:00:00 2027 GMT",
            "ASN1 OID: prime256v1",
            "CA:FALSE",
            "Digital Signature, Key Encipherment",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            &format!("DNS:swarm-manager, DNS:{}, DNS:swarm-ca", NodeId::of(3)),
        ] {
            assert!(compact(&text).contains(&compact(wanted)), "{wanted:?} is not in {text}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_request_is_read_without_harm(at: prop::sample::Index, bit in 0..8_u32, junk in prop::collection::vec(any::<u8>(), 0..300)) {
            let authority = Authority::of(&cluster(1)).unwrap();
            let key = NodeKey::generate().unwrap();
            let mut bytes = pem::only(&key.request().unwrap(), pem::REQUEST).unwrap();
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
            for bytes in [bytes, junk] {
                let text = pem::write(pem::REQUEST, &bytes);
                // Not all bits are signed; but the key is.
                if let Ok(issued) = authority.issue(&text, (NodeId::of(3), NodeRole::Worker), NOW) {
                    let leaf = pem::certificates(&issued).unwrap().remove(0);
                    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
                    prop_assert_eq!(parsed.public_key().subject_public_key.data.as_ref(), key.public());
                }
            }
        }
    }
}
