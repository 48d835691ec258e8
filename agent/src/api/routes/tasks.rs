//! `/tasks`, and the logs of tasks and of services.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use ketch_cluster::control::{find_service, find_task, list_tasks};
use ketch_cluster::id::{NodeId, ServiceId, TaskId};
use ketch_cluster::objects::{Service, Task};
use ketch_cluster::store::{Change, Object};
use ketch_convert::{filters, task};
use ketch_node::dispatcher::{LogHandle, LogMessage};
use ketch_node::executor::{LogLine, LogOptions};
use ketch_node::manager::{Changes, Wake};

use crate::api::hijack;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::stdcopy::{self, Stream};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::node::api::{Led, led};
use crate::timestamp::Timestamp;

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/tasks", |daemon, request| led(daemon, request, list));
    router.on(Method::GET, "/tasks/{}", |daemon, request| led(daemon, request, inspect));
    router.on(Method::GET, "/tasks/{}/logs", |daemon, request| led(daemon, request, task_logs));
    router.on(Method::GET, "/services/{}/logs", |daemon, request| led(daemon, request, service_logs));
}

async fn list(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let wanted = filters::of(request.query.value("filters"))?;
    let shown = led.read(|view| {
        let tasks = list_tasks(view, &wanted)?;
        Ok(tasks.iter().map(|it| task::shown(view, it)).collect::<Vec<_>>())
    });
    response::json(StatusCode::OK, &shown.await?)
}

async fn inspect(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let shown = led.read(|view| find_task(view, request.operand(0)).map(|it| task::shown(view, &it)));
    response::json(StatusCode::OK, &shown.await?)
}

async fn task_logs(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let found = led.read(|view| find_task(view, request.operand(0))).await?;
    logs(&led, &request, Read { tasks: vec![found], service: None }).await
}

async fn service_logs(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let read = led.read(|view| {
        let service = find_service(view, request.operand(0))?;
        Ok(Read { tasks: view.tasks_of(service.id).cloned().collect(), service: Some(service) })
    });
    logs(&led, &request, read.await?).await
}

/// Whose logs are read.
struct Read {
    tasks: Vec<Arc<Task>>,
    /// Whose later tasks are read, too, when it is followed.
    service: Option<Arc<Service>>,
}

impl Read {
    /// Whether the client has the output of a terminal, which is not in frames.
    fn has_terminal(&self) -> bool {
        let specs = self.tasks.iter().map(|it| &it.spec).chain(self.service.iter().map(|it| &it.spec.task));
        specs.into_iter().any(|spec| spec.container().is_some_and(|container| container.tty))
    }
}

/// What the client wants of each line.
#[derive(Clone, Copy)]
struct Shape {
    timestamps: bool,
    details: bool,
    terminal: bool,
}

async fn logs(led: &Led, request: &Request, read: Read) -> Result<Response> {
    let query = &request.query;
    let time = |key: &str| {
        let text = query.text(key).filter(|text| *text != "0");
        text.map(Timestamp::of_query).transpose().map(|it| it.map(cluster_time))
    };
    let options = LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        since: time("since")?,
        until: time("until")?,
        tail: query.text("tail").map_or(Ok(None), tail_of)?,
    };
    if !(options.stdout || options.stderr) {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let terminal = read.has_terminal();
    let shape = Shape { timestamps: query.flag("timestamps"), details: query.flag("details"), terminal };
    let follow = options.follow;
    let changes = led.leader.changes();
    let is_followed = follow && read.service.is_some();
    // One that has no node yet is read from when it has one.
    let readable = read.tasks.iter().filter(|it| it.node.is_some() || !is_followed);
    let wanted: Vec<_> = readable.map(|it| (it.id, it.node)).collect();
    let mut of: BTreeMap<TaskId, Arc<Task>> = read.tasks.into_iter().map(|it| (it.id, it)).collect();
    let (mut messages, handle) = led.dispatcher.logs(wanted, options);
    // Dropped, the stream ends with its last task.
    let service = read.service.filter(|_| is_followed).map(|it| it.id);
    let mut newcomers =
        service.map(|service| Newcomers { led: led.clone(), service, changes, handle, has_looked: false });
    let (sender, response) = response::stream(hijack::content_type(request.version, terminal));
    drop(tokio::spawn(async move {
        // Clients end at the first error: what could not be read is told when all else was.
        let mut errors = Vec::new();
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = sender.closed() => return,
                more = next_of(&mut newcomers) => {
                    match more {
                        Some(News { come, gone }) => {
                            of.extend(come.into_iter().map(|it| (it.id, it)));
                            of.retain(|id, _| !gone.contains(id));
                        }
                        // Nobody leads here any more.
                        None => newcomers = None,
                    }
                    continue;
                }
            };
            let bytes = match message {
                None => break,
                Some(LogMessage::Line { task, node, line }) => framed(of.get(&task), node, &line, shape),
                Some(LogMessage::Ended { task, error }) => {
                    errors.extend(error);
                    // A service that always fails has thousands a day.
                    let _read = of.remove(&task);
                    continue;
                }
            };
            if sender.send(bytes).await.is_err() {
                return;
            }
        }
        if !(errors.is_empty() || shape.terminal) {
            let text = format!("Error grabbing logs: {}\n", errors.join("; "));
            let _gone = sender.send(stdcopy::frame(Stream::System, text.as_bytes())).await;
        }
    }));
    Ok(response)
}

/// The tasks of a service that come while its logs are followed.
struct Newcomers {
    led: Led,
    service: ServiceId,
    changes: Changes,
    handle: LogHandle,
    /// Since the changes are told: some may have come before that.
    has_looked: bool,
}

/// What has changed of the tasks whose logs are read.
#[derive(Default)]
struct News {
    /// Those that are read from now on.
    come: Vec<Arc<Task>>,
    /// Those that are no more, and never were read.
    gone: Vec<TaskId>,
}

impl Newcomers {
    /// What has changed since; none once the leadership is over.
    async fn next(&mut self) -> Option<News> {
        if !std::mem::replace(&mut self.has_looked, true) {
            return Some(self.look());
        }
        loop {
            match self.changes.next().await? {
                Wake::Committed(committed) => {
                    let news = self.news(&committed.changes);
                    if !(news.come.is_empty() && news.gone.is_empty()) {
                        return Some(news);
                    }
                }
                Wake::Everything => return Some(self.look()),
                Wake::Noted(_) => {}
            }
        }
    }

    /// Looks at all tasks of the service: where it is not told what has changed.
    fn look(&self) -> News {
        let tasks: Vec<_> = self.led.leader.view(|view| view.tasks_of(self.service).cloned().collect());
        News { come: tasks.into_iter().filter(|task| self.is_new(task)).collect(), gone: Vec::new() }
    }

    fn news(&self, changes: &[Change]) -> News {
        let mut news = News::default();
        for change in changes {
            match (&change.old, &change.new) {
                (_, Some(Object::Task(task))) if task.service == Some(self.service) && self.is_new(task) => {
                    news.come.push(Arc::clone(task));
                }
                (Some(Object::Task(task)), None) if task.service == Some(self.service) => {
                    news.gone.extend((!self.handle.forget(task.id)).then_some(task.id));
                }
                _ => {}
            }
        }
        news
    }

    /// Reads it from now on, if it has a node and is not read yet.
    fn is_new(&self, task: &Task) -> bool {
        task.node.is_some() && self.handle.add(task.id, task.node)
    }
}

async fn next_of(newcomers: &mut Option<Newcomers>) -> Option<News> {
    match newcomers {
        Some(newcomers) => newcomers.next().await,
        None => std::future::pending().await,
    }
}

/// None is all.
fn tail_of(text: &str) -> Result<Option<u64>> {
    match text.parse::<i64>() {
        _ if text == "all" => Ok(None),
        Ok(lines) => {
            u64::try_from(lines).map(Some).map_err(|_| Error::invalid("negative tail values not supported"))
        }
        Err(_) => Err(Error::invalid("tail value must be a positive integer or \"all\"")),
    }
}

fn framed(task: Option<&Arc<Task>>, node: NodeId, line: &LogLine, shape: Shape) -> Bytes {
    let printed = printed(task, node, line, shape);
    let stream = if line.stream == 2 { Stream::Stderr } else { Stream::Stdout };
    if shape.terminal { printed.into() } else { stdcopy::frame(stream, &printed) }
}

/// As dockerd writes it: the moment, what it is of, the line.
fn printed(task: Option<&Arc<Task>>, node: NodeId, line: &LogLine, shape: Shape) -> Vec<u8> {
    let mut printed = Vec::new();
    if shape.timestamps {
        printed.extend(format!("{} ", api_time(line.at)).into_bytes());
    }
    if shape.details {
        let mut attributes = line.attributes.clone();
        attributes.insert("com.docker.swarm.node.id".to_owned(), node.to_string());
        if let Some(task) = task {
            attributes.insert("com.docker.swarm.task.id".to_owned(), task.id.to_string());
            let service = task.service.map(|id| id.to_string()).unwrap_or_default();
            attributes.insert("com.docker.swarm.service.id".to_owned(), service);
        }
        let pairs: Vec<_> =
            attributes.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
        printed.extend(format!("{} ", pairs.join(",")).into_bytes());
    }
    printed.extend_from_slice(&line.line);
    printed
}

/// As Go's `url.QueryEscape` does for these.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encoded = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        byte if is_plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

fn cluster_time(moment: Timestamp) -> ketch_cluster::time::Timestamp {
    ketch_cluster::time::Timestamp(u64::try_from(moment.nanos()).unwrap_or(0))
}

fn api_time(moment: ketch_cluster::time::Timestamp) -> Timestamp {
    Timestamp::of_nanos(i64::try_from(moment.0).unwrap_or(i64::MAX))
}
