//! Clusters and nodes for tests, with real keys.

use std::collections::BTreeMap;

use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::cluster::{ClusterNetworking, RootCa};
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::objects::{Cluster, ClusterSpec, Meta};
use ketch_cluster::time::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::authority::Authority;
use crate::key::NodeKey;
use crate::pem;
use crate::root::Root;
use crate::tls::Credentials;

/// 2026-11-26, 12:00:00 UTC.
pub(crate) const NOW: Timestamp = Timestamp(1_795_694_400_000_000_000);

/// A cluster with a root, without tokens.
pub(crate) fn cluster(id: u128) -> Cluster {
    let root = Root::create(NOW).unwrap();
    Cluster {
        id: ClusterId::of(id),
        meta: Meta::new(NOW),
        spec: ClusterSpec::default(),
        networking: ClusterNetworking::default(),
        root_ca: RootCa { certificate: root.certificate, key: root.key, ..RootCa::default() },
        shut_out: BTreeMap::new(),
        unlock_key: None,
        data_keys: Vec::new(),
    }
}

/// A node with a certificate.
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) pem: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Node {
    pub(crate) fn new(cluster: &Cluster, id: u128, role: NodeRole, now: Timestamp) -> Self {
        let key = NodeKey::generate().unwrap();
        let request = key.request().unwrap();
        let pem = Authority::of(cluster).unwrap().issue(&request, (NodeId::of(id), role), now).unwrap();
        let chain = pem::certificates(&pem).unwrap();
        Self { key, pem, chain }
    }

    pub(crate) fn credentials(&self) -> Credentials<'_> {
        Credentials { chain: &self.chain, key: &self.key }
    }
}

/// A new folder for a test with openssl; none, and a word about it, where openssl is not installed.
pub(crate) fn openssl(test: &str) -> Option<std::path::PathBuf> {
    let Ok(_) = std::process::Command::new("openssl").arg("version").output() else {
        eprintln!("skipped: there is no openssl");
        return None;
    };
    Some(folder(test))
}

/// A new folder for a test's files.
pub(crate) fn folder(test: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("ketch-ca-{test}-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// A token that names the cluster's root.
pub(crate) fn token(cluster: &Cluster, secret: u128) -> String {
    let root_digest = crate::root::digest(&cluster.root_ca.certificate);
    ketch_cluster::token::JoinToken { root_digest, secret }.to_string()
}
