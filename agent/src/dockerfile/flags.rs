//! `--name=value` between an instruction's name and its operands. Pure.

/// Those of one instruction, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(Vec<String>);

/// The flags in front of the operands, and the operands.
pub(super) fn extract(line: &str, escape: char) -> (Flags, &str) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let (mut word, mut quote, mut blank) = (String::new(), None, false);
        let mut letters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, letter)) = letters.next() {
            match (letter, quote) {
                (letter, None) if letter.is_whitespace() => {
                    end = at;
                    break;
                }
                ('\'' | '"', None) => {
                    quote = Some(letter);
                    blank = true;
                }
                (letter, Some(open)) if letter == open => quote = None,
                (letter, _) if letter == escape => word.extend(letters.next().map(|(_, next)| next)),
                (letter, _) => word.push(letter),
            }
        }
        rest = rest.get(end..).unwrap_or_default().trim_start();
        if word == "--" {
            break;
        }
        if blank || !word.is_empty() {
            flags.push(word);
        }
    }
    (Flags(flags), rest)
}

impl Flags {
    fn parts(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let part =
            |flag: &str| flag.split_once('=').map_or((flag.len(), None), |(name, _)| (name.len(), Some(())));
        self.0.iter().map(move |flag| {
            let (end, value) = part(flag);
            (flag.get(2..end).unwrap_or_default(), value.map(|()| &flag[end + 1..]))
        })
    }

    /// Their names, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.parts().map(|(name, _)| name.to_owned()).collect()
    }

    /// A flag's value; empty for none.
    pub(super) fn text(&self, name: &str) -> String {
        let found = self.parts().find(|(flag, _)| *flag == name);
        found.and_then(|(_, value)| value).unwrap_or_default().to_owned()
    }

    /// Whether all are among `known`: `name`, `name?` for one that is true or false, `name*` for one that may be repeated.
    ///
    /// # Errors
    /// Which is not: dockerd's texts.
    pub(super) fn check(&self, known: &[&str]) -> Result<(), String> {
        let mut seen = Vec::new();
        for (name, value) in self.parts() {
            let form = known.iter().find(|known| known.trim_end_matches(['?', '*']) == name);
            let Some(form) = form else {
                let names: Vec<_> = known.iter().map(|known| known.trim_end_matches(['?', '*'])).collect();
                return Err(format!("unknown flag: --{name}{}", meant(name, &names)));
            };
            if seen.contains(&name) && !form.ends_with('*') {
                return Err(format!("duplicate flag specified: --{name}"));
            }
            seen.push(name);
            match (form.ends_with('?'), value) {
                (true, Some("")) | (false, None) => return Err(format!("missing a value on flag: --{name}")),
                (true, Some(value)) if !matches!(value.to_lowercase().as_str(), "true" | "false") => {
                    return Err(format!("expecting boolean value for flag --{name}, not: {value}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// ` (did you mean X?)`, where one is near.
pub(super) fn meant(given: &str, names: &[&str]) -> String {
    let small = given.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for name in names {
        let distance = distance(&small, &name.to_lowercase());
        if distance == 0 {
            return String::new();
        }
        if distance < best.map_or(3, |(best, _)| best) {
            best = Some((distance, name));
        }
    }
    let Some((_, name)) = best else { return String::new() };
    let name = if given == small { name.to_lowercase() } else { (*name).to_owned() };
    format!(" (did you mean {name}?)")
}

/// How many letters are to be changed, put in or left out.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_in_front_of_operands() {
        let (flags, rest) = extract("--from=a --chown='b c' --x -- --y z", '\\');
        assert_eq!(
            (flags.names().join(" "), flags.text("chown"), rest),
            ("from chown x".into(), "b c".into(), "--y z")
        );
        assert_eq!(extract("a --b", '\\'), (Flags::default(), "a --b"));
        assert_eq!(extract("--a=\u{e9}\\ b", '\\').0.text("a"), "\u{e9} b");
    }

    #[test]
    fn what_is_wrong_with_flags() {
        let check = |line: &str| extract(line, '\\').0.check(&["from", "link?", "exclude*"]).unwrap_err();
        assert_eq!(check("--form=a"), "unknown flag: --form (did you mean from?)");
        assert_eq!(check("--other=a"), "unknown flag: --other");
        assert_eq!(check("--from=a --from=b"), "duplicate flag specified: --from");
        assert_eq!(check("--from"), "missing a value on flag: --from");
        assert_eq!(check("--link=x"), "expecting boolean value for flag --link, not: x");
        assert!(extract("--exclude=a --exclude=b --link", '\\').0.check(&["link?", "exclude*"]).is_ok());
    }

    #[test]
    fn instructions_that_are_meant() {
        assert_eq!(meant("RUNN", &["RUN", "ENV"]), " (did you mean RUN?)");
        assert_eq!(meant("form", &["FROM"]), " (did you mean from?)");
        assert_eq!(meant("nonsense", &["FROM"]), "");
    }
}
