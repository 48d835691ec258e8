//! A sandbox's server: two sockets in the container's namespace, served by the daemon. What it does not know it asks the
//! host's servers, from the host's namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::message::{self, A, AAAA, Code, PTR, Question, Record};
use super::names::Names;

/// As dockerd: so many servers, so long each.
const SERVERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(4);
/// Of one container at a time; more are refused.
const QUERIES_AT_ONCE: usize = 1024;
/// A client that keeps a connection and asks nothing.
const IDLE: Duration = Duration::from_secs(30);
const CONNECTIONS_AT_ONCE: usize = 64;
const LONGEST: usize = 65535;

/// Made in the container's namespace, by a thread that is there.
#[derive(Debug)]
pub(in crate::network) struct Sockets {
    datagrams: std::net::UdpSocket,
    connections: std::net::TcpListener,
}

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::network) struct Listening(Vec<AbortHandle>);

impl Drop for Listening {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Sockets {
    /// Opens both, at ports that nobody else has, in the calling thread's namespace.
    pub(in crate::network) fn open(address: Ipv4Addr) -> io::Result<Self> {
        let datagrams = std::net::UdpSocket::bind((address, 0))?;
        let connections = std::net::TcpListener::bind((address, 0))?;
        datagrams.set_nonblocking(true)?;
        connections.set_nonblocking(true)?;
        Ok(Self { datagrams, connections })
    }

    /// The ports: UDP's, TCP's.
    pub(in crate::network) fn ports(&self) -> io::Result<(u16, u16)> {
        Ok((self.datagrams.local_addr()?.port(), self.connections.local_addr()?.port()))
    }

    /// Begins to answer a container.
    pub(in crate::network) fn serve(
        self,
        runtime: &Handle,
        container: &str,
        names: &Arc<Names>,
    ) -> io::Result<Listening> {
        let _entered = runtime.enter();
        let datagrams = Arc::new(UdpSocket::from_std(self.datagrams)?);
        let connections = TcpListener::from_std(self.connections)?;
        let server = Arc::new(Server {
            container: container.to_owned(),
            names: Arc::clone(names),
            queries: Semaphore::new(QUERIES_AT_ONCE),
            connections: Semaphore::new(CONNECTIONS_AT_ONCE),
        });
        let udp = runtime.spawn(serve_datagrams(Arc::clone(&server), datagrams)).abort_handle();
        let tcp = runtime.spawn(serve_connections(server, connections)).abort_handle();
        Ok(Listening(vec![udp, tcp]))
    }
}

#[derive(Debug)]
struct Server {
    container: String,
    names: Arc<Names>,
    queries: Semaphore,
    connections: Semaphore,
}

#[derive(Clone, Copy, PartialEq)]
enum Over {
    Udp,
    Tcp,
}

async fn serve_datagrams(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; 4096];
    loop {
        // An error is a client's that has gone: its port unreachable.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let query = &buffer[..length];
        let question = message::question(query);
        if let Some(answer) = server.known(query, question.as_ref(), Over::Udp) {
            let _gone = socket.send_to(&answer, client).await;
            continue;
        }
        let (server, socket, query) = (Arc::clone(&server), Arc::clone(&socket), query.to_vec());
        drop(tokio::spawn(async move {
            let answer = server.ask(&query, question.as_ref(), Over::Udp).await;
            let _gone = socket.send_to(&answer, client).await;
        }));
    }
}

async fn serve_connections(server: Arc<Server>, listener: TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let server = Arc::clone(&server);
        drop(tokio::spawn(async move {
            let Ok(_one) = server.connections.try_acquire() else { return };
            let _gone = serve_connection(&server, client).await;
        }));
    }
}

async fn serve_connection(server: &Server, mut client: TcpStream) -> io::Result<()> {
    while let Ok(query) = timeout(IDLE, read_framed(&mut client)).await? {
        let question = message::question(&query);
        let answer = match server.known(&query, question.as_ref(), Over::Tcp) {
            Some(answer) => answer,
            None => server.ask(&query, question.as_ref(), Over::Tcp).await,
        };
        write_framed(&mut client, &answer).await?;
    }
    Ok(())
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    let _length = stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut framed = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

impl Server {
    /// The answer that needs nobody else.
    fn known(&self, query: &[u8], question: Option<&Question>, over: Over) -> Option<Vec<u8>> {
        let Some(asked) = question else {
            // Other classes and operations are not containers' names: whoever is asked further may know.
            let is_query = query.len() >= 12 && query[2] & 0x80 == 0;
            return if is_query {
                None
            } else {
                Some(message::answer(query, None, (Code::Refused, &[]), LONGEST))
            };
        };
        let limit = if over == Over::Udp { asked.limit } else { LONGEST };
        let records: Vec<Record> = match asked.kind {
            A | AAAA => self
                .names
                .addresses(&self.container, &asked.name)?
                .into_iter()
                .filter(|address| address.is_ipv4() == (asked.kind == A))
                .map(Record::Address)
                .collect(),
            PTR => vec![Record::Name(self.names.name(&self.container, message::reversed(&asked.name)?)?)],
            // A name of ours has nothing else: asking the world for it would tell it, and get a false "no such name".
            _ => self.names.addresses(&self.container, &asked.name).map(|_| Vec::new())?,
        };
        Some(message::answer(query, question, (Code::Ok, &records), limit))
    }

    /// The answer of the host's servers.
    async fn ask(&self, query: &[u8], question: Option<&Question>, over: Over) -> Vec<u8> {
        let failed = |code| message::answer(query, question, (code, &[]), LONGEST);
        let Ok(_one) = self.queries.try_acquire() else { return failed(Code::Refused) };
        for server in self.names.servers(&self.container).into_iter().take(SERVERS) {
            let server = SocketAddr::new(server, 53);
            let answer = match over {
                Over::Udp => timeout(PATIENCE, ask_over_udp(server, query)).await,
                Over::Tcp => timeout(PATIENCE, ask_over_tcp(server, query)).await,
            };
            match answer {
                // Servers that fail leave it to the next.
                Ok(Ok(answer)) if answer.get(3).is_some_and(|code| !matches!(code & 15, 2 | 5)) => {
                    return answer;
                }
                _ => {}
            }
        }
        failed(Code::ServerFailure)
    }
}

/// From a port of its own, which with the query's number is what a forger has to guess.
async fn ask_over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut asked = query.to_vec();
    let mut number = [0; 2];
    let _filled = rustix::rand::getrandom(&mut number[..], rustix::rand::GetRandomFlags::empty());
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

async fn ask_over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    let answer = read_framed(&mut stream).await?;
    if message::answers(&answer, query) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}
