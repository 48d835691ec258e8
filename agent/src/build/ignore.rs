//! `.dockerignore`: whether the context keeps its Dockerfile from COPY. The client applies all else of it. Pure.

use crate::image::reference::glob;
use crate::paths;

/// Whether the patterns of a `.dockerignore` leave a file out; the last that matches counts.
pub(super) fn leaves_out(text: &str, file: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut left_out = false;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let line = line.trim();
        let (pattern, keeps) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
        if pattern.is_empty() || keeps != left_out {
            continue;
        }
        let pattern = paths::absolute("/", pattern);
        let pattern: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
        let parts: Vec<&str> = paths::parts(file);
        // A folder that is left out takes along what is in it.
        if (1..=parts.len()).any(|count| matches(&pattern, &parts[..count])) {
            left_out = !keeps;
        }
    }
    left_out
}

/// Component by component; `**` is any number of them.
fn matches(pattern: &[&str], parts: &[&str]) -> bool {
    // The rows of the usual table: `reached[n]` is whether the pattern so far matches the first n parts.
    let mut reached: Vec<bool> =
        std::iter::once(true).chain(std::iter::repeat_n(false, parts.len())).collect();
    for piece in pattern {
        let mut next = vec![false; parts.len() + 1];
        if *piece == "**" {
            let first = reached.iter().position(|reached| *reached).unwrap_or(usize::MAX);
            next.iter_mut().skip(first).for_each(|next| *next = true);
        } else {
            for (index, part) in parts.iter().enumerate() {
                next[index + 1] = reached[index] && glob(piece.as_bytes(), part.as_bytes()).unwrap_or(false);
            }
        }
        reached = next;
    }
    reached[parts.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (text, file, out) in [
            ("Dockerfile", "Dockerfile", true),
            ("# Dockerfile", "Dockerfile", false),
            ("/Docker*\n", "Dockerfile", true),
            ("*\n!Dockerfile", "Dockerfile", false),
            ("*\n!Dockerfile\n*file", "Dockerfile", true),
            ("docker", "docker/Dockerfile", true),
            ("docker/", "docker/Dockerfile", true),
            ("**/Dockerfile", "a/b/Dockerfile", true),
            ("**/Dockerfile", "Dockerfile", true),
            ("a/**", "a/b/Dockerfile", true),
            ("*/Dockerfile", "a/b/Dockerfile", false),
            ("**", "Dockerfile", true),
            ("", "Dockerfile", false),
            ("a/../Dockerfile", "./Dockerfile", true),
        ] {
            assert_eq!(leaves_out(text, file), out, "{text:?} {file}");
        }
    }
}
