//! A well-behaved server: it says who it is, and to whom.
//!
//! At SIGTERM it takes those connections that the kernel has for it already, which on a busy machine may be some, and none
//! afterwards: they are refused, and whoever sends it one then sees it. It ends once the open ones have ended, or is killed.
//! Datagrams are answered to the last. With PROXY=1 in its environment each connection begins with a header of the PROXY protocol,
//! version 2, and the client is who that says; a connection without one is ended.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::{DATABASE, DATAGRAMS, PAGES};

/// How a header begins.
pub(crate) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Serves until SIGTERM.
pub(crate) async fn serve() {
    let mut asked_to_end = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
    let pages = listener(PAGES).await;
    let database = listener(DATABASE).await;
    drop(tokio::spawn(answer_datagrams()));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = asked_to_end.recv() => break,
            Ok((stream, peer)) = pages.accept() => drop(open.spawn(answer_page(stream, peer))),
            Ok((stream, peer)) = database.accept() => drop(open.spawn(answer_lines(stream, peer))),
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
    waiting(pages).into_iter().for_each(|(stream, peer)| drop(open.spawn(answer_page(stream, peer))));
    waiting(database).into_iter().for_each(|(stream, peer)| drop(open.spawn(answer_lines(stream, peer))));
    while open.join_next().await.is_some() {}
}

/// What a listener has that nobody has taken yet; it listens no more.
fn waiting(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let listener = listener.into_std().expect("a listener");
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    let taken = |(stream, peer): (std::net::TcpStream, SocketAddr)| {
        stream.set_nonblocking(true).expect("not blocking");
        (TcpStream::from_std(stream).expect("a connection"), peer)
    };
    accepted.map(taken).collect()
}

async fn listener(port: u16) -> TcpListener {
    TcpListener::bind(("0.0.0.0", port)).await.expect("listen")
}

/// `slot@node version, to address`.
fn word(peer: SocketAddr) -> String {
    let part = |name| std::env::var(name).unwrap_or_default();
    format!("{} {}, to {}", part("TASK"), part("VERSION"), peer.ip())
}

/// Whether connections begin with a header.
pub(crate) fn is_proxied() -> bool {
    std::env::var_os("PROXY").is_some()
}

/// Who the client is, by the header where there is one.
async fn client(stream: &mut BufReader<TcpStream>, peer: SocketAddr) -> io::Result<SocketAddr> {
    if !is_proxied() {
        return Ok(peer);
    }
    let mut fixed = [0; 16];
    let _ = stream.read_exact(&mut fixed).await?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    let _ = stream.read_exact(&mut rest).await?;
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    match (&fixed[..12], fixed[12], fixed[13], rest.len()) {
        (SIGNATURE, 0x20, ..) => Ok(peer),
        (SIGNATURE, 0x21, 0x11, 12) => {
            let from: [u8; 4] = rest[..4].try_into().expect("four bytes");
            Ok((from, port(8)).into())
        }
        (SIGNATURE, 0x21, 0x21, 36) => {
            let from: [u8; 16] = rest[..16].try_into().expect("sixteen bytes");
            Ok((from, port(32)).into())
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn answer_page(stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let peer = client(&mut stream, peer).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 && line.trim() != "" {
        line.clear();
    }
    let word = word(peer);
    let page =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{word}\n", word.len() + 1);
    stream.write_all(page.as_bytes()).await?;
    stream.shutdown().await
}

async fn answer_lines(stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let peer = client(&mut stream, peer).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        line.clear();
        stream.write_all(format!("{}\n", word(peer)).as_bytes()).await?;
    }
    Ok(())
}

async fn answer_datagrams() {
    let socket = UdpSocket::bind(("0.0.0.0", DATAGRAMS)).await.expect("bind");
    let mut buffer = [0; 64];
    loop {
        // Errors are those of former answers.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(word(peer).as_bytes(), peer).await;
        }
    }
}
