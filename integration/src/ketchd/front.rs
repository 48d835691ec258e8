//! A server of a test's own in an engine's site: in front of a registry, whose answers it cuts, changes or holds back, or in
//! its place. It keeps what it was asked.
//!
//! One request for each connection. Called by the tests of registries.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::site::Site;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether it asks for a blob's bytes.
    #[must_use]
    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/sha256:")
    }

    /// Whether it asks for a manifest's bytes or whether there is one.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD") && self.path.contains("/manifests/")
    }
}

/// What is said to it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// What the registry behind says.
    Pass,
    /// The same, and the connection ends after so many bytes of the body.
    Cut(usize),
    /// The same with one byte of the body changed.
    Corrupt(usize),
    /// Another answer: its status, headers and body.
    Own(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing: the connection ends.
    Hang,
}

type Decide = dyn Fn(&Asked) -> Reply + Send + Sync;

struct Shared {
    upstream: String,
    decide: Box<Decide>,
    log: Mutex<Vec<Asked>>,
}

/// A running one.
pub struct Front {
    /// `127.0.0.1:PORT`.
    pub address: String,
    shared: Arc<Shared>,
    listener: TcpListener,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Front {
    /// Starts it at an address of the site, in front of another. `decide` is called by a thread of each request's own, and
    /// may wait.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(
        site: &Site<'_>,
        address: &str,
        upstream: &str,
        decide: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            decide: Box::new(decide),
            log: Mutex::default(),
        });
        let network = File::open(site.network()).expect("open the site's network namespace");
        let (sender, receiver) = std::sync::mpsc::channel();
        let (at, serving) = (address.to_owned(), Arc::clone(&shared));
        // What this thread starts is in the site's network, too.
        std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the site's network namespace");
            let listener = TcpListener::bind(&at).expect("bind the server's address");
            sender.send(listener.try_clone().expect("duplicate a listener")).expect("the test waits");
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        let listener = receiver.recv().expect("the server listens");
        Self { address: address.to_owned(), shared, listener }
    }

    /// What was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.log().clone()
    }

    /// How many such requests there were.
    #[must_use]
    pub fn count(&self, such: impl Fn(&Asked) -> bool) -> usize {
        self.shared.log().iter().filter(|asked| such(asked)).count()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Wakes the thread that accepts, and ends it.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.log.lock().expect("no panic holds it")
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let Some(asked) = read_request(&client)? else { return Ok(()) };
        self.log().push(asked.clone());
        let reply = (self.decide)(&asked);
        match &reply {
            Reply::Hang => {}
            Reply::Own(status, headers, body) => {
                let reason =
                    http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
                let reason = reason.unwrap_or_default();
                let mut head = format!("HTTP/1.1 {status} {reason}\r\nConnection: close\r\n");
                if !headers.iter().any(|(name, _)| *name == "Content-Length") {
                    head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                }
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                client.write_all(format!("{head}\r\n").as_bytes())?;
                if asked.method != "HEAD" {
                    client.write_all(body)?;
                }
            }
            Reply::Pass | Reply::Cut(_) | Reply::Corrupt(_) => self.pass(&asked, &reply, &mut client)?,
        }
        client.shutdown(Shutdown::Both)
    }

    fn pass(&self, asked: &Asked, reply: &Reply, client: &mut TcpStream) -> std::io::Result<()> {
        let mut upstream = TcpStream::connect(&self.upstream)?;
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", asked.method, asked.path);
        for (name, value) in &asked.headers {
            if !matches!(name.as_str(), "connection" | "content-length" | "transfer-encoding") {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", asked.body.len()));
        upstream.write_all(head.as_bytes())?;
        upstream.write_all(&asked.body)?;
        let mut answer = BufReader::new(upstream);
        loop {
            let mut line = Vec::new();
            if answer.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            client.write_all(&line)?;
            if line == b"\r\n" {
                break;
            }
        }
        let (mut done, mut buffer) = (0, vec![0; 64 << 10]);
        loop {
            let count = answer.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let piece = &mut buffer[..count];
            match reply {
                Reply::Corrupt(at) if (done..done + count).contains(at) => piece[at - done] ^= 0xff,
                Reply::Cut(at) if done + count >= *at => return client.write_all(&piece[..at - done]),
                _ => {}
            }
            client.write_all(piece)?;
            done += count;
        }
    }
}

/// A request, its body as it was before chunks were made of it; none when the connection ends before one.
fn read_request(client: &TcpStream) -> std::io::Result<Option<Asked>> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 || !line.is_ascii() {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut asked = Asked { method, path, headers, body: Vec::new() };
    if asked.header("expect").starts_with("100") {
        (&mut &*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if asked.header("transfer-encoding") == "chunked" {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk)?;
            if length == 0 {
                break;
            }
            asked.body.extend_from_slice(&chunk[..length]);
        }
    } else if let Ok(length) = asked.header("content-length").parse() {
        asked.body = vec![0; length];
        reader.read_exact(&mut asked.body)?;
    }
    Ok(Some(asked))
}
