//! The differences from dockerd that are intended, read from `integration/differential/intended.txt`: a reason for each.
//!
//! The list stays true: a pattern that no difference of a run fits is told by [`Intended::stale`]. Called by the differential tests.

/// The rows of one script.
#[derive(Clone, Debug, Default)]
pub struct Intended(Vec<Row>);

#[derive(Clone, Debug)]
struct Row {
    command: String,
    patterns: Vec<Pattern>,
    reason: String,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    /// Differences that are not there in every run.
    may_lack: bool,
    seen: bool,
}

impl Intended {
    /// The rows of a script, whose name is without its ending.
    ///
    /// # Panics
    /// At a line that is none of the list's.
    #[must_use]
    pub fn read(list: &str, script: &str) -> Self {
        let mut rows: Vec<(String, Row)> = Vec::new();
        for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix("@ ") {
                let (script, command) = head.split_once(' ').expect("a script and a command");
                let row = Row { command: command.to_owned(), patterns: Vec::new(), reason: String::new() };
                rows.push((script.to_owned(), row));
                continue;
            }
            let (_, row) = rows.last_mut().expect("a row begins with @");
            if let Some(reason) = line.strip_prefix("= ") {
                reason.clone_into(&mut row.reason);
                continue;
            }
            let (may_lack, text) = match line.strip_prefix('?') {
                Some(text) => (true, text),
                None => (false, line),
            };
            let is_pattern = ["- ", "+ ", "code ", "order"].iter().any(|start| text.starts_with(start));
            assert!(is_pattern, "no line of the list of intended differences: {line}");
            row.patterns.push(Pattern { text: text.to_owned(), may_lack, seen: false });
        }
        for (_, row) in &rows {
            assert!(!row.reason.is_empty() && !row.patterns.is_empty(), "{}: without a reason", row.command);
        }
        Self(rows.into_iter().filter(|(name, _)| name == script).map(|(_, row)| row).collect())
    }

    /// Those of a command's differences that no row has.
    pub fn others(&mut self, command: &str, differences: Vec<String>) -> Vec<String> {
        let rows = &mut self.0;
        let is_other = |difference: &String| {
            let mut other = true;
            for row in rows.iter_mut().filter(|row| fits(&row.command, command)) {
                for pattern in row.patterns.iter_mut().filter(|pattern| fits(&pattern.text, difference)) {
                    pattern.seen = true;
                    other = false;
                }
            }
            other
        };
        let mut differences = differences;
        differences.retain(is_other);
        differences
    }

    /// The patterns that nothing has fitted, each with its command.
    #[must_use]
    pub fn stale(&self) -> Vec<String> {
        let mut stale = Vec::new();
        for row in &self.0 {
            let patterns = row.patterns.iter().filter(|pattern| !pattern.seen && !pattern.may_lack);
            stale.extend(patterns.map(|pattern| format!("`{}`: {}", row.command, pattern.text)));
        }
        stale
    }
}

/// Whether a text is as a pattern says, in which `*` is any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{Intended, fits};

    #[test]
    fn stars_are_any_text() {
        for (pattern, text, wanted) in [
            ("- a*b", "- a and b", true),
            ("- a*b", "- ab", true),
            ("- a*b", "- ac", false),
            ("- a", "- ab", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("- *: *,", "- x: y,", true),
        ] {
            assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn what_fits_is_taken_out_and_what_never_does_is_told() {
        let list = "# of all\n@ one info*\n- Name: *\n+ Name: *\n?+ Late: *\n= another name\n@ two info\ncode 0 1\n= x\n";
        let mut rows = Intended::read(list, "one");
        let seen = ["- Name: a", "+ Other: b"].map(str::to_owned).to_vec();
        assert_eq!(rows.others("info --all", seen), ["+ Other: b"]);
        assert_eq!(rows.stale(), ["`info*`: + Name: *"]);
        assert_eq!(rows.others("version", vec!["- Name: a".into()]), ["- Name: a"]);
    }
}
