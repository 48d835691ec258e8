//! Nodes that are not asked for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Shunned(BTreeMap<String, Instant>);

impl Shunned {
    /// From now on for so long, or longer where it is so already.
    pub(super) fn add(&mut self, node: String, during: Duration) {
        let now = Instant::now();
        let until = self.0.entry(node).or_insert(now);
        *until = (*until).max(now + during);
    }

    /// Those that are not asked now.
    pub(super) fn present(&mut self) -> Vec<String> {
        let now = Instant::now();
        self.0.retain(|_, until| now < *until);
        self.0.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_for_its_time() {
        let mut shunned = Shunned::default();
        shunned.add("liar".to_owned(), Duration::from_secs(600));
        shunned.add("lost".to_owned(), Duration::from_secs(60));
        shunned.add("liar".to_owned(), Duration::from_secs(60));
        assert_eq!(shunned.present(), ["liar", "lost"]);
        advance(Duration::from_secs(60)).await;
        assert_eq!(shunned.present(), ["liar"], "who lied is not forgiven because he is lost");
        advance(Duration::from_secs(540)).await;
        assert_eq!(shunned.present(), Vec::<String>::new());
    }
}
