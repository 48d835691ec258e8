//! What this manager answers to the requests of others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::storage::Snapshot;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::carried::carried;
use crate::consensus::{LogId, Raft, Types, Vote};
use crate::record::{EntryRecord, VoteRecord};
use crate::snapshot::format::{Digest, SnapshotError};
use crate::snapshot::{Incoming, SnapshotFile, Snapshots};
use crate::wire::{
    self, AppendAnswer, AppendRequest, LeadAnswer, LeadAsked, SnapshotAnswer, SnapshotPart, VoteAnswer,
    VoteAsked, WireError,
};
use crate::{Blocking, Kind};

/// Why a request has no answer: its sender's transport reports it as [`TransportError::Refused`](crate::TransportError).
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the manager stops, or failed: {0}")]
    Stopped(String),
}

impl From<io::Error> for AnswerError {
    fn from(error: io::Error) -> Self {
        Self::Snapshot(SnapshotError::Io(error))
    }
}

/// A sender waits for an answer to each part for less: it has given up, or is no more.
const ABANDONED: Duration = Duration::from_secs(60);

/// A snapshot of which the next part is awaited. One at a time: there is one leader.
struct Transfer {
    id: u64,
    next: u64,
    incoming: Incoming,
    /// When its last part came.
    at: Instant,
}

pub(crate) struct Answers {
    raft: Raft,
    snapshots: Arc<Snapshots>,
    blocking: Blocking,
    transfer: Mutex<Option<Transfer>>,
}

impl Answers {
    pub(crate) fn new(raft: Raft, snapshots: Arc<Snapshots>, blocking: Blocking) -> Self {
        Self { raft, snapshots, blocking, transfer: Mutex::default() }
    }

    pub(crate) async fn to(&self, kind: Kind, request: &[u8]) -> Result<Vec<u8>, AnswerError> {
        Ok(match kind {
            Kind::Append => wire::encode(&self.append(wire::decode(request)?.0).await?, &[])?,
            Kind::Vote | Kind::PreVote => {
                wire::encode(&self.vote(kind, wire::decode(request)?.0).await?, &[])?
            }
            Kind::Snapshot => {
                let (part, body) = wire::decode(request)?;
                wire::encode(&self.snapshot(part, body).await?, &[])?
            }
            Kind::Lead => wire::encode(&self.lead(&wire::decode(request)?.0).await?, &[])?,
        })
    }

    /// Forgets a snapshot whose next part does not come any more.
    pub(crate) async fn give_up_abandoned(&self) -> io::Result<()> {
        let mut transfer = self.transfer.lock().await;
        let Some(abandoned) = transfer.take_if(|it| it.at.elapsed() >= ABANDONED) else { return Ok(()) };
        let snapshots = Arc::clone(&self.snapshots);
        self.blocking.run(move || snapshots.give_up(abandoned.incoming)).await
    }

    async fn append(&self, request: AppendRequest) -> Result<AppendAnswer, AnswerError> {
        let entries = request.entries.into_iter().map(EntryRecord::entry).collect::<io::Result<Vec<_>>>();
        let request = AppendEntriesRequest {
            vote: request.vote.into(),
            prev_log_id: request.previous.map(LogId::from),
            entries: entries.map_err(stopped)?,
            leader_commit: request.committed.map(LogId::from),
        };
        let answer = carried(&self.raft, |raft| async move { raft.append_entries(request).await }).await;
        Ok(match answer.map_err(stopped)? {
            AppendEntriesResponse::Success => AppendAnswer::Stored,
            AppendEntriesResponse::PartialSuccess(last) => {
                AppendAnswer::StoredTo(last.as_ref().map(Into::into))
            }
            AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote(VoteRecord::from(&vote)),
        })
    }

    async fn vote(&self, kind: Kind, asked: VoteAsked) -> Result<VoteAnswer, AnswerError> {
        let mut request = VoteRequest::new(Vote::from(asked.vote), asked.last.map(LogId::from));
        request.leadership_transfer = asked.transfer;
        let answer = carried(&self.raft, |raft| async move {
            match kind {
                Kind::PreVote => raft.pre_vote(request).await,
                _ => raft.vote(request).await,
            }
        });
        let answer: VoteResponse<Types> = answer.await.map_err(stopped)?;
        Ok(VoteAnswer {
            vote: VoteRecord::from(&answer.vote),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(Into::into),
        })
    }

    async fn lead(&self, asked: &LeadAsked) -> Result<LeadAnswer, AnswerError> {
        let request = TransferLeaderRequest::new(asked.from.into(), asked.to, asked.last.map(LogId::from));
        let answer =
            carried(&self.raft, |raft| async move { raft.handle_transfer_leader(request).await }).await;
        Ok(match answer.map_err(stopped)? {
            Ok(()) => LeadAnswer::Leading,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => LeadAnswer::VoteChanged {
                expected: VoteRecord::from(&expected),
                actual: VoteRecord::from(&actual),
            },
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => LeadAnswer::Behind {
                expected: expected.as_ref().map(Into::into),
                actual: actual.as_ref().map(Into::into),
            },
        })
    }

    async fn snapshot(&self, part: SnapshotPart, body: &[u8]) -> Result<SnapshotAnswer, AnswerError> {
        let mut transfer = self.transfer.lock().await;
        match part {
            SnapshotPart::Begin { transfer: id, head } => {
                let (snapshots, old) = (Arc::clone(&self.snapshots), transfer.take());
                let begin = move || {
                    old.map_or(Ok(()), |old| snapshots.give_up(old.incoming))?;
                    snapshots.receive(head)
                };
                let incoming = self.blocking.run(begin).await?;
                *transfer = Some(Transfer { id, next: 0, incoming, at: Instant::now() });
                Ok(SnapshotAnswer::Next)
            }
            SnapshotPart::Frame { transfer: id, number } => {
                let Some(mut current) = transfer.take_if(|it| it.id == id && it.next == number) else {
                    return Ok(SnapshotAnswer::OutOfStep);
                };
                let body = body.to_vec();
                let write = move || current.incoming.frame(&body).map(|()| current);
                let written = self.blocking.run(write).await?;
                *transfer = Some(Transfer { next: number + 1, at: Instant::now(), ..written });
                Ok(SnapshotAnswer::Next)
            }
            SnapshotPart::End { transfer: id, digest, vote } => {
                let Some(current) = transfer.take_if(|it| it.id == id) else {
                    return Ok(SnapshotAnswer::OutOfStep);
                };
                let vote = self.install(current.incoming, digest, vote).await?;
                Ok(SnapshotAnswer::Done(vote))
            }
        }
    }

    async fn install(
        &self,
        incoming: Incoming,
        digest: Digest,
        vote: VoteRecord,
    ) -> Result<VoteRecord, AnswerError> {
        let meta = incoming.head.meta()?;
        let snapshots = Arc::clone(&self.snapshots);
        let received = move || -> io::Result<SnapshotFile> { Ok(snapshots.received(incoming, digest)?) };
        let snapshot = self.blocking.run(received).await?;
        let snapshot = Snapshot { meta, snapshot };
        let answer =
            carried(
                &self.raft,
                |raft| async move { raft.install_full_snapshot(vote.into(), snapshot).await },
            )
            .await;
        Ok(VoteRecord::from(&answer.map_err(stopped)?.vote))
    }
}

fn stopped(error: impl std::fmt::Display) -> AnswerError {
    AnswerError::Stopped(error.to_string())
}
