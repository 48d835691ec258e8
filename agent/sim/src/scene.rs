//! What kind of run a seed is: how many nodes, what users ask for, what may go wrong.

use crate::random::Random;

/// Drawn once, before anything happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    /// The first ones are to be managers.
    pub(crate) managers: usize,
    pub(crate) workers: usize,
    pub(crate) clocks: Clocks,
    pub(crate) work: Work,
    pub(crate) nodes: Nodes,
    pub(crate) power: Power,
    pub(crate) beyond: Beyond,
    pub(crate) room: Room,
    pub(crate) loads: Loads,
    pub(crate) doors: Doors,
    pub(crate) foresight: Foresight,
    pub(crate) layers: Layers,
}

/// Whether clocks jump. Managers count fences by their wall clock, so then no service has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clocks {
    Good,
    Jump,
}

/// What is asked for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Services of all kinds, on one network.
    Mixed,
    /// Without a network: nobody is told of a task but its own node.
    Bare,
    /// On a network that has hardly an address to spare.
    Tight,
    /// Jobs; and whoever leads and the worker are killed just after a task's end.
    Jobs,
}

/// Whether users change nodes too: their role, availability, whether they are of the cluster, its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    Kept,
    Changed,
}

/// Whether services reserve so much of their nodes that some must wait, or make room, while nodes are away; then they have priorities, and
/// some move to nodes that come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Plenty,
    Scarce,
}

/// Whether half of the replicated services follow their load (`ketch.scale.*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loads {
    Ignored,
    Followed,
}

/// Whether services publish ports and say who reaches them (`ketch.allow`, `ketch.publish.*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doors {
    None,
    Kept,
}

/// Whether, once all is well, a change is simulated and made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foresight {
    None,
    Tried,
}

/// Whether nodes give each other layers of images, which services name by digest then; and which machine gives wrong bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layers {
    Fetched,
    Shared { liar: usize },
}

/// Whether all machines lose power at once, just after a request was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    FailsSomewhere,
    FailsEverywhere,
}

/// Whether services have ketch's own labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    Docker,
    Labels,
}

/// In each so many-th run layers are shared.
const SHARED: u64 = 6;

impl Scene {
    pub(crate) fn drawn(seed: u64, random: &mut Random) -> Self {
        let (managers, workers) = if random.below(4) == 0 { (5, 1) } else { (3, 2) };
        let clocks = if random.below(2) == 0 { Clocks::Good } else { Clocks::Jump };
        let work = match random.below(8) {
            0 => Work::Bare,
            1 => Work::Tight,
            2 | 3 => Work::Jobs,
            _ => Work::Mixed,
        };
        let nodes = if random.below(2) == 0 { Nodes::Kept } else { Nodes::Changed };
        let power = if random.below(2) == 0 { Power::FailsSomewhere } else { Power::FailsEverywhere };
        let beyond = if random.below(2) == 0 { Beyond::Docker } else { Beyond::Labels };
        let room = if random.below(3) == 0 { Room::Scarce } else { Room::Plenty };
        // Not drawn: the other seeds are what they were.
        let loads = if seed % 4 == 3 && work != Work::Tight { Loads::Followed } else { Loads::Ignored };
        let foresight = if seed % 4 == 2 { Foresight::Tried } else { Foresight::None };
        let doors = if seed.is_multiple_of(5) && work != Work::Bare { Doors::Kept } else { Doors::None };
        let liar = usize::try_from(seed / SHARED).unwrap_or_default() % (managers + workers);
        let layers = if seed % SHARED == 1 { Layers::Shared { liar } } else { Layers::Fetched };
        Self { managers, workers, clocks, work, nodes, power, beyond, room, loads, doors, foresight, layers }
    }

    /// For the play that looks at the managers' store alone: no workers, and what goes wrong is that play's own.
    pub(crate) fn of_managers(random: &mut Random) -> Self {
        let managers = if random.below(4) == 0 { 5 } else { 3 };
        let (work, nodes, power) = (Work::Bare, Nodes::Kept, Power::FailsSomewhere);
        let (beyond, room, loads) = (Beyond::Docker, Room::Plenty, Loads::Ignored);
        let (doors, foresight) = (Doors::None, Foresight::None);
        Self {
            managers,
            workers: 0,
            clocks: Clocks::Good,
            work,
            nodes,
            power,
            beyond,
            room,
            loads,
            doors,
            foresight,
            layers: Layers::Fetched,
        }
    }

    /// The pool of the network that services join: with few addresses, so that they are soon given again.
    pub(crate) fn addresses(self) -> Option<&'static str> {
        match self.work {
            Work::Bare => None,
            Work::Tight => Some("10.9.0.0/28"),
            Work::Mixed | Work::Jobs => Some("10.9.0.0/25"),
        }
    }

    /// Services at once: as many as the network has addresses for.
    pub(crate) fn most_services(self) -> usize {
        if self.work == Work::Tight { 2 } else { 8 }
    }

    /// Replicas of a service.
    pub(crate) fn most_replicas(self) -> u64 {
        if self.work == Work::Tight { 2 } else { 7 }
    }
}
