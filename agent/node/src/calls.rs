//! What nodes ask of each other: every call by its path, with what is sent and what is answered. JSON, but for raft's, whose
//! bytes are `ketch-raft`'s own. A field that is added has a default, so that nodes of neighbouring versions understand each
//! other.
//!
//! | path | who may | answered by |
//! |---|---|---|
//! | `/ketch/v1/root`, `/ketch/v1/join` | anyone | a manager; join: the leader |
//! | `/ketch/v1/renew` | members | the leader |
//! | `/ketch/v1/raft/...` | managers | a manager |
//! | `/ketch/v1/enter` | managers | the leader |
//! | `/ketch/v1/session`, `heartbeat`, `tell`, `uses`, `logs`, `attach`, `tunnel`, `leave`, `layer`, `layer/right` | members | the leader |
//! | `/ketch/v1/layer/piece` | members, of images of their own tasks | a node that shares layers, at a port of its own |
//! | `/ketch/v1/reach` | managers | the leader |
//! | `/ketch/v1/api` and what follows | managers | the leader: a request of the Engine API that came to another manager |

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ketch_cluster::assignment::AssignmentChanges;
use ketch_cluster::autoscale::Use;
use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::node::{Availability, CaKeyId, NodeDescription, NodeRole};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::Told;
use ketch_raft::Kind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::executor::{LogLine, LogOptions};
use crate::mark::{Mark, Marks};
use crate::world::Expected;

/// A call with one answer.
pub trait Request: Serialize + DeserializeOwned + Send {
    const PATH: &'static str;
    type Answer: Serialize + DeserializeOwned + Send;
}

/// A call that is answered by message after message, until one side ends it.
pub trait StreamRequest: Serialize + DeserializeOwned + Send {
    const PATH: &'static str;
    type Message: StreamMessage;
}

/// What such a stream brings. A kind that is added is passed over by nodes of older versions: one without which they must not go on
/// would need another version of what nodes speak.
pub trait StreamMessage: Serialize + DeserializeOwned + Send {
    /// The kinds that are read.
    const KINDS: &'static [&'static str];
}

/// A call whose body and answer are a stream of bytes in both directions. What it asks is JSON in the header [`ASKED`].
pub trait TunnelRequest: Serialize + DeserializeOwned + Send {
    const PATH: &'static str;
}

/// What a [`TunnelRequest`] asks.
pub const ASKED: &str = "ketch-asked";

/// Whether calls of that path are [`TunnelRequest`]s.
#[must_use]
pub fn is_tunnel(path: &str) -> bool {
    [ReachAsked::PATH, TunnelAsked::PATH].contains(&path)
}

/// Below it come requests of the Engine API, path and query as they came.
pub const API: &str = "/ketch/v1/api";

/// The path of raft's messages; the query is `to=<raft id>`.
#[must_use]
pub fn raft_path(kind: Kind) -> &'static str {
    match kind {
        Kind::Append => "/ketch/v1/raft/append",
        Kind::Vote => "/ketch/v1/raft/vote",
        Kind::PreVote => "/ketch/v1/raft/pre-vote",
        Kind::Snapshot => "/ketch/v1/raft/snapshot",
        Kind::Lead => "/ketch/v1/raft/lead",
    }
}

/// The kind of raft's message that has this path.
#[must_use]
pub fn raft_kind(path: &str) -> Option<Kind> {
    [Kind::Append, Kind::Vote, Kind::PreVote, Kind::Snapshot, Kind::Lead]
        .into_iter()
        .find(|kind| raft_path(*kind) == path)
}

/// The cluster's roots.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootAsked {}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Roots {
    /// PEM.
    pub roots: String,
    /// The manager's clock.
    #[serde(default)]
    pub now: Option<Timestamp>,
}

/// To become a node.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinAsked {
    pub token: String,
    /// PEM of PKCS #10.
    pub certificate_request: String,
    #[serde(default)]
    pub availability: Availability,
}

/// Without the token, so that no log line can have it.
impl fmt::Debug for JoinAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinAsked")
    }
}

/// A member's next certificate, in the role that the cluster has for it now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewAsked {
    /// PEM of PKCS #10.
    pub certificate_request: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certified {
    /// UDP port of the cluster's data plane.
    pub data_path_port: u16,
    pub node: NodeId,
    pub role: NodeRole,
    /// PEM.
    pub chain: String,
    /// PEM.
    pub roots: String,
}

/// A manager by its certificate asks to be one in raft; it serves raft's calls already. Asked again, it is done once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnterAsked {
    /// Drawn by itself, once for each log that it begins.
    pub raft_id: u64,
    /// Where other managers reach it: `host:port`.
    pub address: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entered {}

/// A worker's session begins. An older one of the same node ends by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionAsked {
    pub description: NodeDescription,
    /// The roots that it trusts.
    pub roots: Vec<CaKeyId>,
    /// What it knows of its tasks, all of it.
    pub words: Vec<(TaskId, Told)>,
    /// Where it is to be reached; empty: where its connection comes from.
    #[serde(default)]
    pub address: String,
    /// Drawn when the worker's process began: two that use one node's keys at once have two. Zero: none.
    #[serde(default)]
    pub process: u128,
    /// Whether it knows [`SessionMessage::Tunnel`]: workers of before don't.
    #[serde(default)]
    pub tunnels: bool,
    /// TCP port at which the node gives layers to others; zero: it shares none.
    #[serde(default)]
    pub layers: u16,
}

/// What a session's stream brings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum SessionMessage {
    /// The first one.
    Begun { session: u128, heartbeat: Duration },
    /// The managers, whenever they change.
    Managers(Vec<ManagerAddress>),
    /// What the node is to be, whenever it changes; another role than its certificate's is asked for by
    /// [`RenewAsked`].
    Membership(Membership),
    /// What the node is to have.
    Assignment(AssignmentChanges),
    /// The same, and more of it follows: nothing is done by it until an [`Assignment`](Self::Assignment) has come.
    AssignmentPart(AssignmentChanges),
    /// Somebody wants to read logs of tasks here.
    Logs(LogsWanted),
    /// Nobody does any more.
    LogsEnd { subscription: u64 },
    /// A manager wants to reach containers here: the worker asks for the tunnel.
    Tunnel(TunnelWanted),
    /// What of its tasks the node is to measure from now on, whenever that changes.
    Measures(MeasuresWanted),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerAddress {
    pub node: NodeId,
    pub address: String,
}

impl ManagerAddress {
    /// Of a node that has just joined, which knows where a manager is and not yet which node that is.
    #[must_use]
    pub fn nameless(address: String) -> Self {
        Self { node: NodeId::of(0), address }
    }

    /// Whom a connection there must reach: that node, as a manager.
    #[must_use]
    pub fn expected(&self) -> Expected {
        match self.node == NodeId::of(0) {
            true => Expected::Role(NodeRole::Manager),
            false => Expected::Manager(self.node),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub role: NodeRole,
    /// Who the node is in raft; none while raft has not let it in. (An older leader tells none: then it is asked once more, and lets in
    /// whom it has.)
    #[serde(default)]
    pub raft_id: Option<u64>,
    /// The roots that the node is to trust (PEM), and which of them is to have signed its certificate: others renew.
    pub roots: String,
    pub issuer: CaKeyId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsWanted {
    pub subscription: u64,
    pub tasks: Vec<TaskId>,
    pub options: LogOptions,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelWanted {
    /// Drawn by the leader.
    pub tunnel: u128,
    /// Who asks for what.
    pub visit: Visit,
}

/// A manager at a node's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The manager whose user asks.
    pub by: NodeId,
    pub scope: Scope,
}

/// What a visit may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// This task's container, and nothing else.
    Task(TaskId),
    /// The list of the containers that are tasks.
    List,
}

/// A manager wants to reach a node's containers. The tunnel carries one connection of the Engine API, which the node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachAsked {
    pub target: Target,
}

/// What a manager's user names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A task's container by its name, its id, or what its id begins with.
    Container(String),
    Task(TaskId),
    /// The list of the node's.
    Node(NodeId),
}

/// A worker opens a tunnel that was asked for by [`TunnelWanted`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TunnelAsked {
    pub session: u128,
    pub tunnel: u128,
}

impl TunnelRequest for ReachAsked {
    const PATH: &'static str = "/ketch/v1/reach";
}

impl TunnelRequest for TunnelAsked {
    const PATH: &'static str = "/ketch/v1/tunnel";
}

/// A worker is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heartbeat {
    pub session: u128,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeartbeatTaken {
    /// When the next one is expected: a node is down after three that were missed.
    pub next: Duration,
}

/// A worker's news of its tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tell {
    pub session: u128,
    pub words: Vec<(TaskId, Told)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TellTaken {
    /// Those of the words that are ends and are committed: the worker may forget them. Others are told again.
    pub committed: Vec<TaskId>,
}

/// All that a node is to measure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeasuresWanted {
    /// Between two measurements.
    pub every: Duration,
    pub tasks: Vec<(TaskId, Measure)>,
}

/// What of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// CPU and memory.
    Resources,
    /// These, and the connections that are opened to it.
    Requests,
}

/// What tasks use that were asked for by [`MeasuresWanted`], those that could be measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsesTell {
    pub session: u128,
    pub uses: Vec<(TaskId, Use)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsesTaken {}

/// Lines that were asked for by [`LogsWanted`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogsTell {
    pub session: u128,
    pub subscription: u64,
    pub lines: Vec<(TaskId, LogLine)>,
    /// No more of these tasks; with why, when they could not be read.
    pub ended: Vec<(TaskId, String)>,
}

/// Whether more is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogsTaken {
    pub go_on: bool,
}

/// A container of the node, which is no task of a service, wants to be in a network of the cluster. Answered once its addresses
/// are the node's to use: a task comes with them that is the container's place there ([`TaskRuntime::Attachment`]). The place is
/// given back by that task's end.
///
/// [`TaskRuntime::Attachment`]: ketch_cluster::objects::task::TaskRuntime::Attachment
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachAsked {
    pub session: u128,
    /// The task that the place is to be, drawn by the worker: asked again, because an answer was lost, it is the same place.
    #[serde(default)]
    pub place: Option<TaskId>,
    pub wanted: Wanted,
}

/// Which container, and how it wants to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The container's id.
    pub container: String,
    pub name: String,
    pub aliases: Vec<String>,
    /// By its name, its id, or a part of its id.
    pub network: String,
    /// None is any.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attached {
    /// The place is this task.
    Given(TaskId),
    /// Whoever asked can't have it: the managers' words.
    Refused(String),
    /// There is no place as it was asked for, and none came free in time; why.
    NotGiven(String),
}

/// A blob of an image, both by their digests (`sha256:` and 64 digits). The image is what services name: its manifest, or its index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobName {
    pub image: String,
    pub blob: String,
}

impl BlobName {
    /// Whether both are digests: names are kept for as long as somebody asks for them.
    #[must_use]
    pub fn is_right(&self) -> bool {
        is_digest(&self.image) && is_digest(&self.blob)
    }
}

/// Whether it is `sha256:` and 64 digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')))
}

/// A node that shares layers says how it is with a blob of an image that a task of its own names by digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerAsked {
    pub session: u128,
    pub name: BlobName,
    pub step: LayerStep,
    /// Nodes that it will not ask: they did not deliver, or not what was asked for.
    #[serde(default)]
    pub avoid: Vec<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerStep {
    /// It wants to know who has the blob.
    Seeks,
    /// It fetches it from the registry, as it was told to: said again every few seconds.
    Fetches,
    /// It has it, verified.
    Has,
    /// The registry did not give it.
    GivesUp,
    /// That node gave other bytes than the blob's.
    Blames(NodeId),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerFound {
    /// Whom to ask for pieces: who has it, who fetches it, who gets it from these.
    pub sources: Vec<LayerSource>,
    /// Nobody has it, and nobody else fetches it: the node is to get it from the registry, for all.
    pub registry: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSource {
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// A node that is asked for pieces of an image wants to know whether the other one has a right to them: a task of the image, with
/// credentials by which they came here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerRightAsked {
    pub session: u128,
    /// Who wants the image.
    pub node: NodeId,
    /// For which of its tasks.
    pub task: TaskId,
    /// Its digest.
    pub image: String,
    /// By whose credentials what is asked for came to the node that has it.
    #[serde(default)]
    pub marks: Marks,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerRight {
    /// That of the marks which gives the right; none: there is none.
    #[serde(default)]
    pub by: Option<Mark>,
}

/// A part of a blob. The answer is its bytes: fewer where the blob, what has arrived of it, or the sender's rate ends; refused as
/// [`Refusal::NotFound`](crate::wire::Refusal::NotFound) of what is not there, as `Unavailable` of what is not there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceAsked {
    pub name: BlobName,
    /// For which task of the node that asks.
    pub task: TaskId,
    pub offset: u64,
    /// In bytes, at most [`PieceAsked::MOST`].
    pub length: u32,
}

impl PieceAsked {
    pub const PATH: &'static str = "/ketch/v1/layer/piece";
    pub const MOST: u32 = 2 << 20;
}

/// A node leaves the cluster: its tasks have ended, its session ends, and it is down at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leave {
    pub session: u128,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Left {}

macro_rules! requests {
    ($($request:ty => $path:literal -> $answer:ty;)+) => {$(
        impl Request for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        }
    )+};
}

requests! {
    RootAsked => "/ketch/v1/root" -> Roots;
    JoinAsked => "/ketch/v1/join" -> Certified;
    RenewAsked => "/ketch/v1/renew" -> Certified;
    EnterAsked => "/ketch/v1/enter" -> Entered;
    Heartbeat => "/ketch/v1/heartbeat" -> HeartbeatTaken;
    Tell => "/ketch/v1/tell" -> TellTaken;
    UsesTell => "/ketch/v1/uses" -> UsesTaken;
    LogsTell => "/ketch/v1/logs" -> LogsTaken;
    AttachAsked => "/ketch/v1/attach" -> Attached;
    LayerAsked => "/ketch/v1/layer" -> LayerFound;
    LayerRightAsked => "/ketch/v1/layer/right" -> LayerRight;
    Leave => "/ketch/v1/leave" -> Left;
}

impl StreamMessage for SessionMessage {
    const KINDS: &'static [&'static str] = &[
        "Begun",
        "Managers",
        "Membership",
        "Assignment",
        "AssignmentPart",
        "Logs",
        "LogsEnd",
        "Tunnel",
        "Measures",
    ];
}

impl StreamRequest for SessionAsked {
    const PATH: &'static str = "/ketch/v1/session";
    type Message = SessionMessage;
}
