//! Clients at a container's streams: `docker attach`, and the same by a WebSocket.

use std::collections::VecDeque;
use std::sync::Arc;

use hyper::Method;
use tokio::sync::mpsc;

use super::containers::{find, stream_of};
use crate::api::hijack::{self, Client};
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::api::websocket::{self, Frames};
use crate::daemon::Daemon;
use crate::engine::attach::{self, Left, Wanted};
use crate::engine::container::{Container, Record};
use crate::engine::log_entries;
use crate::engine::streams::{Output, Typed};
use crate::error::{Error, Result};
use crate::logs;

/// How much output waits for a client that is still at the log, in bytes; what is more holds the container up, as a slow client does.
const AHEAD: usize = 4 << 20;

pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/containers/{}/attach", by_hijack);
    router.on(Method::GET, "/containers/{}/attach/ws", by_websocket);
}

/// What an attach will do once its client is there.
struct Attach {
    daemon: Arc<Daemon>,
    container: Arc<Container>,
    wanted: Wanted,
    /// What the log has comes first.
    log: bool,
    /// From now on; none for who only wants the log.
    output: Option<mpsc::Receiver<Output>>,
    typing: mpsc::Sender<Typed>,
}

async fn by_hijack(daemon: Arc<Daemon>, mut request: Request) -> Result<Response> {
    let query = &request.query;
    let streams = [query.flag("stdin"), query.flag("stdout"), query.flag("stderr")];
    let attach = Attach::of(daemon, &request, streams)?;
    let content_type = hijack::content_type(request.version, attach.wanted.terminal);
    Ok(hijack::begin(&mut request, content_type, |client| attach.serve(client)))
}

/// Output is not told apart here: it comes as the process has written it.
async fn by_websocket(daemon: Arc<Daemon>, mut request: Request) -> Result<Response> {
    let query = &request.query;
    // Before 1.42 there was no choice.
    let flag = |key| request.version < ApiVersion::v1(42) || query.flag(key);
    let mut attach = Attach::of(daemon, &request, [flag("stdin"), flag("stdout"), flag("stderr")])?;
    attach.wanted.framed = false;
    let frames = if request.version < ApiVersion::v1(28) { Frames::Text } else { Frames::Binary };
    websocket::begin(&mut request, frames, |client| attach.serve(client))
}

impl Attach {
    fn of(daemon: Arc<Daemon>, request: &Request, [stdin, stdout, stderr]: [bool; 3]) -> Result<Self> {
        let container = find(&daemon, request)?;
        let query = &request.query;
        let record = container.read(Record::clone);
        let refused = |why: &str| Error::conflict(format!("container {} {why}", request.operand(0)));
        if record.state.paused {
            return Err(refused("is paused, unpause the container before attach"));
        }
        if record.state.restarting {
            return Err(refused("is restarting, wait until the container is running"));
        }
        let stream = query.flag("stream");
        let wanted = Wanted {
            stdin: stdin && stream && record.config.open_stdin,
            stdout,
            stderr,
            terminal: record.config.tty,
            framed: !record.config.tty,
            ends_input: record.config.stdin_once && !record.config.tty,
            detach_keys: attach::keys(query.value("detachKeys").unwrap_or_default())?,
        };
        // Before the response: whoever starts the container next sees all of it.
        let output = stream.then(|| container.streams.listen());
        let typing = container.streams.typing();
        Ok(Self { daemon, wanted, log: query.flag("logs"), output, typing, container })
    }

    async fn serve(self, client: Client) {
        let Self { daemon, container, wanted, log, output, typing } = self;
        let before = if log { replay(&daemon, &container).await } else { attach::nothing() };
        let output = output.map(|output| if log { ahead(output) } else { output });
        container.publish(&daemon, "attach");
        let Some(output) = output else {
            let _left = attach::serve(client, &wanted, before, attach::nothing(), None).await;
            return;
        };
        if attach::serve(client, &wanted, before, output, Some(typing)).await == Left::Detached {
            container.publish(&daemon, "detach");
        }
    }
}

/// The same output, of which some is taken while the client is still at what the log has: the container is not held up by that.
fn ahead(mut output: mpsc::Receiver<Output>) -> mpsc::Receiver<Output> {
    let (sender, taken) = mpsc::channel(1);
    drop(tokio::spawn(async move {
        let (mut waiting, mut bytes, mut open) = (VecDeque::<Output>::new(), 0, true);
        while open || !waiting.is_empty() {
            tokio::select! {
                piece = output.recv(), if open && bytes < AHEAD => match piece {
                    Some(piece) => {
                        bytes += piece.1.len();
                        waiting.push_back(piece);
                    }
                    None => open = false,
                },
                room = sender.reserve(), if !waiting.is_empty() => {
                    let (Ok(room), Some(piece)) = (room, waiting.pop_front()) else { return };
                    bytes -= piece.1.len();
                    room.send(piece);
                }
                () = sender.closed() => return,
            }
        }
    }));
    taken
}

/// What the log has of a container, as output, as fast as the client takes it.
async fn replay(daemon: &Daemon, container: &Container) -> mpsc::Receiver<Output> {
    let Ok(mut entries) = log_entries::read(daemon, container, logs::Options::default()).await else {
        return attach::nothing();
    };
    let (sender, before) = mpsc::channel(16);
    drop(tokio::spawn(async move {
        while let Some(Ok(entry)) = entries.recv().await {
            if sender.send((stream_of(entry.stream), entry.line.into())).await.is_err() {
                return;
            }
        }
    }));
    before
}
