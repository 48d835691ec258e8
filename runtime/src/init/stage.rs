//! The stage: a first child that goes where the container's process can't be born from outside, and makes it there.
//!
//! ```text
//!   parent: clone3
//!   stage:  joins what it may, enters the user namespace (a joined one, or a new one whose ids the parent maps)
//!           clone3 of everything else, beside itself; or, for a second birth to come, unshare, and it goes on itself
//!   child:  the container's first process
//! ```
//! A namespace that the user namespace does not own can only be joined before that is entered, and what it is to own can
//! only be made after. Used where one clone3 can't do both: [`NamespacePlan::need_stage`].
//!
//! [`NamespacePlan::need_stage`]: crate::plan::namespaces::NamespacePlan::need_stage

use std::os::fd::AsFd;

use ketch_sys::namespace;
use ketch_sys::process::{self, CloneOptions, CloneParent, Cloned};

use super::child::{expect, join_cgroups, keep_only, run, tell};
use super::namespaces::{OpenNamespace, make_time_namespace};
use super::parent::write_own_oom_score;
use super::protocol::{Channel, Message, ProtocolError};
use super::second_birth::SecondBirth;
use super::{InitError, init, step, user_namespace_refused};
use crate::cgroup::JoinFile;
use crate::plan::Caller;
use crate::spec::NamespaceType;

/// Runs the stage to its end. `namespaces` are the flags of what it clones.
pub(super) fn run_stage(channel: Channel, context: init::Context<'_>, namespaces: u64) -> ! {
    let mut context = Some(context);
    run(channel, |channel| {
        let Some(mut context) = context.take() else { return Err(ProtocolError::Ended.into()) };
        // The owner of a namespace that we join may look at us from then on: nothing of the host's may be open but
        // what the next process needs.
        drop(context.io.pidfd_socket.take());
        let needed = context.joins.iter().map(|join| join.fd.as_fd());
        let needed = needed.chain(context.cgroup_files.iter().map(JoinFile::as_fd));
        let needed =
            needed.chain(channel.iter().map(AsFd::as_fd)).chain(context.fifo.iter().map(AsFd::as_fd));
        let needed = needed.chain(context.second_birth.iter().filter_map(SecondBirth::namespace));
        keep_only(&context.io, needed)?;
        let plan = context.plan;
        let is_new = plan.namespaces.creates(NamespaceType::User);
        if plan.caller == Caller::User {
            // Later the file is root's, as of every process that is not dumpable. The child inherits the score.
            write_own_oom_score(plan.process.oom_score_adj)?;
            if !is_new {
                process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
            }
        }
        join_cgroups(&mut context.cgroup_files)?;
        let user = join_what_we_may(&mut context.joins);
        if let Some(birth) = &mut context.second_birth
            && !user.as_ref().is_some_and(|user| birth.is_owned_by(user))
        {
            birth.join()?;
        }
        match user {
            Some(user) => user.join()?,
            None => make_user_namespace(channel)?,
        }
        if plan.caller == Caller::User && plan.namespaces.creates(NamespaceType::Time) {
            make_time_namespace(&plan.namespaces.time_offsets)?;
        }
        if plan.caller == Caller::User && is_new {
            process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
        }
        if context.second_birth.is_some() {
            namespace::unshare(namespaces).map_err(step("unable to start init: unshare"))?;
            tell(channel, &Message::GoesOn)?;
            return init::initialize(channel, context);
        }
        let options = CloneOptions { namespaces, into_cgroup: None, parent: CloneParent::CallersParent };
        match process::clone3(&options).map_err(step("unable to start init: clone3"))? {
            Cloned::Parent(child) => {
                if let Some(channel) = channel.take() {
                    channel.send(&Message::Pid(child.pid))?;
                }
                process::exit_now(0)
            }
            Cloned::Child => {
                let channel = channel.take().ok_or(ProtocolError::Ended)?;
                run(channel, |channel| init::initialize(channel, context))
            }
        }
    })
}

/// Joins, before the user namespace, whatever that may not own: our own rights end there. What only its owner may join
/// stays in the list. Gives the user namespace to join.
fn join_what_we_may(joins: &mut Vec<OpenNamespace>) -> Option<OpenNamespace> {
    let (mut user, others): (Vec<_>, Vec<_>) =
        joins.drain(..).partition(|join| join.kind == NamespaceType::User);
    joins.extend(others.into_iter().filter(|join| join.join().is_err()));
    user.pop()
}

fn make_user_namespace(channel: &Option<Channel>) -> Result<(), InitError> {
    namespace::unshare(namespace::NEW_USER).map_err(user_namespace_refused)?;
    tell(channel, &Message::MapIds)?;
    expect(channel, &Message::IdsMapped, "IdsMapped")
}
