//! A sandbox's server: two sockets in the container's namespace, served by the daemon. What it does not know, [`super::forward`]
//! asks of others.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::forward::{self, Over, read_framed, write_framed};
use super::message::{self, A, AAAA, Code, PTR, Question, Record};
use super::names::Names;

/// Of one container at a time; more are refused.
const QUERIES_AT_ONCE: usize = 512;
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

// What is still answered ends with the server: its sockets hold the container's namespace.
async fn serve_datagrams(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; 4096];
    let mut answering = JoinSet::new();
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
        while answering.try_join_next().is_some() {}
        let _task = answering.spawn(async move {
            let answer = server.ask(&query, question.as_ref(), Over::Udp).await;
            let _gone = socket.send_to(&answer, client).await;
        });
    }
}

async fn serve_connections(server: Arc<Server>, listener: TcpListener) {
    let mut serving = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = serving.join_next() => continue,
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let server = Arc::clone(&server);
        let _task = serving.spawn(async move {
            let Ok(_one) = server.connections.try_acquire() else { return };
            let _gone = serve_connection(&server, client).await;
        });
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
            PTR => {
                let address = message::reversed(&asked.name)?;
                match self.names.name(&self.container, address) {
                    Some(name) => vec![Record::Name(name)],
                    // Nobody outside knows whose it is, or has to know that it is asked for.
                    None if self.names.is_near(&self.container, address) => {
                        return Some(message::answer(query, question, (Code::NoSuchName, &[]), limit));
                    }
                    None => return None,
                }
            }
            // A name of ours has nothing else: asking the world for it would tell it, and get a false "no such name".
            _ => self.names.addresses(&self.container, &asked.name).map(|_| Vec::new())?,
        };
        Some(message::answer(query, question, (Code::Ok, &records), limit))
    }

    /// Others' answer.
    async fn ask(&self, query: &[u8], question: Option<&Question>, over: Over) -> Vec<u8> {
        let failed = |code| message::answer(query, question, (code, &[]), LONGEST);
        let Ok(_one) = self.queries.try_acquire() else { return failed(Code::Refused) };
        let Ok(_of_all) = self.names.share.try_acquire() else { return failed(Code::Refused) };
        let (servers, namespace) = self.names.servers(&self.container);
        let answer = forward::ask(&servers, namespace, query, over).await;
        answer.unwrap_or_else(|| failed(Code::ServerFailure))
    }
}
