//! The ttrpc server: connections, calls that run side by side, answers in the order in which they are ready.

use std::rc::Rc;
use std::time::Duration;

use ketch_shim_api::ttrpc::{Code, Kind, Request, Response};
use ketch_shim_api::{SANDBOX, TASK_V2, TASK_V3};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::error::{self, ShimError};
use crate::service::Shim;
use crate::waiting::Counted;
use crate::{frames, log, sandbox, task};

/// How long a call of the runtime may take when the caller has no opinion.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same of the images of a container, written or read: as long as its memory is large and the disk is slow.
const IMAGES: Duration = Duration::from_secs(60 * 60);
/// The calls that make a process, or what one would be in.
const MAKING: [&str; 5] = ["Create", "Exec", "Start", "CreateSandbox", "StartSandbox"];

/// A call's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The caller's own, if it has one.
    pub(crate) timeout: Option<Duration>,
}

impl Limits {
    fn of(request: &Request) -> Self {
        let nanos = u64::try_from(request.timeout_nano).ok().filter(|nanos| *nanos > 0);
        Self { timeout: nanos.map(Duration::from_nanos) }
    }

    /// How long the runtime may take.
    pub(crate) fn runtime(self) -> Duration {
        self.timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE))
    }

    /// How long it may take to write or read the images of a container.
    pub(crate) fn images(self) -> Duration {
        self.timeout.map_or(IMAGES, |timeout| timeout.min(IMAGES))
    }
}

/// Serves connections for ever.
pub(crate) async fn run(listener: UnixListener, shim: Rc<Shim>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::task::spawn_local(connection(stream, Rc::clone(&shim)))),
            Err(error) => {
                // Out of descriptors: some call will end, and give some back.
                log::error(&format!("accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, shim: Rc<Shim>) {
    let _connected = shim.connections.one();
    let stream = Rc::new(stream);
    let (open, closed) = watch::channel(());
    let (answers, mut ready) = mpsc::unbounded_channel::<(Vec<u8>, Option<Counted>)>();
    let writer = tokio::task::spawn_local({
        let stream = Rc::clone(&stream);
        async move {
            while let Some((bytes, _due)) = ready.recv().await {
                if frames::write(&stream, &bytes).await.is_err() {
                    return;
                }
            }
        }
    });
    while let Ok(Some(frame)) = frames::read(&stream).await {
        let number = frame.header.stream;
        if frame.header.kind != Kind::Request {
            continue;
        }
        let request = match frame.message.as_deref().map(Request::decode) {
            Some(Ok(request)) => request,
            Some(Err(error)) => {
                let text = format!("decode the request: {error}");
                let refused = Response::failed(Code::InvalidArgument, text);
                let _closed = answers.send((refused.frame(number), None));
                continue;
            }
            None => {
                let text = format!("a message of {} bytes is too long", frame.header.length);
                let refused = Response::failed(Code::ResourceExhausted, text);
                let _closed = answers.send((refused.frame(number), None));
                continue;
            }
        };
        let (shim, answers, mut closed) = (Rc::clone(&shim), answers.clone(), closed.clone());
        // What waits for a process waits as long as somebody listens; everything else is carried out to its end.
        let only_waits = matches!(request.method.as_str(), "Wait" | "WaitSandbox");
        let due = (!only_waits).then(|| shim.unanswered.one());
        drop(tokio::task::spawn_local(async move {
            tokio::select! {
                response = answer(&shim, request) => {
                    drop(answers.send((response.frame(number), due)));
                    shim.quiet.stir();
                }
                _gone = closed.changed(), if only_waits => {}
            }
        }));
    }
    drop(open);
    // Answers to calls that are not over have nobody to go to.
    writer.abort();
}

async fn answer(shim: &Rc<Shim>, request: Request) -> Response {
    let limits = Limits::of(&request);
    let result = match request.service.as_str() {
        // Nobody would be there for it.
        _ if shim.is_leaving() && MAKING.contains(&request.method.as_str()) => Err(ShimError::Leaving),
        TASK_V2 | TASK_V3 => task::call(shim, &request.method, &request.payload, limits).await,
        SANDBOX => sandbox::call(shim, &request.method, &request.payload, limits).await,
        service => Err(ShimError::Unimplemented(format!("service {service}"))),
    };
    match result {
        Ok(payload) => Response::ok(payload),
        Err(error) => Response::failed(error.code(), error::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_more_time_than_other_calls() {
        let limits = |nanos| Limits::of(&Request { timeout_nano: nanos, ..Request::default() });
        let seconds = |limits: Limits| (limits.runtime().as_secs(), limits.images().as_secs());
        assert_eq!(seconds(limits(0)), (120, 3600));
        assert_eq!(seconds(limits(5_000_000_000)), (5, 5));
        assert_eq!(seconds(limits(600_000_000_000)), (120, 600));
        assert_eq!(seconds(limits(i64::MAX)), (120, 3600));
    }
}
