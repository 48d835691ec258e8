//! One manager of the bench, a process of its own: the product's node, with its log on the disk. It is told what to do line by
//! line, and answers each line with what it has measured, `name value`, and a line `.` at the end.
//!
//! `ketch-scale manager <folder> <name> [<token> <manager>...]`: founds a cluster, or joins one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use ketch_cluster::control::create_service;
use ketch_cluster::id::{NodeId, ServiceId, TaskId};
use ketch_cluster::objects::cluster::ClusterNetworking;
use ketch_cluster::objects::container::ContainerSpec;
use ketch_cluster::objects::node::{Availability, NodeState, NodeStatus};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{
    Cluster, ClusterSpec, Labels, Meta, Node as NodeObject, NodeSpec, ServiceMode, ServiceSpec, TaskSpec,
    TaskState,
};
use ketch_cluster::reconcilers::MOST_ACTIONS;
use ketch_cluster::store::{Object, StoreAction};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::View;
use ketch_node::manager::{Leader, Wake};
use ketch_node::node::{Advertised, Founding, JoinOrder, Lead, Node, NodeParts};
use ketch_node::wire::{Answer, Call, Refusal, Service};
use ketch_raft::Blocking;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::agents::nodes;
use crate::executor::{Pretended, description};
use crate::meter::{peak, process_time, resident};
use crate::world::BenchWorld;

/// Users that make services at the same time.
const USERS: usize = 32;
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(words: &[&str]) -> Result<(), Failure> {
    let [folder, name, join @ ..] = words else { return Err("manager: too few words".into()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = begin(Path::new(folder), name, join).await?;
        let mut lines = BufReader::new(stdin()).lines();
        println!(".");
        while let Some(line) = lines.next_line().await? {
            let words: Vec<&str> = line.split(' ').collect();
            if let Err(error) = obey(&node, &words).await {
                println!("failed {}", error.to_string().replace('\n', " "));
            }
            println!(".");
        }
        Ok(())
    })
}

async fn begin(folder: &Path, name: &str, join: &[&str]) -> Result<Arc<Node>, Failure> {
    let seed = name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    let node = Node::new(NodeParts {
        world: Arc::new(BenchWorld::new(folder, name, seed)),
        executor: Arc::new(Pretended { description: description(name, None) }),
        api: Arc::new(NoApi),
        blocking: Blocking::Threads,
    });
    let address = format!("{name}:2377");
    match join {
        [] => {
            let founding = Founding {
                listen: address.clone(),
                advertise: address,
                data_address: None,
                spec: ClusterSpec::default(),
                networking: ClusterNetworking::default(),
                availability: Availability::Drain,
            };
            node.init(founding).await?;
        }
        [token, managers @ ..] => {
            let order = JoinOrder {
                listen: address.clone(),
                advertise: address,
                advertised: Advertised::Given,
                data_address: None,
                managers: managers.iter().map(|it| (*it).to_owned()).collect(),
                token: (*token).to_owned(),
                availability: Availability::Drain,
            };
            node.join(order).await?;
        }
    }
    Ok(node)
}

struct NoApi;

impl Service for NoApi {
    fn answer(&self, _call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        ready(Err(Refusal::Denied("this node serves no API".to_owned()))).boxed()
    }
}

async fn obey(node: &Node, words: &[&str]) -> Result<(), Failure> {
    match words {
        ["token"] => {
            let cluster = node.view(|store| store.cluster().cloned()).flatten().ok_or("no cluster yet")?;
            println!("token {}", cluster.root_ca.join_tokens.manager);
            println!("cluster {}", cluster.id);
        }
        ["usage"] => {
            println!("cpu {}", process_time().as_secs_f64());
            println!("resident {}", resident());
            println!("peak {}", peak());
        }
        ["leads"] => drop(leader(node).await?),
        ["write"] => {
            let leader = leader(node).await?;
            leader.change(|view, now, _| touched(view, now)).await?;
        }
        ["nodes", seed, first, count] => {
            make_nodes(node, seed.parse()?, first.parse()?, count.parse()?).await?
        }
        ["ready", count] => until_ready(node, count.parse()?).await?,
        ["services", prefix, count, replicas, rate] => {
            let wanted = Wanted {
                prefix: (*prefix).to_owned(),
                count: count.parse()?,
                replicas: replicas.parse()?,
                rate: rate.parse()?,
            };
            make_services(node, wanted).await?;
        }
        other => return Err(format!("no such order: {other:?}").into()),
    }
    Ok(())
}

async fn leader(node: &Node) -> Result<Arc<Leader>, Failure> {
    match node.lead().await? {
        Lead::Here(leader, _) => Ok(leader),
        Lead::There(manager) => Err(format!("another manager leads: {}", manager.address).into()),
    }
}

/// Some write that changes nothing: the cluster as it is.
fn touched(view: &View<'_>, now: Timestamp) -> Result<((), Vec<StoreAction>), Infallible> {
    let action = view.cluster().map(|cluster| {
        let mut cluster = Cluster::clone(cluster);
        cluster.meta.updated_at = now;
        StoreAction::Update(cluster.into())
    });
    Ok(((), action.into_iter().collect()))
}

/// Nodes as they are when they have joined, many in one change: joining itself is not measured.
async fn make_nodes(node: &Node, seed: u64, first: usize, count: usize) -> Result<(), Failure> {
    let leader = leader(node).await?;
    let ids: Vec<_> = nodes(seed).skip(first).take(count).collect();
    for part in ids.chunks(MOST_ACTIONS) {
        let made = leader.change(|_, now, _| {
            let nodes = part.iter().map(|id| StoreAction::Create(joined(*id, now).into()));
            Ok::<_, Infallible>(((), nodes.collect()))
        });
        made.await?;
    }
    Ok(())
}

fn joined(id: NodeId, now: Timestamp) -> NodeObject {
    NodeObject {
        id,
        meta: Meta::new(now),
        spec: NodeSpec::default(),
        description: None,
        status: NodeStatus::default(),
        role: NodeSpec::default().role,
        manager: None,
        attachments: Vec::new(),
    }
}

async fn until_ready(node: &Node, count: usize) -> Result<(), Failure> {
    let began = Instant::now();
    let ready = || {
        node.view(|store| store.nodes().filter(|node| node.status.state == NodeState::Ready).count())
            .unwrap_or_default()
    };
    while ready() < count {
        if began.elapsed() > PATIENCE {
            return Err(format!("{} of {count} nodes are ready", ready()).into());
        }
        sleep(LOOK).await;
    }
    println!("ready_in {}", began.elapsed().as_secs_f64());
    Ok(())
}

struct Wanted {
    prefix: String,
    count: usize,
    replicas: u64,
    /// Services a second; 0: as fast as they are taken.
    rate: f64,
}

fn spec(name: String, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "busybox:1".to_owned(), ..ContainerSpec::default() };
    let task = TaskSpec { runtime: TaskRuntime::Container(Box::new(container)), ..TaskSpec::default() };
    ServiceSpec {
        name,
        labels: Labels::new(),
        task: Arc::new(task),
        mode: ServiceMode::Replicated { replicas },
        update: None,
        rollback: None,
        endpoint: None,
    }
}

/// Makes services, and waits until all their tasks run, by their workers' word.
async fn make_services(node: &Node, wanted: Wanted) -> Result<(), Failure> {
    let leader = leader(node).await?;
    let tasks = wanted.count * usize::try_from(wanted.replicas)?;
    let watching = tokio::spawn(watch(Arc::clone(&leader), tasks, format!("{}-", wanted.prefix)));
    sleep(LOOK).await;
    let (began, cpu) = (Instant::now(), process_time());
    let asked = ask(&leader, &wanted).await?;
    let all_asked = began.elapsed();
    let seen = timeout(PATIENCE, watching).await.map_err(|_| "tasks don't run in time")??;
    if seen.running < tasks {
        return Err("another manager leads than at the beginning".into());
    }
    let all = began.elapsed();
    let cpu = process_time().saturating_sub(cpu);
    let mut latencies: Vec<f64> = seen
        .assigned
        .iter()
        .filter_map(|(service, at)| {
            Some(at.saturating_duration_since(*asked.get(service)?).as_secs_f64() * 1e3)
        })
        .collect();
    latencies.sort_by(f64::total_cmp);
    let at =
        |part: usize| latencies.get((latencies.len().max(1) - 1) * part / 100).copied().unwrap_or(f64::NAN);
    println!("asked_in {}", all_asked.as_secs_f64());
    println!("running_in {}", all.as_secs_f64());
    println!("cpu {}", cpu.as_secs_f64());
    println!("assigned_p50 {}", at(50));
    println!("assigned_p99 {}", at(99));
    Ok(())
}

/// When each service was asked for.
async fn ask(leader: &Arc<Leader>, wanted: &Wanted) -> Result<BTreeMap<ServiceId, Instant>, Failure> {
    let users = Arc::new(Semaphore::new(USERS));
    let began = tokio::time::Instant::now();
    let mut asking = JoinSet::new();
    for number in 0..wanted.count {
        if wanted.rate > 0.0 {
            #[allow(clippy::cast_precision_loss, reason = "thousands")]
            let due = Duration::from_secs_f64(number as f64 / wanted.rate);
            tokio::time::sleep_until(began + due).await;
        }
        let spec = spec(format!("{}-{number}", wanted.prefix), wanted.replicas);
        let (leader, user) = (Arc::clone(leader), Arc::clone(&users).acquire_owned().await?);
        asking.spawn(async move {
            let asked = Instant::now();
            let made = leader.change(|view, now, bits| create_service(view, spec, now, bits)).await;
            drop(user);
            made.map(|id| (id, asked)).map_err(|error| error.to_string())
        });
    }
    let made: Result<BTreeMap<_, _>, String> = asking.join_all().await.into_iter().collect();
    Ok(made?)
}

/// When each task of these services was assigned, and how many came to run.
struct Seen {
    assigned: Vec<(ServiceId, Instant)>,
    running: usize,
}

/// Follows the cluster as its dispatcher does, until so many tasks run or the leadership is over.
async fn watch(leader: Arc<Leader>, tasks: usize, prefix: String) -> Seen {
    let mut changes = leader.changes();
    let mut seen = Seen { assigned: Vec::new(), running: 0 };
    let mut running = BTreeSet::new();
    while running.len() < tasks
        && let Some(wake) = changes.next().await
    {
        match wake {
            Wake::Committed(committed) => {
                let now = Instant::now();
                let new = committed.changes.iter().filter_map(|change| change.new.as_ref());
                seen.assigned
                    .extend(new.filter_map(|object| assigned(object, &prefix)).map(|service| (service, now)));
            }
            Wake::Noted(told) => running.extend(running_of(&leader, told.iter().copied(), &prefix)),
            Wake::Everything => {
                let all = leader.view(|view| view.tasks().map(|task| task.id).collect::<Vec<_>>());
                running.extend(running_of(&leader, all, &prefix));
            }
        }
    }
    seen.running = running.len();
    seen
}

fn assigned(object: &Object, prefix: &str) -> Option<ServiceId> {
    let Object::Task(task) = object else { return None };
    let is_new = task.status.state == TaskState::Assigned && task.desired_state == TaskState::Running;
    task.service.filter(|_| is_new && task.service_name.starts_with(prefix))
}

fn running_of(leader: &Leader, tasks: impl IntoIterator<Item = TaskId>, prefix: &str) -> Vec<TaskId> {
    leader.view(|view| {
        let task = |id| view.task(id).filter(|task| task.service_name.starts_with(prefix));
        let tasks = tasks.into_iter().filter_map(task);
        tasks.filter(|task| view.state(task) == TaskState::Running).map(|task| task.id).collect()
    })
}
