//! Raft's requests to other managers, as bytes over the caller's [`Transport`].

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{OptionalSend, RPCTypes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::consensus::{LeaderId, LogId, Types, Vote};
use crate::machine::Replica;
use crate::record::{EntryRecord, LogIdRecord, SnapshotHead, VoteRecord};
use crate::seal::Entropy;
use crate::snapshot::format::{Frame, Reader};
use crate::snapshot::{SnapshotFile, Snapshots};
use crate::wire::{
    self, AppendAnswer, AppendRequest, LeadAnswer, LeadAsked, SnapshotAnswer, SnapshotPart, VoteAnswer,
    VoteAsked,
};
use crate::{Blocking, Call, Kind, Peer, Transport, TransportError};

/// How long a peer may take for one part of a snapshot, and for the last one, after which it reads all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) part: Duration,
    pub(crate) install: Duration,
}

/// What every connection needs.
pub(crate) struct Links {
    pub(crate) me: u64,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) blocking: Blocking,
    pub(crate) entropy: Entropy,
    pub(crate) patience: Patience,
}

/// So many elections may a message with entries take.
const ENTRIES: u32 = 8;

/// Makes a [`Link`] for each peer.
pub(crate) struct Network(pub(crate) Arc<Links>);

pub(crate) struct Link {
    to: Peer,
    links: Arc<Links>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Link {
        Link { to: Peer { raft_id: target, ..peer.clone() }, links: Arc::clone(&self.0) }
    }
}

impl Link {
    async fn ask<A: DeserializeOwned>(
        &self,
        kind: Kind,
        head: &impl Serialize,
        within: Duration,
    ) -> Result<A, TransportError> {
        let request = wire::encode(head, &[]).map_err(|error| TransportError::Refused(error.to_string()))?;
        self.send(Call { kind, request, within }).await
    }

    /// To where the peer is by the last committed membership, which may be elsewhere than when this link was made.
    async fn send<A: DeserializeOwned>(&self, call: Call) -> Result<A, TransportError> {
        let to = self.links.replica.peer(self.to.raft_id).unwrap_or_else(|| self.to.clone());
        let within = call.within;
        let answer = tokio::time::timeout(within, self.links.transport.call(&to, call)).await;
        let answer = answer.map_err(|_| TransportError::Late)??;
        let (answer, _) =
            wire::decode(&answer).map_err(|error| TransportError::Refused(error.to_string()))?;
        Ok(answer)
    }

    fn failed(&self, error: TransportError, action: RPCTypes, within: Duration) -> RPCError<Types> {
        match error {
            TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::from_string(error)),
            TransportError::Late => RPCError::Timeout(Timeout {
                action,
                id: self.links.me,
                target: self.to.raft_id,
                timeout: within,
            }),
            TransportError::Refused(_) => RPCError::Network(NetworkError::from_string(error)),
        }
    }

    async fn vote_on(
        &self,
        kind: Kind,
        rpc: &VoteRequest<Types>,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let asked = VoteAsked {
            vote: VoteRecord::from(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(LogIdRecord::from),
            transfer: rpc.leadership_transfer,
        };
        let answer: VoteAnswer = self
            .ask(kind, &asked, option.hard_ttl())
            .await
            .map_err(|error| self.failed(error, RPCTypes::Vote, option.hard_ttl()))?;
        Ok(VoteResponse::new(Vote::from(answer.vote), answer.last.map(LogId::from), answer.granted))
    }

    async fn send_snapshot(
        &self,
        vote: VoteRecord,
        snapshot: Snapshot<LeaderId, u64, Peer, SnapshotFile>,
    ) -> Result<VoteRecord, TransportError> {
        let mut transfer = [0; 8];
        (self.links.entropy)(&mut transfer);
        let mut sending = Sending { transfer: u64::from_le_bytes(transfer), number: 0, vote };
        let mut reader = self.links.snapshots.reader(snapshot.snapshot).map_err(unreadable)?;
        loop {
            let (back, frame) = self.next(reader).await.map_err(unreadable)?;
            reader = back;
            let within = match frame {
                Frame::Content(_) => self.links.patience.part,
                Frame::End(_) => self.links.patience.install,
            };
            let request = sending.request(frame)?;
            match self.send(Call { kind: Kind::Snapshot, request, within }).await? {
                SnapshotAnswer::Next => {}
                SnapshotAnswer::Done(vote) => return Ok(vote),
                SnapshotAnswer::OutOfStep => {
                    return Err(TransportError::Refused("another snapshot took this one's place".to_owned()));
                }
            }
        }
    }

    async fn next(&self, mut reader: Reader) -> io::Result<(Reader, Frame)> {
        self.links
            .blocking
            .run(move || {
                let frame = reader.next()?;
                Ok((reader, frame))
            })
            .await
    }
}

/// How far a snapshot was sent.
struct Sending {
    transfer: u64,
    /// Of the next frame; the head is not counted.
    number: u64,
    vote: VoteRecord,
}

impl Sending {
    /// The message that carries this frame: the first is the head.
    fn request(&mut self, frame: Frame) -> Result<Vec<u8>, TransportError> {
        let transfer = self.transfer;
        let message = match frame {
            Frame::End(digest) => wire::encode(&SnapshotPart::End { transfer, digest, vote: self.vote }, &[]),
            Frame::Content(head) if self.number == 0 => {
                let head: SnapshotHead = serde_json::from_slice(&head).map_err(unreadable)?;
                wire::encode(&SnapshotPart::Begin { transfer, head }, &[])
            }
            Frame::Content(content) => {
                wire::encode(&SnapshotPart::Frame { transfer, number: self.number - 1 }, &content)
            }
        };
        self.number += 1;
        message.map_err(unreadable)
    }
}

fn unreadable(error: impl std::fmt::Display) -> TransportError {
    TransportError::Refused(error.to_string())
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let request = AppendRequest {
            vote: VoteRecord::from(&rpc.vote),
            previous: rpc.prev_log_id.as_ref().map(LogIdRecord::from),
            entries: rpc.entries.iter().map(EntryRecord::from).collect(),
            committed: rpc.leader_commit.as_ref().map(LogIdRecord::from),
        };
        // A heartbeat's time is not enough for entries of megabytes, which would be sent again and again. Whether the leader
        // leads is found out by heartbeats, which have none.
        let within =
            if rpc.entries.is_empty() { option.hard_ttl() } else { self.links.patience.part * ENTRIES };
        let answer = self.ask(Kind::Append, &request, within).await;
        let answer = answer.map_err(|error| self.failed(error, RPCTypes::AppendEntries, within))?;
        Ok(match answer {
            AppendAnswer::Stored => AppendEntriesResponse::Success,
            AppendAnswer::StoredTo(last) => AppendEntriesResponse::PartialSuccess(last.map(LogId::from)),
            AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.vote_on(Kind::Vote, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.vote_on(Kind::PreVote, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, Peer, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(VoteRecord::from(&vote), snapshot) => sent,
        };
        let install = self.links.patience.install;
        match sent {
            Ok(vote) => Ok(SnapshotResponse::new(vote.into())),
            Err(error) => Err(self.failed(error, RPCTypes::InstallSnapshot, install).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let asked = LeadAsked {
            from: VoteRecord::from(request.from_leader()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(LogIdRecord::from),
        };
        let answer = self.ask(Kind::Lead, &asked, option.hard_ttl()).await;
        let answer =
            answer.map_err(|error| self.failed(error, RPCTypes::TransferLeader, option.hard_ttl()))?;
        Ok(match answer {
            LeadAnswer::Leading => Ok(()),
            LeadAnswer::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            LeadAnswer::Behind { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(LogId::from),
                actual: actual.map(LogId::from),
            }),
        })
    }
}
