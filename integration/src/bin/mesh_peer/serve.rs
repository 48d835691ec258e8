//! A well-behaved server: it says who it is, and to whom.
//!
//! At SIGTERM it takes those connections that the kernel has for it already, which on a busy machine may be some, and none
//! afterwards: they are refused, and whoever sends it one then sees it. It ends once the open ones have ended, or is killed.
//! Datagrams are answered to the last.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::{DATABASE, DATAGRAMS, PAGES};

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

async fn answer_page(stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
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
