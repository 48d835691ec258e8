//! A link of so many bits in a second in front of a server: this program in the server's namespace, which passes on what the server says
//! no faster, all connections together.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// At once, in bytes: a tenth of a second at 50 Mbit/s.
const PIECE: usize = 64 << 10;

/// When the next byte may pass.
struct Pace {
    next: Mutex<Instant>,
    bytes_in_a_second: f64,
}

impl Pace {
    fn wait(&self, bytes: usize) {
        let until = {
            let mut next = self.next.lock().expect("no panic holds it");
            let span = Duration::from_secs_f64(bytes as f64 / self.bytes_in_a_second);
            *next = (*next).max(Instant::now()) + span;
            *next
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// `link ADDRESS SERVER MEGABITS`.
pub(crate) fn run(arguments: &[String]) {
    let [address, server, megabits] = arguments else { panic!("link ADDRESS SERVER MEGABITS") };
    let megabits: f64 = megabits.parse().expect("a number");
    let pace = Pace { next: Mutex::new(Instant::now()), bytes_in_a_second: megabits * 125_000.0 };
    let pace = Arc::new(pace);
    for client in TcpListener::bind(address).expect("listen").incoming().flatten() {
        let (pace, server) = (Arc::clone(&pace), server.clone());
        let _running = thread::spawn(move || pass(&client, &server, &pace));
    }
}

fn pass(client: &TcpStream, server: &str, pace: &Pace) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let _asking = thread::spawn(move || {
        let _ended = io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(Shutdown::Write)
    });
    let (mut from_server, mut to_client) = (&server, client);
    let mut piece = vec![0; PIECE];
    loop {
        let count = from_server.read(&mut piece)?;
        if count == 0 {
            return to_client.shutdown(Shutdown::Both);
        }
        pace.wait(count);
        to_client.write_all(&piece[..count])?;
    }
}
