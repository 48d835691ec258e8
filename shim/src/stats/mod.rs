//! Statistics of a container: the files of its cgroups as containerd's messages, one kind for v1 and one for v2. A file that
//! is not there (a controller that is off, an older kernel) leaves its fields at zero.

mod legacy;
mod unified;

use std::collections::BTreeMap;
use std::path::Path;

use ketch_shim_api::wire::Any;

use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::error::ShimError;

/// What `max` in a limit stands for.
const NO_LIMIT: u64 = u64::MAX;

/// The container's statistics.
///
/// # Errors
/// It has no cgroup any more.
pub(crate) fn of(container: &Container) -> Result<Any, ShimError> {
    of_cgroup(container.cgroup.borrow().as_ref())
}

fn of_cgroup(cgroup: Option<&Cgroup>) -> Result<Any, ShimError> {
    let gone = || ShimError::NotFound("cgroup does not exist".into());
    match cgroup.ok_or_else(gone)? {
        Cgroup::Unified(folder) if folder.is_dir() => Ok(Any::pack(&unified::metrics(&Folder(folder)))),
        Cgroup::Legacy(folders) if folders.values().any(|folder| folder.is_dir()) => {
            Ok(Any::pack(&legacy::metrics(folders)))
        }
        Cgroup::Unified(_) | Cgroup::Legacy(_) => Err(gone()),
    }
}

/// The statistics of the cgroup of that path, as the parent of a pod's. Where there is none, nothing was counted: all is zero.
pub(crate) fn of_path(path: &str) -> Any {
    let cgroup = Cgroup::at(path);
    let counted = of_cgroup(Some(&cgroup).filter(|_| !path.is_empty()));
    counted.unwrap_or_else(|_| match cgroup {
        Cgroup::Unified(_) => Any::pack(&ketch_shim_api::cgroup2::Metrics::default()),
        Cgroup::Legacy(_) => Any::pack(&ketch_shim_api::cgroup1::Metrics::default()),
    })
}

/// Where the files of one cgroup, or of one controller, are.
#[derive(Clone, Copy, Debug)]
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    /// A whole file; empty if it is not there.
    fn text(self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// A file with one number.
    fn number(self, name: &str) -> u64 {
        number(&self.text(name))
    }

    /// A file with a name and a number in each line.
    fn table(self, name: &str) -> BTreeMap<String, u64> {
        table(&self.text(name))
    }

    /// The names between `before` and `after`, as the page sizes of the hugetlb files.
    fn names_between(self, before: &str, after: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.0).into_iter().flatten().flatten();
        let names = files.filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<_> = names
            .filter_map(|name| Some(name.strip_prefix(before)?.strip_suffix(after)?.to_owned()))
            .filter(|name| !name.contains('.'))
            .collect();
        found.sort();
        found
    }
}

fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => NO_LIMIT,
        text => text.parse().unwrap_or(0),
    }
}

fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.to_owned(), number(value)))
        .collect()
}

/// `major:minor`.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What follows `name` (`total=`) in a line of such pairs.
fn field<'a>(pairs: &'a str, name: &str) -> Option<&'a str> {
    pairs.split_whitespace().find_map(|pair| pair.strip_prefix(name))
}

/// `mlx4_0 hca_handle=2 hca_object=2000`: the device, its handles and its objects.
fn rdma(text: &str) -> impl Iterator<Item = (String, u32, u32)> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(device, pairs)| {
        let count =
            |name| field(pairs, name).map_or(0, |value| u32::try_from(number(value)).unwrap_or(u32::MAX));
        (device.to_owned(), count("hca_handle="), count("hca_object="))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_tables() {
        assert_eq!(number("12\n"), 12);
        assert_eq!(number("max\n"), NO_LIMIT);
        assert_eq!(number(""), 0);
        assert_eq!(table("a 1\nb 2\nbad\n")["b"], 2);
        assert_eq!(device("8:16"), Some((8, 16)));
        assert_eq!(device("Total"), None);
    }
}
