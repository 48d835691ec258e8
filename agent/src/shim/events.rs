//! What shims tell on their own: they forward events to the ttrpc service that containerd serves for them. Of these only
//! one says what no call says: that the kernel has killed a process of the container for its memory. It is told before the
//! end, so that end is heard, too.

use std::path::Path;

use ketch_shim_api::EVENTS;
use ketch_shim_api::events::{TaskExit, TaskOom};
use ketch_shim_api::ttrpc::{Code, Kind, Request, Response};
use ketch_shim_api::types::ForwardRequest;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tracing::warn;

use super::connection::read_frame;
use crate::error::{Error, Result};

/// What is heard of a container, by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The kernel has killed one of its processes for its memory.
    OutOfMemory(String),
    /// Its first process has ended; what was told before has been heard by now.
    Exit(String),
}

impl Told {
    /// The container's id.
    #[must_use]
    pub fn container(&self) -> &str {
        match self {
            Self::OutOfMemory(id) | Self::Exit(id) => id,
        }
    }
}

/// Serves the socket for the daemon's life; what is told goes to `told`.
///
/// # Errors
/// The socket can't be made.
pub fn serve(socket: &Path, told: mpsc::UnboundedSender<Told>) -> Result<()> {
    let _of_the_last_daemon = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)
        .map_err(|error| Error::internal(format_args!("listening on {}", socket.display()), &error))?;
    drop(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, told.clone()))),
                Err(error) => {
                    warn!("accepting a shim's connection: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }));
    Ok(())
}

async fn connection(mut stream: UnixStream, told: mpsc::UnboundedSender<Told>) {
    while let Ok((header, message)) = read_frame(&mut stream).await {
        if header.kind != Kind::Request {
            continue;
        }
        let response = match heard(&message) {
            Ok(heard) => {
                if let Some(heard) = heard {
                    let _ending = told.send(heard);
                }
                Response::ok(Vec::new())
            }
            Err((code, why)) => Response::failed(code, why),
        };
        if stream.write_all(&response.frame(header.stream)).await.is_err() {
            return;
        }
    }
}

/// What an event says; `None` for one that calls have said already.
fn heard(message: &[u8]) -> std::result::Result<Option<Told>, (Code, String)> {
    let invalid = |error: prost::DecodeError| (Code::InvalidArgument, error.to_string());
    let request = Request::decode(message).map_err(invalid)?;
    if request.service != EVENTS || request.method != "Forward" {
        return Err((Code::Unimplemented, format!("service {} method {}", request.service, request.method)));
    }
    let forward = ForwardRequest::decode(request.payload.as_slice()).map_err(invalid)?;
    let Some(event) = forward.envelope.and_then(|envelope| envelope.event) else { return Ok(None) };
    if let Some(oom) = event.unpack::<TaskOom>().map_err(invalid)? {
        return Ok(Some(Told::OutOfMemory(oom.container_id)));
    }
    let exit = event.unpack::<TaskExit>().map_err(invalid)?;
    Ok(exit.filter(|exit| exit.id == exit.container_id).map(|exit| Told::Exit(exit.container_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_shim_api::events::TaskStart;
    use ketch_shim_api::types::Envelope;
    use ketch_shim_api::wire::Any;

    fn forwarded(event: Any) -> Vec<u8> {
        let envelope = Envelope { event: Some(event), ..Envelope::default() };
        let payload = ForwardRequest { envelope: Some(envelope) }.encode_to_vec();
        let (service, method) = (EVENTS.to_owned(), "Forward".to_owned());
        Request { service, method, payload, ..Request::default() }.encode_to_vec()
    }

    #[test]
    fn memory_and_the_end_count() {
        let oom_event = forwarded(Any::pack(&TaskOom { container_id: "a".into() }));
        assert_eq!(heard(&oom_event).unwrap(), Some(Told::OutOfMemory("a".into())));
        let exit = |id: &str| TaskExit { container_id: "a".into(), id: id.into(), ..TaskExit::default() };
        assert_eq!(heard(&forwarded(Any::pack(&exit("a")))).unwrap(), Some(Told::Exit("a".into())));
        assert_eq!(heard(&forwarded(Any::pack(&exit("exec")))).unwrap(), None);
        assert_eq!(heard(&forwarded(Any::pack(&TaskStart::default()))).unwrap(), None);
        assert!(heard(&Request::default().encode_to_vec()).is_err() && heard(b"\xff").is_err());
    }
}
