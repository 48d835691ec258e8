//! Which route a method and a path mean.
//!
//! A pattern is segments: literal ones, `{}` for one segment, `{*}` for one or more, as image names with slashes need. No
//! router crate catches several segments in the middle of a path, which `/images/{*}/json` wants.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Method;

use super::request::{Request, decoded_segment};
use super::response::Response;
use super::version::ApiVersion;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// What a route's call gives in the end.
pub type Reply = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;
type Call = Box<dyn Fn(Arc<Daemon>, Request) -> Reply + Send + Sync>;

/// Every route, in the order of their asking.
#[derive(Default)]
pub struct Router(Vec<Route>);

struct Route {
    method: Method,
    pattern: Vec<&'static str>,
    call: Call,
}

/// A route that was found.
pub(super) struct Found<'a> {
    pub(super) version: ApiVersion,
    pub(super) operands: Vec<String>,
    pub(super) call: &'a (dyn Fn(Arc<Daemon>, Request) -> Reply + Send + Sync),
}

impl std::fmt::Debug for Found<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "v{} {:?}", self.version, self.operands)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.patterns()).finish()
    }
}

impl Router {
    /// Adds a route: `pattern` without the version, as `/containers/{}/json`.
    pub fn on<F>(
        &mut self,
        method: Method,
        pattern: &'static str,
        call: impl Fn(Arc<Daemon>, Request) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<Response>> + Send + 'static,
    {
        let call: Call = Box::new(move |daemon, request| Box::pin(call(daemon, request)));
        self.0.push(Route { method, pattern: segments(pattern), call });
    }

    /// Every route's method and pattern.
    pub fn patterns(&self) -> impl Iterator<Item = (&Method, String)> {
        self.0.iter().map(|route| (&route.method, format!("/{}", route.pattern.join("/"))))
    }

    /// The route of a request's line.
    ///
    /// # Errors
    /// None has this path, or this method with it; or the path's version is not served.
    pub(super) fn find(&self, method: &Method, path: &str) -> Result<Found<'_>> {
        let mut given = segments(path);
        let version = match given.first().copied().and_then(ApiVersion::of_segment) {
            Some(version) => {
                let text = given.remove(0);
                version.served(text.strip_prefix('v').unwrap_or(text))?
            }
            None => super::version::CURRENT,
        };
        let page_not_found = || Error::not_found("page not found");
        self.0
            .iter()
            .filter(|route| route.method == *method)
            .find_map(|route| Some((route, operands(&route.pattern, &given)?)))
            .map(|(route, operands)| Found { version, operands, call: route.call.as_ref() })
            .ok_or_else(page_not_found)
    }
}

/// Where a path leads that is not written the shortest way, `/containers//name` of a name with its slash: dockerd sends there.
pub(super) fn moved(path: &str) -> Option<String> {
    let decoded = decoded_segment(path);
    let mut clean = crate::paths::clean(&decoded);
    if decoded.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte);
    let encode =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    (clean != decoded).then(|| clean.bytes().map(encode).collect())
}

fn segments(path: &str) -> Vec<&str> {
    path.strip_prefix('/').unwrap_or(path).split('/').collect()
}

/// What the pattern catches of a path; `None` where it does not fit.
fn operands(pattern: &[&str], given: &[&str]) -> Option<Vec<String>> {
    let Some((first, rest)) = pattern.split_first() else { return given.is_empty().then(Vec::new) };
    let lengths = match *first {
        "{}" => 1..=1,
        "{*}" => 1..=given.len(),
        literal => return (given.first() == Some(&literal)).then(|| operands(rest, &given[1..]))?,
    };
    // The longest first: a name may hold what follows it.
    lengths.rev().find_map(|length| {
        let caught = given.get(..length)?;
        if caught.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        let mut found = operands(rest, &given[length..])?;
        let caught: Vec<_> = caught.iter().map(|segment| decoded_segment(segment)).collect();
        found.insert(0, caught.join("/"));
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::response;

    fn router() -> Router {
        let mut router = Router::default();
        for pattern in ["/_ping", "/images/{*}/json", "/images/json", "/containers/{}/json", "/images/{*}"] {
            router.on(Method::GET, pattern, |_, _| async { Ok(response::empty(hyper::StatusCode::OK)) });
        }
        router
    }

    #[test]
    fn paths_find_their_routes() {
        let router = router();
        let operands = |path: &str| router.find(&Method::GET, path).ok().map(|found| found.operands);
        assert_eq!(operands("/_ping"), Some(vec![]));
        assert_eq!(operands("/v1.41/images/json"), Some(vec![]));
        assert_eq!(operands("/images/a/b:c/json"), Some(vec!["a/b:c".into()]));
        assert_eq!(operands("/images/a%2Fb/json"), Some(vec!["a/b".into()]));
        assert_eq!(operands("/images/json/json"), Some(vec!["json".into()]));
        assert_eq!(operands("/containers/x/json"), Some(vec!["x".into()]));
        for none in ["/", "/nope", "/containers/x/y/json", "/containers//json", "/v1.41"] {
            assert_eq!(operands(none), None, "{none}");
        }
    }

    #[test]
    fn paths_are_written_the_shortest_way() {
        let moved = |path: &str| moved(path).unwrap_or_default();
        assert_eq!(moved("//version"), "/version");
        assert_eq!(moved("/v1.50/containers/%2Fa/json"), "/v1.50/containers/a/json");
        assert_eq!(moved("/a/./b/../c%20d/"), "/a/c%20d/");
        assert_eq!(moved("/../.."), "/");
        for same in ["/", "/_ping", "/images/a%2Fb/json", "/version/"] {
            assert_eq!(moved(same), "", "{same}");
        }
    }

    #[test]
    fn another_method_is_no_page_and_old_versions_are_refused() {
        let router = router();
        assert_eq!(router.find(&Method::POST, "/_ping").unwrap_err().message, "page not found");
        assert!(router.find(&Method::GET, "/v1.12/_ping").unwrap_err().message.contains("too old"));
    }
}
