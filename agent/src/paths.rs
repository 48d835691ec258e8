//! Paths as words: without `.`, `..` and needless slashes. Nothing is looked up, so what they mean on a disk is another matter:
//! there [`crate::resolve`] is asked.

/// A path within something, `None` for one that leads out of it.
pub(crate) fn inside(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// The parts of a path from a root on, above which nothing leads.
pub(crate) fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// A path that may begin in a folder, as written from the root on.
pub(crate) fn absolute(folder: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{folder}/{path}")) }
}

/// An absolute path, as written from the root on.
pub(crate) fn clean(path: &str) -> String {
    format!("/{}", parts(path).join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_meaning_go() {
        assert_eq!(clean("a//b/./c/../../d/"), "/a/d");
        assert_eq!((clean("/../.."), clean("")), ("/".to_owned(), "/".to_owned()));
        assert_eq!((absolute("/a", "b/."), absolute("/a", "/c//d")), ("/a/b".to_owned(), "/c/d".to_owned()));
        assert_eq!(inside(b"/a/./b//../c").as_deref(), Some(&b"a/c"[..]));
        assert_eq!(inside(b"./").as_deref(), Some(&b""[..]));
        for out in [&b".."[..], b"/..", b"a/../../b"] {
            assert_eq!(inside(out), None);
        }
    }
}
