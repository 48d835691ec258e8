//! How raft's messages and random numbers reach it: by the node's [`Links`] and its [`World`].

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_raft::{Call, Entropy, Peer, Transport, TransportError};

use crate::calls::raft_path;
use crate::wire::{CallError, Destination, Links};
use crate::world::{Expected, World};

/// Raft's messages as calls of nodes. The connection proves that the peer is the node that is meant, and the query says as
/// whom in raft: one that began another log is another member, and must not answer for the one that it was.
pub(super) struct ByLinks(pub(super) Arc<Links>);

impl Transport for ByLinks {
    fn call(&self, to: &Peer, call: Call) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let links = Arc::clone(&self.0);
        let path = format!("{}?{}", raft_path(call.kind), query(to.raft_id));
        let to = Destination::member(to.address.clone(), Expected::Node(to.node));
        async move {
            let answer = links.send(&to, &path, call.request.into(), call.within).await;
            answer.map(|bytes| bytes.to_vec()).map_err(failed)
        }
        .boxed()
    }
}

/// Of a message to that member.
pub(super) fn query(raft_id: u64) -> String {
    format!("to={raft_id}")
}

fn failed(error: CallError) -> TransportError {
    match error {
        CallError::Late => TransportError::Late,
        CallError::Dial(_) | CallError::Lost(_) => TransportError::Unreachable(error.to_string()),
        CallError::Refused(_) | CallError::Unreadable(_) | CallError::Version { .. } => {
            TransportError::Refused(error.to_string())
        }
    }
}

pub(super) fn entropy(world: Arc<dyn World>) -> Entropy {
    Arc::new(move |bytes: &mut [u8]| {
        for part in bytes.chunks_mut(16) {
            part.copy_from_slice(&world.bits().to_le_bytes()[..part.len()]);
        }
    })
}

/// Of the draws of election timeouts.
pub(super) fn seed(world: &dyn World) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = world.bits().to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
