//! Containers that are no tasks of services come into networks of the cluster: a task is made that holds the container's addresses,
//! and it is waited for until its node may use them. What becomes of it then is the worker's to say, as of all tasks.

use std::convert::Infallible;
use std::time::Duration;

use ketch_cluster::control::{Attachment, attach_network, detach_network};
use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::TaskState;
use ketch_cluster::store::StoreAction;
use ketch_cluster::view::View;
use tokio::time::timeout;

use super::Dispatcher;
use crate::calls::{AttachAsked, Attached, Wanted};
use crate::manager::Changes;
use crate::wire::Refusal;

/// How long an address is waited for that is another's: a container that is started anew asks for the one that it has just given
/// back.
const GIVEN: Duration = Duration::from_secs(5);

impl Dispatcher {
    pub(super) async fn attach(&self, node: NodeId, asked: AttachAsked) -> Result<Attached, Refusal> {
        self.is_session(node, asked.session)?;
        let Wanted { container, name, aliases, network, addresses } = asked.wanted;
        let wanted = Attachment { node, place: asked.place, container, name, aliases, network, addresses };
        let changes = self.leader.changes();
        let made = self.leader.change(|view, now, bits| attach_network(view, wanted, now, bits)).await;
        let task = match made.map_err(|error| error.control()) {
            Ok(task) => task,
            Err(Ok(refused)) => return Ok(Attached::Refused(refused.to_string())),
            Err(Err(error)) => return Err(error.into()),
        };
        if let Ok(given) = timeout(GIVEN, self.given(task, changes)).await {
            return given;
        }
        let why = self.standing(task).err().unwrap_or_default();
        // When it fails, the node ends the place that nobody waits for.
        let withdrawn =
            self.leader.change(|view, _, _| Ok::<_, Infallible>(((), withdrawal(view, task, node)))).await;
        if let Err(error) = withdrawn {
            tracing::debug!(%task, %error, "an attachment that was not given is left");
        }
        Ok(Attached::NotGiven(why))
    }

    /// Returns once the task is its node's, or is gone.
    async fn given(&self, task: TaskId, mut changes: Changes) -> Result<Attached, Refusal> {
        loop {
            match self.standing(task) {
                Ok(true) => return Ok(Attached::Given(task)),
                Ok(false) => return Ok(Attached::NotGiven(format!("attachment {task} was removed"))),
                Err(_) => {}
            }
            if changes.next().await.is_none() {
                return Err(self.over());
            }
        }
    }

    /// Whether its node has it; false: there is none; the error is why it waits.
    fn standing(&self, task: TaskId) -> Result<bool, String> {
        self.leader.view(|view| match view.task(task) {
            None => Ok(false),
            // Asked for again, of a container that has gone meanwhile.
            Some(task) if task.status.state.is_terminal() => Ok(false),
            Some(task) if task.status.state >= TaskState::Assigned => Ok(true),
            Some(task) => Err(task.status.error.to_string()),
        })
    }
}

/// Nothing, when it is gone already.
fn withdrawal(view: &View<'_>, task: TaskId, node: NodeId) -> Vec<StoreAction> {
    detach_network(view, task, node).unwrap_or_default()
}
