//! One node: an engine, and what can happen to it.
//!
//! Called by [`super::Mesh`] and the `mesh_` tests.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::wire::REGISTRY;
use crate::ketchd::traces::Traces;
use crate::ketchd::{Engine, Maker};
use crate::site::Site;
use crate::wait::wait_until;

/// An engine on the bridge.
#[derive(Debug)]
pub struct Node<'a> {
    /// From 1.
    pub number: usize,
    pub address: String,
    /// The engine's, as it tells it.
    pub version: String,
    pub engine: Engine<'a>,
    /// What it had on its machine before it was in a cluster.
    before: Traces,
}

impl<'a> Node<'a> {
    /// Starts an engine in a site on the bridge, which speaks plainly to the registry.
    pub(super) fn start(site: Site<'a>, maker: &Maker, number: usize, flags: &[&str]) -> Self {
        let mut all = vec!["--insecure-registry", REGISTRY];
        all.extend(flags);
        let engine = Engine::inside(site, maker.clone(), &all);
        let out = engine.docker("version --format '{{.Server.Version}}'").ok();
        let version = out.text().to_owned();
        let before = Traces::of_running(&engine);
        Self { number, address: format!("10.99.0.{number}"), version, engine, before }
    }

    /// Puts `busybox:1` and `busybox:2` into the registry; the second has `VERSION=2` in its environment. Both are stopped by
    /// SIGKILL: a first process without a handler of SIGTERM would take its whole grace each time.
    pub(super) fn fill_registry(&self) {
        self.engine.load_busybox();
        let script = format!(
            "set -e; docker create --name maker busybox; docker commit --change 'STOPSIGNAL KILL' maker {REGISTRY}/busybox:1
             docker commit --change 'STOPSIGNAL KILL' --change 'ENV VERSION=2' maker {REGISTRY}/busybox:2; docker rm maker
             docker push -q {REGISTRY}/busybox:1; docker push -q {REGISTRY}/busybox:2
             docker rmi -f {REGISTRY}/busybox:1 {REGISTRY}/busybox:2 busybox"
        );
        let _ = self.engine.sh(&script).ok();
    }

    /// Kills the agent as a crash would; containers run on.
    ///
    /// # Panics
    /// When it is down.
    pub fn kill_agent(&mut self) {
        self.engine.kill();
    }

    /// Kills the agent, its shims and every process of its containers: a machine that has lost its power.
    ///
    /// # Panics
    /// When it is down.
    pub fn kill_all(&mut self) {
        self.engine.signal(Signal::STOP);
        let mut pids = self.engine.site.processes("containerd-shim");
        pids.extend(self.inmates());
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            // It may be gone by itself, after its shim.
            let _ = kill_process(pid, Signal::KILL);
        }
        self.engine.kill();
    }

    /// Starts the agent again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn come_back(&mut self) {
        self.engine.come_back();
    }

    /// Has the agent hang.
    pub fn freeze(&self) {
        self.engine.signal(Signal::STOP);
    }

    /// Ends that.
    pub fn thaw(&self) {
        self.engine.signal(Signal::CONT);
    }

    /// Nothing goes to these or comes from them any more.
    pub(super) fn drop_all_from<'b>(&self, addresses: impl Iterator<Item = &'b str>) {
        let others = addresses.collect::<Vec<_>>().join(", ");
        let rules = format!(
            "table ip partition {{
                chain input {{ type filter hook input priority -350; ip saddr {{ {others} }} drop; }}
                chain output {{ type filter hook output priority -350; ip daddr {{ {others} }} drop; }}
            }}"
        );
        let _ = self.engine.program("nft").args(["-f", "-"]).stdin(rules).run().ok();
    }

    /// Takes such rules away, where there are some.
    pub(super) fn hear_all(&self) {
        let _ = self.engine.sh("nft delete table ip partition 2>/dev/null || true").ok();
    }

    /// Leaves the cluster, if it is in one, and waits until its tasks are gone.
    pub(super) fn leave(&mut self) {
        if self.engine.is_up() {
            self.thaw();
        } else {
            self.engine.come_back();
        }
        let out = self.engine.docker("swarm leave --force");
        let is_out = out.code == 0 || out.stderr.contains("This node is not part of a swarm");
        assert!(is_out, "node{} does not leave: {out}", self.number);
        if !self.engine.is_ketch() {
            // dockerd forgets a container that it is making while it leaves.
            let script = "docker ps -aq --filter label=com.docker.swarm.task | xargs -r docker rm -f";
            let _ = self.engine.sh(script);
        }
        wait_until("the end of every task", || {
            let out = self.engine.docker("ps --all --quiet --filter label=com.docker.swarm.task");
            if out.text().is_empty() { Ok(()) } else { Err(out.to_string()) }
        });
    }

    /// Looks for what the cluster has left, interfaces, rules, mounts, processes, cgroups, and has the engine end. The gateway's bridge
    /// stays as dockerd's does, until it is removed. dockerd itself is not looked at so closely.
    pub(super) fn end(self) {
        if self.engine.is_ketch() {
            let _ = self.engine.docker("network rm docker_gwbridge");
            self.before.wait_same(&self.engine, &format!("node{} has left", self.number));
        }
        self.engine.end();
    }

    /// The processes in its containers' cgroups.
    #[must_use]
    pub fn inmates(&self) -> Vec<i32> {
        let files = self.engine.cgroups().into_iter().map(|folder| folder.join("cgroup.procs"));
        let text: String = files.map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}
