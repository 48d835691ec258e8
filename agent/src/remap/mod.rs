//! Whose ids containers' users are on the host (`--userns-remap`). What a root, a volume or a layer has on the disk belongs to
//! the ids of the host, as dockerd's does; archives, and what clients say, have the container's: [`Ids`] is what lies between.
//!
//! `accounts` reads the host's files, once, at the start; `folders` opens the daemon's own. The rest is pure. Asked by whoever
//! makes or reads files of a root.

mod accounts;
mod folders;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use accounts::ids_of;
pub(crate) use folders::{open_to_root, own_root, pass};

/// So many ranges the kernel takes (user_namespaces(7)).
const MOST: usize = 340;

/// Ids in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first one in a container.
    pub(crate) inside: u32,
    /// The same one on the host.
    pub(crate) outside: u32,
    /// How many there are.
    pub(crate) length: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// Users and groups of containers, as they are on the host; the default is the same there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids(Option<Arc<Mapping>>);

/// A user and a group.
pub(crate) type Owner = (u32, u32);

impl Ids {
    /// From a container's first id on, one range after another.
    ///
    /// # Errors
    /// None, too many, or one twice: what is wrong, in words.
    pub(crate) fn new(users: &[(u32, u32)], groups: &[(u32, u32)]) -> Result<Self, String> {
        let mapping = Mapping { users: ranges("user", users)?, groups: ranges("group", groups)? };
        Ok(Self(Some(Arc::new(mapping))))
    }

    /// Whether they are others than in containers.
    pub(crate) fn are_mapped(&self) -> bool {
        self.0.is_some()
    }

    /// Those of users, and those of groups.
    pub(crate) fn ranges(&self) -> (&[Range], &[Range]) {
        self.0.as_ref().map_or((&[], &[]), |mapping| (&mapping.users, &mapping.groups))
    }

    /// A container's root, on the host.
    pub(crate) fn root(&self) -> Owner {
        let first = |ranges: &[Range]| ranges.first().map_or(0, |range| range.outside);
        let (users, groups) = self.ranges();
        (first(users), first(groups))
    }

    /// The host's ids of a container's.
    ///
    /// # Errors
    /// The host has none for them: dockerd's text.
    pub(crate) fn to_host(&self, (user, group): Owner) -> io::Result<Owner> {
        let Some(mapping) = &self.0 else { return Ok((user, group)) };
        let of = |ranges: &[Range], id: u32| {
            let found =
                ranges.iter().find_map(|range| shifted(id, range.inside, range.outside, range.length));
            found.ok_or_else(|| unmapped(format!("container ID {id} cannot be mapped to a host ID")))
        };
        Ok((of(&mapping.users, user)?, of(&mapping.groups, group)?))
    }

    /// The container's ids of the host's.
    ///
    /// # Errors
    /// Containers have none of them: dockerd's text.
    pub(crate) fn to_container(&self, (user, group): Owner) -> io::Result<Owner> {
        let Some(mapping) = &self.0 else { return Ok((user, group)) };
        let of = |ranges: &[Range], id: u32| {
            let found =
                ranges.iter().find_map(|range| shifted(id, range.outside, range.inside, range.length));
            found.ok_or_else(|| unmapped(format!("host ID {id} cannot be mapped to a container ID")))
        };
        Ok((of(&mapping.users, user)?, of(&mapping.groups, group)?))
    }

    /// Gives something of the daemon's own making to a container's root.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        if !self.are_mapped() {
            return Ok(());
        }
        let (user, group) = self.root();
        std::os::unix::fs::lchown(path, Some(user), Some(group))
    }
}

fn shifted(id: u32, from: u32, to: u32, length: u32) -> Option<u32> {
    id.checked_sub(from).filter(|distance| *distance < length).map(|distance| to + distance)
}

fn unmapped(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// `given` are firsts on the host, and lengths.
fn ranges(kind: &str, given: &[(u32, u32)]) -> Result<Vec<Range>, String> {
    if given.is_empty() || given.len() > MOST {
        return Err(format!("{} ranges of {kind} ids, where there can be 1 to {MOST}", given.len()));
    }
    let (mut all, mut inside): (Vec<Range>, u32) = (Vec::new(), 0);
    for (outside, length) in given.iter().copied() {
        let named = || format!("the range {outside}:{length} of {kind} ids");
        let end = outside.checked_add(length).filter(|_| length > 0);
        let end = end.ok_or_else(|| format!("{} is empty, or has more than there are", named()))?;
        if outside == 0 {
            return Err(format!("{} has the host's own root", named()));
        }
        let other = all.iter().find(|one| outside < one.outside + one.length && one.outside < end);
        if let Some(other) = other {
            return Err(format!("{} and {}:{} have ids in common", named(), other.outside, other.length));
        }
        all.push(Range { inside, outside, length });
        inside =
            inside.checked_add(length).ok_or_else(|| format!("{} is more than a user can have", named()))?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_follows_another() {
        let ids = Ids::new(&[(100_000, 1000), (300_000, 10)], &[(5, 65536)]).unwrap();
        assert_eq!((ids.root(), ids.are_mapped()), ((100_000, 5), true));
        for (inside, outside) in
            [((0, 0), (100_000, 5)), ((999, 1), (100_999, 6)), ((1009, 65535), (300_009, 65540))]
        {
            assert_eq!(ids.to_host(inside).unwrap(), outside);
            assert_eq!(ids.to_container(outside).unwrap(), inside);
        }
        assert_eq!(
            ids.to_host((1010, 0)).unwrap_err().to_string(),
            "container ID 1010 cannot be mapped to a host ID"
        );
        assert_eq!(
            ids.to_container((0, 5)).unwrap_err().to_string(),
            "host ID 0 cannot be mapped to a container ID"
        );
        assert!(ids.to_container((100_000, 4)).is_err() && ids.to_container((300_010, 5)).is_err());
    }

    #[test]
    fn without_a_mapping_nothing_is_changed() {
        let ids = Ids::default();
        assert_eq!((ids.root(), ids.are_mapped()), ((0, 0), false));
        assert_eq!(ids.to_host((7, u32::MAX)).unwrap(), (7, u32::MAX));
        assert_eq!(ids.to_container((7, 9)).unwrap(), (7, 9));
    }

    #[test]
    fn ranges_that_can_not_be() {
        let refused = |users: &[(u32, u32)]| Ids::new(users, &[(1, 1)]).unwrap_err();
        assert_eq!(refused(&[]), "0 ranges of user ids, where there can be 1 to 340");
        assert!(refused(&[(7, 0)]).contains("7:0 of user ids is empty"));
        assert!(refused(&[(u32::MAX, 2)]).contains("more than there are"));
        assert_eq!(refused(&[(0, 9)]), "the range 0:9 of user ids has the host's own root");
        assert!(refused(&[(100, 10), (109, 5)]).ends_with("109:5 of user ids and 100:10 have ids in common"));
        assert!(Ids::new(&[(100, 10), (110, 5)], &[(1, 1)]).is_ok());
    }
}
