//! Who we are to a registry: what a client's header says, what a registry asks for, and the tokens that were got.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// What `X-Registry-Auth` and `POST /auth` hold.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// Who.
    pub username: String,
    /// And its proof.
    pub password: String,
    /// Both, in base64 with a colon between.
    pub auth: String,
    /// The registry.
    pub serveraddress: String,
    /// An OAuth refresh token instead of a password.
    pub identitytoken: String,
    /// A bearer token that is used as it is.
    pub registrytoken: String,
    /// The header that they came by: as managers know them.
    #[serde(skip)]
    pub header: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the secrets.
        formatter.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

fn engine(alphabet: &base64::alphabet::Alphabet) -> GeneralPurpose {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, lenient)
}

impl Credentials {
    /// Of the header: JSON in URL-safe base64. As in dockerd, what can't be read is nobody.
    #[must_use]
    pub fn of_header(text: Option<&str>) -> Self {
        let text = text.unwrap_or_default().trim();
        let bytes = engine(&URL_SAFE).decode(text).or_else(|_| engine(&STANDARD).decode(text));
        let read = bytes.ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let header = (!text.is_empty()).then(|| text.to_owned());
        Self { header, ..read.unwrap_or_default().completed() }
    }

    /// With `auth` taken apart.
    #[must_use]
    pub fn completed(mut self) -> Self {
        if self.username.is_empty()
            && let Ok(bytes) = engine(&STANDARD).decode(&self.auth)
            && let Ok(text) = String::from_utf8(bytes)
            && let Some((username, password)) = text.split_once(':')
        {
            username.clone_into(&mut self.username);
            password.trim_end_matches('\0').clone_into(&mut self.password);
        }
        self
    }

    /// Whether anyone is meant.
    #[must_use]
    pub fn is_someone(&self) -> bool {
        !self.username.is_empty() || !self.identitytoken.is_empty() || !self.registrytoken.is_empty()
    }

    /// The value of an `Authorization` header with user and password.
    #[must_use]
    pub(super) fn basic(&self) -> Option<String> {
        if self.username.is_empty() {
            return None;
        }
        let text = engine(&STANDARD).encode(format!("{}:{}", self.username, self.password));
        Some(format!("Basic {text}"))
    }
}

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password.
    Basic,
    /// A token of this server.
    Bearer {
        /// Its address.
        realm: String,
        /// Whom it speaks for.
        service: String,
        /// What for.
        scope: String,
    },
}

impl Challenge {
    /// Of a `WWW-Authenticate` header: the first that is known.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, parameters) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, String::new(), String::new());
        let mut rest = parameters.trim_start();
        while let Some((name, after)) = rest.split_once('=') {
            let (value, after) = value(after)?;
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = value,
                "scope" => scope = value,
                _ => {}
            }
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// A token, or text in quotes with backslashes; and what follows.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.trim_start().strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

/// What a token server answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) access_token: String,
    pub(super) refresh_token: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers() {
        let json = br#"{"username":"u","password":"p","serveraddress":"x"}"#;
        for alphabet in [&URL_SAFE, &STANDARD] {
            let read = Credentials::of_header(Some(&engine(alphabet).encode(json)));
            assert_eq!((read.username.as_str(), read.password.as_str()), ("u", "p"));
            assert_eq!(read.basic().as_deref(), Some("Basic dTpw"));
        }
        assert!(!Credentials::of_header(Some("e30=")).is_someone());
        assert!(!Credentials::of_header(Some("???")).is_someone());
        assert!(!Credentials::of_header(None).is_someone());
        let auth = Credentials { auth: "dTpw".into(), ..Credentials::default() }.completed();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p"));
    }

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: &str, scope: &str| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
        };
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            Challenge::parse(r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#),
            bearer("https://a/t", "s", "repository:x:pull,push")
        );
        assert_eq!(Challenge::parse(r#"bearer  realm="a\"b" , service=s"#), bearer("a\"b", "s", ""));
        for text in ["", "Bearer", "Digest realm=\"x\"", "Bearer realm=\"x", "Bearer service=\"x\""] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_challenge_is_read_or_refused(text in "(Bearer )?\\PC{0,60}") {
            let _challenge = Challenge::parse(&text);
        }
    }
}
