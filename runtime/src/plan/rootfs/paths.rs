//! Paths by their text alone: for plans, which look at no file system.

use std::path::{Component, Path, PathBuf};

/// `path` as an absolute path without `.`, `..` and doubled slashes, by its text alone; `..` ends at `/`.
#[must_use]
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// `path` below the root, by its text alone: callers may name a destination with the root's own host path in front.
pub(super) fn strip_root(root: &Path, path: &Path) -> PathBuf {
    let path = clean(path);
    if root == Path::new("/") {
        return path;
    }
    match path.strip_prefix(root) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_their_text() {
        assert_eq!(clean(Path::new("/a//b/./../c/")), Path::new("/a/c"));
        assert_eq!(clean(Path::new("../../x")), Path::new("/x"));
        assert_eq!(strip_root(Path::new("/foo/bar"), Path::new("/foo/barbaz")), Path::new("/foo/barbaz"));
        assert_eq!(
            strip_root(Path::new("/foo/bar"), Path::new("/foo/bar/foo/bar/x")),
            Path::new("/foo/bar/x")
        );
        assert_eq!(strip_root(Path::new("/foo/bar"), Path::new("foo/bar/../baz")), Path::new("/foo/baz"));
        assert_eq!(strip_root(Path::new("/"), Path::new("/a")), Path::new("/a"));
    }
}
