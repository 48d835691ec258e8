//! A shell's quotes and variables in an instruction's words: `$name`, `${name}` and its modifiers. Pure.

use std::iter::Peekable;
use std::str::Chars;

use regex_lite::Regex;

/// A shell's own.
pub(super) const SHELL_ESCAPE: char = '\\';

/// How words are read.
#[derive(Clone, Copy, Debug)]
pub struct Substitution<'a> {
    escape: char,
    /// `NAME=value`; the last of a name counts.
    variables: &'a [String],
    keeps_quotes: bool,
    keeps_escapes: bool,
    /// A variable that is not set stays as it is written.
    keeps_unset: bool,
}

impl<'a> Substitution<'a> {
    /// Of these variables, each `NAME=value`.
    #[must_use]
    pub fn new(escape: char, variables: &'a [String]) -> Self {
        Self { escape, variables, keeps_quotes: false, keeps_escapes: false, keeps_unset: false }
    }

    /// Splits only: nothing of what is written is taken away.
    pub(super) fn raw(escape: char) -> Substitution<'static> {
        Substitution { keeps_quotes: true, keeps_escapes: true, ..Self::keeping(escape) }
    }

    /// Takes quotes and escapes away, and leaves variables.
    pub(super) fn keeping(escape: char) -> Substitution<'static> {
        Substitution { escape, variables: &[], keeps_quotes: false, keeps_escapes: false, keeps_unset: true }
    }

    /// The text with its variables, spaces and all.
    ///
    /// # Errors
    /// A quote or a brace without its end, a modifier that is none, a variable that has to be set: dockerd's texts.
    pub fn word(&self, text: &str) -> Result<String, String> {
        self.run(text).map(|reader| reader.0)
    }

    /// The same, split at spaces that no quote holds.
    ///
    /// # Errors
    /// As [`Substitution::word`].
    pub fn words(&self, text: &str) -> Result<Vec<String>, String> {
        self.run(text).map(|reader| reader.1)
    }

    fn run(&self, text: &str) -> Result<(String, Vec<String>), String> {
        let mut reader = Reader { how: self, letters: text.chars().peekable(), depth: 0 };
        reader
            .until(None, self.keeps_escapes)
            .map_err(|error| format!("failed to process {}: {error}", quoted(text)))
    }

    fn variable(&self, name: &str) -> Option<&'a str> {
        let of_name = |variable: &&'a String| {
            variable.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        let found = self.variables.iter().rev().find(of_name)?;
        Some(found.get(name.len() + 1..).unwrap_or(""))
    }
}

/// Go's `%q`.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            letter if letter.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Words that become so by their spaces.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    present: String,
    inside: bool,
}

impl Words {
    fn add(&mut self, letter: char) {
        if !letter.is_whitespace() {
            self.add_raw(letter);
        } else if self.inside && !self.present.is_empty() {
            self.done.push(std::mem::take(&mut self.present));
            self.inside = false;
        }
    }

    fn add_raw(&mut self, letter: char) {
        self.present.push(letter);
        self.inside = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.present.is_empty() {
            self.done.push(self.present);
        }
        self.done
    }
}

/// As long as a word may become, in bytes: the kernel passes no longer one to a program.
const LONGEST_WORD: usize = 128 << 10;
/// How deep substitutions may hold others.
const DEEPEST: u32 = 64;

struct Reader<'h, 'a, 't> {
    how: &'h Substitution<'a>,
    letters: Peekable<Chars<'t>>,
    depth: u32,
}

impl Reader<'_, '_, '_> {
    /// Up to the letter, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>, keeps_escapes: bool) -> Result<(String, Vec<String>), String> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(&letter) = self.letters.peek() {
            if text.len() > LONGEST_WORD {
                return Err(format!("more than {LONGEST_WORD} bytes"));
            }
            if Some(letter) == stop {
                let _stop = self.letters.next();
                return Ok((text, words.finish()));
            }
            match letter {
                '\'' => {
                    let quoted = self.single_quotes()?;
                    quoted.chars().for_each(|letter| words.add_raw(letter));
                    words.inside = true;
                    text.push_str(&quoted);
                }
                '"' => {
                    let quoted = self.double_quotes(keeps_escapes)?;
                    quoted.chars().for_each(|letter| words.add_raw(letter));
                    words.inside = true;
                    text.push_str(&quoted);
                }
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|letter| words.add(letter));
                    text.push_str(&value);
                }
                '<' => {
                    let found = self.angles();
                    found.chars().for_each(|letter| words.add_raw(letter));
                    text.push_str(&found);
                }
                _ => {
                    let _it = self.letters.next();
                    let mut taken = letter;
                    if letter == self.how.escape {
                        if keeps_escapes {
                            words.add_raw(letter);
                            text.push(letter);
                        }
                        let Some(next) = self.letters.next() else { break };
                        words.add_raw(next);
                        taken = next;
                    } else {
                        words.add(letter);
                    }
                    text.push(taken);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((text, words.finish())),
        }
    }

    /// `<<` with the spaces behind it, which do not end a word.
    fn angles(&mut self) -> String {
        let _first = self.letters.next();
        let mut found = String::from("<");
        if self.letters.next_if_eq(&'<').is_none() {
            return found;
        }
        found.push('<');
        while let Some(space) = self.letters.next_if(|letter| matches!(letter, ' ' | '\t' | '\r')) {
            found.push(space);
        }
        found
    }

    fn single_quotes(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let quote = self.letters.next().filter(|_| self.how.keeps_quotes);
        text.extend(quote);
        loop {
            match self.letters.next() {
                Some('\'') => {
                    text.extend(quote);
                    return Ok(text);
                }
                Some(letter) => text.push(letter),
                None => {
                    let what = "unexpected end of statement while looking for matching single-quote";
                    return Err(what.to_owned());
                }
            }
        }
    }

    fn double_quotes(&mut self, keeps_escapes: bool) -> Result<String, String> {
        let mut text = String::new();
        let quote = self.letters.next().filter(|_| self.how.keeps_quotes);
        text.extend(quote);
        loop {
            if text.len() > LONGEST_WORD {
                return Err(format!("more than {LONGEST_WORD} bytes"));
            }
            match self.letters.peek() {
                Some('"') => {
                    let _end = self.letters.next();
                    text.extend(quote);
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(&letter) => {
                    let _it = self.letters.next();
                    let mut taken = letter;
                    if letter == self.how.escape {
                        if keeps_escapes {
                            text.push(letter);
                        }
                        let escape = self.how.escape;
                        match self.letters.peek() {
                            None => continue,
                            Some(&next) if next == '"' || next == '$' || next == escape => {
                                let _it = self.letters.next();
                                taken = next;
                            }
                            Some(_) => {}
                        }
                    }
                    text.push(taken);
                }
                None => {
                    let what = "unexpected end of statement while looking for matching double-quote";
                    return Err(what.to_owned());
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        let _dollar = self.letters.next();
        if self.letters.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.how.variable(&name) {
                Some(value) => value.to_owned(),
                None if self.how.keeps_unset => format!("${name}"),
                None => String::new(),
            });
        }
        let _brace = self.letters.next();
        match self.letters.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("syntax error: substitutions are too deep".to_owned());
        }
        let substituted = self.braces();
        self.depth -= 1;
        substituted
    }

    fn braces(&mut self) -> Result<String, String> {
        let name = self.name();
        let value = self.how.variable(&name);
        let unset = value.is_none() && self.how.keeps_unset;
        let unsupported = |letters: &str| format!("unsupported modifier ({letters}) in substitution");
        let Some(mut modifier) = self.letters.next() else { return Err(unsupported("\u{fffd}")) };
        let mut letters = modifier.to_string();
        match modifier {
            '}' if unset => return Ok(format!("${{{name}}}")),
            '}' => return Ok(value.unwrap_or_default().to_owned()),
            '/' => return self.replaced(&name, value),
            _ => {}
        }
        let empty_is_unset = modifier == ':';
        if empty_is_unset {
            modifier = self.letters.next().unwrap_or('\u{fffd}');
            letters.push(modifier);
        }
        if !matches!(modifier, '+' | '-' | '?' | '#' | '%') && !empty_is_unset {
            return Err(unsupported(&letters));
        }
        let is_pattern = matches!(modifier, '#' | '%');
        if empty_is_unset && is_pattern {
            return Err(unsupported(&letters));
        }
        let word = self.part('}', is_pattern)?;
        if unset {
            return Ok(format!("${{{name}{letters}{word}}}"));
        }
        let absent = value.is_none_or(|value| empty_is_unset && value.is_empty());
        let value_text = value.unwrap_or_default().to_owned();
        match modifier {
            '-' => Ok(if absent { word } else { value_text }),
            '+' => Ok(if absent { String::new() } else { word }),
            '?' if absent => {
                let why = match (&word, value) {
                    (word, _) if !word.is_empty() => word.as_str(),
                    (_, None) => "is not allowed to be unset",
                    _ => "is not allowed to be empty",
                };
                Err(format!("{name}: {why}"))
            }
            '?' => Ok(value_text),
            '#' | '%' => trimmed(&word, &value_text, modifier),
            _ => Err(unsupported(&letters)),
        }
    }

    /// A part inside of the braces, up to this letter.
    fn part(&mut self, stop: char, keeps_escapes: bool) -> Result<String, String> {
        match self.until(Some(stop), keeps_escapes) {
            Ok((text, _)) => Ok(text),
            Err(_) if self.letters.peek().is_none() && stop == '/' => {
                Err("syntax error: missing '/' in ${}".to_owned())
            }
            Err(_) if self.letters.peek().is_none() => Err("syntax error: missing '}'".to_owned()),
            Err(error) => Err(error),
        }
    }

    /// `${name/pattern/text}`, `${name//pattern/text}`.
    fn replaced(&mut self, name: &str, value: Option<&str>) -> Result<String, String> {
        let all = self.letters.next_if_eq(&'/').is_some();
        let pattern = self.part('/', true)?;
        let with = self.part('}', true)?;
        let Some(value) = value.or(if self.how.keeps_unset { None } else { Some("") }) else {
            return Ok(format!("${{{name}/{pattern}/{with}}}"));
        };
        let expression = expression(&pattern, Stars::Long, "")?;
        let mut replaced = String::new();
        let mut rest = 0;
        for found in expression.find_iter(value).take(if all { usize::MAX } else { 1 }) {
            if replaced.len() > LONGEST_WORD {
                return Err(format!("more than {LONGEST_WORD} bytes"));
            }
            replaced.push_str(&value[rest..found.start()]);
            replaced.push_str(&with);
            rest = found.end();
        }
        replaced.push_str(&value[rest..]);
        Ok(replaced)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(&letter) = self.letters.peek() {
            if name.is_empty() && letter.is_numeric() {
                while let Some(digit) = self.letters.next_if(|letter| letter.is_numeric()) {
                    name.push(digit);
                }
                return name;
            }
            if name.is_empty() && matches!(letter, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                name.extend(self.letters.next());
                return name;
            }
            if !letter.is_alphabetic() && !letter.is_numeric() && letter != '_' {
                break;
            }
            name.extend(self.letters.next());
        }
        name
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stars {
    Short,
    Long,
}

/// `#`, `##`, `%`, `%%`: what the pattern matches at the one end goes.
fn trimmed(word: &str, value: &str, end: char) -> Result<String, String> {
    let (pattern, stars) =
        word.strip_prefix(end).map_or((word, Stars::Short), |pattern| (pattern, Stars::Long));
    if end == '#' {
        let found = expression(pattern, stars, "^")?;
        return Ok(found.find(value).map_or(value, |found| &value[found.end()..]).to_owned());
    }
    // From the other end: no expression looks for the shortest that is rightmost.
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    let (pattern, value) = (backwards_pattern(pattern), backwards(value));
    let found = expression(&pattern, stars, "^")?;
    Ok(backwards(found.find(&value).map_or(value.as_str(), |found| &value[found.end()..])))
}

/// A pattern from its end, each escape still in front of its letter.
fn backwards_pattern(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let mut piece = letter.to_string();
        if letter == '\\' {
            piece.extend(letters.next());
        }
        pieces.push(piece);
    }
    pieces.into_iter().rev().collect()
}

/// A shell's pattern without brackets.
fn expression(pattern: &str, stars: Stars, before: &str) -> Result<Regex, String> {
    let mut text = format!("(?s){before}");
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '*' => text.push_str(if stars == Stars::Long { ".*" } else { ".*?" }),
            '?' => text.push('.'),
            '\\' if matches!(letters.peek(), Some('}' | '/')) => {}
            '\\' => match letters.next() {
                Some(escaped @ ('*' | '?' | '\\')) => text.extend(['\\', escaped]),
                other => {
                    let other = other.unwrap_or('\u{fffd}');
                    return Err(format!(
                        "invalid pattern ({pattern}) in substitution: invalid escape '\\{other}'"
                    ));
                }
            },
            '[' | ']' | '{' | '}' | '.' | '+' | '(' | ')' | '|' | '^' | '$' => text.extend(['\\', letter]),
            letter => text.push(letter),
        }
    }
    Regex::new(&text).map_err(|error| format!("invalid pattern ({pattern}) in substitution: {error}"))
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
