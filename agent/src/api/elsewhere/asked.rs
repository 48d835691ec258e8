//! Which requests are about one container, and may be asked of another node. The life of a task is its service's: nothing here
//! starts, stops, changes or removes one, but `kill`, which a user may want of any process.

use hyper::Method;

use crate::api::request::decoded_segment;
use crate::api::version::ApiVersion;

/// What a request names by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Container,
    Exec,
}

/// What may be asked: method, object, the path's last part.
const REACHABLE: [(Method, Of, &str); 15] = [
    (Method::GET, Of::Container, "json"),
    (Method::GET, Of::Container, "top"),
    (Method::GET, Of::Container, "logs"),
    (Method::GET, Of::Container, "stats"),
    (Method::HEAD, Of::Container, "archive"),
    (Method::GET, Of::Container, "archive"),
    (Method::PUT, Of::Container, "archive"),
    (Method::POST, Of::Container, "attach"),
    (Method::POST, Of::Container, "wait"),
    (Method::POST, Of::Container, "resize"),
    (Method::POST, Of::Container, "kill"),
    (Method::POST, Of::Container, "exec"),
    (Method::POST, Of::Exec, "start"),
    (Method::POST, Of::Exec, "resize"),
    (Method::GET, Of::Exec, "json"),
];

/// A request that is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) of: Of,
    /// As it was typed: an id, a part of one, or a name.
    pub(super) id: String,
    /// The path's version, with its slash; empty when it has none.
    version: String,
    what: &'static str,
}

impl Asked {
    /// None of a request that only the node itself answers.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let mut segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let version = match segments.first().copied().and_then(ApiVersion::of_segment) {
            Some(_) => format!("/{}", segments.remove(0)),
            None => String::new(),
        };
        let [object, id, last] = segments.try_into().ok()?;
        let of = match object {
            "containers" => Of::Container,
            "exec" => Of::Exec,
            _ => return None,
        };
        let is_it = |(by, object, what): &&(Method, Of, &str)| by == method && *object == of && *what == last;
        let (_, _, what) = REACHABLE.iter().find(is_it)?;
        let id = decoded_segment(id);
        (!id.is_empty()).then_some(Self { of, id, version, what })
    }

    /// The same path, of another id.
    pub(super) fn with_id(&self, id: &str) -> String {
        let object = match self.of {
            Of::Container => "containers",
            Of::Exec => "exec",
        };
        format!("{}/{object}/{id}/{}", self.version, self.what)
    }

    pub(super) fn makes_exec(&self) -> bool {
        self.of == Of::Container && self.what == "exec"
    }

    pub(super) fn starts_exec(&self) -> bool {
        self.of == Of::Exec && self.what == "start"
    }

    /// How it is, and how it has ended.
    pub(super) fn shows_exec(&self) -> bool {
        self.of == Of::Exec && self.what == "json"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::routes;

    #[test]
    fn only_these_are_asked_elsewhere() {
        let asked = Asked::of(&Method::GET, "/v1.47/containers/web.1.x/logs").unwrap();
        assert_eq!((asked.of, asked.id.as_str()), (Of::Container, "web.1.x"));
        assert_eq!(asked.with_id("ab"), "/v1.47/containers/ab/logs");
        let asked = Asked::of(&Method::POST, "/exec/e1/start").unwrap();
        assert_eq!((asked.of, asked.with_id("e2")), (Of::Exec, "/exec/e2/start".to_owned()));
        assert!(Asked::of(&Method::POST, "/containers/x/exec").unwrap().makes_exec());
        for (method, path) in [
            (Method::GET, "/containers/json"),
            (Method::POST, "/containers/x/start"),
            (Method::POST, "/containers/x/stop"),
            (Method::POST, "/containers/x/restart"),
            (Method::POST, "/containers/x/update"),
            (Method::POST, "/containers/x/rename"),
            (Method::POST, "/containers/x/pause"),
            (Method::DELETE, "/containers/x"),
            (Method::POST, "/containers/create"),
            (Method::POST, "/containers/x/logs"),
            (Method::GET, "/containers//json"),
            (Method::GET, "/containers/x/y/json"),
            (Method::GET, "/images/x/json"),
            (Method::GET, "/v1.47"),
            (Method::GET, ""),
        ] {
            assert_eq!(Asked::of(&method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn each_of_them_is_a_route() {
        let router = routes::of_containers();
        for (method, of, what) in &REACHABLE {
            let path = Asked { of: *of, id: String::new(), version: String::new(), what }.with_id("x");
            assert!(router.find(method, &path).is_ok(), "{method} {path}");
        }
    }
}
