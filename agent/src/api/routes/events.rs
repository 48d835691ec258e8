//! What happens, as it happens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::timestamp::Timestamp;

/// Kinds of objects whose names and ids a filter may begin.
const KINDS: [&str; 9] =
    ["daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config"];

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/events", events);
}

/// Which events a client wants.
struct Wanted {
    filters: Filters,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// Image creations are told from version 1.46 on.
    image_creations: bool,
}

async fn events(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let time = |key: &str| request.query.text(key).map(Timestamp::of_query).transpose();
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        let text = |key: &str| request.query.value(key).unwrap_or_default().to_owned();
        return Err(Error::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        )));
    }
    let filters = Filters::unchecked(&request.query)?;
    let wanted = Wanted { filters, since, until, image_creations: request.version >= ApiVersion::v1(46) };
    let (sender, response) = response::stream("application/json");
    // From here on, not from when the task runs: who has the answer's head misses nothing.
    let listening = daemon.events.listen();
    drop(tokio::spawn(tell(daemon, wanted, listening, sender)));
    Ok(response)
}

async fn tell(
    daemon: Arc<Daemon>,
    wanted: Wanted,
    (was, mut comes): (Vec<Event>, broadcast::Receiver<Event>),
    sender: mpsc::Sender<Bytes>,
) {
    let mut ending = daemon.ending.subscribe();
    if wanted.since.is_some() || wanted.until.is_some() {
        for event in was.iter().filter(|event| wanted.in_time(event) && wanted.fits(event)) {
            if sender.send(line(event)).await.is_err() {
                return;
            }
        }
    }
    let left = wanted.until.map(|until| until.since(Timestamp::now()));
    if left == Some(Duration::ZERO) {
        return;
    }
    let end = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let mut end = std::pin::pin!(end);
    loop {
        let event = tokio::select! {
            event = comes.recv() => event,
            () = &mut end => return,
            () = sender.closed() => return,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        match event {
            Ok(event) if wanted.fits(&event) => {
                if sender.send(line(&event)).await.is_err() {
                    return;
                }
            }
            // One that does not read loses the oldest.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

impl Wanted {
    fn in_time(&self, event: &Event) -> bool {
        let time = Timestamp::of_nanos(i64::try_from(event.time_nano).unwrap_or(i64::MAX));
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    fn fits(&self, event: &Event) -> bool {
        let filters = &self.filters;
        let attribute = |key: &str| event.actor.attributes.get(key).map_or("", String::as_str);
        let image = if event.kind == "image" { attribute("name") } else { attribute("image") };
        let id = event.actor.id.as_str();
        (self.image_creations || event.kind != "image" || event.action != "create")
            && filters.any("type", |kind| kind == event.kind)
            && filters.any("scope", |scope| scope == event.scope)
            && filters
                .any("image", |wanted| [id, image, without_tag(id), without_tag(image)].contains(&wanted))
            && KINDS.iter().all(|kind| {
                filters.any(kind, |wanted| id.starts_with(wanted) || attribute("name").starts_with(wanted))
            })
            && filters.labels("label", |key| event.actor.attributes.get(key).map(String::as_str))
            && self.is_action(&event.action)
    }

    /// Actions that end in an operand are meant by their beginning; with one of them among the filter's, all are.
    fn is_action(&self, action: &str) -> bool {
        let begins = self
            .filters
            .values("event")
            .any(|wanted| matches!(wanted, "health_status" | "exec_create" | "exec_start"));
        self.filters.any("event", |wanted| if begins { action.starts_with(wanted) } else { action == wanted })
    }
}

/// An image's name without tag and digest, and without the registry and folder that need not be said.
fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let name_at = image.rfind('/').map_or(0, |slash| slash + 1);
    let image = match image[name_at..].find(':') {
        Some(colon) => &image[..name_at + colon],
        None => image,
    };
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::Query;
    use crate::events::Events;
    use std::collections::BTreeMap;

    fn fits(filters: &str, kind: &'static str, action: &str, id: &str, attributes: &[(&str, &str)]) -> bool {
        let encoded: String = filters.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let filters = Filters::unchecked(&Query::parse(&format!("filters={encoded}"))).unwrap();
        let wanted = Wanted { filters, since: None, until: None, image_creations: true };
        let events = Events::default();
        let attributes: BTreeMap<_, _> =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        events.publish(kind, action, id, attributes);
        wanted.fits(&events.listen().0[0])
    }

    #[test]
    fn filters_are_dockerds() {
        let web = &[("name", "web"), ("image", "nginx:1"), ("tier", "a")][..];
        for (filters, wanted) in [
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["image"]}"#, false),
            (r#"{"container":["we"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["db"]}"#, false),
            (r#"{"image":["nginx"]}"#, true),
            (r#"{"image":["nginx:1"]}"#, true),
            (r#"{"image":["nginx:2"]}"#, false),
            (r#"{"label":["tier=a"]}"#, true),
            (r#"{"label":["tier=b"]}"#, false),
            (r#"{"event":["exec_start"]}"#, true),
            (r#"{"event":["exec"]}"#, false),
            (r#"{"nonsense":["x"]}"#, true),
        ] {
            assert_eq!(fits(filters, "container", "exec_start: sh", "abcdef", web), wanted, "{filters}");
        }
    }

    #[test]
    fn names_without_what_need_not_be_said() {
        assert_eq!(without_tag("docker.io/library/nginx:1"), "nginx");
        assert_eq!(without_tag("host:5000/a/b:1@sha256:0"), "host:5000/a/b");
    }
}
