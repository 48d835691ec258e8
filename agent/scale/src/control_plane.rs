//! A whole control plane: three managers, each a process with its log on the disk, and nodes that only pretend in others.
//!
//! Clusters of three sizes, one grown from the other: what a leader at rest costs with each, and what fifty thousand would by the
//! line through them. At the largest: how fast tasks come to run, how long it takes to give one a node beside all others, the
//! leader's memory, and how long it takes until the next leader serves when that one is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::meter::sample;
use crate::{Extent, Failure};

const SEED: u64 = 50_000;
const NAMES: [&str; 3] = ["m1", "m2", "m3"];
/// How long managers may be without a leader.
const ELECTION: Duration = Duration::from_secs(60);
/// How often a rest is tried: on a machine that others use as well another manager may lead at its end.
const TRIES: usize = 3;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// What is extrapolated to.
const FAR: f64 = 50_000.0;

/// How much of it.
#[derive(Clone, Copy)]
struct Plan<'s> {
    sizes: &'s [usize],
    /// Services and tasks of each, to fill the cluster.
    filling: (usize, u64),
    /// The same for the latency, and services a second.
    beside: (usize, u64, f64),
    rest: Duration,
}

const WHOLE: Plan<'static> = Plan {
    sizes: &[1_000, 3_000, 10_000],
    filling: (500, 200),
    beside: (300, 10, 20.0),
    rest: Duration::from_secs(30),
};
const QUICK: Plan<'static> = Plan {
    sizes: &[100, 300, 1_000],
    filling: (50, 200),
    beside: (100, 10, 20.0),
    rest: Duration::from_secs(5),
};

/// Which part of it.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Whole,
    /// The leader's end alone, with all tasks.
    LeaderChange,
}

/// Of all sizes, one grown from the other, or of the ones that are given.
pub(crate) fn measure(extent: Extent, part: Part, sizes: &[usize]) -> Result<(), Failure> {
    let plan = if extent == Extent::Quick { &QUICK } else { &WHOLE };
    let plan = Plan { sizes: if sizes.is_empty() { plan.sizes } else { sizes }, ..*plan };
    let folder = std::env::temp_dir().join(format!("ketch-scale-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("sockets"))?;
    let measured = match part {
        Part::Whole => measure_in(&folder, &plan),
        Part::LeaderChange => measure_change(&folder, &plan),
    };
    drop(std::fs::remove_dir_all(&folder));
    measured
}

fn measure_change(folder: &Path, plan: &Plan<'_>) -> Result<(), Failure> {
    let mut cluster = Cluster::found(folder)?;
    for size in plan.sizes {
        cluster.grow(*size)?;
    }
    cluster.fill(plan)?;
    std::thread::sleep(plan.rest / 3);
    cluster.change_leader(plan.sizes.last().copied().unwrap_or_default())
}

fn measure_in(folder: &Path, plan: &Plan<'_>) -> Result<(), Failure> {
    let mut cluster = Cluster::found(folder)?;
    let mut at_rest = Vec::new();
    for size in plan.sizes {
        cluster.grow(*size)?;
        at_rest.push(cluster.rest(*size, plan.rest)?);
    }
    tell_slope(&at_rest);
    cluster.fill(plan)?;
    std::thread::sleep(plan.rest);
    let (services, replicas, rate) = plan.beside;
    let beside = cluster.leader()?.ask(&format!("services beside {services} {replicas} {rate}"))?;
    sample("control plane, create to assigned beside all tasks, p50, ms", value(&beside, "assigned_p50")?);
    sample("control plane, create to assigned beside all tasks, p99, ms", value(&beside, "assigned_p99")?);
    sample(
        "control plane, the leader's processor for that, part",
        value(&beside, "cpu")? / value(&beside, "running_in")?,
    );
    let usage = cluster.leader()?.ask("usage")?;
    sample("control plane, leader's memory, MiB", value(&usage, "resident")?);
    sample("control plane, leader's memory, the most, MiB", value(&usage, "peak")?);
    cluster.rest_with_tasks(plan)?;
    cluster.change_leader(plan.sizes.last().copied().unwrap_or_default())
}

/// A leader at rest: so many nodes, and what part of a processor. One size has no slope.
fn tell_slope(at_rest: &[(f64, f64)]) {
    if at_rest.len() < 2 {
        return;
    }
    let count = number(at_rest.len());
    let mean = |of: fn(&(f64, f64)) -> f64| at_rest.iter().map(of).sum::<f64>() / count;
    let (nodes, cost) = (mean(|it| it.0), mean(|it| it.1));
    let above: f64 = at_rest.iter().map(|it| (it.0 - nodes) * (it.1 - cost)).sum();
    let below: f64 = at_rest.iter().map(|it| (it.0 - nodes).powi(2)).sum();
    let slope = above / below;
    sample("control plane, at rest, percent of a processor for each 1,000 nodes", slope * 1000.0);
    sample(
        "control plane, at rest, 50,000 nodes, extrapolated, percent of a processor",
        cost + slope * (FAR - nodes),
    );
    let each: Vec<f64> = at_rest.iter().map(|it| it.1 / it.0).collect();
    if let (Some(first), Some(last)) = (each.first(), each.last()) {
        sample("control plane, at rest, cost of a node with most nodes over that with fewest", last / first);
    }
}

#[allow(clippy::cast_precision_loss, reason = "millions")]
fn number(count: usize) -> f64 {
    count as f64
}

fn value(answer: &BTreeMap<String, String>, name: &str) -> Result<f64, Failure> {
    Ok(answer.get(name).ok_or_else(|| format!("no {name} in {answer:?}"))?.parse()?)
}

/// A process of this program; killed when it is dropped.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    fn start(words: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no pipe")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, orders, answers })
    }

    fn ask(&mut self, order: &str) -> Result<BTreeMap<String, String>, Failure> {
        writeln!(self.orders, "{order}")?;
        self.answer()
    }

    /// What is said up to the end of an answer.
    fn answer(&mut self) -> Result<BTreeMap<String, String>, Failure> {
        let mut said = BTreeMap::new();
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                return Err("a manager has ended".into());
            }
            match line.trim_end().split_once(' ') {
                None => return Ok(said),
                Some(("failed", why)) => {
                    let _end = self.answers.read_line(&mut String::new())?;
                    return Err(why.into());
                }
                Some((name, value)) => drop(said.insert(name.to_owned(), value.to_owned())),
            }
        }
    }
}

struct Cluster {
    folder: PathBuf,
    managers: Vec<Process>,
    agents: Vec<Process>,
    id: String,
    size: usize,
}

impl Cluster {
    fn found(folder: &Path) -> Result<Self, Failure> {
        let text = folder.to_str().ok_or("a folder without a name")?;
        let mut first = Process::start(&["manager", text, NAMES[0]])?;
        first.answer()?;
        let said = first.ask("token")?;
        let (token, id) =
            (said.get("token").ok_or("no token")?, said.get("cluster").ok_or("no cluster")?.clone());
        let mut managers = vec![first];
        for name in &NAMES[1..] {
            let mut other = Process::start(&["manager", text, name, token, &format!("{}:2377", NAMES[0])])?;
            other.answer()?;
            managers.push(other);
        }
        Ok(Self { folder: folder.to_owned(), managers, agents: Vec::new(), id, size: 0 })
    }

    /// The manager that leads now; it comes first. On a machine that others use as well an election may be lost at any time.
    fn leader(&mut self) -> Result<&mut Process, Failure> {
        let began = Instant::now();
        loop {
            let leads = self.managers.iter_mut().position(|manager| manager.ask("leads").is_ok());
            if let Some(leads) = leads {
                self.managers.swap(0, leads);
                return Ok(&mut self.managers[0]);
            }
            if began.elapsed() > ELECTION {
                return Err("no manager leads".into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn grow(&mut self, size: usize) -> Result<(), Failure> {
        let (first, more) = (self.size, size - self.size);
        self.leader()?.ask(&format!("nodes {SEED} {first} {more}"))?;
        let folder = self.folder.to_str().ok_or("a folder without a name")?.to_owned();
        let (seed, first, more) = (SEED.to_string(), first.to_string(), more.to_string());
        let managers = NAMES.map(|name| format!("{name}:2377"));
        let mut words = vec!["agents", &folder, &self.id, &seed, &first, &more];
        words.extend(managers.iter().map(String::as_str));
        let agents = Process::start(&words)?;
        self.agents.push(agents);
        self.size = size;
        let began = self.leader()?.ask("usage")?;
        let ready = self.leader()?.ask(&format!("ready {}", size + NAMES.len()))?;
        let ended = self.leader()?.ask("usage")?;
        sample(&format!("control plane, {size} nodes, until all are ready, s"), value(&ready, "ready_in")?);
        sample(
            &format!("control plane, {size} nodes, the leader's processor until all are ready, s"),
            value(&ended, "cpu")? - value(&began, "cpu")?,
        );
        Ok(())
    }

    /// Gives it all its tasks.
    fn fill(&mut self, plan: &Plan<'_>) -> Result<(), Failure> {
        let (services, replicas) = plan.filling;
        let tasks = number(services) * number(usize::try_from(replicas)?);
        let filled = self.leader()?.ask(&format!("services fill {services} {replicas} 0"))?;
        sample("control plane, tasks", tasks);
        sample("control plane, tasks from create to running a second", tasks / value(&filled, "running_in")?);
        sample("control plane, the same a second of the leader's processor", tasks / value(&filled, "cpu")?);
        sample("control plane, create to assigned while filling, p99, ms", value(&filled, "assigned_p99")?);
        Ok(())
    }

    /// What part of a processor the leader takes at rest, in percent.
    fn idle(&mut self, span: Duration) -> Result<f64, Failure> {
        for _ in 0..TRIES {
            std::thread::sleep(span / 3);
            let leads = self.leader()?.child.id();
            let began = Instant::now();
            let before = value(&self.managers[0].ask("usage")?, "cpu")?;
            std::thread::sleep(span);
            let after = value(&self.managers[0].ask("usage")?, "cpu")?;
            let taken = (after - before) / began.elapsed().as_secs_f64() * 100.0;
            if self.leader()?.child.id() == leads {
                return Ok(taken);
            }
        }
        Err("no manager leads for as long as a rest takes".into())
    }

    fn rest(&mut self, size: usize, span: Duration) -> Result<(f64, f64), Failure> {
        let part = self.idle(span)?;
        sample(&format!("control plane, {size} nodes, leader at rest, percent of a processor"), part);
        let resident = value(&self.leader()?.ask("usage")?, "resident")?;
        sample(&format!("control plane, {size} nodes, leader's memory, MiB"), resident);
        Ok((number(size), part))
    }

    fn rest_with_tasks(&mut self, plan: &Plan<'_>) -> Result<(), Failure> {
        let part = self.idle(plan.rest)?;
        sample("control plane, leader at rest with all tasks, percent of a processor", part);
        Ok(())
    }

    /// The leader is killed; another one serves, and hears of all nodes again.
    fn change_leader(mut self, size: usize) -> Result<(), Failure> {
        let killed = self.leader().map(|_| Instant::now())?;
        drop(self.managers.remove(0));
        while !self.managers.iter_mut().any(|manager| manager.ask("write").is_ok()) {
            std::thread::sleep(LOOK);
        }
        sample(
            "control plane, the leader is killed: until the next one writes, s",
            killed.elapsed().as_secs_f64(),
        );
        self.leader()?.ask("services after 1 10 0")?;
        sample(
            "control plane, the leader is killed: until tasks of a new service run, s",
            killed.elapsed().as_secs_f64(),
        );
        // The killed one's node is down.
        self.leader()?.ask(&format!("ready {}", size + NAMES.len() - 1))?;
        sample(
            "control plane, the leader is killed: until all nodes are heard, s",
            killed.elapsed().as_secs_f64(),
        );
        Ok(())
    }
}
