//! By whose credentials a registry has given something, so that two nodes' credentials can be compared by a third who has them.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A salted sum of credentials, or of none. It is no secret, and where a password is one of a few it can be found out by it: it is
/// told to managers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(u128);

/// Those of one node on something that it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Marks {
    /// The node's own.
    pub salt: u128,
    /// By any of these it came, or comes.
    pub by: Vec<Mark>,
}

impl Mark {
    /// Of what `X-Registry-Auth` says; without it of nobody, to whom a registry gives what it gives to everybody.
    #[must_use]
    pub fn of(salt: u128, auth: Option<&str>) -> Self {
        let mut sum = Sha256::new();
        sum.update(salt.to_be_bytes());
        sum.update([u8::from(auth.is_some())]);
        sum.update(auth.unwrap_or_default().trim());
        let sum: [u8; 32] = sum.finalize().into();
        Self(sum.iter().take(16).fold(0, |mark, byte| mark << 8 | u128::from(*byte)))
    }
}

impl Marks {
    /// Of one thing.
    pub const MOST: usize = 16;

    /// The one by which somebody with these credentials may have it: nobody's, where a registry gave it without any, or his own.
    #[must_use]
    pub fn for_credentials(&self, auth: Option<&str>) -> Option<Mark> {
        let marks = [Mark::of(self.salt, None), Mark::of(self.salt, auth)];
        marks.into_iter().find(|mark| self.by.contains(mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_and_each_credentials_have_their_own() {
        let all = [Mark::of(1, None), Mark::of(1, Some("")), Mark::of(1, Some("a")), Mark::of(2, Some("a"))];
        for (at, mark) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(mark), "{all:?}");
        }
        assert_eq!(Mark::of(1, Some("a")), Mark::of(1, Some(" a\n")), "a header's ends are no part of it");
        let written = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<[Mark; 4]>(&written).unwrap(), all);
    }

    #[test]
    fn what_everybody_may_have_is_for_all_and_the_rest_for_its_own() {
        let marks =
            |by: &[Option<&str>]| Marks { salt: 7, by: by.iter().map(|it| Mark::of(7, *it)).collect() };
        let public = marks(&[None]);
        for auth in [None, Some("user")] {
            assert_eq!(public.for_credentials(auth), Some(Mark::of(7, None)));
        }
        let private = marks(&[Some("user"), Some("other")]);
        assert_eq!(private.for_credentials(Some("other")), Some(Mark::of(7, Some("other"))));
        for auth in [None, Some("third")] {
            assert_eq!(private.for_credentials(auth), None);
        }
        assert_eq!(marks(&[]).for_credentials(None), None);
    }
}
