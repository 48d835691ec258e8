//! What the leader answers once all is well: `explain` of everything there is, and `simulate` of a change, which is then made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use ketch_cluster::control::{Rollback, ServiceUpdate, remove_service, update_service};
use ketch_cluster::explain::{Explained, Group, TaskStory, explain};
use ketch_cluster::id::{ServiceId, TaskId};
use ketch_cluster::label::depends_on;
use ketch_cluster::objects::node::NodeState;
use ketch_cluster::objects::task::Gate;
use ketch_cluster::objects::{Node, Service, ServiceMode, ServiceSpec, Task, TaskState};
use ketch_cluster::simulate::{Copied, Ended, Outcome, Simulation};
use ketch_cluster::store::Store;
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::View;

use crate::cluster::Cluster;
use crate::invariants;
use crate::locks::lock;
use crate::model::Replicas;
use crate::random::Random;
use crate::requests::{Known, Want, leader, want};
use crate::scene::{Foresight, Room, Scene};
use crate::wishes;

/// How long a leader has to answer.
const ANSWERS: Duration = Duration::from_secs(20);
/// The longest that a container lives before it crashes.
const CRASHES: Duration = Duration::from_secs(31);

/// All that the leader says is so.
pub(crate) fn explained(cluster: &mut Cluster) -> Result<(), String> {
    asked(cluster, "everything is explained", is_explained)?
}

/// Has whoever leads answer out of its view.
fn asked<T: Send + 'static>(
    cluster: &mut Cluster,
    what: &str,
    question: impl Fn(&View<'_>, Timestamp) -> T + Send + Sync + Clone + 'static,
) -> Result<T, String> {
    let answer: Arc<Mutex<Option<T>>> = Arc::default();
    for site in &cluster.sites {
        let (question, answer) = (question.clone(), Arc::clone(&answer));
        let _runs = site.order(move |node| {
            async move {
                let Some(leader) = leader(&node).await else { return };
                let said = leader.view(|view| question(view, leader.now()));
                *lock(&answer) = Some(said);
            }
            .boxed()
        });
    }
    let mut said = None;
    cluster.until(ANSWERS, what, |_| {
        said = lock(&answer).take();
        said.is_some().then_some(()).ok_or_else(|| "nobody answers".to_owned())
    })?;
    said.ok_or_else(|| "nobody answers".to_owned())
}

fn is_explained(view: &View<'_>, now: Timestamp) -> Result<(), String> {
    let said = |text: &str| explain(view, text, now).map_err(|error| format!("explain {text}: {error}"));
    for service in view.services() {
        let Explained::Service(group) = said(&service.id.to_string())? else {
            return Err(format!("{} is explained as something else", service.spec.name));
        };
        let wanted = view.tasks_of(service.id).filter(|task| is_live(view, task));
        tells_of(view, &group, wanted.map(AsRef::as_ref))?;
    }
    for node in view.nodes() {
        let Explained::Node(group) = said(&node.id.to_string())? else {
            return Err(format!("{} is explained as something else", node.id));
        };
        takes_tasks_as_told(node, &group)?;
        let live = view.tasks_on(node.id).filter(|task| is_live(view, task));
        tells_of(view, &group, live.map(AsRef::as_ref))?;
    }
    for task in view.tasks() {
        let Explained::Task(story) = said(&task.id.to_string())? else {
            return Err(format!("{} is explained as something else", task.id));
        };
        is_true(view, task, &story)?;
    }
    Ok(())
}

fn is_live(view: &View<'_>, task: &Task) -> bool {
    task.desired_state <= TaskState::Complete && !view.state(task).is_terminal()
}

fn takes_tasks_as_told(node: &Node, group: &Group) -> Result<(), String> {
    let takes = node.status.state == NodeState::Ready && wishes::takes_tasks(node);
    let told = group.notes.first().is_some_and(|note| note == "takes new tasks");
    if takes == told { Ok(()) } else { Err(format!("of {} is told {:?}", node.id, group.notes)) }
}

/// Each that is to run, and nothing untrue.
fn tells_of<'t>(
    view: &View<'_>,
    group: &Group,
    mut wanted: impl Iterator<Item = &'t Task>,
) -> Result<(), String> {
    let told: BTreeMap<&str, &TaskStory> = group.tasks.iter().map(|it| (it.id.as_str(), it)).collect();
    wanted.try_for_each(|task| match told.get(task.id.to_string().as_str()) {
        Some(story) => is_true(view, task, story),
        None => Err(format!("{} is told without {}", group.name, task.id)),
    })
}

/// Against the task and what keeps it, as they are known here.
fn is_true(view: &View<'_>, task: &Task, story: &TaskStory) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{} is told wrongly, {what}: {story:?}", task.id));
    let name = |node: &Arc<Node>| node.description.as_ref().map(|it| it.hostname.clone());
    let node = task.node.and_then(|id| view.node(id));
    if node.is_some() && story.node != node.and_then(name) {
        return wrong("its node");
    }
    if story.state != view.state(task) {
        return wrong("its state");
    }
    if !is_live(view, task) {
        return if story.waits.is_empty() { wrong("no word of its end") } else { Ok(()) };
    }
    if story.state == TaskState::Running {
        let place = story.node.iter().map(|node| format!("on {node}: ")).next().unwrap_or_default();
        let has_place = story.why.iter().any(|line| line.starts_with(&place));
        return if has_place && story.waits.is_empty() { Ok(()) } else { wrong("its place or wait") };
    }
    if task.gate == Gate::Closed {
        let service = task.service.and_then(|id| view.service(id));
        let others = service.and_then(|it| depends_on::parse(&it.spec.labels).ok()).unwrap_or_default();
        let said = story.waits.join(" ");
        return if others.iter().any(|it| said.contains(&it.name)) { Ok(()) } else { wrong("its gate") };
    }
    let could = story.node.is_none() && story.nodes.iter().any(|answer| answer.refusal.is_none());
    if story.waits.is_empty() || could { wrong("its wait") } else { Ok(()) }
}

/// One part of a service, changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Foreseen {
    Scaled(u64),
    Updated(u64),
    Removed,
}

/// What a service has: its tasks that live, with those that have no node yet and why.
#[derive(Debug, Clone, Default)]
struct Standing {
    tasks: BTreeSet<TaskId>,
    waiting: Vec<String>,
}

/// A change does what was said that it would, and to nobody else. Nothing crashes meanwhile.
pub(crate) fn foreseen(
    cluster: &mut Cluster,
    random: &mut Random,
    known: &Known,
    scene: Scene,
) -> Result<(), String> {
    if scene.foresight == Foresight::None {
        return Ok(());
    }
    calm_down(cluster, known)?;
    let Some((service, change)) = drawn(random, known) else { return Ok(()) };
    cluster.note(&format!("simulated: {change:?} of {service}"));
    let before = cluster.newest(standings).ok_or("no manager has a store")?;
    let said =
        asked(cluster, "a change is simulated", move |view, now| simulated(view, now, service, change));
    let Some((name, outcome)) = said?? else { return Ok(()) };
    make(cluster, known, (service, change))?;
    cluster.until(ANSWERS * 12, "the change comes to what was said", |cluster| {
        let after = cluster.newest(standings).ok_or("no manager has a store")?;
        is_as_said((&before, &after), service, (&name, &outcome))?;
        others_stay((&before, &after), (service, &outcome), scene)
    })?;
    invariants::healed(cluster, known)
}

/// Has users ask for a change, until it is in the store.
pub(crate) fn make(
    cluster: &mut Cluster,
    known: &Known,
    (service, change): (ServiceId, Foreseen),
) -> Result<(), String> {
    for site in &cluster.sites {
        let _runs = want(site, Arc::clone(known), change.wanted(service));
    }
    cluster.until(ANSWERS, "the change is made", |cluster| {
        let is_made = cluster.newest(|store| change.is_made(store.service(service).map(AsRef::as_ref)));
        is_made.unwrap_or(false).then_some(()).ok_or_else(|| format!("{change:?}"))
    })?;
    cluster.note("made");
    Ok(())
}

/// From then on nothing crashes by chance.
pub(crate) fn calm_down(cluster: &mut Cluster, known: &Known) -> Result<(), String> {
    for site in &cluster.sites {
        site.machine.calm_down();
    }
    let end = cluster.elapsed() + CRASHES;
    while cluster.elapsed() < end {
        cluster.pass()?;
    }
    invariants::healed(cluster, known)
}

/// Services that neither jobs' ends nor loads change.
pub(crate) fn steady(known: &Known) -> Vec<ServiceId> {
    let model = lock(known);
    let is_steady = |mode| matches!(mode, ServiceMode::Replicated { .. });
    let steady = model.services.present().filter(|(_, it)| is_steady(it.mode));
    steady.filter(|(_, it)| it.replicas == Replicas::Users).map(|(id, _)| id).collect()
}

fn drawn(random: &mut Random, known: &Known) -> Option<(ServiceId, Foreseen)> {
    let steady = steady(known);
    let place = usize::try_from(random.below(steady.len() as u64)).unwrap_or_default();
    let change = match random.below(5) {
        0..=2 => Foreseen::Scaled(random.below(8)),
        3 => Foreseen::Updated(1_000_000),
        _ => Foreseen::Removed,
    };
    Some((*steady.get(place)?, change))
}

impl Foreseen {
    fn wanted(self, service: ServiceId) -> Want {
        match self {
            Self::Scaled(replicas) => Want::Scale { service, replicas },
            Self::Updated(image) => Want::Update { service, image },
            Self::Removed => Want::Remove { service },
        }
    }

    fn change(self, spec: &mut ServiceSpec) {
        match self {
            Self::Scaled(replicas) => spec.mode = ServiceMode::Replicated { replicas },
            Self::Updated(image) => wishes::set_image(spec, image),
            Self::Removed => {}
        }
    }

    fn is_made(self, service: Option<&Service>) -> bool {
        let Some(service) = service else { return matches!(self, Self::Removed) };
        let mut spec = service.spec.clone();
        self.change(&mut spec);
        spec == service.spec && !matches!(self, Self::Removed)
    }
}

type Said = Result<Option<(String, Outcome)>, String>;

/// None of what has no end that can be waited for.
fn simulated(view: &View<'_>, now: Timestamp, id: ServiceId, change: Foreseen) -> Said {
    let service = view.service(id).ok_or("what is to be changed is gone")?;
    let mut simulation = Simulation::of(Copied::of(view), now);
    let mut spec = service.spec.clone();
    change.change(&mut spec);
    let version = service.meta.version;
    let asked = simulation.request(|view, now, _| {
        if let Foreseen::Removed = change {
            return remove_service(view, id).map(|actions| ((), actions));
        }
        let (rollback, registry_auth) = (Rollback::None, Default::default());
        let update = ServiceUpdate { version, spec, rollback, registry_auth };
        update_service(view, id, update, now).map(|actions| ((), actions))
    });
    asked.map_err(|error| format!("simulate {change:?}: {error}"))?;
    let ended = simulation.settle(|| true);
    Ok((ended == Ended::AtRest).then(|| (service.spec.name.clone(), simulation.outcome())))
}

/// Of each service whose tasks neither a clock nor a load changes.
fn standings(store: &Store) -> BTreeMap<ServiceId, (String, Standing)> {
    let is_live =
        |task: &&Arc<Task>| task.desired_state <= TaskState::Complete && !task.status.state.is_terminal();
    let mut all = BTreeMap::new();
    for service in store.services().filter(|it| matches!(it.spec.mode, ServiceMode::Replicated { .. })) {
        if crate::loads::is_followed(&service.spec) {
            continue;
        }
        let live: Vec<_> = store.tasks_of(service.id).filter(is_live).collect();
        let waits = live.iter().filter(|task| task.status.state < TaskState::Assigned);
        let mut waiting: Vec<_> = waits
            .map(|task| {
                let why = Some(&*task.status.error).filter(|error| !error.is_empty());
                format!("{}.{}: {}", task.service_name, task.slot, why.unwrap_or("waits"))
            })
            .collect();
        waiting.sort();
        let tasks = live.iter().map(|task| task.id).collect();
        all.insert(service.id, (service.spec.name.clone(), Standing { tasks, waiting }));
    }
    all
}

type Standings = BTreeMap<ServiceId, (String, Standing)>;

/// As many tasks were made and stopped, and the same ones wait for the same.
fn is_as_said(
    (before, after): (&Standings, &Standings),
    service: ServiceId,
    (name, outcome): (&str, &Outcome),
) -> Result<(), String> {
    let of = |all: &Standings| all.get(&service).map(|it| it.1.clone()).unwrap_or_default();
    let (had, has) = (of(before), of(after));
    let said = outcome.services.iter().find(|it| it.name == name);
    let mut waiting: Vec<_> =
        said.iter().flat_map(|it| &it.waiting).map(|it| format!("{}: {}", it.task, it.why)).collect();
    waiting.sort();
    let is_waiting = has.waiting.len();
    let made = has.tasks.difference(&had.tasks).count();
    let stopped = had.tasks.difference(&has.tasks).count();
    let told_made = said.map_or(0, |it| it.placed.len());
    let told_stopped = said.map_or(0, |it| it.stopped.len());
    // Those that wait are made too, or were there.
    let is_so = (told_made..=told_made + is_waiting).contains(&made) && stopped == told_stopped;
    if is_so && waiting == has.waiting {
        Ok(())
    } else {
        Err(format!("{made} made, {stopped} stopped, {:?} wait, where was said {said:?}", has.waiting))
    }
}

/// Who is not named keeps his tasks. Where room is scarce some move later, as time goes by.
fn others_stay(
    (before, after): (&Standings, &Standings),
    (service, outcome): (ServiceId, &Outcome),
    scene: Scene,
) -> Result<(), String> {
    let named = |name: &String| outcome.services.iter().any(|it| it.name == *name);
    let others = before.iter().filter(|(id, (name, _))| **id != service && !named(name));
    for (id, (name, had)) in others.filter(|_| scene.room == Room::Plenty) {
        let has = after.get(id).map(|(_, standing)| &standing.tasks);
        if has != Some(&had.tasks) {
            return Err(format!("{name} has {has:?} instead of {:?}, and nothing was said of it", had.tasks));
        }
    }
    Ok(())
}
