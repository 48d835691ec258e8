//! What a route is called with: the path's operands, the query, the headers, and the body, bounded.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;

use super::body::RequestBody;
use super::json;
use super::version::ApiVersion;
use crate::error::{Error, Kind, Result};

/// The most that a JSON body may have, in bytes. moby knows no bound; its largest objects are secrets below 1 MB, in base64.
pub const JSON_LIMIT: usize = 8 << 20;

/// One request.
#[derive(Debug)]
pub struct Request {
    /// What the path asks for, or the newest.
    pub version: ApiVersion,
    /// What the route's pattern has caught, in its order, decoded.
    pub operands: Vec<String>,
    /// The query, decoded, in the request's order.
    pub query: Query,
    /// Method, headers, extensions: the upgrade is among these.
    pub parts: Parts,
    /// Not yet read.
    pub body: RequestBody,
}

/// The pairs behind the question mark.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The pairs of a query string.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key, Plus::IsSpace), decoded(value, Plus::IsSpace))
        });
        Self(pairs.collect())
    }

    /// The first value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All values of a key that is given more than once.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a key, where it is not empty.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value(key).filter(|value| !value.is_empty())
    }

    /// moby's booleans: false are the empty value, `0`, `no`, `false` and `none`; true is every other.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    /// The same, where a missing key means something.
    #[must_use]
    pub fn flag_or(&self, key: &str, missing: bool) -> bool {
        let Some(value) = self.value(key) else { return missing };
        !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A number.
    ///
    /// # Errors
    /// The value is none: Go's text, which dockerd takes for a fault of its own.
    pub fn number<T: FromStr<Err = ParseIntError>>(&self, key: &str) -> Result<Option<T>> {
        let parse = |value: &str| {
            value.parse().map_err(|error| {
                Error::new(Kind::Internal, format!("strconv.Atoi: parsing {value:?}: {}", unfit(&error)))
            })
        };
        self.text(key).map(parse).transpose()
    }

    /// What Go's server can't read of a query, whatever the keys are.
    ///
    /// # Errors
    /// Its text.
    pub fn check(text: &str) -> Result<()> {
        for pair in text.split('&') {
            if pair.contains(';') {
                return Err(Error::invalid("invalid semicolon separator in query"));
            }
            for part in pair.split('%').skip(1) {
                if !part.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    let shown: String = part.chars().take(2).collect();
                    return Err(Error::invalid(format!("invalid URL escape \"%{shown}\"")));
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Plus {
    IsSpace,
    IsItself,
}

fn decoded(text: &str, plus: Plus) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) if plus == Plus::IsSpace => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Why a number is none, in Go's words.
#[must_use]
pub(super) fn unfit(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// A path's segment, decoded.
pub(super) fn decoded_segment(segment: &str) -> String {
    decoded(segment, Plus::IsItself)
}

impl Request {
    /// The pattern's operand; the router has seen that it is there.
    #[must_use]
    pub fn operand(&self, index: usize) -> &str {
        self.operands.get(index).map_or("", String::as_str)
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The whole body, which has at most `limit` bytes.
    ///
    /// # Errors
    /// A larger one, or a connection that broke.
    pub async fn bytes(self, limit: usize) -> Result<Bytes> {
        read(self.body, limit).await
    }

    /// The same request with its whole body here, so that whoever sends it has sent it when it is answered.
    ///
    /// # Errors
    /// A body larger than any JSON may be, or a connection that broke.
    pub async fn whole(self) -> Result<Self> {
        let Self { version, operands, query, parts, body } = self;
        let body = read(body, JSON_LIMIT).await?.into();
        Ok(Self { version, operands, query, parts, body })
    }

    /// The same request twice, with its whole body: one to look at, one to send on.
    ///
    /// # Errors
    /// A body larger than any JSON may be, or a connection that broke.
    pub async fn twice(self) -> Result<(Self, Self)> {
        let Self { version, operands, query, parts, body } = self;
        let bytes = read(body, JSON_LIMIT).await?;
        let same = |body: Bytes| Self {
            version,
            operands: operands.clone(),
            query: query.clone(),
            parts: parts.clone(),
            body: body.into(),
        };
        Ok((same(bytes.clone()), same(bytes)))
    }

    /// The JSON body.
    ///
    /// # Errors
    /// An empty one, another content type, or no such object: dockerd's texts.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        self.json_or_nothing()
            .await?
            .ok_or_else(|| Error::invalid("invalid JSON: got EOF while reading request body"))
    }

    /// The JSON body; `None` for an empty one.
    ///
    /// # Errors
    /// Another content type, or no such object.
    pub async fn json_or_nothing<T: DeserializeOwned>(self) -> Result<Option<T>> {
        let content_type = self.header(CONTENT_TYPE.as_str()).map(str::to_owned);
        let bytes = read(self.body, JSON_LIMIT).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        is_json(content_type.as_deref())?;
        json::decode(&bytes).map(Some)
    }
}

/// All of a body.
///
/// # Errors
/// It is larger, or the connection broke.
pub async fn read(body: RequestBody, limit: usize) -> Result<Bytes> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::invalid(format!("request body too large: more than {limit} bytes")))
        }
        Err(error) => Err(Error::invalid(format!("reading the request body: {error}"))),
    }
}

fn is_json(content_type: Option<&str>) -> Result<()> {
    let given = content_type.unwrap_or_default();
    match given.split(';').next().map(str::trim) {
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        None | Some("") => {
            Err(Error::invalid(format!("malformed Content-Type header ({given}): mime: no media type")))
        }
        _ => Err(Error::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("a=1&b=x%2Fy+z&a=2&flag&bad=%zz");
        assert_eq!(query.value("a"), Some("1"));
        assert_eq!(query.values("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.text("b"), Some("x/y z"));
        assert_eq!(query.value("flag"), Some(""));
        assert_eq!(query.value("bad"), Some("%zz"));
        assert_eq!(query.value("missing"), None);
    }

    #[test]
    fn what_go_refuses() {
        assert!(Query::check("a=%2F&b=x+y&c").is_ok() && Query::check("").is_ok());
        let words = |text: &str| Query::check(text).unwrap_err().message;
        assert_eq!(words("a=%zz"), "invalid URL escape \"%zz\"");
        assert_eq!(words("a=b%2"), "invalid URL escape \"%2\"");
        assert_eq!(words("a=b;c=d"), "invalid semicolon separator in query");
        let number = |text: &str| Query::parse(text).number::<i64>("n").map_err(|error| error.message);
        assert_eq!((number("n=5"), number("n="), number("")), (Ok(Some(5)), Ok(None), Ok(None)));
        assert_eq!(number("n=x"), Err("strconv.Atoi: parsing \"x\": invalid syntax".into()));
    }

    #[test]
    fn booleans_are_mobys() {
        let query = Query::parse("a=1&b=0&c=False&d=none&e=&f=yes&g=No");
        assert!(query.flag("a") && query.flag("f"));
        assert!(["b", "c", "d", "e", "g", "missing"].iter().all(|key| !query.flag(key)));
        assert!(query.flag_or("missing", true));
    }

    #[test]
    fn segments_keep_their_plus() {
        assert_eq!(decoded_segment("a+b%3Ac"), "a+b:c");
    }
}
