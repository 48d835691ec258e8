//! What is known of those who gave bytes that came to nothing, and whom to ask next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ketch_cluster::fault::Fault;

use super::{Failure, Gather, Nodes, Served, Step, Way};

/// Tries with single nodes, before the registry is asked.
const SINGLE: usize = 4;

/// What came to nothing.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    tries: usize,
    /// Each has given wrong bytes alone, or did not go on.
    pub(super) avoid: BTreeSet<String>,
    /// One of them did.
    suspects: BTreeSet<String>,
    /// What was given in tries of which it is known that something was wrong, and not only that they ended.
    pub(super) failed: Vec<Served>,
    /// Those that lied by what they gave alone, which has been told.
    pub(super) told: BTreeSet<String>,
}

impl Doubts {
    /// Whom to ask next. All at first; then who is not under suspicion before who is.
    pub(super) async fn next(&mut self, nodes: &Arc<dyn Nodes>) -> Way {
        self.tries += 1;
        if self.tries == 1 {
            return Way::All;
        }
        if self.tries > 1 + SINGLE {
            return Way::Registry;
        }
        let found = nodes.find(Step::Seeks, self.avoid.clone()).await;
        let sources = found.unwrap_or_default().sources;
        let is_trusted = |source: &&super::Source| !self.suspects.contains(&source.node);
        let chosen = sources.iter().find(is_trusted).or_else(|| sources.first());
        chosen.map_or(Way::Registry, |source| Way::One(source.clone()))
    }

    /// Who is proven to lie already: all of the bytes were his, and they are not the blob's. Of several it is known with the right bytes.
    pub(super) fn add(
        &mut self,
        gather: &Gather<'_>,
        served: Vec<Served>,
        failure: Failure,
    ) -> Option<String> {
        let nodes: BTreeSet<String> = served.iter().map(|served| served.node.clone()).collect();
        let is_alone = nodes.len() == 1 && !gather.asked_registry.load(Ordering::Relaxed)
            || Fault::HonestBlamed.is_made();
        let liar = nodes.first().filter(|_| is_alone && failure == Failure::AnotherBlob).cloned();
        if let Way::One(source) = &gather.way {
            let _new = self.avoid.insert(source.node.clone());
        } else if nodes.len() == 1 {
            self.avoid.extend(nodes);
        } else {
            self.suspects.extend(nodes);
        }
        if failure != Failure::Cut {
            self.failed.extend(served);
        }
        liar.filter(|liar| self.told.insert(liar.clone()))
    }
}
