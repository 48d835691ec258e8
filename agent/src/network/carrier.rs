//! What the packet filter does not carry to a container: connections and datagrams to an IPv6 address for a container that has
//! none, to `[::1]`, and all of them while there are no rules.
//!
//! All of them together take at most a share of the daemon's descriptors: others may come as many as they like.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A client of a datagram's port is forgotten after that long without an answer, as docker-proxy does.
const SILENCE: Duration = Duration::from_secs(90);
/// Of the daemon's descriptors, an eighth of the connections and clients that could be: each takes two at most.
const SHARE: u64 = 8;
const LONGEST: usize = 65535;

/// As many connections as all ports together carry at once.
pub(super) fn share() -> Arc<Semaphore> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20).min(1 << 20);
    Arc::new(Semaphore::new(usize::try_from(limit / SHARE).unwrap_or(64)))
}

/// Connections, until this is dropped, and with it they. More than the share wait to be accepted.
pub(super) async fn connections(listener: TcpListener, to: SocketAddr, share: Arc<Semaphore>) {
    let mut carried = JoinSet::new();
    loop {
        let next = async { (Arc::clone(&share).acquire_owned().await, listener.accept().await) };
        tokio::select! {
            Some(_ended) = carried.join_next() => {}
            (one, accepted) = next => match accepted {
                Ok((mut client, _)) => drop(carried.spawn(async move {
                    let _one = one;
                    if let Ok(mut container) = TcpStream::connect(to).await {
                        let _ended = tokio::io::copy_bidirectional(&mut client, &mut container).await;
                    }
                })),
                // Of a client that has gone again, or of a table that is full for now.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// Datagrams, until this is dropped: each client gets a socket of its own, so that answers find back.
pub(super) async fn datagrams(socket: UdpSocket, to: SocketAddr, share: Arc<Semaphore>) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answering = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            Some(ended) = answering.join_next() => {
                if let Ok(client) = ended {
                    drop(clients.remove(&client));
                }
            }
            received = socket.recv_from(&mut buffer) => {
                // An error is a client's that has gone: its port unreachable.
                let Ok((length, client)) = received else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let out = match clients.entry(client) {
                    Entry::Occupied(known) => Arc::clone(known.get()),
                    Entry::Vacant(new) => {
                        let Ok(one) = Arc::clone(&share).try_acquire_owned() else { continue };
                        let Ok(out) = opened(to).await else { continue };
                        let out = Arc::clone(new.insert(Arc::new(out)));
                        let _task = answering.spawn(answers(Arc::clone(&out), Arc::clone(&socket), client, one));
                        out
                    }
                };
                let _refused = out.send(&buffer[..length]).await;
            }
        }
    }
}

async fn opened(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Carries a container's answers to one client, until there are none for a while; gives the client.
async fn answers(
    from: Arc<UdpSocket>,
    by: Arc<UdpSocket>,
    client: SocketAddr,
    _one: OwnedSemaphorePermit,
) -> SocketAddr {
    let mut buffer = vec![0; LONGEST];
    while let Ok(received) = timeout(SILENCE, from.recv(&mut buffer)).await {
        match received {
            Ok(length) => {
                let _gone = by.send_to(&buffer[..length], client).await;
            }
            // Nobody listens yet: the next may be heard.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_go_to_and_fro_for_each_client() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let front = UdpSocket::bind("[::1]:0").await.unwrap();
        let (to, at) = (server.local_addr().unwrap(), front.local_addr().unwrap());
        let carrier = tokio::spawn(datagrams(front, to, share()));
        let mut buffer = [0; 16];
        for text in [b"one", b"two"] {
            let client = UdpSocket::bind("[::1]:0").await.unwrap();
            let _sent = client.send_to(text, at).await.unwrap();
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], text);
            let _sent = server.send_to(&buffer[..length], from).await.unwrap();
            let (length, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from), (text.as_slice(), at));
        }
        carrier.abort();
    }
}
