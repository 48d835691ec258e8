//! The birth of a process: the first clone of `create`, and how its parent gets to know the process that a stage has made.
//! Called by [`super::parent`] and [`super::exec`].

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use ketch_sys::process::{self, Child, CloneOptions, CloneParent, Cloned, Pid};
use ketch_sys::{Errno, namespace};

use super::conversation::tell;
use super::guard::KillOnDrop;
use super::namespaces::{OpenNamespace, flag, make_time_namespace};
use super::protocol::{Channel, Message, ProtocolError};
use super::stage::run_stage;
use super::{InitError, child, init, step, user_namespace_refused};
use crate::cgroup::Cgroup;
use crate::plan::namespaces::NamespacePlan;
use crate::plan::{Caller, Plan};
use crate::spec::NamespaceType;

/// The first clone: the container's process itself, or a stage that makes it.
pub(super) enum Spawned {
    Container(Child),
    Stage(Child),
}

pub(super) fn spawn(
    plan: &Plan,
    cgroup: &Cgroup,
    context: &mut Option<init::Context<'_>>,
    theirs: &mut Option<Channel>,
    ours: &mut Option<Channel>,
) -> Result<Spawned, InitError> {
    let namespaces = &plan.namespaces;
    let staged = namespaces.need_stage(plan.caller);
    let children = ChildrenElsewhere::enter(namespaces, plan.caller)?;
    match clone_into(cgroup, if staged { 0 } else { clone_flags(plan) })? {
        Cloned::Parent(spawned) => {
            children.come_back()?;
            Ok(if staged { Spawned::Stage(spawned) } else { Spawned::Container(spawned) })
        }
        Cloned::Child => {
            drop(ours.take());
            match (context.take(), theirs.take()) {
                (Some(context), Some(channel)) if staged => {
                    // It has made the user namespace by itself.
                    run_stage(channel, context, clone_flags(plan) & !namespace::NEW_USER)
                }
                (Some(context), Some(channel)) => {
                    child::run(channel, |channel| init::initialize(channel, context))
                }
                _ => process::exit_now(child::FAILED),
            }
        }
    }
}

fn clone_into(cgroup: &Cgroup, namespaces: u64) -> Result<Cloned, InitError> {
    let clone =
        |into_cgroup| process::clone3(&CloneOptions { namespaces, into_cgroup, parent: CloneParent::Caller });
    let place = cgroup.clone_into_fd();
    match clone(place) {
        Err(source) if place.is_some() && is_of_cgroup(source.errno) => match cgroup.refused(source) {
            Some(error) => Err(error.into()),
            // Beside v1, which has all the controllers.
            None => clone(None).map_err(step("unable to start init: clone3")),
        },
        Err(source) if namespaces & namespace::NEW_USER != 0 && !is_of_cgroup(source.errno) => {
            Err(user_namespace_refused(source))
        }
        cloned => cloned.map_err(step("unable to start init: clone3")),
    }
}

/// What CLONE_INTO_CGROUP is refused with (clone(2), cgroups(7)), and namespaces never are: no right to move a process
/// there, not a part of the same delegation, processes or threads not wanted there.
pub(super) fn is_of_cgroup(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::ENOENT | Errno::ENODEV | Errno::EBUSY | Errno::EOPNOTSUPP)
}

/// The flags of the namespaces that a clone makes. The cgroup namespace is made by the child, once it is in its
/// cgroup: what the clone shows as its root would be the parent's. The time namespace is the parent's to make, as its
/// offsets must be written before anyone is inside. So is the network namespace, where it can be made meanwhile.
fn clone_flags(plan: &Plan) -> u64 {
    let made_by_clone = |kind: &NamespaceType| match kind {
        NamespaceType::Cgroup | NamespaceType::Time => false,
        NamespaceType::Network => !plan.makes_network_meanwhile(),
        _ => true,
    };
    plan.namespaces.new.iter().copied().filter(made_by_clone).fold(0, |flags, kind| flags | flag(kind))
}

/// A time namespace that is made takes effect for children only. This process's later children (hooks) belong to the host
/// again.
struct ChildrenElsewhere(Option<OpenNamespace>);

impl ChildrenElsewhere {
    fn enter(plan: &NamespacePlan, caller: Caller) -> Result<Self, InitError> {
        let mut own = None;
        // A user has the right to make one only in the user namespace: that is the stage's to do.
        if plan.creates(NamespaceType::Time) && caller == Caller::Root {
            own = Some(OpenNamespace::open(NamespaceType::Time, Path::new("/proc/self/ns/time"))?);
            make_time_namespace(&plan.time_offsets)?;
        }
        Ok(Self(own))
    }

    fn come_back(self) -> Result<(), InitError> {
        self.0.as_ref().map_or(Ok(()), OpenNamespace::join)
    }
}

/// The container's own process, whoever made it.
pub(super) fn settle(
    spawned: Spawned,
    channel: &Channel,
    map_ids: &dyn Fn(Pid) -> Result<(), InitError>,
) -> Result<Child, InitError> {
    let mut stage = match spawned {
        Spawned::Container(child) => return Ok(child),
        Spawned::Stage(stage) => KillOnDrop(Some(stage)),
    };
    loop {
        let received = if has_word(channel, stage.child()?)? { channel.receive()? } else { None };
        match received {
            Some((Message::MapIds, _)) => {
                map_ids(stage.child()?.pid)?;
                tell(channel, &Message::IdsMapped).map_err(|error| stage.how_it_ended(error))?;
            }
            Some((Message::Pid(pid), _)) => return sibling(&stage.disarm()?, pid),
            Some((Message::GoesOn, _)) => return stage.disarm(),
            Some((Message::Error(text), _)) => return Err(ProtocolError::Reported(text).into()),
            Some((found, _)) => return Err(ProtocolError::Unexpected { found, expected: "Pid" }.into()),
            None => return Err(stage.how_it_ended(ProtocolError::Ended.into())),
        }
    }
}

/// The process that `first` has made beside itself before it ends. Made with CLONE_PARENT, so it is this process's child,
/// and its number can't be reused before we wait for it.
pub(super) fn sibling(first: &Child, pid: Pid) -> Result<Child, InitError> {
    let _reaped = process::wait(&first.pidfd);
    let pidfd = process::pidfd_open(pid).map_err(step("opening the container's init"))?;
    Ok(Child { pid, pidfd })
}

/// Waits for the stage's word or its end. A stage that is killed just after its child's birth says nothing, and is not
/// missed on the channel, whose other end the child has too. The child ends with our end of it.
pub(super) fn has_word(channel: &Channel, stage: &Child) -> Result<bool, InitError> {
    let both = [channel.as_fd(), stage.pidfd.as_fd()];
    let poll = |fds, timeout| process::poll_readable(fds, timeout).map_err(step("waiting for the stage"));
    // It may have spoken between the kernel's looks at the one and at the other.
    Ok(poll(&both, None)?.first() == Some(&true)
        || poll(&both[..1], Some(Duration::ZERO))?.first() == Some(&true))
}
