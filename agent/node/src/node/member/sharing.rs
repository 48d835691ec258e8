//! What a node gives of its layers to others: a listener of its own, on managers and workers alike, while the node shares any.
//!
//! Nothing else is answered there. Who asks is known by his certificate; whether he may have the image is the leader's word, which
//! is believed for half a minute. A port that can't be had keeps the node from giving, and from nothing else.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::id::NodeId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::Member;
use super::managing::{Judge, accept};
use super::places::Places;
use super::rights::Rights;
use crate::calls::PieceAsked;
use crate::executor::{LayerStore, NoPiece, Piece};
use crate::locks::lock;
use crate::mark::Mark;
use crate::wire::{Answer, Bounds, Call, Held, Refusal, Service};
use crate::worker::Right;
use crate::world::Caller;

/// Between two tries to listen.
const RETRY: Duration = Duration::from_secs(5);
/// What one connection brings: only calls for pieces.
const BOUNDS: Bounds = Bounds { streams: 32, body: 4 << 10 };
/// As many pieces one node gets at once, and as long it waits for the next.
const OF_ONE: usize = 8;
const TURN: Duration = Duration::from_secs(4);

impl Member {
    /// Listens for as long as the node is of its cluster.
    pub(super) async fn share_layers(self: Arc<Self>, layers: Arc<dyn LayerStore>) {
        let mut told = false;
        loop {
            let listen = self.document().listen;
            let host = listen.rsplit_once(':').map_or("0.0.0.0", |(host, _)| host);
            let address = format!("{host}:{}", layers.port());
            match self.parts.world.listen(&address).await {
                Ok(listener) => {
                    told = false;
                    tracing::info!(address, "layers are given to other nodes");
                    let service = Sharing {
                        member: Arc::downgrade(&self),
                        layers: Arc::clone(&layers),
                        rights: Arc::default(),
                        turns: Arc::default(),
                    };
                    accept(listener, Arc::new(service), Judge::new(&self)).await;
                }
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(address, %error, "layers are not given to other nodes");
                }
                Err(_) => {}
            }
            sleep(RETRY).await;
        }
    }
}

#[derive(Clone)]
struct Sharing {
    member: Weak<Member>,
    layers: Arc<dyn LayerStore>,
    rights: Arc<Mutex<Rights>>,
    /// Nobody keeps others waiting for longer than it takes to give him a few pieces.
    turns: Arc<Mutex<Places>>,
}

impl Sharing {
    async fn give(&self, member: &Member, call: &Call) -> Result<Answer, Refusal> {
        let Caller::Member(caller) = call.caller else {
            return Err(Refusal::Denied("a certificate of this cluster is needed".to_owned()));
        };
        if caller.expires < member.parts.world.now() {
            return Err(Refusal::Unavailable(format!("the certificate of node {} has expired", caller.node)));
        }
        if call.path() != PieceAsked::PATH {
            return Err(Refusal::Invalid(format!("layers are given here, and no {}", call.path())));
        }
        let asked: PieceAsked = call.read()?;
        if asked.length == 0 || asked.length > PieceAsked::MOST {
            return Err(Refusal::Invalid(format!("a piece of {} bytes", asked.length)));
        }
        if !asked.name.is_right() {
            return Err(Refusal::Invalid("a layer is named by two digests".to_owned()));
        }
        let own = self.turn_of(caller.node).await?;
        let by = self.right_of(member, caller.node, &asked).await?;
        match self.layers.piece(asked, by).await {
            Ok(Piece { bytes, turn }) => Ok(Answer::Held(Held { bytes, turns: vec![own, turn] })),
            Err(error @ NoPiece::NotHere) => Err(Refusal::NotFound(error.to_string())),
            Err(error @ NoPiece::NotYet) => Err(Refusal::Unavailable(error.to_string())),
        }
    }

    async fn turn_of(&self, node: NodeId) -> Result<OwnedSemaphorePermit, Refusal> {
        let turns = lock(&self.turns).of(node, OF_ONE);
        match timeout(TURN, turns.acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Refusal::Unavailable(format!("node {node} has {OF_ONE} pieces on their way"))),
        }
    }

    /// What came here by other credentials than those of the task that wants it is not for that task.
    async fn right_of(&self, member: &Member, node: NodeId, asked: &PieceAsked) -> Result<Mark, Refusal> {
        let marks = self.layers.marks(&asked.name);
        if marks.by.is_empty() {
            return Err(Refusal::NotFound(NoPiece::NotHere.to_string()));
        }
        let right = Right { node, task: asked.task, image: asked.name.image.clone(), marks };
        let known = lock(&self.rights).of(&right);
        let by = match known {
            Some(by) => by,
            None => {
                let told = member.worker.right_to_layers(&right).await;
                let told =
                    told.ok_or_else(|| Refusal::Failed("no manager says whether you may".to_owned()))?;
                if lock(&self.rights).learn(&right, told) {
                    let image = &right.image;
                    tracing::warn!(%node, image, "a node asks for an image that it has no right to");
                }
                told
            }
        };
        by.ok_or_else(|| Refusal::Denied(format!("node {node} has no right to image {}", right.image)))
    }
}

impl Service for Sharing {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let sharing = self.clone();
        async move {
            let member = sharing.member.upgrade();
            let member =
                member.ok_or_else(|| Refusal::Unavailable("this node is about to end".to_owned()))?;
            sharing.give(&member, &call).await
        }
        .boxed()
    }

    fn bounds(&self, _: &Caller) -> Bounds {
        BOUNDS
    }
}
