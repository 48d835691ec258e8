//! By whose credentials registries have given what is here. Other nodes are given it for tasks with the same ones only, or for any
//! where a registry gave it to nobody in particular; what came otherwise (`docker load`, builds) is given to none. Kept where the node
//! gives layers at all, in the store too; of credentials only a salted sum is, and never of secrets that a registry has refused.
//!
//! A mark says that a registry, or a node that had asked the leader, has given a blob to somebody: that stays true when the blob goes
//! and comes again.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ketch_node::mark::{Mark, Marks};

use super::Images;
use super::digest::Digest;
use super::registry::auth::Credentials;
use crate::error::Result;
use crate::locks::locked;
use crate::random;
use crate::store::{Store, Table};

const MARKS: Table = Table("registry_marks");
const SALTS: Table = Table("registry_salts");
/// The one that there is.
const SALT: &str = "own";

/// None where they are not kept.
#[derive(Debug, Default)]
pub(super) struct Marked(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    salt: u128,
    of: BTreeMap<Digest, Vec<Mark>>,
}

impl Kept {
    fn open(store: &Store, is_here: impl Fn(Digest) -> bool) -> Result<Self> {
        let salt = store.all::<u128>(SALTS)?.into_iter().find(|(key, _)| key == SALT);
        let salt = match salt {
            Some((_, salt)) => salt,
            None => {
                let mut bytes = [0; 16];
                random::fill(&mut bytes)?;
                let salt = u128::from_le_bytes(bytes);
                store.put(SALTS, SALT, &salt)?;
                salt
            }
        };
        let mut of = BTreeMap::new();
        for (key, marks) in store.all::<Vec<Mark>>(MARKS)? {
            match key.parse::<Digest>().ok().filter(|blob| is_here(*blob)) {
                Some(blob) => drop(of.insert(blob, marks)),
                None => store.remove(MARKS, &key)?,
            }
        }
        Ok(Self { salt, of })
    }
}

impl Images {
    /// From now on it is remembered by whose credentials something came, and what is remembered of before counts.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_marks(&self) -> Result<()> {
        let kept = Kept::open(self.store(), |blob| self.blob(blob).is_some())?;
        *locked(&self.0.marked.0) = Some(kept);
        Ok(())
    }

    /// Those of a client, where they are kept; none of credentials that came by no header.
    pub(super) fn mark_of(&self, credentials: &Credentials) -> Option<Mark> {
        let salt = locked(&self.0.marked.0).as_ref()?.salt;
        match credentials.is_someone() {
            true => credentials.header.as_deref().map(|header| Mark::of(salt, Some(header))),
            false => Some(Mark::of(salt, None)),
        }
    }

    /// Something was given by these credentials: said before it is here, so that nobody finds it without.
    pub(super) fn mark(&self, blob: Digest, by: Option<Mark>) -> Result<()> {
        let mut marked = locked(&self.0.marked.0);
        let (Some(kept), Some(by)) = (marked.as_mut(), by) else { return Ok(()) };
        let marks = kept.of.entry(blob).or_default();
        if marks.contains(&by) {
            return Ok(());
        }
        if marks.len() >= Marks::MOST {
            let _oldest = marks.remove(0);
        }
        marks.push(by);
        // Without the record the blob is not given after a restart: no reason to wait for the disk.
        self.store().put_with_next(MARKS, &blob.to_string(), marks)
    }

    /// They are gone.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn unmark(&self, blobs: &[Digest]) -> Result<()> {
        let marked: Vec<Digest> = {
            let mut marked = locked(&self.0.marked.0);
            let Some(kept) = marked.as_mut() else { return Ok(()) };
            blobs.iter().filter(|blob| kept.of.remove(*blob).is_some()).copied().collect()
        };
        // Nobody waits for the disk with the lock.
        marked.iter().try_for_each(|blob| self.store().remove(MARKS, &blob.to_string()))
    }

    /// Of a blob that is here.
    pub(super) fn marks_on(&self, blob: Digest) -> Vec<Mark> {
        let marked = locked(&self.0.marked.0);
        marked.as_ref().and_then(|kept| kept.of.get(&blob).cloned()).unwrap_or_default()
    }

    /// With this node's salt.
    pub(super) fn salted(&self, mut by: Vec<Mark>) -> Marks {
        by.truncate(Marks::MOST);
        match locked(&self.0.marked.0).as_ref() {
            Some(kept) => Marks { salt: kept.salt, by },
            None => Marks::default(),
        }
    }
}
