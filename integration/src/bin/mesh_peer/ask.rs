//! The clients: many short connections, one flow of datagrams, one connection that is idle until it is told to ask.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::serve;

/// How long the answer to a check may take.
const CHECK: Duration = Duration::from_secs(5);
/// How long one may take under load: clients and servers that share two cpus with forty others were seen to need more than five
/// seconds, and what is lost for good has no answer after thirty either.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many may be open at once: a machine that can't serve the rate is asked for less, and does not collect what it will not answer.
const OPEN: usize = 100;
/// Between two datagrams.
const BEAT: Duration = Duration::from_millis(50);

/// Whether the server is well: it is asked as one asks for oneself (the command LOCAL) where it wants headers.
pub(crate) async fn check(at: SocketAddr) -> io::Result<String> {
    let before = if serve::is_proxied() { [serve::SIGNATURE, &[0x20, 0, 0, 0]].concat() } else { Vec::new() };
    timeout(CHECK, fetch(at, &before)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// One page, by a connection of its own.
///
/// # Errors
/// It is not all there in time.
pub(crate) async fn page(at: SocketAddr, within: Duration) -> io::Result<String> {
    timeout(within, fetch(at, &[])).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn fetch(at: SocketAddr, before: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(before).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n").await?;
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await?;
    if text.starts_with("HTTP/1.1 200 ") && text.ends_with('\n') {
        Ok(text)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// So many pages a second, of each address in turn, whether or not the last has come, but at most [`OPEN`] at once. Until SIGTERM:
/// then it tells how many it asked for, how many failed, and how.
pub(crate) async fn load(rate: u32, addresses: &[SocketAddr]) {
    let mut asked_to_end = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
    let mut beat = interval(Duration::from_secs(1) / rate);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turns = addresses.iter().copied().cycle();
    let mut open = JoinSet::new();
    let (mut count, mut failures) = (0_u32, Vec::new());
    let mut note = |(at, outcome): (SocketAddr, io::Result<String>)| {
        count += 1;
        if let Err(error) = outcome {
            failures.push(format!("{at}: {error}"));
        }
    };
    loop {
        tokio::select! {
            biased;
            _ = asked_to_end.recv() => break,
            Some(Ok(done)) = open.join_next(), if !open.is_empty() => note(done),
            _ = beat.tick(), if open.len() < OPEN => {
                let at = turns.next().expect("an address");
                drop(open.spawn(async move { (at, page(at, PATIENCE).await) }));
            }
        }
    }
    while let Some(Ok(done)) = open.join_next().await {
        note(done);
    }
    println!("{count} {}", failures.len());
    failures.iter().for_each(|failure| println!("{failure}"));
}

/// Sends from one port, and prints each answer.
pub(crate) async fn datagrams(to: SocketAddr) {
    let socket = UdpSocket::bind("0.0.0.0:0").await.expect("bind");
    let mut beat = interval(BEAT);
    let mut buffer = [0; 256];
    loop {
        tokio::select! {
            _ = beat.tick() => drop(socket.send_to(b"?", to).await),
            Ok((length, _)) = socket.recv_from(&mut buffer) => {
                println!("{}", String::from_utf8_lossy(&buffer[..length]));
            }
        }
    }
}

/// Connects, and asks at each SIGUSR1; prints each answer, and how the connection ends.
pub(crate) async fn session(at: SocketAddr) {
    let mut asked = signal(SignalKind::user_defined1()).expect("a handler of SIGUSR1");
    let mut stream = BufReader::new(TcpStream::connect(at).await.expect("connect"));
    println!("connected");
    loop {
        let mut line = String::new();
        tokio::select! {
            _ = asked.recv() => stream.write_all(b"?\n").await.unwrap_or_else(|error| println!("not sent: {error}")),
            read = stream.read_line(&mut line) => match read {
                Ok(0) => return println!("ended"),
                Ok(_) => print!("{line}"),
                Err(error) => return println!("ended: {error}"),
            },
        }
    }
}
