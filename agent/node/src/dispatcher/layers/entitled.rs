//! Who was found to have a right to an image, for a moment: a service that comes to many nodes at once has all of them ask for the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::NodeId;
use tokio::time::Instant;

use super::Credentials;

/// How long what was found is told again.
const FRESH: Duration = Duration::from_secs(1);
/// As many are kept.
const MOST: usize = 256;

/// An image, and the credentials of those who ask.
type About = (String, BTreeSet<Credentials>);
/// And whether a container of it was made there.
type Nodes = Arc<BTreeMap<NodeId, bool>>;

#[derive(Debug, Default)]
pub(super) struct Entitled(BTreeMap<About, (Nodes, Instant)>);

impl Entitled {
    pub(super) fn of(&self, about: &About, now: Instant) -> Option<Nodes> {
        let (nodes, until) = self.0.get(about)?;
        (now < *until).then(|| Arc::clone(nodes))
    }

    pub(super) fn learn(&mut self, about: About, nodes: Nodes, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < MOST {
            self.0.insert(about, (nodes, now + FRESH));
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(image: usize, auth: Option<&str>) -> About {
        (image.to_string(), BTreeSet::from([auth.map(str::to_owned)]))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_told_for_a_second_to_who_has_the_same_credentials() {
        let (mut entitled, now) = (Entitled::default(), Instant::now());
        let nodes: Nodes = Arc::new(BTreeMap::from([(NodeId::of(1), true)]));
        entitled.learn(about(1, None), Arc::clone(&nodes), now);
        assert_eq!(entitled.of(&about(1, None), now), Some(nodes));
        assert_eq!(entitled.of(&about(1, Some("user")), now), None);
        assert_eq!(entitled.of(&about(2, None), now), None);
        assert_eq!(entitled.of(&about(1, None), now + FRESH), None);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_images_as_somebody_asks_for_are_not_kept() {
        let (mut entitled, now) = (Entitled::default(), Instant::now());
        for image in 0..2 * MOST {
            entitled.learn(about(image, None), Arc::default(), now);
        }
        assert_eq!(entitled.0.len(), MOST);
        entitled.learn(about(2 * MOST, None), Arc::default(), now + FRESH);
        assert_eq!(entitled.0.len(), 1);
    }
}
