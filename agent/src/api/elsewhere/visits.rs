//! The other end: what a manager asks of this node's containers is answered here, by the routes that users' requests have, when it is
//! allowed, and told in the log. A visit is of one task, or of the list of tasks' containers: whatever a path names, it is held to
//! that.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use ketch_cluster::id::TaskId;
use ketch_node::calls::{Scope, Visit};
use tokio::io::DuplexStream;
use tracing::{debug, info};

use super::asked::{Asked, Of};
use crate::api::filters::Filters;
use crate::api::request::Query;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::server;
use crate::api::wire::{Answering, Peer, Wire};
use crate::blocking::blocking;
use crate::compat;
use crate::config::ClusterAccess;
use crate::daemon::Daemon;
use crate::engine::{exec, list, task};
use crate::error::{Error, Kind, Result};

/// Whose container has answered: the manager tells it in an exec's id.
pub(super) const TASK_ID: HeaderName = HeaderName::from_static("ketch-task");

impl Peer for DuplexStream {}

/// Where visits come to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) daemon: Arc<Daemon>,
    /// [`of_containers`](crate::api::routes::of_containers).
    pub(crate) router: Arc<Router>,
}

/// What is asked for once it is allowed.
enum Admitted {
    /// A route's answer, of this container.
    Request(Box<Parts>, TaskId),
    List(Query),
}

/// Answers what comes by a tunnel, until it ends.
pub(crate) async fn serve(place: Place, visit: Visit, stream: DuplexStream) {
    let answering = Answering::default();
    let wire = Wire::new(stream, answering.clone());
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (place, answering) = (place.clone(), answering.clone());
        answering.begin();
        async move {
            let response = answer(place, visit, request).await;
            answering.with(&response);
            Ok::<_, Infallible>(response)
        }
    });
    let served = server::http().serve_connection(TokioIo::new(wire), service).with_upgrades();
    if let Err(error) = served.await {
        debug!("a manager's connection ended: {error}");
    }
}

async fn answer(place: Place, visit: Visit, request: hyper::Request<Incoming>) -> Response {
    let Place { daemon, router } = place;
    let (parts, body) = request.into_parts();
    // Without the query, which has what a user types.
    let line = format!("{} {}", parts.method, parts.uri.path());
    let response = match admitted(&daemon, visit.scope, parts) {
        Ok(Admitted::Request(parts, task)) => {
            let mut response = server::answer(Arc::clone(&daemon), router, *parts, body.into()).await;
            if let Ok(task) = HeaderValue::from_str(&task.to_string()) {
                let _none = response.headers_mut().insert(TASK_ID, task);
            }
            response
        }
        Ok(Admitted::List(query)) => server::said(
            list_of_tasks(Arc::clone(&daemon), query).await.unwrap_or_else(|error| response::error(&error)),
        ),
        Err(error) => server::said(response::error(&error)),
    };
    daemon.counted.visits.count(response.status());
    info!(manager = %visit.by, scope = ?visit.scope, status = response.status().as_u16(), "a manager asks: {line}");
    response
}

/// What the visit may ask, as this node's routes take it: of the task's container, whatever the path names.
fn admitted(daemon: &Daemon, scope: Scope, mut parts: Parts) -> Result<Admitted> {
    if daemon.config.cluster_access == ClusterAccess::Nobody {
        return Err(Error::new(Kind::Forbidden, closed()));
    }
    match scope {
        Scope::List if parts.method == Method::GET && parts.uri.path().ends_with("/containers/json") => {
            Ok(Admitted::List(Query::parse(parts.uri.query().unwrap_or_default())))
        }
        Scope::List => Err(Error::not_found("page not found")),
        Scope::Task(id) => {
            let asked = Asked::of(&parts.method, parts.uri.path());
            let asked = asked.ok_or_else(|| Error::not_found("page not found"))?;
            let path = in_container(daemon, id, &asked)?;
            let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
            let uri = format!("{path}{query}").parse();
            parts.uri = uri.map_err(|error| Error::invalid(format!("{path}: {error}")))?;
            Ok(Admitted::Request(Box::new(parts), id))
        }
    }
}

/// The path of the task's container, or of an exec in it.
fn in_container(daemon: &Daemon, id: TaskId, asked: &Asked) -> Result<String> {
    let container = task::container_of(daemon, &id.to_string());
    let container = container.ok_or_else(|| Error::not_found(compat::no_such_container(&asked.id)))?;
    match asked.of {
        Of::Container => Ok(asked.with_id(&container.id)),
        Of::Exec => {
            let found = exec::find(daemon, &asked.id)?;
            if found.container.id != container.id {
                return Err(Error::not_found(format!("No such exec instance: {}", asked.id)));
            }
            Ok(asked.with_id(&found.id))
        }
    }
}

async fn list_of_tasks(daemon: Arc<Daemon>, query: Query) -> Result<Response> {
    let wanted = list::Wanted {
        all: query.flag("all"),
        limit: None,
        size: query.flag("size"),
        filters: Filters::of(&query, &list::FILTERS)?,
    };
    let mut listed = {
        let daemon = Arc::clone(&daemon);
        blocking(move || list::list(&daemon, &wanted)).await?
    };
    let is_task = |id: &str| {
        daemon.engine.find(id).is_ok_and(|container| container.read(|record| record.task.is_some()))
    };
    listed.retain(|container| is_task(&container.id));
    response::json(StatusCode::OK, &listed)
}

/// Why nobody is let in.
fn closed() -> String {
    let uname = rustix::system::uname();
    format!(
        "node {} lets no manager into its containers: cluster-container-access is false there",
        uname.nodename().to_string_lossy()
    )
}
