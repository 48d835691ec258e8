//! What must hold, whatever happens: always, and once all is well again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::objects::node::{NodeRole, NodeState};
use ketch_cluster::objects::service::UpdateOrder;
use ketch_cluster::objects::{Node, ServiceMode, Task, TaskState};
use ketch_cluster::store::Store;

use crate::cluster::Cluster;
use crate::locks::lock;
use crate::model::{Asked, Model, Present};
use crate::requests::Known;
use crate::{jobs, labels, layered, loads, reach};
use crate::{users, wishes};

/// How long an agent that begins has to stop what its fence has run out for.
const STOPS: Duration = Duration::from_secs(3);
/// How long a healed cluster has until no superseded task runs.
const SUPERSEDED: Duration = Duration::from_secs(10);
/// And until it is as its users asked: node verdicts, restarts with their delays, updates of two at a time that are watched.
const CONVERGES: Duration = Duration::from_secs(240);

/// Of the committed store, at every moment and on every manager; and of what runs.
pub(crate) fn always(cluster: &Cluster, known: &Known) -> Result<(), String> {
    if let Some(wrong) = cluster.sites.iter().find_map(|site| site.machine.wrong()) {
        return Err(wrong);
    }
    fences(cluster)?;
    reach::always(cluster)?;
    layered::always(cluster)?;
    addresses_that_run(cluster, known)?;
    for site in &cluster.sites {
        let judged = site.node().and_then(|node| {
            node.view(|store| {
                places(store).and_then(|()| addresses(store)).and_then(|()| labels::always(store))
            })
        });
        if let Some(Err(why)) = judged {
            return Err(format!("in the store of {}: {why}", site.name));
        }
    }
    Ok(())
}

/// At most one task of a fenced place runs where an agent runs that can stop it.
fn fences(cluster: &Cluster) -> Result<(), String> {
    let mut held = BTreeMap::new();
    let can_stop_it = |index: &usize| cluster.is_up_for(*index, STOPS);
    for index in (0..cluster.sites.len()).filter(can_stop_it) {
        let site = &cluster.sites[index];
        for place in site.machine.fenced() {
            if let Some(other) = held.insert(place, index) {
                return Err(format!("{place:?} runs on node-{other} and {}", site.name));
            }
        }
    }
    Ok(())
}

/// No two containers run with one address. A node that was removed by force may not know yet that it is to stop.
fn addresses_that_run(cluster: &Cluster, known: &Known) -> Result<(), String> {
    let model = lock(known);
    let mut held = BTreeMap::new();
    for (index, site) in cluster.sites.iter().enumerate() {
        if cluster.identity(index).is_some_and(|node| !model.nodes.may_be_there(node)) {
            continue;
        }
        for address in site.machine.addresses() {
            if let Some(other) = held.insert(address, index) {
                return Err(format!("{} runs on node-{other} and {}", address.1, site.name));
            }
        }
    }
    Ok(())
}

/// At most one task of a place is to run on a node that is there; one more while an update starts first. A place is a slot, or
/// a node's.
fn places(store: &Store) -> Result<(), String> {
    for service in store.services() {
        let order = service.spec.update.unwrap_or_default().order;
        let most = if order == UpdateOrder::StartFirst { 2 } else { 1 };
        let is_bound = service.spec.mode.is_bound_to_nodes();
        let mut wanted: BTreeMap<_, Vec<TaskId>> = BTreeMap::new();
        for task in store.tasks_of(service.id).filter(|task| is_wanted(store, task)) {
            let node = task.node.filter(|_| is_bound);
            wanted.entry((task.job_iteration, task.slot, node)).or_default().push(task.id);
        }
        if let Some(((_, slot, _), tasks)) = wanted.into_iter().find(|(_, tasks)| tasks.len() > most) {
            return Err(format!("{}.{slot} has {tasks:?} to run", service.spec.name));
        }
    }
    Ok(())
}

fn is_wanted(store: &Store, task: &Task) -> bool {
    let is_there = |node| store.node(node).is_some_and(|it| it.status.state != NodeState::Down);
    let goal = if task.job_iteration.is_some() { TaskState::Complete } else { TaskState::Running };
    task.desired_state == goal && task.status.state <= TaskState::Running && task.node.is_none_or(is_there)
}

/// No two tasks that may run have one address.
fn addresses(store: &Store) -> Result<(), String> {
    let mut held = BTreeMap::new();
    for task in store.tasks().filter(|task| task.status.state <= TaskState::Running) {
        for attachment in &task.networks {
            for address in &attachment.addresses {
                if let Some(other) = held.insert((attachment.network, address.address), task.id) {
                    return Err(format!("{} and {other} have {address}", task.id));
                }
            }
        }
    }
    Ok(())
}

/// Once nothing is wrong any more.
pub(crate) fn healed(cluster: &mut Cluster, known: &Known) -> Result<(), String> {
    cluster.until(CONVERGES, "the cluster comes to what was asked", |cluster| {
        users::activate_all(cluster, known)?;
        let wanted = cluster.newest(|store| {
            nodes_are_as_asked(store)?;
            is_as_asked(store, &lock(known))?;
            Ok::<_, String>((to_run(store), store.tasks().map(|task| task.id).collect::<BTreeSet<_>>()))
        });
        let (wanted, known) = wanted.ok_or("no manager has a store")??;
        let running = running(cluster);
        if running != wanted {
            return Err(differ(&running, &wanted));
        }
        reach::healed(cluster)?;
        let left = cluster.sites.iter().flat_map(|site| site.machine.left());
        let forgotten = left.filter(|task| !known.contains(task)).count();
        if forgotten == 0 {
            Ok(())
        } else {
            Err(format!("{forgotten} containers of forgotten tasks are left"))
        }
    })?;
    acknowledged(cluster, &lock(known))?;
    agree(cluster)
}

/// All nodes of the cluster are there, in the roles that they are to have.
fn nodes_are_as_asked(store: &Store) -> Result<(), String> {
    let is_so = |node: &Node| {
        node.status.state == NodeState::Ready
            && node.role == node.spec.role
            && node.manager.is_some() == (node.role == NodeRole::Manager)
    };
    let other = store.nodes().find(|node| !is_so(node));
    other.map_or(Ok(()), |node| {
        Err(format!(
            "node {} is {:?}, {:?} where {:?} is asked",
            node.id, node.status.state, node.role, node.spec.role
        ))
    })
}

/// No task runs that is to be stopped, or of which nobody knows.
pub(crate) fn superseded(cluster: &mut Cluster) -> Result<(), String> {
    cluster.until(SUPERSEDED, "superseded tasks end", |cluster| {
        let known = cluster.newest(|store| {
            let lives = |task: &&std::sync::Arc<Task>| task.desired_state <= TaskState::Complete;
            store.tasks().filter(lives).map(|task| task.id).collect::<BTreeSet<_>>()
        });
        let known = known.ok_or("no manager has a store")?;
        let strange: Vec<_> = running(cluster).difference(&known).copied().collect();
        if strange.is_empty() { Ok(()) } else { Err(format!("{strange:?} run")) }
    })
}

fn running(cluster: &Cluster) -> BTreeSet<TaskId> {
    cluster.sites.iter().flat_map(|site| site.machine.running()).collect()
}

fn to_run(store: &Store) -> BTreeSet<TaskId> {
    let is_to_run = |task: &&std::sync::Arc<Task>| is_wanted(store, task) && !labels::is_at_gate(task);
    store.tasks().filter(is_to_run).map(|task| task.id).collect()
}

/// Each service has its replicas to run, each job has come to its end.
fn is_as_asked(store: &Store, model: &Model) -> Result<(), String> {
    for service in store.services() {
        if labels::waits(store, service)? {
            continue;
        }
        if !model.rolled_back.contains(&service.id) {
            labels::has_rolled(store, service)?;
        }
        jobs::is_done(store, service)?;
        loads::has_followed(service)?;
        let wanted = match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            ServiceMode::Global => store.nodes().filter(|node| wishes::takes_tasks(node)).count() as u64,
            ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => 0,
        };
        let to_run = store.tasks_of(service.id).filter(|task| is_wanted(store, task)).count() as u64;
        if to_run != wanted {
            return Err(format!("{} has {to_run} of {wanted} tasks to run", service.spec.name));
        }
    }
    let gone = model.services.iter().filter(|(_, asked)| **asked == Asked::Removed);
    for (service, _) in gone {
        if store.tasks_of(service).next().is_some() {
            return Err(format!("tasks of the removed service {service} are left"));
        }
    }
    Ok(())
}

/// What users were told is so.
fn acknowledged(cluster: &Cluster, model: &Model) -> Result<(), String> {
    for (id, asked) in model.services.iter() {
        let found = cluster.newest(|store| store.service(id).map(|it| Present::of(&it.spec))).flatten();
        if !asked.is(found.as_ref()) {
            return Err(format!("service {id} was acknowledged as {asked:?} and is {found:?}"));
        }
    }
    for (id, asked) in model.nodes.iter() {
        let found = cluster.newest(|store| store.node(id).map(|it| it.spec.clone())).flatten();
        if !asked.is(found.as_ref()) {
            return Err(format!("node {id} was acknowledged as {asked:?} and is {found:?}"));
        }
    }
    Ok(())
}

/// All managers have the same store at the same place in the log.
fn agree(cluster: &mut Cluster) -> Result<(), String> {
    cluster.until(Duration::from_secs(20), "the managers agree", |cluster| {
        let views = cluster.sites.iter().filter_map(|site| site.node()?.view(Store::snapshot));
        let mut views: Vec<_> = views.collect();
        views.sort_by_key(|snapshot| snapshot.version);
        let managers = cluster.newest(|store| store.nodes().filter(|it| it.manager.is_some()).count());
        if Some(views.len()) != managers {
            return Err(format!("{} of {managers:?} managers", views.len()));
        }
        match (views.first(), views.last()) {
            (Some(first), Some(last)) if first.version != last.version => {
                Err(format!("versions {:?} to {:?}", first.version, last.version))
            }
            (Some(first), Some(_)) if views.iter().any(|it| it != first) => {
                Err(format!("the stores of version {:?} differ", first.version))
            }
            _ => Ok(()),
        }
    })
}

fn differ(running: &BTreeSet<TaskId>, wanted: &BTreeSet<TaskId>) -> String {
    let (missing, strange) = (wanted.difference(running).count(), running.difference(wanted).count());
    format!("{missing} tasks are missing, {strange} run that should not")
}
