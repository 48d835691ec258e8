//! Connections that come in: their handshakes are made beside each other, as many as are bearable, and only those that
//! succeed are handed on.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_ca::trust::PeerError;
use ketch_node::world::{Accepted, Caller, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as Opened, OwnedMutexGuard as Open, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::Error;
use tracing::{debug, warn};

use super::credentials::{Held, whole};
use super::socket;
use crate::locks::locked;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many are under way at once, and how many of those from one address: one that only opens connections must not keep
/// the others out.
const HANDSHAKES: usize = 512;
const HANDSHAKES_OF_ONE: usize = 64;
/// After an accept(2) that failed, for want of descriptors as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the socket before it may take to be closed.
const CLOSES: Duration = Duration::from_secs(2);

/// Which addresses are listened at. A socket is closed by its task, a moment after it was dropped, and its address is free then.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<BTreeMap<String, Arc<Opened<()>>>>);

impl Sockets {
    /// Until the socket that was there is closed; one that stays is for bind(2) to tell of.
    async fn wait_for(&self, address: &str) {
        let before = locked(&self.0).get(address).cloned();
        if let Some(before) = before {
            let _closed = timeout(CLOSES, before.lock()).await;
        }
    }

    /// Held for as long as the socket is open.
    fn open(&self, address: &str) -> Option<Open<()>> {
        let opened = Arc::new(Opened::new(()));
        let open = Arc::clone(&opened).try_lock_owned().ok();
        let _closed = locked(&self.0).insert(address.to_owned(), opened);
        open
    }
}

/// A socket that listens. Dropped, it is closed, and so are connections whose handshake is under way.
#[derive(Debug)]
pub(super) struct Tcp {
    address: String,
    accepted: mpsc::Receiver<Accepted>,
    accepting: JoinHandle<()>,
}

impl Tcp {
    pub(super) async fn bind(held: Arc<Held>, sockets: &Sockets, address: &str) -> io::Result<Self> {
        sockets.wait_for(address).await;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        let open = sockets.open(&address);
        let (sender, accepted) = mpsc::channel(16);
        let accepting = tokio::spawn(accept_all(
            Socket { listener, _open: open },
            Door { held, sender, busy: Arc::default() },
        ));
        Ok(Self { address, accepted, accepting })
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listener for Tcp {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async {
            let accepted = self.accepted.recv().await;
            accepted.ok_or_else(|| io::Error::other("the socket was closed"))
        }
        .boxed()
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

/// What each handshake is made with.
#[derive(Clone)]
struct Door {
    held: Arc<Held>,
    sender: mpsc::Sender<Accepted>,
    busy: Arc<Busy>,
}

/// Closed before it says so: fields are dropped in their order.
struct Socket {
    listener: TcpListener,
    _open: Option<Open<()>>,
}

async fn accept_all(socket: Socket, door: Door) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= HANDSHAKES {
            handshakes.join_next().await;
        }
        match socket.listener.accept().await {
            Ok((socket, peer)) => {
                let peer = peer.ip().to_canonical();
                if let Some(place) = Busy::enter(&door.busy, peer) {
                    handshakes.spawn(door.clone().let_in(socket, place));
                } else {
                    debug!(%peer, "too many handshakes are under way from there");
                }
            }
            Err(error) => {
                warn!("accepting a connection of a node: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

impl Door {
    async fn let_in(self, socket: TcpStream, place: Place) {
        let address = place.peer.to_string();
        match timeout(HANDSHAKE, self.handshake(socket, &address)).await {
            // Who waits for its turn with the node has no handshake under way any more.
            Ok(Ok(accepted)) => {
                drop(place);
                let _ended = self.sender.send(accepted).await;
            }
            Ok(Err(reason)) => debug!(%address, "a connection was refused: {reason}"),
            Err(_) => debug!(%address, "a handshake took too long"),
        }
    }

    async fn handshake(&self, socket: TcpStream, address: &str) -> Result<Accepted, String> {
        socket::tend(&socket).map_err(|error| error.to_string())?;
        let config = self.held.server().ok_or("this node has no certificate")?;
        let stream = TlsAcceptor::from(config).accept(socket).await.map_err(|error| reason(&error))?;
        let shown = stream.get_ref().1.peer_certificates();
        let caller = Caller::of(shown).map_err(|error| error.to_string())?;
        let chain = shown.unwrap_or_default().iter().map(|it| it.clone().into_owned()).collect();
        Ok(Accepted { stream: Box::new(stream), caller, chain, address: address.to_owned() })
    }
}

fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.and_then(PeerError::of).map_or_else(|| error.to_string(), |peer| whole(&peer))
}

/// How many handshakes are under way, by where they come from.
#[derive(Debug, Default)]
struct Busy(Mutex<BTreeMap<IpAddr, usize>>);

/// One of them. Dropped, it is over.
struct Place {
    busy: Arc<Busy>,
    peer: IpAddr,
}

impl Busy {
    fn enter(busy: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut counts = locked(&busy.0);
        let count = counts.entry(peer).or_default();
        if *count >= HANDSHAKES_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Place { busy: Arc::clone(busy), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = locked(&self.busy.0);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}
