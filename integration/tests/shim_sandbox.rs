//! The Sandbox service, all nine calls: a pod without a pause process, whose namespaces its containers join.

use std::path::PathBuf;

use ketch_integration::shim::{Exec, Fields, Message, Served, Stage, Status, any, ttrpc};
use ketch_integration::{Case, probe, tests, wait_until};
use serde_json::json;

tests![
    all_nine_calls_of_a_pods_life,
    containers_join_the_pods_namespaces,
    a_networks_namespace_that_is_there_is_taken,
    a_shared_pid_namespace_has_an_init_or_an_error,
    a_pods_users_own_its_namespaces,
    a_network_that_belongs_to_a_user_namespace_brings_it,
    users_that_no_pod_can_have_are_refused,
    wait_ends_with_stop,
    what_is_no_sandbox_is_not_found,
    nothing_is_left_after_shutdown,
];

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

struct Pod<'a> {
    stage: Stage<'a>,
    served: Served,
    id: String,
    bundle: PathBuf,
}

type Answer = Result<Fields, ttrpc::Failure>;

impl<'a> Pod<'a> {
    /// Starts the shim of a sandbox, which has a bundle without a root file system.
    fn new(case: &'a Case) -> Self {
        let stage = Stage::new(case);
        stage.shim.not_on_go(case, "has no Sandbox service");
        let bundle = case.bundle();
        let served = stage.serve(&bundle);
        Self { id: bundle.id.clone(), bundle: bundle.dir.clone(), stage, served }
    }

    fn call(&self, method: &str, message: &Message) -> Answer {
        self.served.tasks.client.call(SERVICE, method, message)
    }

    fn of_id(&self) -> Message {
        Message::new().text(1, &self.id)
    }

    fn must(&self, method: &str, message: &Message) -> Fields {
        self.call(method, message).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// CreateSandbox's request; the options are a PodSandboxConfig as CRI sends it.
    fn create(&self, namespaces: &Message, network: &str) -> Message {
        let metadata = Message::new().text(1, "pod").text(2, "uid").text(3, "default");
        let linux = Message::new()
            .text(1, format!("/{}", self.stage.case.tag))
            .message(2, &Message::new().message(1, namespaces));
        let config = Message::new().message(1, &metadata).text(2, "the-pods-name").message(8, &linux);
        self.of_id()
            .text(2, self.bundle.to_string_lossy())
            .message(4, &any("runtime.v1.PodSandboxConfig", config.encode()))
            .text(5, network)
    }

    /// Creates and starts it.
    fn start(&self) -> Fields {
        // pid: CONTAINER.
        self.must("CreateSandbox", &self.create(&Message::new().number(2, 1), ""));
        self.must("StartSandbox", &self.of_id())
    }

    fn state(&self) -> String {
        self.must("SandboxStatus", &self.of_id().flag(2, true)).text(3)
    }

    fn end(self) {
        self.must("StopSandbox", &self.of_id().number(2, 10));
        let _ = self.call("ShutdownSandbox", &self.of_id());
        wait_until("the shim's end", || {
            if self.served.tasks.client.is_closed() { Ok(()) } else { Err("it stays".into()) }
        });
        self.stage.end();
    }
}

fn all_nine_calls_of_a_pods_life(case: &Case) {
    let pod = Pod::new(case);
    pod.must("CreateSandbox", &pod.create(&Message::new().number(2, 1), ""));
    pod.must("PingSandbox", &pod.of_id());
    let platform = pod.must("Platform", &pod.of_id()).message(1);
    assert_eq!((platform.text(1).as_str(), platform.text(2).as_str()), ("linux", "amd64"));
    assert_ne!(pod.state(), "SANDBOX_READY", "it is not started yet");
    let started = pod.must("StartSandbox", &pod.of_id());
    assert!(started.message(2).number(1) > 1_700_000_000, "created_at: {started:?}");
    assert_eq!(pod.state(), "SANDBOX_READY");
    let status = pod.must("SandboxStatus", &pod.of_id().flag(2, true));
    assert_eq!(status.text(1), pod.id);
    assert!(status.message(5).number(1) > 1_700_000_000, "created_at: {status:?}");
    let metrics = pod.must("SandboxMetrics", &pod.of_id()).message(1);
    assert_eq!(metrics.text(2), pod.id);
    assert!(metrics.message(3).text(1).starts_with("io.containerd.cgroups.v"), "{metrics:?}");
    let waiting = pod.served.tasks.client.send(SERVICE, "WaitSandbox", &pod.of_id());
    pod.must("StopSandbox", &pod.of_id().number(2, 10));
    let ended = waiting.wait().expect("WaitSandbox");
    assert!(ended.message(2).number(1) > 1_700_000_000, "exited_at: {ended:?}");
    assert_eq!(pod.state(), "SANDBOX_NOTREADY");
    pod.end();
}

fn containers_join_the_pods_namespaces(case: &Case) {
    let pod = Pod::new(case);
    pod.start();
    let (stage, tasks) = (&pod.stage, &pod.served.tasks);
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let host = kinds.map(|(_, file)| probe::namespace_of(std::process::id().cast_signed(), file));
    let mut seen = Vec::new();
    for turn in 0..2 {
        let group = json!({ "io.kubernetes.cri.sandbox-id": pod.id });
        let bundle = case.bundle().sleeper().set("/annotations", group);
        // A container of the pod runs in the sandbox's shim: containerd asks there, without a `start`.
        let pid = tasks.run(&stage.create(&bundle));
        seen.push(kinds.map(|(_, file)| probe::namespace_of(pid, file)));
        assert_eq!(tasks.run_exec(&bundle.id, &Exec::script("e", "test $(hostname) = the-pods-name")), 0, "turn {turn}");
        tasks.kill(&bundle.id, "", 9).expect("Kill");
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
        assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
        assert_eq!(pod.state(), "SANDBOX_READY", "the pod outlives its containers");
    }
    assert_eq!(seen[0], seen[1], "the second finds what the first had");
    for (kind, (one, host)) in kinds.iter().zip(seen[0].iter().zip(&host)) {
        assert_ne!(one, host, "{kind:?}");
    }
    // No process holds them: mounts do.
    pod.end();
}

fn a_networks_namespace_that_is_there_is_taken(case: &Case) {
    let pod = Pod::new(case);
    // As CNI makes it.
    let name = format!("/run/netns/{}", case.tag);
    let script = format!("touch {name} && unshare --net sh -c 'mount --bind /proc/self/ns/net {name}'");
    // The mount is to be the site's: unshare has no mount namespace of its own here.
    let _ = pod.stage.site.run("sh", ["-c", &script]).ok();
    pod.must("CreateSandbox", &pod.create(&Message::new().number(2, 1), &name));
    pod.must("StartSandbox", &pod.of_id());
    let group = json!({ "io.kubernetes.cri.sandbox-id": pod.id });
    let bundle = case.bundle().sleeper().set("/annotations", group).namespace("network", Some(&name));
    let tasks = &pod.served.tasks;
    let pid = tasks.run(&pod.stage.create(&bundle));
    let wanted = pod.stage.site.run("stat", ["-L", "-c", "%i", &name]).ok();
    assert_eq!(probe::namespace_of(pid, "net"), format!("net:[{}]", wanted.text()));
    tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    let _ = pod.stage.site.run("umount", [&name]).ok();
    pod.end();
}

fn a_shared_pid_namespace_has_an_init_or_an_error(case: &Case) {
    let pod = Pod::new(case);
    // pid: POD is 0, which is what a message without the field says; ipc is told so that the message is not empty.
    let shared = pod.create(&Message::new().number(1, 0).number(2, 0), "");
    let created = pod.call("CreateSandbox", &shared).and_then(|_| pod.call("StartSandbox", &pod.of_id()));
    match created {
        Ok(started) => {
            let pid = started.number(1);
            assert!(pid > 0, "a shared pid namespace has a first process: {started:?}");
            assert!(probe::state_letter(i32::try_from(pid).expect("a pid")).is_some());
        }
        Err(failure) => assert!(failure.message.contains("pid"), "the error says what is not there: {failure}"),
    }
    pod.end();
}

const FIRST: u32 = 300_000;
/// Over a network and a host's name.
const CAPABILITIES: &[&str] = &["CAP_NET_ADMIN", "CAP_SYS_ADMIN"];

/// CRI's NamespaceOption with a user namespace of the pod's own.
fn with_users(first: u32, length: u64) -> Message {
    let ids = Message::new().number(1, first.into()).number(2, 0).number(3, length);
    Message::new().number(2, 1).message(5, &Message::new().message(2, &ids).message(3, &ids))
}

/// Runs a container of a pod with users, as CRI describes it, that sets up the pod's network; gives its user and network
/// namespaces.
fn namespaces_of_a_mapped_container(pod: &Pod<'_>, shim: u64, network: &str) -> [String; 2] {
    let (stage, tasks) = (&pod.stage, &pod.served.tasks);
    let group = json!({ "io.kubernetes.cri.sandbox-id": pod.id });
    let path = |kind: &str| format!("/proc/{shim}/ns/{kind}");
    let network = if network.is_empty() { path("net") } else { network.to_owned() };
    let bundle = stage
        .case
        .bundle()
        .sleeper()
        .user_namespace(FIRST)
        .capabilities(CAPABILITIES)
        .set("/annotations", group)
        .namespace("user", Some(&path("user")))
        .namespace("network", Some(&network))
        .namespace("ipc", Some(&path("ipc")))
        .namespace("uts", Some(&path("uts")));
    let pid = tasks.run(&stage.create(&bundle));
    let map = probe::read(format!("/proc/{pid}/uid_map"));
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "300000", "65536"]);
    // Only who is root over the network and the name may do so.
    let mut exec = Exec::script("e", "ip link set lo up && hostname another && hostname the-pods-name");
    exec.process["capabilities"] =
        json!({ "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES });
    assert_eq!(tasks.run_exec(&bundle.id, &exec), 0);
    let seen = ["user", "net"].map(|kind| probe::namespace_of(pid, kind));
    tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    seen
}

fn a_pods_users_own_its_namespaces(case: &Case) {
    let pod = Pod::new(case);
    pod.must("CreateSandbox", &pod.create(&with_users(FIRST, 65_536), ""));
    let shim = pod.must("StartSandbox", &pod.of_id()).number(1);
    let first = namespaces_of_a_mapped_container(&pod, shim, "");
    let here = std::process::id().cast_signed();
    for (kind, one) in ["user", "net"].iter().zip(&first) {
        assert_ne!(*one, probe::namespace_of(here, kind), "{kind}");
    }
    assert_eq!(namespaces_of_a_mapped_container(&pod, shim, ""), first, "the second finds what the first had");
    pod.end();
}

fn a_network_that_belongs_to_a_user_namespace_brings_it(case: &Case) {
    let pod = Pod::new(case);
    // As containerd makes it: born in a user namespace with the pod's mappings.
    let name = format!("/run/netns/{}", case.tag);
    let script = format!(
        "touch {name}; unshare --user --net sleep 1000 & p=$!
         until [ $(readlink /proc/$p/ns/user) != $(readlink /proc/self/ns/user) ]; do :; done
         until [ $(readlink /proc/$p/ns/net) != $(readlink /proc/self/ns/net) ]; do :; done
         echo 0 {FIRST} 65536 >/proc/$p/uid_map && echo 0 {FIRST} 65536 >/proc/$p/gid_map &&
         readlink /proc/$p/ns/user && mount --bind /proc/$p/ns/net {name}; kill $p"
    );
    let made = pod.stage.site.run("sh", ["-c", &script]).ok();
    pod.must("CreateSandbox", &pod.create(&with_users(FIRST, 65_536), &name));
    let shim = pod.must("StartSandbox", &pod.of_id()).number(1);
    let seen = namespaces_of_a_mapped_container(&pod, shim, &name);
    assert_eq!(seen[0], made.text(), "the user namespace is the network's owner");
    let _ = pod.stage.site.run("umount", [&name]).ok();
    pod.end();
}

fn users_that_no_pod_can_have_are_refused(case: &Case) {
    let pod = Pod::new(case);
    for users in [with_users(FIRST, 0), with_users(u32::MAX, 2)] {
        let failure = pod.call("CreateSandbox", &pod.create(&users, "")).expect_err("such ids");
        assert!(failure.message.contains("user namespace"), "{failure}");
    }
    pod.served.tasks.leave(&pod.id);
    pod.stage.end();
}

fn wait_ends_with_stop(case: &Case) {
    let pod = Pod::new(case);
    pod.start();
    let (stage, tasks) = (&pod.stage, &pod.served.tasks);
    let group = json!({ "io.kubernetes.cri.sandbox-id": pod.id });
    let bundle = case.bundle().sleeper().set("/annotations", group);
    tasks.run(&stage.create(&bundle));
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    let mut waiting = tasks.client.send(SERVICE, "WaitSandbox", &pod.of_id());
    assert!(waiting.is_waiting());
    let ended = tasks.waiting(&bundle.id, "");
    pod.must("StopSandbox", &pod.of_id().number(2, 10));
    waiting.wait().expect("WaitSandbox");
    // Stop takes the pod's containers with it.
    let status = ended.wait().expect("Wait").number(1);
    assert!(status == 0 || status == 137, "{status}");
    tasks.delete(&bundle.id, "").expect("Delete");
    pod.end();
}

fn what_is_no_sandbox_is_not_found(case: &Case) {
    let pod = Pod::new(case);
    for method in ["StartSandbox", "StopSandbox", "WaitSandbox", "SandboxStatus", "SandboxMetrics", "PingSandbox"] {
        let failure = pod.call(method, &Message::new().text(1, "no-such-pod")).expect_err(method);
        assert_eq!(failure.code, ttrpc::NOT_FOUND, "{method}: {failure}");
    }
    let garbage = pod.of_id().text(2, pod.bundle.to_string_lossy()).message(4, &any("runtime.v1.PodSandboxConfig", b"\xff"));
    let failure = pod.call("CreateSandbox", &garbage).expect_err("options that are none");
    assert_ne!(failure.code, ttrpc::UNAVAILABLE, "{failure}");
    pod.served.tasks.leave(&pod.id);
    pod.stage.end();
}

fn nothing_is_left_after_shutdown(case: &Case) {
    let pod = Pod::new(case);
    let mounts = pod.stage.mounts().len();
    pod.start();
    assert!(pod.stage.mounts().len() >= mounts, "its namespaces are held by mounts");
    // Shutdown alone, without a Stop: containerd may have died between them.
    let _ = pod.call("ShutdownSandbox", &pod.of_id());
    wait_until("the shim's end", || {
        if pod.served.tasks.client.is_closed() { Ok(()) } else { Err("it stays".into()) }
    });
    pod.stage.end();
}
