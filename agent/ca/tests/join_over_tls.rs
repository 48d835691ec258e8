//! A node's life with a cluster, over real connections: it joins with a token, keeps its keys sealed, is known by its
//! certificate, and moves to a new root while another node has not heard of it yet.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ketch_ca::admission::{Admission, AdmissionError, JoinRequest, admit};
use ketch_ca::authority::Authority;
use ketch_ca::folder::{Folder, Kept};
use ketch_ca::identity::Identity;
use ketch_ca::join::{Joined, Joining, Requested};
use ketch_ca::key::NodeKey;
use ketch_ca::root::{self, Root};
use ketch_ca::rotation::{self, new_tokens};
use ketch_ca::tls::{self, Caller, Credentials, Strangers};
use ketch_ca::trust::{Expected, Trust};
use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::cluster::{ClusterNetworking, RootCa};
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::objects::{Cluster, ClusterSpec, Meta};
use ketch_cluster::time::Timestamp;
use ketch_cluster::token::UnlockKey;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

const NOW: Timestamp = Timestamp(1_795_694_400_000_000_000);
const MANAGER: NodeId = NodeId::of(1);

#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(NOW.since(Timestamp::default())))
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// As `swarm init` makes it: with its first manager's key and chain.
fn init() -> (Cluster, NodeKey, String) {
    let root = Root::create(NOW).unwrap();
    let mut bits = 1000..;
    let join_tokens = new_tokens(&root.certificate, &mut || bits.next().unwrap());
    let cluster = Cluster {
        id: ClusterId::of(9),
        meta: Meta::new(NOW),
        spec: ClusterSpec::default(),
        networking: ClusterNetworking::default(),
        root_ca: RootCa { certificate: root.certificate, key: root.key, join_tokens, rotation: None },
        shut_out: BTreeMap::new(),
        unlock_key: None,
        data_keys: Vec::new(),
    };
    let key = NodeKey::generate().unwrap();
    let request = key.request().unwrap();
    let chain = Authority::of(&cluster).unwrap().issue(&request, (MANAGER, NodeRole::Manager), NOW).unwrap();
    (cluster, key, chain)
}

/// One message of each side over one connection: what the client got, and who it was to the server.
fn call(
    client: ClientConfig,
    server: ServerConfig,
    message: &str,
    answer: impl Fn(&str) -> String + Sync,
) -> (String, Caller) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(server)).unwrap(), socket);
            let message = receive(&mut stream);
            send(&mut stream, &answer(&message));
            Caller::of(stream.conn.peer_certificates()).unwrap()
        });
        let socket = TcpStream::connect(address).unwrap();
        let connection = ClientConnection::new(Arc::new(client), tls::server_name()).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        send(&mut stream, message);
        (receive(&mut stream), served.join().unwrap())
    })
}

fn send(stream: &mut impl Write, text: &str) {
    stream.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.flush().unwrap();
}

fn receive(stream: &mut impl Read) -> String {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut text = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn server(cluster: &Cluster, (key, chain): (&NodeKey, &str)) -> ServerConfig {
    let own = Credentials { chain: &certificates(chain), key };
    tls::server(&own, Arc::new(Trust::of(cluster).unwrap()), Strangers::LetIn, Arc::new(Clock)).unwrap()
}

/// What a worker has: the roots that it was told, and its own certificate.
fn client(joined: &Joined) -> ClientConfig {
    let trust = Trust::in_roots(&joined.roots).unwrap().in_cluster(joined.identity.cluster);
    let own = Credentials { chain: &certificates(&joined.chain), key: &joined.key };
    tls::client(&own, Arc::new(trust), Expected::Role(NodeRole::Manager), Arc::new(Clock)).unwrap()
}

fn join(cluster: &Cluster, manager: (&NodeKey, &str), token: &str, id: NodeId) -> Joined {
    let joining = Joining::new(token).unwrap();
    let unverified = tls::unverified_client(Arc::new(Clock)).unwrap();
    let (root, caller) =
        call(unverified, server(cluster, manager), "root", |_| cluster.root_ca.certificate.clone());
    assert_eq!(caller, Caller::Stranger);

    let checked = joining.check_root(&root, NOW).unwrap();
    let verified = tls::joining_client(Arc::new(checked.trust().unwrap()), Arc::new(Clock)).unwrap();
    let (waiting, token, request) = checked.request().unwrap();
    let message = format!("{token}\n{request}");
    let (answer, _) = call(verified, server(cluster, manager), &message, |message| {
        let (token, certificate_request) = message.split_once('\n').unwrap();
        let admission = admit(cluster, JoinRequest { token, certificate_request }, id, NOW).unwrap();
        assert_eq!(admission.role, NodeRole::Worker);
        format!("{}|{}", admission.chain, admission.roots)
    });
    let (chain, roots) = answer.split_once('|').unwrap();
    let admission = Admission { role: NodeRole::Worker, chain: chain.to_owned(), roots: roots.to_owned() };
    waiting.accept(admission, NOW).unwrap()
}

fn identity_at_the_manager(cluster: &Cluster, manager: (&NodeKey, &str), joined: &Joined) -> Identity {
    let (_, caller) = call(client(joined), server(cluster, manager), "hello", str::to_owned);
    match caller {
        Caller::Member(identity) => identity,
        Caller::Stranger => panic!("it showed its certificate"),
    }
}

#[test]
fn a_node_joins_and_is_known() {
    let (cluster, key, chain) = init();
    let joined = join(&cluster, (&key, &chain), &cluster.root_ca.join_tokens.worker, NodeId::of(2));
    let identity = identity_at_the_manager(&cluster, (&key, &chain), &joined);
    assert_eq!(identity, joined.identity);
    assert_eq!((identity.node, identity.role), (NodeId::of(2), NodeRole::Worker));
}

#[test]
fn a_rotated_token_lets_nobody_in() {
    let (mut cluster, key, chain) = init();
    let old = cluster.root_ca.join_tokens.worker.clone();
    let certificate = cluster.root_ca.certificate.clone();
    let mut bits = 2000..;
    cluster.root_ca.join_tokens = new_tokens(&certificate, &mut || bits.next().unwrap());
    let request = NodeKey::generate().unwrap().request().unwrap();
    let refused =
        admit(&cluster, JoinRequest { token: &old, certificate_request: &request }, NodeId::of(2), NOW);
    assert!(matches!(refused, Err(AdmissionError::Token)));
    join(&cluster, (&key, &chain), &cluster.root_ca.join_tokens.worker, NodeId::of(2));
}

#[test]
fn nodes_of_the_old_and_the_new_root_talk_during_a_rotation() {
    let (cluster, key, chain) = init();
    let manager = (&key, chain.as_str());
    let mut first = join(&cluster, manager, &cluster.root_ca.join_tokens.worker, NodeId::of(2));
    let rotating = rotation::begin(&cluster, NOW).unwrap();

    // Joins in the middle, by the old token.
    let second = join(&rotating, manager, &rotating.root_ca.join_tokens.worker, NodeId::of(3));
    assert_ne!(second.identity.issuer, first.identity.issuer);
    assert_eq!(second.roots, root::trusted(&rotating.root_ca));
    assert_eq!(identity_at_the_manager(&rotating, manager, &second), second.identity);

    // The manager has renewed; the first node knows nothing of the new root.
    let present = Identity::read(&certificates(&chain)[0]).unwrap();
    let (waiting, request) = Requested::renewal(present, &root::trusted(&rotating.root_ca)).unwrap();
    let authority = Authority::of(&rotating).unwrap();
    let answer = |node, role, request: &str| Admission {
        role,
        chain: authority.issue(request, (node, role), NOW).unwrap(),
        roots: root::trusted(&rotating.root_ca),
    };
    let renewed = waiting.accept(answer(MANAGER, NodeRole::Manager, &request), NOW).unwrap();
    let manager = (&renewed.key, renewed.chain.as_str());
    assert_eq!(identity_at_the_manager(&rotating, manager, &first), first.identity);

    // The first node renews; then the old root can go.
    let (waiting, request) = Requested::renewal(first.identity, &first.roots).unwrap();
    first = waiting.accept(answer(first.identity.node, NodeRole::Worker, &request), NOW).unwrap();
    let done = rotation::step(&rotating, std::iter::empty(), NOW, &mut || 5).unwrap();
    let rotation::Step::Finish(after) = done else { panic!("{done:?}") };
    for node in [&first, &second] {
        assert_eq!(identity_at_the_manager(&after, manager, node), node.identity);
    }
}

#[test]
fn a_joined_managers_keys_survive_sealed() {
    let (cluster, key, chain) = init();
    let joined = join(&cluster, (&key, &chain), &cluster.root_ca.join_tokens.worker, NodeId::of(2));
    let path = std::env::temp_dir().join(format!("ketch-ca-kept-{}", std::process::id()));
    let folder = Folder::at(&path).unwrap();
    let unlock = UnlockKey([5; 32]);
    folder.write(&Kept { key: joined.key, chain: joined.chain, raft: None }, Some(&unlock)).unwrap();
    folder.write_roots(&joined.roots).unwrap();
    let kept = folder.read(Some(&unlock)).unwrap().unwrap();
    let identity = Identity::read(&certificates(&kept.chain)[0]).unwrap();
    let roots = folder.read_roots().unwrap().unwrap();
    let again = Joined { identity, key: kept.key, chain: kept.chain, roots };
    assert_eq!(identity_at_the_manager(&cluster, (&key, &chain), &again), joined.identity);
    assert!(identity.renewal(0) > NOW.after(Duration::from_secs(44 * 24 * 3600)));
    std::fs::remove_dir_all(path).unwrap();
}
