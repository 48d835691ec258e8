//! Blobs that nodes look for: who has each, who fetches it from the registry, who gets it from whom. Pure: the time is an argument.
//!
//! Of all nodes that look for one blob at once, one is told to fetch it from the registry; it says every few seconds that it does,
//! or another one is told. The others get it from that node while it arrives there, and from each other: each from those only that
//! have asked before it, so that no two wait for each other. It is soft state of one term: the next leader's nodes say it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ketch_cluster::id::NodeId;
use tokio::time::Instant;

use crate::calls::{BlobName, LayerStep};

/// How long a node that fetches may say nothing.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// As many sources as one node is told at once.
pub(super) const SOURCES: usize = 8;
/// A blob that nobody has asked for in so long is forgotten: it has come everywhere, or nobody wants it.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Of one image: a config has at most 498 layers, and there are its manifests.
const MOST_OF_IMAGE: usize = 600;
/// Of all images.
const MOST: usize = 100_000;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) node: NodeId,
    pub(super) session: u128,
}

/// Who else has a right to the image, of those that share layers and can be reached, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Tasks of the image have been made there: all of it is there, or was.
    pub(super) complete: BTreeSet<NodeId>,
    /// All of them.
    pub(super) all: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    blobs: BTreeMap<BlobName, Sought>,
    /// With so many it is looked which are forgotten.
    swept_at: usize,
}

#[derive(Debug)]
struct Sought {
    fetcher: Option<Lease>,
    /// By the order in which they came.
    seekers: BTreeMap<NodeId, u64>,
    next: u64,
    holders: BTreeSet<NodeId>,
    touched: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    by: Asker,
    until: Instant,
}

/// What a node is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Registry,
    Nodes(Vec<NodeId>),
}

impl Table {
    /// Takes in what a node says of a blob, and tells what it is to do. `is_there` says whether a session is still on.
    pub(super) fn take(
        &mut self,
        name: &BlobName,
        (asker, step): (Asker, LayerStep),
        (peers, avoid): (&Peers, &BTreeSet<NodeId>),
        (now, is_there): (Instant, impl Fn(Asker) -> bool),
    ) -> Way {
        self.sweep(now);
        // What belongs to an image only its nodes know: somebody who names more than there can be is not kept in mind.
        if !self.blobs.contains_key(name) && self.is_full(name) {
            return Way::Registry;
        }
        let sought = self.blobs.entry(name.clone()).or_insert_with(|| Sought::new(now));
        sought.touched = now;
        sought.fetcher = sought.fetcher.filter(|lease| now < lease.until && is_there(lease.by));
        match step {
            LayerStep::Seeks => return sought.seek(asker, (peers, avoid), (name, now)),
            LayerStep::Fetches => {
                if sought.fetcher.is_none_or(|lease| lease.by.node == asker.node) {
                    sought.fetcher = Some(Lease { by: asker, until: now + LEASE });
                }
            }
            LayerStep::Has => {
                sought.end(asker.node);
                sought.holders.insert(asker.node);
            }
            LayerStep::GivesUp => sought.end(asker.node),
            LayerStep::Blames(node) => {
                sought.holders.remove(&node);
                sought.seekers.remove(&node);
            }
        }
        Way::Registry
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn is_full(&self, name: &BlobName) -> bool {
        let first = BlobName { image: name.image.clone(), blob: String::new() };
        let of_image = self.blobs.range(first..).take_while(|(it, _)| it.image == name.image);
        self.blobs.len() >= MOST || of_image.count() >= MOST_OF_IMAGE
    }

    fn sweep(&mut self, now: Instant) {
        if self.blobs.len() >= self.swept_at {
            self.blobs.retain(|_, sought| now.saturating_duration_since(sought.touched) < FORGOTTEN);
            self.swept_at = self.blobs.len().saturating_mul(2).max(64);
        }
    }
}

impl Sought {
    fn new(now: Instant) -> Self {
        Self { fetcher: None, seekers: BTreeMap::new(), next: 0, holders: BTreeSet::new(), touched: now }
    }

    fn end(&mut self, node: NodeId) {
        self.fetcher = self.fetcher.filter(|lease| lease.by.node != node);
        self.seekers.remove(&node);
    }

    fn seek(
        &mut self,
        asker: Asker,
        (peers, avoid): (&Peers, &BTreeSet<NodeId>),
        (name, now): (&BlobName, Instant),
    ) -> Way {
        let own = asker.node;
        // It had it, and looks for it: it does not have it any more.
        self.holders.remove(&own);
        let may = |node: &NodeId| *node != own && peers.all.contains(node) && !avoid.contains(node);
        // Who looks for it has lost what was complete there.
        let is_complete = |node: &NodeId| peers.complete.contains(node) && !self.seekers.contains_key(node);
        let has = |node: &&NodeId| self.holders.contains(node) || is_complete(node);
        let mut sources: Vec<NodeId> =
            peers.all.iter().filter(|node| may(node)).filter(has).copied().collect();
        // Each begins with another one: many that look at once do not all come to one.
        sources.sort_by_key(|node| share(own, *node, name));
        let fetcher = self.fetcher.map(|lease| lease.by.node).filter(may);
        if sources.is_empty() && fetcher.is_none() {
            self.seekers.remove(&own);
            self.fetcher = Some(Lease { by: asker, until: now + LEASE });
            return Way::Registry;
        }
        sources.truncate(SOURCES / 2);
        sources.extend(fetcher.filter(|node| !sources.contains(node)));
        let rank = *self.seekers.entry(own).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let before =
            self.seekers.iter().filter(|(node, at)| **at < rank && may(node) && !sources.contains(node));
        let mut before: Vec<NodeId> = before.map(|(node, _)| *node).collect();
        before.sort_by_key(|node| share(own, *node, name));
        before.truncate(SOURCES - sources.len());
        sources.extend(before);
        Way::Nodes(sources)
    }
}

/// A number that is another one for each pair of nodes and blob (FNV-1a).
fn share(own: NodeId, other: NodeId, name: &BlobName) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let text = format!("{own}{other}{}", name.blob);
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> BlobName {
        BlobName { image: "sha256:m".to_owned(), blob: "sha256:b".to_owned() }
    }

    fn asker(node: u128) -> Asker {
        Asker { node: NodeId::of(node), session: node }
    }

    fn peers(all: impl IntoIterator<Item = u128>) -> Peers {
        Peers { complete: BTreeSet::new(), all: all.into_iter().map(NodeId::of).collect() }
    }

    struct Case {
        table: Table,
        now: Instant,
        gone: BTreeSet<NodeId>,
        peers: Peers,
    }

    impl Case {
        fn new(nodes: u128) -> Self {
            Self {
                table: Table::default(),
                now: Instant::now(),
                gone: BTreeSet::new(),
                peers: peers(1..=nodes),
            }
        }

        fn take(&mut self, node: u128, step: LayerStep, avoid: &[u128]) -> Way {
            let avoid = avoid.iter().copied().map(NodeId::of).collect();
            let gone = &self.gone;
            let there = |it: Asker| !gone.contains(&it.node);
            self.table.take(&name(), (asker(node), step), (&self.peers, &avoid), (self.now, there))
        }

        fn seek(&mut self, node: u128) -> Way {
            self.take(node, LayerStep::Seeks, &[])
        }
    }

    fn nodes(numbers: impl IntoIterator<Item = u128>) -> Way {
        Way::Nodes(numbers.into_iter().map(NodeId::of).collect())
    }

    #[tokio::test]
    async fn one_fetches_for_all_and_the_next_one_when_it_is_gone() {
        let mut case = Case::new(4);
        assert_eq!(case.seek(1), Way::Registry);
        assert_eq!(case.seek(2), nodes([1]));
        // The third from both that were there before, the second never from the third.
        let Way::Nodes(third) = case.seek(3) else { panic!("a second one fetches") };
        assert_eq!(third, [1, 2].map(NodeId::of));
        assert_eq!(case.seek(2), nodes([1]));
        case.now += LEASE / 2;
        let _ = case.take(1, LayerStep::Fetches, &[]);
        case.now += LEASE / 2 + Duration::from_secs(1);
        assert_eq!(case.seek(2), nodes([1]), "it has said that it goes on");
        case.now += LEASE;
        assert_eq!(case.seek(2), Way::Registry, "it says nothing any more");
        case.gone.insert(NodeId::of(2));
        assert_eq!(case.seek(4), Way::Registry, "its session is over");
    }

    #[tokio::test]
    async fn who_has_it_gives_it_and_who_lies_is_not_named_again() {
        let mut case = Case::new(3);
        case.peers.complete.insert(NodeId::of(3));
        assert_eq!(case.seek(1), nodes([3]));
        assert_eq!(case.take(1, LayerStep::Seeks, &[3]), Way::Registry, "there is nobody else");
        let _ = case.take(1, LayerStep::Has, &[]);
        assert_eq!(case.take(2, LayerStep::Seeks, &[3]), nodes([1]));
        let _ = case.take(2, LayerStep::Blames(NodeId::of(1)), &[]);
        assert_eq!(case.take(2, LayerStep::Seeks, &[3]), Way::Registry);
        let _ = case.take(2, LayerStep::GivesUp, &[]);
        assert_eq!(case.take(1, LayerStep::Seeks, &[3]), Way::Registry);
    }

    #[tokio::test]
    async fn nodes_that_have_lost_it_do_not_wait_for_each_other() {
        let mut case = Case::new(3);
        for node in 1..=3 {
            case.peers.complete.insert(NodeId::of(node));
        }
        let Way::Nodes(first) = case.seek(1) else { panic!("two others have it, as far as is known") };
        assert_eq!(first.len(), 2);
        assert_eq!(case.seek(2), nodes([3, 1]));
        assert_eq!(case.seek(3), Way::Registry, "the others look for it as well");
        assert_eq!((case.seek(1), case.seek(2)), (nodes([3]), nodes([3, 1])));
    }

    #[tokio::test]
    async fn what_nobody_asks_for_is_forgotten() {
        let mut case = Case::new(2);
        let _ = case.seek(1);
        let _ = case.take(1, LayerStep::Has, &[]);
        case.now += FORGOTTEN;
        case.table.swept_at = 0;
        assert_eq!(case.seek(2), Way::Registry);
    }

    #[tokio::test]
    async fn more_blobs_than_an_image_has_are_not_kept() {
        let mut case = Case::new(2);
        let mut say = |image: &str, number: usize, node, step| {
            let name = BlobName { image: image.to_owned(), blob: format!("sha256:{number}") };
            case.table.take(
                &name,
                (asker(node), step),
                (&case.peers, &BTreeSet::new()),
                (case.now, |_: Asker| true),
            )
        };
        for number in 0..2 * MOST_OF_IMAGE {
            let _ = say("a", number, 1, LayerStep::Has);
        }
        assert_eq!(say("a", 0, 2, LayerStep::Seeks), nodes([1]), "what is known is known");
        assert_eq!(say("a", MOST_OF_IMAGE, 2, LayerStep::Seeks), Way::Registry);
        let _ = say("b", 0, 1, LayerStep::Has);
        assert_eq!(say("b", 0, 2, LayerStep::Seeks), nodes([1]), "another image has its own");
        assert_eq!(case.table.blobs.len(), MOST_OF_IMAGE + 1);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Seek(u128, Vec<u128>),
        Step(u128, LayerStep),
        Pass(u64),
        Die(u128),
    }

    fn event() -> impl Strategy<Value = Event> {
        let step = prop_oneof![
            Just(LayerStep::Fetches),
            Just(LayerStep::Has),
            Just(LayerStep::GivesUp),
            (1..7_u128).prop_map(|node| LayerStep::Blames(NodeId::of(node))),
        ];
        prop_oneof![
            4 => (1..7_u128, prop::collection::vec(1..7_u128, 0..3)).prop_map(|(node, avoid)| Event::Seek(node, avoid)),
            2 => (1..7_u128, step).prop_map(|(node, step)| Event::Step(node, step)),
            1 => (0..15_u64).prop_map(Event::Pass),
            1 => (1..7_u128).prop_map(Event::Die),
        ]
    }

    proptest! {
        /// Nobody is left without a way; nobody is sent to himself, to whom he avoids, to who is no peer; nobody who avoids nobody is
        /// sent to the registry while another one, who is there, fetches.
        #[test]
        fn everybody_has_a_way(events in prop::collection::vec(event(), 1..60)) {
            let mut case = Case::new(5);
            for event in events {
                match event {
                    Event::Seek(node, avoid) => {
                        let fetcher = case.table.blobs.get(&name()).and_then(|it| it.fetcher);
                        let gone = case.gone.clone();
                        let now = case.now;
                        let fetches = fetcher.filter(|it| now < it.until && !gone.contains(&it.by.node)).map(|it| it.by.node);
                        case.gone.remove(&NodeId::of(node));
                        match case.take(node, LayerStep::Seeks, &avoid) {
                            Way::Nodes(sources) => {
                                prop_assert!(!sources.is_empty() && sources.len() <= SOURCES);
                                for source in &sources {
                                    prop_assert!(*source != NodeId::of(node) && case.peers.all.contains(source));
                                    prop_assert!(!avoid.iter().any(|it| NodeId::of(*it) == *source));
                                }
                                let all: BTreeSet<_> = sources.iter().collect();
                                prop_assert_eq!(all.len(), sources.len());
                            }
                            Way::Registry if avoid.is_empty() => {
                                let another = fetches.filter(|it| *it != NodeId::of(node) && case.peers.all.contains(it));
                                prop_assert_eq!(another, None);
                            }
                            Way::Registry => {}
                        }
                    }
                    Event::Step(node, step) => drop(case.take(node, step, &[])),
                    Event::Pass(seconds) => case.now += Duration::from_secs(seconds),
                    Event::Die(node) => drop(case.gone.insert(NodeId::of(node))),
                }
            }
        }
    }
}
