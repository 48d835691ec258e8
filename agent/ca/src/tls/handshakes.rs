//! Real handshakes between rustls' two sides, over memory and once over the loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::Cluster;
use ketch_cluster::time::Timestamp;
use rustls::{AlertDescription, ClientConnection, Error, HandshakeKind, ServerConnection, StreamOwned};

use super::*;
use crate::fixture::{NOW, Node, cluster};
use crate::root::BACKDATE;

#[derive(Debug)]
struct Clock(Timestamp);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0))
    }
}

fn clock(now: Timestamp) -> Arc<dyn TimeProvider> {
    Arc::new(Clock(now))
}

fn trust(cluster: &Cluster) -> Arc<Trust> {
    Arc::new(Trust::of(cluster).unwrap())
}

const MANAGER: Expected = Expected::Role(NodeRole::Manager);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What each side has to say at the end.
#[derive(Debug)]
struct Outcome {
    client: Result<(), Error>,
    server: Result<Caller, Error>,
}

impl Outcome {
    fn refused_by_server(self) -> (PeerError, AlertDescription) {
        let reason = self.server.unwrap_err();
        (PeerError::of(&reason).unwrap_or_else(|| panic!("{reason}")), alert(self.client.unwrap_err()))
    }

    fn refused_by_client(self) -> (PeerError, AlertDescription) {
        let reason = self.client.unwrap_err();
        (PeerError::of(&reason).unwrap_or_else(|| panic!("{reason}")), alert(self.server.unwrap_err()))
    }
}

fn alert(error: Error) -> AlertDescription {
    match error {
        Error::AlertReceived(alert) => alert,
        other => panic!("no alert: {other}"),
    }
}

/// Passes records to and fro until neither side has more to say. A side that has failed still sends its alert.
fn shake(client: ClientConfig, server: ServerConfig) -> Outcome {
    let mut client = ClientConnection::new(Arc::new(client), server_name()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let (mut client_failed, mut server_failed) = (None, None);
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server_failed = server_failed.or(server.process_new_packets().err());
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client_failed = client_failed.or(client.process_new_packets().err());
    }
    let caller = || Caller::of(server.peer_certificates()).unwrap();
    Outcome {
        client: client_failed.map_or(Ok(()), Err),
        server: server_failed.map_or_else(|| Ok(caller()), Err),
    }
}

/// A worker calls a manager, each with what it believes and its clock.
struct Call<'a> {
    worker: &'a Node,
    worker_trust: Arc<Trust>,
    worker_clock: Timestamp,
    manager: &'a Node,
    manager_trust: Arc<Trust>,
    manager_clock: Timestamp,
    expected: Expected,
    strangers: Strangers,
}

impl<'a> Call<'a> {
    fn new(cluster: &Cluster, worker: &'a Node, manager: &'a Node) -> Self {
        Self {
            worker,
            worker_trust: trust(cluster),
            worker_clock: NOW,
            manager,
            manager_trust: trust(cluster),
            manager_clock: NOW,
            expected: MANAGER,
            strangers: Strangers::Refused,
        }
    }

    fn server(&self) -> ServerConfig {
        let trust = Arc::clone(&self.manager_trust);
        server(&self.manager.credentials(), trust, self.strangers, clock(self.manager_clock)).unwrap()
    }

    fn client(&self) -> ClientConfig {
        let trust = Arc::clone(&self.worker_trust);
        client(&self.worker.credentials(), trust, self.expected, clock(self.worker_clock)).unwrap()
    }

    fn shake(&self) -> Outcome {
        shake(self.client(), self.server())
    }
}

fn pair(cluster: &Cluster) -> (Node, Node) {
    let worker = Node::new(cluster, 10, NodeRole::Worker, NOW);
    (worker, Node::new(cluster, 20, NodeRole::Manager, NOW))
}

#[test]
fn two_nodes_of_a_cluster_know_each_other() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let outcome = Call::new(&cluster, &worker, &manager).shake();
    outcome.client.unwrap();
    let Caller::Member(peer) = outcome.server.unwrap() else { panic!("a stranger") };
    assert_eq!((peer.node, peer.role, peer.cluster), (NodeId::of(10), NodeRole::Worker, cluster.id));
}

#[test]
fn another_cluster_is_foreign_on_both_sides() {
    let (cluster, other) = (cluster(1), cluster(2));
    let (worker, manager) = pair(&cluster);
    let stranger = Node::new(&other, 10, NodeRole::Worker, NOW);
    let call = Call { worker_trust: trust(&cluster), ..Call::new(&cluster, &stranger, &manager) };
    assert_eq!(call.shake().refused_by_server(), (PeerError::Foreign, AlertDescription::UnknownCA));
    let foreign = Node::new(&other, 20, NodeRole::Manager, NOW);
    let outcome = Call::new(&cluster, &worker, &foreign).shake();
    assert_eq!(outcome.refused_by_client(), (PeerError::Foreign, AlertDescription::UnknownCA));
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let expired = PeerError::Expired { at: NOW.after(90 * DAY) };
    let later = NOW.after(90 * DAY + Duration::from_secs(1));
    let call = Call { manager_clock: later, ..Call::new(&cluster, &worker, &manager) };
    assert_eq!(call.shake().refused_by_server(), (expired.clone(), AlertDescription::CertificateExpired));
    let call = Call { worker_clock: later, ..Call::new(&cluster, &worker, &manager) };
    assert_eq!(call.shake().refused_by_client(), (expired, AlertDescription::CertificateExpired));
    let last = Call { manager_clock: NOW.after(90 * DAY), ..Call::new(&cluster, &worker, &manager) };
    last.shake().server.unwrap();
}

#[test]
fn a_clock_may_be_an_hour_behind_and_no_more() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let behind = |span: Duration| Timestamp(NOW.0 - u64::try_from(span.as_nanos()).unwrap());
    let call = Call { worker_clock: behind(BACKDATE), ..Call::new(&cluster, &worker, &manager) };
    call.shake().client.unwrap();
    let call = Call { manager_clock: behind(BACKDATE), ..Call::new(&cluster, &worker, &manager) };
    call.shake().server.unwrap();
    let too_early = PeerError::NotYetValid { from: behind(BACKDATE) };
    let far = behind(BACKDATE + Duration::from_secs(1));
    let call = Call { worker_clock: far, ..Call::new(&cluster, &worker, &manager) };
    assert_eq!(call.shake().refused_by_client(), (too_early.clone(), AlertDescription::CertificateExpired));
    let call = Call { manager_clock: far, ..Call::new(&cluster, &worker, &manager) };
    assert_eq!(call.shake().refused_by_server(), (too_early, AlertDescription::CertificateExpired));
}

#[test]
fn another_organisation_of_the_same_root_is_refused_on_both_sides() {
    let cluster = cluster(1);
    let mut renamed = cluster.clone();
    renamed.id = ketch_cluster::id::ClusterId::of(2);
    let (worker, manager) = pair(&cluster);
    let (other_worker, other_manager) = pair(&renamed);
    let wrong = PeerError::Organisation { found: renamed.id, wanted: cluster.id };
    let outcome =
        Call { worker_trust: trust(&cluster), ..Call::new(&cluster, &other_worker, &manager) }.shake();
    assert_eq!(outcome.refused_by_server(), (wrong.clone(), AlertDescription::CertificateUnknown));
    let outcome = Call::new(&cluster, &worker, &other_manager).shake();
    assert_eq!(outcome.refused_by_client(), (wrong, AlertDescription::CertificateUnknown));
}

#[test]
fn a_removed_node_is_shut_out_on_both_sides_until_its_time() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let without = |node| {
        let mut cluster = cluster.clone();
        cluster.shut_out.insert(NodeId::of(node), NOW.after(DAY));
        trust(&cluster)
    };
    let call = Call { manager_trust: without(10), ..Call::new(&cluster, &worker, &manager) };
    let gone = (PeerError::ShutOut, AlertDescription::CertificateRevoked);
    assert_eq!(call.shake().refused_by_server(), gone);
    let call = Call { worker_trust: without(20), ..Call::new(&cluster, &worker, &manager) };
    assert_eq!(call.shake().refused_by_client(), gone);
    let later = NOW.after(DAY + Duration::from_secs(1));
    let call =
        Call { manager_trust: without(10), manager_clock: later, ..Call::new(&cluster, &worker, &manager) };
    call.shake().server.unwrap();
}

#[test]
fn a_client_reaches_the_role_or_the_node_that_it_wants() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let backwards = Call::new(&cluster, &manager, &worker);
    let wrong = PeerError::Role { found: NodeRole::Worker, wanted: NodeRole::Manager };
    assert_eq!(backwards.shake().refused_by_client(), (wrong, AlertDescription::CertificateUnknown));
    let call =
        |node| Call { expected: Expected::Node(NodeId::of(node)), ..Call::new(&cluster, &worker, &manager) };
    call(20).shake().client.unwrap();
    let wrong = PeerError::Node { found: NodeId::of(20), wanted: NodeId::of(21) };
    assert_eq!(call(21).shake().refused_by_client(), (wrong, AlertDescription::CertificateUnknown));
}

#[test]
fn a_client_without_certificate_is_a_stranger_or_refused() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let mut call = Call { strangers: Strangers::LetIn, ..Call::new(&cluster, &worker, &manager) };
    let roots = || Arc::new(Trust::in_roots(&cluster.root_ca.certificate).unwrap());
    let outcome = shake(joining_client(roots(), clock(NOW)).unwrap(), call.server());
    assert_eq!(outcome.server, Ok(Caller::Stranger));
    outcome.client.unwrap();
    let outcome = shake(unverified_client(clock(NOW)).unwrap(), call.server());
    assert_eq!(outcome.server, Ok(Caller::Stranger));
    assert!(matches!(call.shake().server, Ok(Caller::Member(_))), "who shows one is known");

    call.strangers = Strangers::Refused;
    let outcome = shake(joining_client(roots(), clock(NOW)).unwrap(), call.server());
    assert_eq!(outcome.server, Err(Error::NoCertificatesPresented));
    assert_eq!(alert(outcome.client.unwrap_err()), AlertDescription::CertificateRequired);
}

#[test]
fn where_strangers_are_let_in_a_wrong_certificate_is_refused_all_the_same() {
    let (cluster, other) = (cluster(1), cluster(2));
    let (_, manager) = pair(&cluster);
    let foreign = Node::new(&other, 10, NodeRole::Worker, NOW);
    let call = Call { strangers: Strangers::LetIn, ..Call::new(&cluster, &foreign, &manager) };
    assert_eq!(call.shake().refused_by_server(), (PeerError::Foreign, AlertDescription::UnknownCA));
}

#[test]
fn a_joining_node_asks_managers_of_the_checked_root_only() {
    let (cluster, other) = (cluster(1), cluster(2));
    let (worker, manager) = pair(&cluster);
    let joining = |cluster: &Cluster| {
        let trust = Trust::in_roots(&cluster.root_ca.certificate).unwrap();
        joining_client(Arc::new(trust), clock(NOW)).unwrap()
    };
    let as_server =
        |node| Call { strangers: Strangers::LetIn, ..Call::new(&cluster, &worker, node) }.server();
    let outcome = shake(joining(&other), as_server(&manager));
    assert_eq!(outcome.refused_by_client(), (PeerError::Foreign, AlertDescription::UnknownCA));
    let outcome = shake(joining(&cluster), as_server(&worker));
    let wrong = PeerError::Role { found: NodeRole::Worker, wanted: NodeRole::Manager };
    assert_eq!(outcome.refused_by_client().0, wrong);
}

#[test]
fn a_certificate_without_its_key_is_of_no_use() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let stolen = Credentials { chain: &manager.chain, key: &worker.key };
    assert!(server(&stolen, trust(&cluster), Strangers::Refused, clock(NOW)).is_err());
    assert!(client(&stolen, trust(&cluster), MANAGER, clock(NOW)).is_err());
}

#[test]
fn only_tls_1_3_is_spoken() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let call = Call::new(&cluster, &worker, &manager);
    let mut client = ClientConnection::new(Arc::new(call.client()), server_name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    // The extension supported_versions (RFC 8446, 4.2.1) with one version, 0x0304; without it a hello is of TLS 1.2.
    let only_13 = [0, 43, 0, 3, 2, 3, 4];
    let place = hello.windows(7).position(|window| window == only_13).unwrap();
    hello[place + 6] = 3;
    let mut server = ServerConnection::new(Arc::new(call.server())).unwrap();
    server.read_tls(&mut hello.as_slice()).unwrap();
    assert!(matches!(server.process_new_packets(), Err(Error::PeerIncompatible(_))));
}

/// Two connections, one after the other, over the loopback with a word each way: how the second one began.
fn second_handshake(client: ClientConfig, server: ServerConfig) -> HandshakeKind {
    let (client, server) = (Arc::new(client), Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let (socket, _) = listener.accept().unwrap();
                let connection = ServerConnection::new(Arc::clone(&server)).unwrap();
                let mut stream = StreamOwned::new(connection, socket);
                let mut word = [0; 5];
                stream.read_exact(&mut word).unwrap();
                stream.write_all(&word).unwrap();
                let caller = Caller::of(stream.conn.peer_certificates()).unwrap();
                assert!(matches!(caller, Caller::Member(peer) if peer.node == NodeId::of(10)));
            }
        });
        let connect = || {
            let socket = TcpStream::connect(address).unwrap();
            let connection = ClientConnection::new(Arc::clone(&client), server_name()).unwrap();
            let mut stream = StreamOwned::new(connection, socket);
            stream.write_all(b"hello").unwrap();
            let mut word = [0; 5];
            stream.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"hello");
            stream.conn.handshake_kind().unwrap()
        };
        connect();
        connect()
    })
}

#[test]
fn a_session_is_resumed_by_neither_side() {
    let cluster = cluster(1);
    let (worker, manager) = pair(&cluster);
    let call = Call::new(&cluster, &worker, &manager);
    let eager_client = || {
        let mut config = call.client();
        config.resumption = Resumption::in_memory_sessions(8);
        config
    };
    let eager_server = || {
        let mut config = call.server();
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
        config.send_tls13_tickets = 2;
        config
    };
    assert_eq!(
        second_handshake(eager_client(), eager_server()),
        HandshakeKind::Resumed,
        "so it would be seen"
    );
    assert_eq!(second_handshake(call.client(), call.server()), HandshakeKind::Full);
    assert_eq!(second_handshake(eager_client(), call.server()), HandshakeKind::Full);
    assert_eq!(second_handshake(call.client(), eager_server()), HandshakeKind::Full);
}
