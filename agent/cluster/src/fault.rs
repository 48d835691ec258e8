//! Faults that are made on purpose, so that the simulation can prove that it finds their like. Without the feature `faults`,
//! which no product turns on, there is none, and the compiler removes the branches that ask.
//!
//! `ketch-raft`, `ketch-node` and this crate ask; `ketch-sim` chooses one, for all that runs in the process.

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Entries of raft's log are acknowledged before they are synced.
    LogNotSynced,
    /// A vote is given and not kept.
    VoteNotKept,
    /// A change is acknowledged when it is proposed.
    EarlyCommit,
    /// A worker's end is acknowledged, and not written into the store.
    EndForgotten,
    /// An address is free as soon as its task is to stop.
    AddressFreedEarly,
    /// Nodes are not told of what changed on their tasks after the first assignment.
    AssignmentLost,
    /// A node is told once whom a service lets in, and not when a name becomes another's.
    NamesStale,
    /// What is gone stays among what nodes are told of services, with its ports.
    ServiceKept,
    /// A node is told once of a service's labels, and not when they change.
    LabelsStale,
    /// Who has another right to an image than by his own credentials gets it.
    RightSkipped,
    /// A node that gave wrong bytes of a layer is asked for others.
    LiarTrusted,
    /// Whoever was among several that gave wrong bytes is taken for the one who did.
    HonestBlamed,
    /// Nobody is told which nodes have a layer.
    HoldersUnnamed,
    /// What waits until another service is healthy is let go when that has started.
    HealthSkipped,
    /// What tasks use of memory is not told.
    MemoryUntold,
    /// A worker that restarts forgets how far its tasks had come.
    TaskStartedTwice,
    /// Tasks that the assignment lacks run on.
    RemovalIgnored,
    /// A task that has failed gets no successor.
    RestartLost,
    /// The replacement of a lost task does not wait for its fence.
    FenceSkipped,
    /// A spec that was made of an older one takes the newer one's place.
    StaleVersion,
    /// A manager that does not lead answers reads out of its own store. (Made by the simulation's API.)
    FollowerRead,
    /// A leader answers reads without knowing whether it leads still.
    BarrierSkipped,
}

/// All of them, by the names that they are chosen by.
pub const FAULTS: [(&str, Fault); 22] = [
    ("log-not-synced", Fault::LogNotSynced),
    ("vote-not-kept", Fault::VoteNotKept),
    ("early-commit", Fault::EarlyCommit),
    ("end-forgotten", Fault::EndForgotten),
    ("address-freed-early", Fault::AddressFreedEarly),
    ("assignment-lost", Fault::AssignmentLost),
    ("names-stale", Fault::NamesStale),
    ("service-kept", Fault::ServiceKept),
    ("labels-stale", Fault::LabelsStale),
    ("right-skipped", Fault::RightSkipped),
    ("liar-trusted", Fault::LiarTrusted),
    ("honest-blamed", Fault::HonestBlamed),
    ("holders-unnamed", Fault::HoldersUnnamed),
    ("health-skipped", Fault::HealthSkipped),
    ("memory-untold", Fault::MemoryUntold),
    ("task-started-twice", Fault::TaskStartedTwice),
    ("removal-ignored", Fault::RemovalIgnored),
    ("restart-lost", Fault::RestartLost),
    ("fence-skipped", Fault::FenceSkipped),
    ("stale-version", Fault::StaleVersion),
    ("follower-read", Fault::FollowerRead),
    ("barrier-skipped", Fault::BarrierSkipped),
];

#[cfg(feature = "faults")]
static CHOSEN: std::sync::OnceLock<Fault> = std::sync::OnceLock::new();

/// Makes that fault from now on. The first choice holds.
#[cfg(feature = "faults")]
pub fn choose(fault: Fault) {
    CHOSEN.get_or_init(|| fault);
}

impl Fault {
    /// Whether it is to be made.
    #[must_use]
    pub fn is_made(self) -> bool {
        #[cfg(feature = "faults")]
        return CHOSEN.get() == Some(&self);
        #[cfg(not(feature = "faults"))]
        false
    }
}
