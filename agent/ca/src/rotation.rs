//! The move of a cluster to a new root (`swarm ca --rotate`), as decisions over the store.
//!
//! [`begin`] puts the new root beside the old one; from then on the authority signs with the new one, and what it signs
//! leads to the old one through the cross-signed certificate. [`step`] says which nodes to ask for a renewal next, and
//! ends the rotation once every node has a certificate of the new root and trusts it. The leader calls it when a node or
//! the cluster has changed, and at the moment that it names; it holds no memory.

use std::time::Duration;

use ketch_cluster::id::{NewBits, NodeId};
use ketch_cluster::objects::cluster::{JoinTokens, RootRotation};
use ketch_cluster::objects::node::{CaKeyId, NodeState};
use ketch_cluster::objects::{Cluster, Node};
use ketch_cluster::time::Timestamp;
use ketch_cluster::token::JoinToken;

use crate::authority::AuthorityError;
use crate::given::{self, GivenRoot, GivenRootError};
use crate::root::{self, Root};

/// How many nodes are asked at a time: SwarmKit's number. Each renewal is work for the leader alone.
pub const BATCH: usize = 30;
/// After this long others are asked, although those that were asked have not renewed: a node that can't renew holds up the
/// end, but not the others.
pub const TURN: Duration = Duration::from_secs(10);

/// What a rotation needs next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// There is no rotation.
    None,
    /// Ask these nodes, at most [`BATCH`], to renew their certificates; every node is told the cluster's roots
    /// ([`root::trusted`]) as soon as they change. None of them can be reached when the list is empty.
    Ask { nodes: Vec<NodeId>, progress: Progress, again_at: Timestamp },
    /// All nodes have moved: the cluster as it is to be written, with the new root alone and with new join tokens, since
    /// those name the root.
    Finish(Box<Cluster>),
}

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub moved: usize,
    pub nodes: usize,
}

/// The cluster as it is to be written for a rotation to a new root. One that is under way is replaced: the old root signs
/// for the newest one, and what the root in between has signed still leads to the old one.
///
/// # Errors
/// The present root can't sign, or the system has no randomness.
pub fn begin(cluster: &Cluster, now: Timestamp) -> Result<Cluster, AuthorityError> {
    begin_to(cluster, Root::create(now)?, now)
}

/// The same for a root of the user's. The present one again ends a rotation that is under way; the one that is moved to already
/// changes nothing. What the root that is given up has signed, and will by whoever has its key, leads to the present one until that
/// is left too: where the key is in wrong hands the cluster has to be moved to a third root.
///
/// # Errors
/// It can't take the present one's place.
pub fn begin_with(cluster: &Cluster, given: GivenRoot, now: Timestamp) -> Result<Cluster, GivenRootError> {
    let GivenRoot(new) = given;
    let present = &cluster.root_ca;
    if root::is_same(&new.certificate, &present.certificate)? {
        let mut ended = cluster.clone();
        ended.meta.updated_at = now;
        ended.root_ca.rotation = None;
        return Ok(ended);
    }
    if root::describe(&new.certificate)?.public_key == root::describe(&present.certificate)?.public_key {
        return Err(GivenRootError::SameKey);
    }
    if let Some(rotation) = &present.rotation
        && root::is_same(&new.certificate, &rotation.certificate)?
    {
        return Ok(cluster.clone());
    }
    let begun = begin_to(cluster, new, now)?;
    given::holds(&begun, now)?;
    Ok(begun)
}

fn begin_to(cluster: &Cluster, new: Root, now: Timestamp) -> Result<Cluster, AuthorityError> {
    let old = Root { certificate: cluster.root_ca.certificate.clone(), key: cluster.root_ca.key.clone() };
    let cross_signed = new.cross_signed_by(&old, now)?;
    let mut begun = cluster.clone();
    begun.meta.updated_at = now;
    begun.root_ca.rotation = Some(RootRotation { certificate: new.certificate, key: new.key, cross_signed });
    Ok(begun)
}

/// What the rotation of `cluster` needs next; `nodes` are all of the cluster's.
///
/// # Errors
/// The next root can't be read.
pub fn step<'a>(
    cluster: &Cluster,
    nodes: impl Iterator<Item = &'a Node>,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<Step, AuthorityError> {
    let Some(rotation) = &cluster.root_ca.rotation else { return Ok(Step::None) };
    let next = root::describe(&rotation.certificate)?.id;
    let (moved, behind): (Vec<&Node>, Vec<&Node>) = nodes.partition(|node| has_moved(node, next));
    if behind.is_empty() {
        return Ok(Step::Finish(Box::new(finished(cluster, rotation, now, bits))));
    }
    let progress = Progress { moved: moved.len(), nodes: moved.len() + behind.len() };
    let turn = now.since(Timestamp::default()).as_nanos() / TURN.as_nanos();
    let reachable: Vec<NodeId> =
        behind.iter().filter(|node| node.status.state == NodeState::Ready).map(|node| node.id).collect();
    Ok(Step::Ask { nodes: batch(&reachable, turn), progress, again_at: next_turn(now) })
}

/// Whether a node is ready for the old root's end: others believe it, and it believes them.
fn has_moved(node: &Node, next: CaKeyId) -> bool {
    let tls = node.description.as_ref().and_then(|description| description.tls.as_ref());
    tls.is_some_and(|tls| tls.issuer == next && tls.roots.contains(&next))
}

/// Those whose turn it is: from another place in the list each time, and around its end.
fn batch(nodes: &[NodeId], turn: u128) -> Vec<NodeId> {
    let count = u128::try_from(nodes.len()).unwrap_or(u128::MAX).max(1);
    let step = u128::try_from(BATCH).unwrap_or(u128::MAX);
    let first = usize::try_from(turn % count * step % count).unwrap_or(0);
    nodes.iter().cycle().skip(first).take(BATCH.min(nodes.len())).copied().collect()
}

fn next_turn(now: Timestamp) -> Timestamp {
    let into = now.since(Timestamp::default()).as_nanos() % TURN.as_nanos();
    now.after(TURN.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0))))
}

fn finished(cluster: &Cluster, rotation: &RootRotation, now: Timestamp, bits: NewBits<'_>) -> Cluster {
    let mut finished = cluster.clone();
    finished.meta.updated_at = now;
    let root_ca = &mut finished.root_ca;
    root_ca.join_tokens = new_tokens(&rotation.certificate, bits);
    root_ca.certificate.clone_from(&rotation.certificate);
    root_ca.key = rotation.key.clone();
    root_ca.rotation = None;
    finished
}

/// Both join tokens, with new secrets, of this root.
pub fn new_tokens(certificate: &str, bits: NewBits<'_>) -> JoinTokens {
    let root_digest = root::digest(certificate);
    let mut token = || JoinToken { root_digest, secret: bits() }.to_string();
    JoinTokens { worker: token(), manager: token() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::sync::LazyLock;

    use ketch_cluster::objects::node::{NodeDescription, NodeRole, NodeStatus, NodeTls};
    use ketch_cluster::objects::{Meta, NodeSpec};
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{self, NOW, cluster, openssl};
    use crate::identity::Identity;
    use crate::pem;
    use crate::trust::{PeerError, Side, Trust};

    static BEGUN: LazyLock<Cluster> = LazyLock::new(|| begin(&cluster(1), NOW).unwrap());

    fn id_of(certificate: &str) -> CaKeyId {
        root::describe(certificate).unwrap().id
    }

    static IDS: LazyLock<[CaKeyId; 2]> = LazyLock::new(|| {
        let rotation = BEGUN.root_ca.rotation.as_ref().unwrap();
        [&BEGUN.root_ca.certificate, &rotation.certificate].map(|certificate| id_of(certificate))
    });

    fn old() -> CaKeyId {
        IDS[0]
    }

    fn next() -> CaKeyId {
        IDS[1]
    }

    fn node(id: u128, state: NodeState, tls: Option<NodeTls>) -> Node {
        Node {
            id: NodeId::of(id),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: Some(NodeDescription { tls, ..NodeDescription::default() }),
            status: NodeStatus { state, ..NodeStatus::default() },
            role: NodeRole::Worker,
            manager: None,
            attachments: Vec::new(),
        }
    }

    fn behind(id: u128) -> Node {
        let roots = BTreeSet::from([old(), next()]);
        node(id, NodeState::Ready, Some(NodeTls { issuer: old(), roots }))
    }

    fn moved(id: u128) -> Node {
        node(id, NodeState::Ready, Some(NodeTls { issuer: next(), roots: BTreeSet::from([next()]) }))
    }

    fn step_of(nodes: &[Node], now: Timestamp) -> Step {
        step(&BEGUN, nodes.iter(), now, &mut || 77).unwrap()
    }

    fn asked(step: &Step) -> &[NodeId] {
        match step {
            Step::Ask { nodes, .. } => nodes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_rotation_there_is_nothing_to_do() {
        assert_eq!(step(&cluster(1), std::iter::empty(), NOW, &mut || 1).unwrap(), Step::None);
    }

    #[test]
    fn a_node_has_moved_when_it_has_the_new_issuer_and_trusts_it() {
        let not_trusting = NodeTls { issuer: next(), roots: BTreeSet::from([old()]) };
        let nodes = [
            moved(1),
            behind(2),
            node(3, NodeState::Ready, Some(not_trusting)),
            node(4, NodeState::Ready, None),
            node(5, NodeState::Down, None),
        ];
        let step = step_of(&nodes, NOW);
        let asked: BTreeSet<_> = asked(&step).iter().copied().collect();
        assert_eq!(asked, [2, 3, 4].map(NodeId::of).into(), "a node that is down is waited for, not asked");
        let Step::Ask { progress, again_at, .. } = step else { panic!() };
        assert_eq!(progress, Progress { moved: 1, nodes: 5 });
        assert_eq!(again_at, NOW.after(TURN));
    }

    #[test]
    fn the_end_is_the_new_root_alone_with_new_tokens() {
        let Step::Finish(cluster) = step_of(&[moved(1), moved(2)], NOW) else { panic!("not finished") };
        let rotation = BEGUN.root_ca.rotation.as_ref().unwrap();
        assert_eq!(cluster.root_ca.certificate, rotation.certificate);
        assert_eq!((&cluster.root_ca.key, &cluster.root_ca.rotation), (&rotation.key, &None));
        let token: JoinToken = cluster.root_ca.join_tokens.worker.parse().unwrap();
        let root_digest = root::digest(&rotation.certificate);
        assert_eq!(token, JoinToken { root_digest, secret: 77 });
        assert_eq!(cluster.meta.version, BEGUN.meta.version);
    }

    #[test]
    fn certificates_are_believed_before_in_and_after_a_rotation() {
        let before = cluster(1);
        let during = begin(&before, NOW).unwrap();
        let Step::Finish(after) = step(&during, std::iter::empty(), NOW, &mut || 1).unwrap() else {
            panic!()
        };
        let issue = |cluster: &Cluster| fixture::Node::new(cluster, 1, NodeRole::Worker, NOW).chain;
        let (first, second, third) = (issue(&before), issue(&during), issue(&after));
        assert_eq!((first.len(), second.len(), third.len()), (1, 2, 1));
        let issuer = Identity::read(&second[0]).unwrap().issuer;
        assert_eq!(issuer, id_of(&after.root_ca.certificate));
        assert_eq!(Identity::read(&third[0]).unwrap().issuer, issuer);
        for side in [Side::Client, Side::Server] {
            let check = |by: &Cluster, chain: &[_]| Trust::of(by).unwrap().check(chain, side, NOW).map(drop);
            assert_eq!(check(&before, &second), Ok(()), "who has not heard of the new root");
            for chain in [&first, &second, &third] {
                assert_eq!(check(&during, chain), Ok(()));
            }
            assert_eq!(check(&after, &second), Ok(()));
            assert_eq!(check(&after, &third), Ok(()));
            assert_eq!(check(&after, &first), Err(PeerError::Foreign));
            assert_eq!(
                check(&before, &third),
                Err(PeerError::Foreign),
                "hence the wait for every node's trust"
            );
            assert_eq!(check(&before, &second[..1]), Err(PeerError::Foreign), "without the cross-signed one");
        }
    }

    #[test]
    fn a_rotation_can_be_replaced_by_another() {
        let before = cluster(1);
        let first = begin(&before, NOW).unwrap();
        let second = begin(&first, NOW).unwrap();
        let between = fixture::Node::new(&first, 1, NodeRole::Worker, NOW).chain;
        let newest = fixture::Node::new(&second, 2, NodeRole::Worker, NOW).chain;
        for trust in [&before, &second] {
            for chain in [&between, &newest] {
                Trust::of(trust).unwrap().check(chain, Side::Client, NOW).unwrap();
            }
        }
        let Step::Finish(after) = step(&second, std::iter::empty(), NOW, &mut || 1).unwrap() else {
            panic!()
        };
        let refused = Trust::of(&after).unwrap().check(&between, Side::Client, NOW);
        assert_eq!(refused, Err(PeerError::Foreign));
    }

    /// Whoever has the key of a root that was given up may still make chains to the one that stayed: until that one goes.
    #[test]
    fn a_root_that_was_given_up_is_believed_until_the_next_one_has_come() {
        let before = cluster(1);
        let begun = begin(&before, NOW).unwrap();
        let present =
            Root { certificate: before.root_ca.certificate.clone(), key: before.root_ca.key.clone() };
        let ended = begin_with(&begun, GivenRoot(present), NOW).unwrap();
        assert_eq!(
            (&ended.root_ca.certificate, &ended.root_ca.rotation),
            (&before.root_ca.certificate, &None)
        );
        let forged = fixture::Node::new(&begun, 66, NodeRole::Manager, NOW).chain;
        let check = |by: &Cluster| Trust::of(by).unwrap().check(&forged, Side::Client, NOW).map(drop);
        assert_eq!(check(&ended), Ok(()), "as SwarmKit does");
        let third = begin(&ended, NOW).unwrap();
        assert_eq!(check(&third), Ok(()), "nodes come from the old root still");
        let Step::Finish(after) = step(&third, std::iter::empty(), NOW, &mut || 1).unwrap() else { panic!() };
        assert_eq!(check(&after), Err(PeerError::Foreign));
    }

    #[test]
    fn openssl_follows_the_cross_signed_chain() {
        let chain = fixture::Node::new(&BEGUN, 1, NodeRole::Manager, NOW).pem;
        let Some(folder) = openssl("rotation") else { return };
        let file = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        };
        let rotation = BEGUN.root_ca.rotation.as_ref().unwrap();
        let (old, new) = (file("old", &BEGUN.root_ca.certificate), file("new", &rotation.certificate));
        let (leaf, crossed) = (file("leaf", &chain), file("crossed", &rotation.cross_signed));
        let at = NOW.since(Timestamp::default()).as_secs().to_string();
        let verifies = |root, more: &[&std::ffi::OsStr]| {
            let mut openssl = Command::new("openssl");
            openssl
                .args(["verify", "-x509_strict", "-attime", &at, "-CAfile"])
                .arg(root)
                .args(more)
                .arg(&leaf);
            openssl.output().unwrap().status.success()
        };
        assert!(verifies(&old, &["-untrusted".as_ref(), crossed.as_os_str()]));
        assert!(verifies(&new, &[]));
        assert!(!verifies(&old, &[]));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_cross_signed_certificate_can_be_no_more_than_one_step() {
        let crossed =
            pem::certificates(&BEGUN.root_ca.rotation.as_ref().unwrap().cross_signed).unwrap().remove(0);
        let (_, parsed) = x509_parser::parse_x509_certificate(&crossed).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap().value;
        assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Nodes renew as they are asked, some never do: all others have moved in the end, and no step asks too many.
        #[test]
        fn nodes_that_cant_renew_hold_up_the_end_and_nobody_else(
            count in 1..150_u128,
            stuck in prop::collection::btree_set(0..150_u128, 0..100),
        ) {
            let mut nodes: Vec<Node> = (0..count).map(behind).collect();
            let mut now = NOW;
            for _ in 0..30 {
                let step = step_of(&nodes, now);
                if let Step::Finish(_) = step {
                    break;
                }
                prop_assert!(asked(&step).len() <= BATCH);
                for id in asked(&step).iter().copied() {
                    let place = nodes.iter().position(|node| node.id == id).unwrap();
                    let number = u128::try_from(place).unwrap();
                    if !stuck.contains(&number) {
                        nodes[place] = moved(number);
                    }
                }
                let Step::Ask { again_at, .. } = step else { unreachable!() };
                now = again_at;
            }
            let left: Vec<_> = (0..count).filter(|id| nodes[usize::try_from(*id).unwrap()] == behind(*id)).collect();
            let expected: Vec<_> = (0..count).filter(|id| stuck.contains(id)).collect();
            prop_assert_eq!(&left, &expected);
            prop_assert_eq!(matches!(step_of(&nodes, now), Step::Finish(_)), expected.is_empty());
        }

        #[test]
        fn a_batch_has_nobody_twice(count in 0..200_u128, turn: u128) {
            let nodes: Vec<_> = (0..count).map(NodeId::of).collect();
            let batch = batch(&nodes, turn);
            prop_assert_eq!(batch.len(), BATCH.min(nodes.len()));
            prop_assert_eq!(batch.iter().collect::<BTreeSet<_>>().len(), batch.len());
        }
    }
}
