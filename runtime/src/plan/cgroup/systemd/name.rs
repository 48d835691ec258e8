//! From `slice:prefix:name` to the name of a unit, and from a slice's name to its cgroup.

use serde::{Deserialize, Serialize};

use super::super::CgroupPlanError;

/// systemd.unit(5).
const LENGTH_LIMIT: usize = 255;
const SLICE: &str = ".slice";

/// The three parts of `cgroupsPath`, with which state.json remembers the unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitName {
    /// The slice that the unit is in; empty for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope_prefix: String,
    pub name: String,
}

impl UnitName {
    /// Without a path, the unit is called after the container.
    ///
    /// # Errors
    /// The path has not three parts, or no unit may be called so.
    pub fn new(cgroups_path: &str, id: &str) -> Result<UnitName, CgroupPlanError> {
        let name = match cgroups_path.split(':').collect::<Vec<_>>()[..] {
            [""] => UnitName { parent: String::new(), scope_prefix: "runc".to_owned(), name: id.to_owned() },
            [parent, prefix, name] => {
                let [parent, scope_prefix, name] = [parent, prefix, name].map(str::to_owned);
                UnitName { parent, scope_prefix, name }
            }
            _ => return Err(CgroupPlanError::SystemdPath { path: cgroups_path.to_owned() }),
        };
        let unit = name.unit();
        // As strict as systemd: the name becomes part of a path.
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if unit.len() > LENGTH_LIMIT || !unit.bytes().all(letter) || unit == SLICE {
            return Err(CgroupPlanError::UnitName { unit });
        }
        if name.is_slice() {
            expand_slice(&unit)?;
        }
        Ok(name)
    }

    /// Whether the unit is a slice; otherwise it is a scope.
    #[must_use]
    pub fn is_slice(&self) -> bool {
        self.name.ends_with(SLICE)
    }

    /// The unit's name.
    #[must_use]
    pub fn unit(&self) -> String {
        if self.is_slice() { self.name.clone() } else { format!("{}-{}.scope", self.scope_prefix, self.name) }
    }

    /// The last name of the unit's cgroup. systemd puts `_` before what could be taken for a file of the kernel's.
    pub(super) fn cgroup(&self) -> String {
        let unit = self.unit();
        let files = unit.split_once('.').is_some_and(|(first, _)| CONTROLLERS.contains(&first));
        if files || unit.starts_with(['_', '.']) { format!("_{unit}") } else { unit }
    }
}

/// What files of a cgroup begin with.
const CONTROLLERS: [&str; 14] = [
    "cgroup",
    "cpu",
    "cpuacct",
    "cpuset",
    "io",
    "blkio",
    "memory",
    "devices",
    "pids",
    "freezer",
    "hugetlb",
    "rdma",
    "misc",
    "perf_event",
];

/// The cgroup of a slice: `/a.slice/a-b.slice` for `a-b.slice`, and nothing for the root, `-.slice`.
///
/// # Errors
/// [`CgroupPlanError::SliceName`]
pub fn expand_slice(slice: &str) -> Result<String, CgroupPlanError> {
    let failed = || CgroupPlanError::SliceName { slice: slice.to_owned() };
    let name = slice.strip_suffix(SLICE).ok_or_else(failed)?;
    if name == "-" {
        return Ok(String::new());
    }
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\".contains(&byte);
    let (mut path, mut so_far) = (String::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() || !part.bytes().all(letter) {
            return Err(failed());
        }
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push_str(&format!("/{so_far}{SLICE}"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> Result<String, String> {
        UnitName::new(path, "id1").map(|name| name.unit()).map_err(|error| error.to_string())
    }

    #[test]
    fn units_are_called_as_runc_calls_them() {
        for (path, expected) in [
            ("", "runc-id1.scope"),
            ("system.slice:docker:abc", "docker-abc.scope"),
            (":cri-containerd:abc", "cri-containerd-abc.scope"),
            ("::abc", "-abc.scope"),
            ("machine.slice:libpod:a@b", "libpod-a@b.scope"),
            ("a.slice:x:a-b.slice", "a-b.slice"),
        ] {
            assert_eq!(unit(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn names_that_no_unit_has_are_refused() {
        assert_eq!(
            unit("/a/b").unwrap_err(),
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead"
        );
        assert_eq!(
            unit(":x:../../y").unwrap_err(),
            "\"x-../../y.scope\" can't be the name of a systemd unit"
        );
        let long = format!(":x:{}", "a".repeat(250));
        for path in [":x:a+b", ":x:a b", ":x:ä", ":x:a\n", &long, "a:b:c:d"] {
            unit(path).expect_err(path);
        }
        assert_eq!(unit("::.slice").unwrap_err(), "\".slice\" can't be the name of a systemd unit");
        assert_eq!(unit("::a--b.slice").unwrap_err(), "invalid slice name: a--b.slice");
    }

    #[test]
    fn slices_are_nested_by_their_names() {
        assert_eq!(expand_slice("system.slice").unwrap(), "/system.slice");
        assert_eq!(expand_slice("a-b-c.slice").unwrap(), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(expand_slice("-.slice").unwrap(), "");
        for slice in ["", "-", "a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../a.slice"]
        {
            assert_eq!(expand_slice(slice).unwrap_err().to_string(), format!("invalid slice name: {slice}"));
        }
    }

    #[test]
    fn cgroups_that_look_like_files_are_escaped() {
        let cgroup = |path| UnitName::new(path, "").unwrap().cgroup();
        assert_eq!(cgroup(":_x:y"), "__x-y.scope");
        assert_eq!(cgroup(":cpu.x:y"), "_cpu.x-y.scope");
        assert_eq!(cgroup(":cpux:y"), "cpux-y.scope");
    }
}
