//! Names of images, as Docker reads, completes and shortens them: `docker.io/library/busybox:latest` is `busybox`.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;

/// Where names without a registry are.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_FOLDER: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

/// A repository, and maybe a tag and a digest in it. Ordered by its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The registry: host, and maybe a port.
    pub domain: String,
    /// The repository in it.
    pub path: String,
    /// Its tag.
    pub tag: Option<String>,
    /// Its manifest.
    pub digest: Option<Digest>,
}

/// What a user may name an image by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyReference {
    /// By name.
    Named(Reference),
    /// By id: all 64 digits, or these behind `sha256:`.
    Id(Digest),
}

/// Why a text is no reference; distribution's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not of the grammar.
    #[error("invalid reference format")]
    Format,
    /// Only lower case is.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It would be taken for an id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Id(String),
    /// More than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// No sha256.
    #[error("{0}")]
    Digest(super::digest::DigestError),
    /// A name alone is wanted.
    #[error("cannot import digest reference")]
    NotATag,
    /// The tag alone is wrong.
    #[error("invalid tag format")]
    Tag,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if Digest::of_hex(text).is_ok() {
            return Err(ReferenceError::Id(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        let rest = rest.as_str();
        let lowercase = rest.split(':').next().unwrap_or_default();
        let lowercase = lowercase.split('@').next().unwrap_or_default();
        if lowercase.chars().any(|letter| letter.is_uppercase()) {
            return Err(ReferenceError::Uppercase(lowercase.to_owned()));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_domain(&domain) || !path.split('/').all(is_component) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        if path.len() > LONGEST_PATH {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path: path.to_owned(), tag: tag.map(str::to_owned), digest })
    }
}

/// The registry that a name begins with: it has a dot, a port, upper case, or is `localhost`. Names without a folder are in
/// Docker's own.
fn split_domain(text: &str) -> (String, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
        {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    let folder = if domain == DEFAULT_DOMAIN && !rest.contains('/') { DEFAULT_FOLDER } else { "" };
    (domain.to_owned(), format!("{folder}{rest}"))
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let (algorithm, digits) = text.split_once(':').ok_or(ReferenceError::Format)?;
    let component = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.chars().all(|letter| letter.is_ascii_alphanumeric())
    };
    let is_digest = algorithm.split(['-', '_', '+', '.']).all(component)
        && digits.len() >= 32
        && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    if is_digest { text.parse().map_err(ReferenceError::Digest) } else { Err(ReferenceError::Format) }
}

fn is_domain(domain: &str) -> bool {
    let bracketed = domain.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, "")) => (Some(host), None),
        Some((host, port)) => match port.strip_prefix(':') {
            Some(port) => (Some(host), Some(port)),
            None => return false,
        },
        None => (None, domain.split_once(':').map(|(_, port)| port)),
    };
    let host_is_right = match host {
        Some(address) => {
            !address.is_empty() && address.chars().all(|letter| letter.is_ascii_hexdigit() || letter == ':')
        }
        None => domain.split(':').next().unwrap_or_default().split('.').all(|label| {
            let within = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
            !label.is_empty() && label.chars().all(within) && !label.starts_with('-') && !label.ends_with('-')
        }),
    };
    host_is_right
        && port.is_none_or(|port| !port.is_empty() && port.chars().all(|digit| digit.is_ascii_digit()))
}

/// Lower-case letters and digits, with one dot, one or two underscores or any dashes between.
fn is_component(component: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let ends = component.starts_with(plain) && component.ends_with(plain);
    ends && component
        .split(plain)
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.chars().all(|dash| dash == '-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    tag.len() <= LONGEST_TAG
        && tag.starts_with(word)
        && tag.chars().all(|letter| word(letter) || letter == '.' || letter == '-')
}

impl Reference {
    /// `repo` and `tag` as two parameters of a request; the tag is `latest` without one. `None` for no `repo`.
    ///
    /// # Errors
    /// Not of the grammar, or `repo` has a digest.
    pub fn of_repository(repo: &str, tag: &str) -> Result<Option<Self>, ReferenceError> {
        if repo.is_empty() {
            return Ok(None);
        }
        let reference: Self = repo.parse()?;
        if reference.digest.is_some() {
            return Err(ReferenceError::NotATag);
        }
        if tag.is_empty() {
            Ok(Some(reference.with_default_tag()))
        } else {
            reference.with_tag(tag).map(Some)
        }
    }

    /// The same repository's other tag.
    ///
    /// # Errors
    /// It is none.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository's manifest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// With `latest`, where neither tag nor digest is.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Whether neither tag nor digest is.
    #[must_use]
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The repository with its registry.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(DEFAULT_FOLDER) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The reference as people write it.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }

    /// Whether a shell pattern means this: its familiar text, its familiar name, or either without the repository's folder.
    ///
    /// # Errors
    /// The pattern is none.
    pub fn matches(&self, pattern: &str) -> Result<bool, BadPattern> {
        Ok(glob(pattern.as_bytes(), self.familiar().as_bytes())?
            || glob(pattern.as_bytes(), self.familiar_name().as_bytes())?)
    }
}

/// Go's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Go's `path.Match`: `*` and `?` stop at a slash. Only the last star is ever tried again, so that a hostile pattern takes no
/// longer than the product of both lengths.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> Result<bool, BadPattern> {
    let (mut pattern, mut text) = (pattern, text);
    // What is behind the last star, and from where on it may still take.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            pattern = rest;
            star = Some((pattern, text));
            continue;
        }
        if pattern.is_empty() && text.is_empty() {
            return Ok(true);
        }
        let one = if pattern.is_empty() { None } else { one(pattern, text)? };
        if let Some(rest) = one {
            (pattern, text) = rest;
            continue;
        }
        let Some((behind, from)) = star else { return Ok(false) };
        match from.split_first() {
            Some((byte, rest)) if *byte != b'/' => {
                star = Some((behind, rest));
                (pattern, text) = (behind, rest);
            }
            _ => return Ok(false),
        }
    }
}

/// Of a pattern and of a text.
type Left<'a> = (&'a [u8], &'a [u8]);

/// Matches one letter of the text; gives what is left of both.
fn one<'a>(pattern: &'a [u8], text: &'a [u8]) -> Result<Option<Left<'a>>, BadPattern> {
    let Some((&first, rest)) = pattern.split_first() else { return Ok(None) };
    let (first, rest) = match (first, rest.split_first()) {
        (b'?', _) => {
            let next = text.split_first().filter(|(byte, _)| **byte != b'/');
            return Ok(next.map(|(_, text)| (rest, text)));
        }
        (b'[', _) => return class(rest, text),
        (b'\\', Some((next, rest))) => (*next, rest),
        (b'\\', None) => return Err(BadPattern),
        _ => (first, rest),
    };
    let next = text.split_first().filter(|(byte, _)| **byte == first);
    Ok(next.map(|(_, text)| (rest, text)))
}

/// What follows an opening bracket.
fn class<'a>(mut pattern: &'a [u8], text: &'a [u8]) -> Result<Option<Left<'a>>, BadPattern> {
    let negated = pattern.first() == Some(&b'^');
    pattern = &pattern[usize::from(negated)..];
    let byte = text.first().copied();
    let (mut matched, mut ranges) = (false, 0);
    let next = |pattern: &mut &[u8]| -> Result<u8, BadPattern> {
        let (mut first, mut rest) = pattern.split_first().ok_or(BadPattern)?;
        if *first == b'\\' {
            (first, rest) = rest.split_first().ok_or(BadPattern)?;
        } else if *first == b'-' {
            return Err(BadPattern);
        }
        *pattern = rest;
        Ok(*first)
    };
    loop {
        if ranges > 0 && pattern.first() == Some(&b']') {
            break;
        }
        let low = next(&mut pattern)?;
        let high = match pattern.first() {
            Some(b'-') => {
                pattern = &pattern[1..];
                next(&mut pattern)?
            }
            _ => low,
        };
        ranges += 1;
        matched |= byte.is_some_and(|byte| (low..=high).contains(&byte));
    }
    if byte.is_none() || matched == negated {
        return Ok(None);
    }
    Ok(Some((&pattern[1..], &text[1..])))
}

impl Ord for Reference {
    /// By its text: tags come in front of digests.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.name(), self.suffix())
    }
}

impl FromStr for AnyReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if let Ok(id) = Digest::of_hex(text).or_else(|_| text.parse()) {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Named)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn names_are_completed_and_shortened() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, whole, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("a/b:1.0", "docker.io/a/b:1.0", "a/b:1.0"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x:t", "localhost:5000/x:t", "localhost:5000/x:t"),
            ("Host/x", "Host/x", "Host/x"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("a--b__c.d", "docker.io/library/a--b__c.d", "a--b__c.d"),
        ] {
            assert_eq!(full(text), whole);
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), familiar);
        }
        assert_eq!(full(&format!("x:t@{digest}")), format!("docker.io/library/x:t@{digest}"));
    }

    #[test]
    fn others_are_refused_in_dockers_words() {
        for text in
            ["", ":x", "a//b", "a/", "-a", "a___b", "a..b", "x:", "x:-t", "x@sha256:0", "a b", "x@", "ä"]
        {
            assert_eq!(
                text.parse::<Reference>().unwrap_err().to_string(),
                "invalid reference format",
                "{text}"
            );
        }
        let error = |text: &str| text.parse::<Reference>().unwrap_err().to_string();
        assert_eq!(error("Foo"), "invalid reference format: repository name (library/Foo) must be lowercase");
        assert!(error(&"a".repeat(64)).contains("cannot specify 64-byte hexadecimal strings"));
        assert!(error("a/".repeat(200).trim_end_matches('/')).contains("255"));
    }

    #[test]
    fn ids_are_told_from_names() {
        let hex = "ab".repeat(32);
        assert!(matches!(hex.parse(), Ok(AnyReference::Id(_))));
        assert!(matches!(format!("sha256:{hex}").parse(), Ok(AnyReference::Id(_))));
        assert!(matches!("abcd".parse(), Ok(AnyReference::Named(_))));
    }

    #[test]
    fn patterns_are_gos() {
        let matches = |pattern: &str, text: &str| glob(pattern.as_bytes(), text.as_bytes());
        for (pattern, text, wanted) in [
            ("busy*", "busybox", true),
            ("*", "a/b", false),
            ("a/*", "a/b", true),
            ("*:1.?", "x:1.2", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a\\*", "a*", true),
        ] {
            assert_eq!(matches(pattern, text), Ok(wanted), "{pattern} {text}");
        }
        assert_eq!(matches("[", "a"), Err(BadPattern));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
            }
        }

        #[test]
        fn names_of_the_grammar_survive(text in "([a-z0-9]{1,5}(\\.|_|__|-{1,3}))?[a-z0-9]{1,5}(/[a-z0-9]{1,9}){0,3}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?") {
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        }
    }
}
