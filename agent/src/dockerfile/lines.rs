//! A Dockerfile's text as logical lines: directives at its top, comments, continuations, here-documents. Pure.
//!
//! Texts of errors and quirks (blank lines inside a continuation, an escape behind an escape) are the classic builder's.

use super::words::{SHELL_ESCAPE, Substitution};

/// As long as one line may be, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// What may hold here-documents.
const HEREDOCS: [&str; 3] = ["ADD", "COPY", "RUN"];

/// One instruction, with its continuations put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Its text, without an escape at any line's end.
    pub(super) text: String,
    /// Where it begins, from 1 on.
    pub(super) number: usize,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// Instructions, in order.
    pub(super) lines: Vec<Line>,
    /// What continues a line, and takes a letter's meaning away.
    pub(super) escape: char,
    /// What the client is warned of.
    pub(super) warnings: Vec<String>,
}

/// Takes a Dockerfile apart.
///
/// # Errors
/// No instruction, a directive that is none or is there twice, a line that is too long: dockerd's texts.
pub(super) fn read(text: &str) -> Result<Lines, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut directives = Directives { seen: Vec::new(), done: false, escape: '\\' };
    let mut all = Lines { lines: Vec::new(), escape: '\\', warnings: Vec::new() };
    let mut raw = text.split_inclusive('\n').enumerate();
    while let Some((index, first)) = raw.next() {
        let first = checked(first)?.trim_start();
        directives.look(first)?;
        if first.starts_with('#') {
            continue;
        }
        let (mut line, mut goes_on) = continued(first, directives.escape);
        if line.is_empty() && !goes_on {
            continue;
        }
        let mut blank = false;
        while goes_on {
            let Some((_, next)) = raw.next() else { break };
            let next = checked(next)?;
            directives.look(next)?;
            if next.trim_start().starts_with('#') {
                continue;
            }
            if next.trim_start().is_empty() {
                blank = true;
                continue;
            }
            let more;
            (more, goes_on) = continued(next, directives.escape);
            line.push_str(&more);
        }
        if blank {
            all.warnings.push(format!("Empty continuation line found in: {line}"));
        }
        for end in heredocs(&line) {
            let found = raw.by_ref().any(|(_, body)| end.is(body.trim_end_matches(['\r', '\n'])));
            if !found {
                return Err("unterminated heredoc".to_owned());
            }
        }
        all.lines.push(Line { text: line, number: index + 1 });
    }
    if all.lines.is_empty() {
        return Err("file with no instructions".to_owned());
    }
    all.escape = directives.escape;
    Ok(all)
}

fn checked(line: &str) -> Result<&str, String> {
    if line.len() >= LONGEST_LINE {
        return Err(format!("dockerfile line greater than max allowed size of {}", LONGEST_LINE - 1));
    }
    Ok(line.trim_end_matches(['\r', '\n']))
}

/// A line without the escape at its end, and whether it had one that counts.
fn continued(line: &str, escape: char) -> (String, bool) {
    let Some(before) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
        return (line.to_owned(), false);
    };
    // Behind another it is an escaped one.
    if before.ends_with(escape) { (line.to_owned(), false) } else { (before.to_owned(), true) }
}

/// `# name=value` at the file's top.
struct Directives {
    seen: Vec<String>,
    done: bool,
    escape: char,
}

impl Directives {
    fn look(&mut self, line: &str) -> Result<(), String> {
        if self.done {
            return Ok(());
        }
        let directive = line.strip_prefix('#').and_then(|rest| rest.trim_start().split_once('='));
        let directive = directive.map(|(name, value)| (name.trim_end().to_lowercase(), value.trim()));
        let known = |name: &str| matches!(name, "syntax" | "escape" | "check");
        let Some((name, value)) = directive.filter(|(name, value)| known(name) && !value.is_empty()) else {
            self.done = true;
            return Ok(());
        };
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        if name == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => return Err(format!("invalid escape token '{other}' does not match ` or \\")),
            };
        }
        self.seen.push(name);
        Ok(())
    }
}

/// What ends a here-document.
struct End {
    word: String,
    /// Behind tabs, too.
    tabs: bool,
}

impl End {
    fn is(&self, line: &str) -> bool {
        let line = if self.tabs { line.trim_start_matches('\t') } else { line };
        line == self.word
    }
}

fn heredocs(line: &str) -> Vec<End> {
    let mut words = line.split_whitespace().map(str::to_uppercase);
    let mut name = words.next().unwrap_or_default();
    if name == "ONBUILD" {
        name = words.next().unwrap_or_default();
    }
    let exec = line.split_once(char::is_whitespace).is_some_and(|(_, rest)| is_exec(rest));
    if !line.contains("<<") || !HEREDOCS.contains(&name.as_str()) || exec {
        return Vec::new();
    }
    let split = Substitution::raw(SHELL_ESCAPE).words(line).unwrap_or_default();
    split.iter().filter_map(|word| heredoc(word)).map(|(word, tabs)| End { word, tabs }).collect()
}

/// Whether operands are the exec form: an array of JSON.
fn is_exec(rest: &str) -> bool {
    rest.trim_start().starts_with('[') && serde_json::from_str::<Vec<String>>(rest.trim()).is_ok()
}

/// The word that ends what `<<word` begins, and whether tabs may come before it.
pub(super) fn heredoc(word: &str) -> Option<(String, bool)> {
    let rest = word.trim_start_matches(|letter: char| letter.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    match Substitution::keeping(SHELL_ESCAPE).words(rest).ok()?.as_slice() {
        [one] => Some((one.clone(), tabs)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        read(text).unwrap().lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_go_on_over_comments_and_blanks() {
        let text = "\u{feff}# a comment\nFROM a\n\nRUN b \\\n  # inside\n\n  c\\\n\td\nRUN e \\\\\nRUN f \\";
        let read = read(text).unwrap();
        let lines: Vec<_> = read.lines.iter().map(|line| (line.number, line.text.as_str())).collect();
        assert_eq!(lines, [(2, "FROM a"), (4, "RUN b   c\td"), (9, "RUN e \\\\"), (10, "RUN f ")]);
        assert_eq!(read.warnings, ["Empty continuation line found in: RUN b   c\td"]);
    }

    #[test]
    fn directives_are_at_the_top_only() {
        let text = "# syntax=docker/dockerfile:1\n# Escape = `\nFROM a\nRUN b `\nc";
        assert_eq!(texts(text), ["FROM a", "RUN b c"]);
        assert_eq!(read(text).unwrap().escape, '`');
        assert_eq!(read("# other\n# escape=`\nFROM a").unwrap().escape, '\\');
        assert_eq!(
            read("# escape=x\nFROM a").unwrap_err(),
            "invalid escape token 'x' does not match ` or \\"
        );
        assert_eq!(
            read("#escape=\\\n#escape=`\nFROM a").unwrap_err(),
            "only one escape parser directive can be used"
        );
        assert_eq!(read("# only\n\n").unwrap_err(), "file with no instructions");
    }

    #[test]
    fn here_documents_are_skipped() {
        assert_eq!(texts("FROM a\nRUN <<E cat\nRUN b\nE\nCMD c"), ["FROM a", "RUN <<E cat", "CMD c"]);
        assert_eq!(texts("FROM a\nCOPY <<-'E' /x\nb\n\tE\nCMD c"), ["FROM a", "COPY <<-'E' /x", "CMD c"]);
        assert_eq!(read("FROM a\nRUN <<E\nb").unwrap_err(), "unterminated heredoc");
        assert_eq!(texts("FROM a\nRUN [\"<<E\"]\nCMD b"), ["FROM a", "RUN [\"<<E\"]", "CMD b"]);
    }

    #[test]
    fn a_line_has_a_bound() {
        let long = format!("FROM a\nRUN {}", "x".repeat(70_000));
        assert_eq!(read(&long).unwrap_err(), "dockerfile line greater than max allowed size of 65535");
    }
}
