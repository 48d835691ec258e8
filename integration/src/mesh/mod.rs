//! Clusters of engines on this machine: each node in namespaces, roots and cgroups of its own, one bridge between them, and a
//! registry on it.
//!
//! Node `n` is `node<n>` with the address `10.99.0.<n>`; the addresses are nowhere but in the test's own namespaces. Faults are
//! real ones: signals, and rules of nftables inside of a node's namespace. [`Mesh::end`] has every node leave and looks for what is
//! left of it. Called by the `mesh_` tests.

pub mod mask;
pub mod node;
pub mod pace;
pub mod script;
pub mod wire;

use std::fs;
use std::time::Duration;

use crate::case::Case;
use crate::ketchd::registry::Registry;
use crate::ketchd::{Maker, archive};
use crate::runtime::Output;
use crate::wait::wait_within;

pub use node::Node;
pub use pace::Pace;
pub use wire::{IMAGE, REGISTRY, Wire};

/// How often a client is asked again: each time it is a program of half a tenth of a second, and takes that from what is waited for.
const BEAT: Duration = Duration::from_millis(150);

/// How long the parts of a cluster may take to get where they are waited for, where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// The nodes, and what is between them.
#[derive(Debug)]
pub struct Mesh<'a> {
    nodes: Vec<Node<'a>>,
    /// Until it is stopped.
    registry: Option<Registry>,
    wire: Wire<'a>,
    /// The first node's.
    pub maker: Maker,
}

impl<'a> Mesh<'a> {
    /// Starts so many engines under test, of which none is a cluster yet; `busybox:1` and `:2` are in the registry.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn start(case: &'a Case, count: usize) -> Self {
        Self::with_flags(case, count, &[])
    }

    /// The same with flags for each of them.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn with_flags(case: &'a Case, count: usize, flags: &[&str]) -> Self {
        Self::of(case, &vec![Maker::under_test(case); count], flags)
    }

    /// Starts engines of these makers.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn of(case: &'a Case, makers: &[Maker], flags: &[&str]) -> Self {
        Self::on(Wire::new(case), makers, flags)
    }

    /// The same on a bridge that is there.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn on(wire: Wire<'a>, makers: &[Maker], flags: &[&str]) -> Self {
        let registry = Registry::for_others(wire.site(), REGISTRY);
        // A site lives as long as the thread that has made it.
        let sites: Vec<_> = (1..=makers.len()).map(|number| (number, wire.connected(number))).collect();
        let nodes = at_once(makers.iter().zip(sites), |(maker, (number, site))| {
            Node::start(site, maker, number, flags)
        });
        let mesh = Self { nodes, registry: Some(registry), wire, maker: makers[0].clone() };
        mesh.node(1).fill_registry();
        mesh
    }

    /// A cluster: the first node has made it, `managers - 1` more and the rest have joined it.
    ///
    /// # Panics
    /// When one does not start or join, or they are not ready in time.
    #[must_use]
    pub fn formed(case: &'a Case, managers: usize, workers: usize) -> Self {
        let mesh = Self::start(case, managers + workers);
        mesh.form(managers);
        mesh
    }

    /// The same for what dockerd has not: there the test is skipped.
    ///
    /// # Panics
    /// As [`Self::formed`].
    #[must_use]
    pub fn formed_of_ketch(case: &'a Case, managers: usize, workers: usize) -> Self {
        let mesh = Self::formed(case, managers, workers);
        case.needs(mesh.node(1).engine.is_ketch(), "dockerd does not know these labels");
        mesh
    }

    /// Makes a service of the registry's [`IMAGE`], and waits for nothing.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn create(&self, flags: &str, command: &str) {
        let _ = self.docker(1, &format!("service create -q -d {flags} {IMAGE} {command}")).ok();
    }

    /// Puts `peer:1` into the registry: the busybox with this `mesh_peer`, which serves by default.
    ///
    /// # Panics
    /// When it can't be copied, loaded or pushed.
    #[track_caller]
    pub fn push_peer(&self, program: &str) {
        let engine = &self.node(1).engine;
        // The root of the registry's busybox: health checks are a shell's.
        let root = engine.site.path("busybox");
        fs::copy(program, root.join("mesh_peer")).expect("copy the program");
        let config = r#""Entrypoint":["/mesh_peer"],"Cmd":["serve"]"#;
        let tar = archive::docker_archive(&engine.site, &format!("{REGISTRY}/peer:1"), &root, config);
        let _ = engine.client().args(["load", "--input"]).arg(tar).run().ok();
        let _ = engine.docker(&format!("push --quiet {REGISTRY}/peer:1")).ok();
    }

    /// Has the first node make a cluster and the others join it, so many of them managers.
    ///
    /// # Panics
    /// When one can't, or they are not ready in time.
    pub fn form(&self, managers: usize) {
        let _ = self.docker(1, "swarm init --advertise-addr 10.99.0.1").ok();
        for number in 2..=self.nodes.len() {
            let role = if number <= managers { "manager" } else { "worker" };
            let _ = self.join(number, &self.token(1, role), 1).ok();
        }
        let all: Vec<usize> = (1..=self.nodes.len()).collect();
        self.wait_ready(1, &all);
    }

    /// A node, the first is 1.
    ///
    /// # Panics
    /// When there is none such.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node<'a> {
        &self.nodes[number - 1]
    }

    /// The same to be stopped, killed or started.
    ///
    /// # Panics
    /// When there is none such.
    pub fn node_mut(&mut self, number: usize) -> &mut Node<'a> {
        &mut self.nodes[number - 1]
    }

    /// All of them.
    #[must_use]
    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// The registry.
    ///
    /// # Panics
    /// When it was stopped.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.registry.as_ref().expect("a registry that runs")
    }

    /// Has the registry end: from now on nobody answers there.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop_registry(&mut self) {
        self.registry.take().into_iter().for_each(Registry::stop);
    }

    /// The bridge.
    #[must_use]
    pub fn wire(&self) -> &Wire<'a> {
        &self.wire
    }

    /// What is asked of the engine under test in time.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace::of(&self.maker)
    }

    /// A command of a node's client, its words split as a shell would.
    #[must_use]
    pub fn docker(&self, node: usize, line: &str) -> Output {
        self.node(node).engine.docker(line)
    }

    /// Has the node join by a token at another's address.
    #[must_use]
    pub fn join(&self, node: usize, token: &str, at: usize) -> Output {
        let own = &self.node(node).address;
        let remote = &self.node(at).address;
        self.docker(node, &format!("swarm join --advertise-addr {own} --token {token} {remote}:2377"))
    }

    /// The join token of a role, as a node tells it.
    ///
    /// # Panics
    /// When the node doesn't.
    #[must_use]
    #[track_caller]
    pub fn token(&self, node: usize, role: &str) -> String {
        self.docker(node, &format!("swarm join-token --quiet {role}")).ok().text().to_owned()
    }

    /// Waits until a command's output on a node is as wanted.
    ///
    /// # Panics
    /// When it is not in time; with the last of its outputs.
    #[track_caller]
    pub fn wait_output(&self, node: usize, line: &str, is_so: impl Fn(&str) -> bool) -> String {
        self.wait_output_within(PATIENCE, node, line, is_so)
    }

    /// The same in a time that is part of what is tested.
    ///
    /// # Panics
    /// When it is not in time; with the last of its outputs.
    #[track_caller]
    pub fn wait_output_within(
        &self,
        deadline: Duration,
        node: usize,
        line: &str,
        is_so: impl Fn(&str) -> bool,
    ) -> String {
        wait_within(deadline, &format!("node{node}: docker {line}"), || {
            let out = self.docker(node, line);
            if out.code == 0 && is_so(out.text()) {
                Ok(out.text().to_owned())
            } else {
                std::thread::sleep(BEAT);
                Err(out.to_string())
            }
        })
    }

    /// Waits until a node sees these as ready, and nobody else.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn wait_ready(&self, node: usize, numbers: &[usize]) {
        let mut wanted: Vec<String> = numbers.iter().map(|number| format!("node{number}")).collect();
        wanted.sort();
        let line = "node ls --format '{{if eq .Status \"Ready\"}}{{.Hostname}}{{end}}'";
        let _ = self.wait_output(node, line, |text| {
            let mut seen: Vec<&str> = text.split_whitespace().collect();
            seen.sort_unstable();
            seen == wanted
        });
    }

    /// The number of the node that the others call their leader.
    ///
    /// # Panics
    /// When none is told in time.
    #[must_use]
    #[track_caller]
    pub fn leader(&self, seen_by: usize, deadline: Duration) -> usize {
        let line = "node ls --format '{{if eq .ManagerStatus \"Leader\"}}{{if eq .Status \"Ready\"}}{{.Hostname}}{{end}}{{end}}'";
        let name = self.wait_output_within(deadline, seen_by, line, |text| text.starts_with("node"));
        name.trim_start_matches("node").parse().expect("a node's number")
    }

    /// What runs of a service and where, sorted: `web.1 node2 ID`.
    #[must_use]
    pub fn running(&self, seen_by: usize, service: &str) -> Vec<String> {
        let line = format!(
            "service ps --no-trunc --filter desired-state=running --format '{{{{.Name}}}} {{{{.Node}}}} {{{{.ID}}}} {{{{.CurrentState}}}}' {service}"
        );
        let out = self.docker(seen_by, &line);
        let is_running = |line: &&str| line.split(' ').nth(3) == Some("Running");
        let mut running: Vec<String> = out
            .text()
            .lines()
            .filter(is_running)
            .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
            .collect();
        running.sort();
        running
    }

    /// Waits until so many of a service run, all of them on nodes that may.
    ///
    /// # Panics
    /// When they don't in time.
    #[track_caller]
    pub fn wait_running(
        &self,
        seen_by: usize,
        service: &str,
        count: usize,
        may: impl Fn(usize) -> bool,
    ) -> Vec<String> {
        self.wait_running_within(PATIENCE, seen_by, service, count, may)
    }

    /// The same in a time that is part of what is tested.
    ///
    /// # Panics
    /// When they don't in time.
    #[track_caller]
    pub fn wait_running_within(
        &self,
        deadline: Duration,
        seen_by: usize,
        service: &str,
        count: usize,
        may: impl Fn(usize) -> bool,
    ) -> Vec<String> {
        wait_within(deadline, &format!("{count} of {service}"), || {
            let running = self.running(seen_by, service);
            let fits = running.iter().all(|line| node_of(line).is_some_and(&may));
            if running.len() == count && fits {
                Ok(running)
            } else {
                std::thread::sleep(BEAT);
                Err(format!("{running:?}\n{}", self.docker(seen_by, &format!("service ps {service}"))))
            }
        })
    }

    /// Cuts these off from the others, which are not cut off from each other; the registry stays with the others.
    ///
    /// # Panics
    /// When a rule can't be set.
    pub fn cut_off(&self, numbers: &[usize]) {
        let (inside, outside): (Vec<_>, Vec<_>) =
            self.nodes.iter().partition(|node| numbers.contains(&node.number));
        for node in &inside {
            node.drop_all_from(outside.iter().map(|other| other.address.as_str()));
        }
    }

    /// Takes every cut away.
    ///
    /// # Panics
    /// When a rule can't be taken away.
    pub fn heal(&self) {
        self.nodes.iter().for_each(Node::hear_all);
    }

    /// Has every node leave its cluster, those that are down too, and waits until their tasks are gone.
    ///
    /// # Panics
    /// When one does not.
    pub fn part(&mut self) {
        let _ = at_once(self.nodes.iter_mut(), Node::leave);
    }

    /// Has every node leave, looks for what is left of each, and ends them.
    ///
    /// # Panics
    /// When something is left.
    #[track_caller]
    pub fn end(mut self) {
        self.heal();
        self.part();
        let _ = at_once(self.nodes.into_iter(), Node::end);
        self.registry.into_iter().for_each(Registry::stop);
    }
}

/// Does the same with all of them at once, each on a thread of its own.
fn at_once<T: Send, R: Send>(all: impl Iterator<Item = T>, act: impl Fn(T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = all.map(|one| scope.spawn(move || act(one))).collect();
        // With its message, which the end of the scope would lose.
        let end = |thread: std::thread::ScopedJoinHandle<'_, R>| {
            thread.join().unwrap_or_else(|thrown| std::panic::resume_unwind(thrown))
        };
        threads.into_iter().map(end).collect()
    })
}

/// The node of one line of [`Mesh::running`].
#[must_use]
pub fn node_of(line: &str) -> Option<usize> {
    line.split(' ').nth(1)?.strip_prefix("node")?.parse().ok()
}
