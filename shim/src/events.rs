//! What happens, told to containerd in the order in which it happened. While containerd is away events wait, up to a bound.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ketch_shim_api::EVENTS;
use ketch_shim_api::ttrpc::{KeyValue, Kind, Request, Response};
use ketch_shim_api::types::{Envelope, ForwardRequest};
use ketch_shim_api::wire::{Any, Named};
use prost::Message;
use tokio::net::UnixStream;

use crate::waiting::Changes;
use crate::{frames, log};

/// How many events wait.
const QUEUE: usize = 2048;
/// How long containerd may take for one.
const ANSWER: Duration = Duration::from_secs(5);
/// How often one is sent that containerd refuses.
const REFUSALS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The queue and its way to containerd.
#[derive(Debug)]
pub(crate) struct Events {
    namespace: String,
    /// containerd's ttrpc socket; nobody is told without one.
    address: Option<PathBuf>,
    queue: RefCell<VecDeque<Pending>>,
    dropped: Cell<u64>,
    changed: Changes,
}

#[derive(Debug)]
struct Pending {
    topic: &'static str,
    /// The call's payload.
    payload: Vec<u8>,
}

impl Events {
    pub(crate) fn new(namespace: &str, address: Option<&str>) -> Self {
        let address = address.filter(|address| !address.is_empty());
        Self {
            namespace: namespace.to_owned(),
            address: address.map(|address| address.strip_prefix("unix://").unwrap_or(address).into()),
            queue: RefCell::default(),
            dropped: Cell::new(0),
            changed: Changes::default(),
        }
    }

    /// Adds an event. When too many wait the oldest goes: of the newest somebody may still make use.
    pub(crate) fn publish<E: Named>(&self, topic: &'static str, event: &E) {
        if self.address.is_none() {
            return;
        }
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(Any::pack(event)),
        };
        let payload = ForwardRequest { envelope: Some(envelope) }.encode_to_vec();
        let mut queue = self.queue.borrow_mut();
        if queue.len() == QUEUE
            && let Some(oldest) = queue.pop_front()
        {
            self.dropped.set(self.dropped.get() + 1);
            log::error(&format!("{} events wait: dropped the oldest, {}", QUEUE, oldest.topic));
        }
        queue.push_back(Pending { topic, payload });
        drop(queue);
        self.changed.tell();
    }

    /// Resolves when no event waits.
    pub(crate) async fn sent(&self) {
        self.changed.until(|| self.queue.borrow().is_empty().then_some(())).await;
    }

    /// Forwards for ever.
    pub(crate) async fn run(&self) {
        let Some(address) = &self.address else { return std::future::pending().await };
        let mut connection = None;
        let mut pause = FIRST_PAUSE;
        let mut refusals = 0;
        loop {
            let first = || self.queue.borrow().front().map(|event| event.payload.clone());
            let payload = self.changed.until(first).await;
            let dropped = self.dropped.get();
            let answer = tokio::time::timeout(ANSWER, async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => Connection { stream: UnixStream::connect(address).await?, next: 1 },
                };
                let response = open.forward(&self.namespace, payload).await?;
                Ok::<_, io::Error>((open, response))
            });
            match answer.await {
                Ok(Ok((open, response))) => {
                    connection = Some(open);
                    pause = FIRST_PAUSE;
                    let refusal = response.status.filter(|status| status.code != 0);
                    refusals = if refusal.is_some() { refusals + 1 } else { 0 };
                    match refusal {
                        Some(_) if refusals < REFUSALS => tokio::time::sleep(pause).await,
                        Some(status) => self.done(dropped, Some(&status.message)),
                        None => self.done(dropped, None),
                    }
                    refusals %= REFUSALS;
                }
                // containerd is away, or stopped in the middle: the same event again, on a new connection.
                Ok(Err(_)) | Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Takes the event that was sent off the queue, if it is not that one which was dropped meanwhile.
    fn done(&self, dropped_before: u64, refused: Option<&str>) {
        if self.dropped.get() == dropped_before
            && let Some(event) = self.queue.borrow_mut().pop_front()
            && let Some(why) = refused
        {
            log::error(&format!("containerd refuses the event {}: {why}", event.topic));
        }
        self.changed.tell();
    }
}

struct Connection {
    stream: UnixStream,
    /// Clients have odd streams.
    next: u32,
}

impl Connection {
    async fn forward(&mut self, namespace: &str, payload: Vec<u8>) -> io::Result<Response> {
        let stream = self.next;
        self.next = self.next.wrapping_add(2);
        let request = Request {
            service: EVENTS.to_owned(),
            method: "Forward".to_owned(),
            payload,
            timeout_nano: i64::try_from(ANSWER.as_nanos()).unwrap_or(i64::MAX),
            metadata: vec![KeyValue {
                key: "containerd-namespace-ttrpc".to_owned(),
                value: namespace.to_owned(),
            }],
        };
        frames::write(&self.stream, &request.frame(stream)).await?;
        loop {
            let frame = frames::read(&self.stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.header.kind == Kind::Response && frame.header.stream == stream {
                let message = frame.message.ok_or(io::ErrorKind::InvalidData)?;
                return Response::decode(message.as_slice()).map_err(io::Error::other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_shim_api::events::TaskOom;
    use tokio::net::UnixListener;

    fn event(id: usize) -> TaskOom {
        TaskOom { container_id: id.to_string() }
    }

    /// The container ids of `count` events that a server takes; each connection ends after `patience` of them.
    async fn take(listener: &UnixListener, count: usize, patience: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let (stream, _) = listener.accept().await.unwrap();
            for _ in 0..patience.min(count - taken.len()) {
                let frame = frames::read(&stream).await.unwrap().unwrap();
                let request = Request::decode(frame.message.unwrap().as_slice()).unwrap();
                let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
                let event = forward.envelope.unwrap().event.unwrap();
                taken.push(event.unpack::<TaskOom>().unwrap().unwrap().container_id);
                frames::write(&stream, &Response::ok(Vec::new()).frame(frame.header.stream)).await.unwrap();
            }
        }
        taken
    }

    #[test]
    fn events_arrive_in_order_over_connections_that_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let path = std::env::temp_dir().join(format!("ketch-shim-events-{}", std::process::id()));
            let events = Events::new("default", path.to_str());
            for id in 0..10 {
                events.publish("/tasks/oom", &event(id));
            }
            let _absent = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            let taken = tokio::select! {
                taken = take(&listener, 10, 3) => taken,
                () = events.run() => unreachable!("it never ends"),
            };
            std::fs::remove_file(&path).unwrap();
            assert_eq!(taken, (0..10).map(|id| id.to_string()).collect::<Vec<_>>());
        });
    }

    #[test]
    fn beyond_the_bound_the_oldest_goes() {
        let events = Events::new("default", Some("/nowhere"));
        for id in 0..QUEUE + 2 {
            events.publish("/tasks/oom", &event(id));
        }
        assert_eq!(events.queue.borrow().len(), QUEUE);
        assert_eq!(events.dropped.get(), 2);
        events.done(1, None);
        assert_eq!(events.queue.borrow().len(), QUEUE, "what was sent has been dropped already");
        events.done(2, None);
        assert_eq!(events.queue.borrow().len(), QUEUE - 1);
    }

    #[test]
    fn without_containerd_nothing_waits() {
        let events = Events::new("default", Some(""));
        events.publish("/tasks/oom", &event(1));
        assert!(events.queue.borrow().is_empty());
    }
}
