//! containerd's side of the events: a ttrpc server that records what shims forward, in the order in which it came.
//!
//! It can go away and come back, as containerd does. Called by the `shim_` tests.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::protobuf::{Fields, Message};
use super::ttrpc::{RESPONSE, frame, read_frame};
use crate::wait::wait_until;

/// An event.
#[derive(Clone, Debug)]
pub struct Event {
    pub namespace: String,
    /// `/tasks/start` and the like.
    pub topic: String,
    pub type_url: String,
    pub fields: Fields,
}

impl Event {
    /// The container that it is of: the first field of every task's event.
    #[must_use]
    pub fn container(&self) -> String {
        self.fields.text(1)
    }

    /// The topic without `/tasks/`, with the exec's id and the exit code where it has them: `exit e1 5`.
    #[must_use]
    pub fn short(&self) -> String {
        let topic = self.topic.trim_start_matches("/tasks/");
        let fields = &self.fields;
        match topic {
            "exit" if fields.text(2) == fields.text(1) => format!("exit {}", fields.number(4)),
            "exit" => format!("exit {} {}", fields.text(2), fields.number(4)),
            "delete" if !fields.text(5).is_empty() && fields.text(5) != fields.text(1) => {
                format!("delete {} {}", fields.text(5), fields.number(3))
            }
            "delete" => format!("delete {}", fields.number(3)),
            "exec-added" | "exec-started" => format!("{topic} {}", fields.text(2)),
            other => other.to_owned(),
        }
    }
}

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<Event>,
    connections: Vec<UnixStream>,
    is_away: bool,
}

/// The server.
#[derive(Debug)]
pub struct Sink {
    pub path: PathBuf,
    recorded: Arc<Mutex<Recorded>>,
}

impl Sink {
    /// Listens at `path`.
    ///
    /// # Panics
    /// When it cannot be bound.
    #[must_use]
    pub fn bind(path: &Path) -> Self {
        let sink = Self { path: path.to_owned(), recorded: Arc::default() };
        sink.listen();
        sink
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.path).expect("bind the socket of the events");
        let recorded = Arc::clone(&self.recorded);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut now = recorded.lock().expect("no panic holds it");
                if now.is_away {
                    return;
                }
                now.connections.push(stream.try_clone().expect("duplicate a connection"));
                let recorded = Arc::clone(&recorded);
                std::thread::spawn(move || serve(stream, &recorded));
            }
        });
    }

    /// Goes away as a killed containerd does: every connection and the socket.
    ///
    /// # Panics
    /// When a lock is poisoned.
    pub fn leave(&self) {
        let mut now = self.recorded.lock().expect("no panic holds it");
        now.is_away = true;
        now.connections.drain(..).for_each(|stream| {
            let _ = stream.shutdown(Shutdown::Both);
        });
        drop(now);
        // Wakes the accepting thread, which sees that it is to end.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }

    /// Comes back at the same path.
    ///
    /// # Panics
    /// When the socket cannot be bound.
    pub fn come_back(&self) {
        self.recorded.lock().expect("no panic holds it").is_away = false;
        self.listen();
    }

    /// All events so far.
    ///
    /// # Panics
    /// When a lock is poisoned.
    #[must_use]
    pub fn all(&self) -> Vec<Event> {
        self.recorded.lock().expect("no panic holds it").events.clone()
    }

    /// The events of one container so far, in short.
    #[must_use]
    pub fn of(&self, container: &str) -> Vec<String> {
        self.all().iter().filter(|event| event.container() == container).map(Event::short).collect()
    }

    /// Waits until the container has the event, and gives all of its events up to now.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn wait_for(&self, container: &str, event: &str) -> Vec<String> {
        wait_until(&format!("event {event:?} of {container}"), || {
            let seen = self.of(container);
            if seen.iter().any(|one| one == event) { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.leave();
    }
}

fn serve(mut stream: UnixStream, recorded: &Mutex<Recorded>) {
    while let Ok((id, _, payload)) = read_frame(&mut stream) {
        let Ok(request) = Fields::decode(&payload) else { return };
        let envelope = request.message(3).message(1);
        let event = envelope.message(4);
        let event = Event {
            namespace: envelope.text(2),
            topic: envelope.text(3),
            type_url: event.text(1),
            fields: event.message(2),
        };
        let mut now = recorded.lock().expect("no panic holds it");
        if now.is_away {
            return;
        }
        now.events.push(event);
        drop(now);
        // A Status of code 0 is written by none; an empty payload is google.protobuf.Empty.
        let response = Message::new().bytes(2, &[]);
        if stream.write_all(&frame(id, RESPONSE, response.encode())).is_err() {
            return;
        }
    }
}
