//! Names that are not known here: the host's servers are asked from its namespace, those that the container names from its own.
//!
//! One after the other, but a silent one does not hold the rest up: the next is asked meanwhile, and the first good answer counts.
//! What is still asked then ends with the question.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::message;
use crate::blocking::blocking;
use crate::error::Error;
use crate::network::namespace;
use crate::network::resolver::Upstream;

/// As dockerd: so many servers, so long each.
const SERVERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(4);
/// A server that has not answered by then may not do so at all.
const NEXT_AFTER: Duration = Duration::from_millis(800);
const LONGEST: usize = 65535;
const PORT: u16 = 53;

/// How a question came, and is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// The first server's answer that is one; `None`: nobody has given any.
pub(super) async fn ask(
    servers: &[Upstream],
    namespace: Option<PathBuf>,
    query: &[u8],
    over: Over,
) -> Option<Vec<u8>> {
    let query: Arc<[u8]> = Arc::from(query);
    let mut waiting = servers.iter().take(SERVERS);
    let mut asked = JoinSet::new();
    loop {
        match waiting.next() {
            Some(server) => {
                let asking = ask_one(*server, namespace.clone(), Arc::clone(&query), over);
                let _task = asked.spawn(timeout(PATIENCE, asking));
            }
            None if asked.is_empty() => return None,
            None => {}
        }
        let answered = if waiting.len() > 0 {
            match timeout(NEXT_AFTER, asked.join_next()).await {
                Ok(answered) => answered,
                Err(_silent) => continue,
            }
        } else {
            asked.join_next().await
        };
        // Servers that fail leave it to the others.
        if let Some(Ok(Ok(Ok(answer)))) = answered
            && answer.get(3).is_some_and(|code| !matches!(code & 15, 2 | 5))
        {
            return Some(answer);
        }
    }
}

async fn ask_one(
    server: Upstream,
    namespace: Option<PathBuf>,
    query: Arc<[u8]>,
    over: Over,
) -> io::Result<Vec<u8>> {
    let address = SocketAddr::new(server.address, PORT);
    let inside = namespace.filter(|_| !server.from_host);
    match over {
        Over::Udp => ask_over_udp(udp(address.ip(), inside).await?, address, &query).await,
        Over::Tcp => ask_over_tcp(tcp(address.ip(), inside).await?.connect(address).await?, &query).await,
    }
}

/// From a port of its own, which with the query's number is what a forger has to guess.
async fn udp(server: IpAddr, inside: Option<PathBuf>) -> io::Result<UdpSocket> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let Some(path) = inside else { return UdpSocket::bind((any, 0)).await };
    let socket = opened(path, move || std::net::UdpSocket::bind((any, 0))).await?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn tcp(server: IpAddr, inside: Option<PathBuf>) -> io::Result<TcpSocket> {
    let is_ipv4 = server.is_ipv4();
    let Some(path) = inside else {
        return if is_ipv4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    };
    let socket = opened(path, move || {
        let family = if is_ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
    });
    Ok(TcpSocket::from_std_stream(socket.await?.into()))
}

/// A socket that is made in a container's namespace.
async fn opened<T: Send + 'static>(
    path: PathBuf,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let opening = blocking(move || {
        namespace::enter(&path, || open().map_err(|error| Error::internal("opening a socket", &error)))
    });
    opening.await.map_err(|error| io::Error::other(error.message))
}

async fn ask_over_udp(socket: UdpSocket, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    socket.connect(server).await?;
    let mut asked = query.to_vec();
    let mut number = [0; 2];
    crate::random::fill(&mut number).map_err(|error| io::Error::other(error.message))?;
    if let Some(place) = asked.get_mut(..2) {
        place.copy_from_slice(&number);
    }
    let _length = socket.send(&asked).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if message::answers(&buffer[..length], &asked) {
            buffer.truncate(length);
            buffer[..2].copy_from_slice(&query[..2]);
            return Ok(buffer);
        }
    }
}

async fn ask_over_tcp(mut stream: TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    write_framed(&mut stream, query).await?;
    let answer = read_framed(&mut stream).await?;
    if message::answers(&answer, query) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

pub(super) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    let _length = stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut framed = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
