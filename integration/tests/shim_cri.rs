//! The shim under Kubernetes' runtime interface: pods and containers through containerd's CRI plugin, 1.6 and 2.x.

use std::fs;

use ketch_integration::containerd::{Age, Containerd, Cri as Plugin, IMAGE, PAUSE};
use ketch_integration::cri::{Cri, Pod};
use ketch_integration::shim::Message;
use ketch_integration::{Case, tests, wait_until};

tests![
    a_pod_with_two_containers_1_6,
    a_pod_with_two_containers_2,
    a_pod_with_two_containers_sandboxed,
    a_container_is_restarted_and_logs_go_on_1_6,
    a_container_is_restarted_and_logs_go_on_2,
    a_container_is_restarted_and_logs_go_on_sandboxed,
    an_out_of_memory_kill_is_the_reason_1_6,
    an_out_of_memory_kill_is_the_reason_2,
    an_out_of_memory_kill_is_the_reason_sandboxed,
    a_pod_in_the_hosts_network_1_6,
    a_pod_in_the_hosts_network_2,
    a_pod_in_the_hosts_network_sandboxed,
    stop_asks_before_it_kills_1_6,
    stop_asks_before_it_kills_2,
    stop_asks_before_it_kills_sandboxed,
    containerd_comes_back_to_its_pods_1_6,
    containerd_comes_back_to_its_pods_2,
    containerd_comes_back_to_its_pods_sandboxed,
];

/// Which containerd, and who keeps a pod's namespaces.
pub(crate) type Setting = (Age, Plugin);

macro_rules! in_every_setting {
    ($($name:ident $old:ident $new:ident $sandboxed:ident),* $(,)?) => {
        $(
            fn $old(case: &Case) {
                $name(case, (Age::V1_6, Plugin::On));
            }

            fn $new(case: &Case) {
                $name(case, (Age::V2, Plugin::On));
            }

            fn $sandboxed(case: &Case) {
                $name(case, (Age::V2, Plugin::Sandboxed));
            }
        )*
    };
}

in_every_setting![
    a_pod_with_two_containers a_pod_with_two_containers_1_6 a_pod_with_two_containers_2
        a_pod_with_two_containers_sandboxed,
    a_container_is_restarted_and_logs_go_on a_container_is_restarted_and_logs_go_on_1_6 a_container_is_restarted_and_logs_go_on_2
        a_container_is_restarted_and_logs_go_on_sandboxed,
    an_out_of_memory_kill_is_the_reason an_out_of_memory_kill_is_the_reason_1_6 an_out_of_memory_kill_is_the_reason_2
        an_out_of_memory_kill_is_the_reason_sandboxed,
    a_pod_in_the_hosts_network a_pod_in_the_hosts_network_1_6 a_pod_in_the_hosts_network_2
        a_pod_in_the_hosts_network_sandboxed,
    stop_asks_before_it_kills stop_asks_before_it_kills_1_6 stop_asks_before_it_kills_2
        stop_asks_before_it_kills_sandboxed,
    containerd_comes_back_to_its_pods containerd_comes_back_to_its_pods_1_6 containerd_comes_back_to_its_pods_2
        containerd_comes_back_to_its_pods_sandboxed,
];

const RUNNING: u64 = 1;
const EXITED: u64 = 2;

/// containerd with the images that CRI needs.
pub(crate) fn start(case: &Case, (age, plugin): Setting) -> (Containerd<'_>, Cri) {
    case.native_only("containerd's CRI plugin asks for controllers that the private v2 layout lacks");
    case.needs(fs::exists("/usr/lib/cni/bridge").unwrap_or(false), "no /usr/lib/cni (package containernetworking-plugins)");
    let containerd = Containerd::start(case, age, plugin);
    if plugin.is_sandboxed() {
        containerd.shim.not_on_go(case, "has no sandbox without a pause process");
    }
    let cri = Cri::connect(&containerd.socket());
    wait_served(&cri);
    for image in [IMAGE, PAUSE] {
        wait_until(&format!("the image {image}"), || if cri.knows_image(image) { Ok(()) } else { Err("unknown".to_owned()) });
    }
    (containerd, cri)
}

/// Of the images containerd 2.x answers before it has begun to serve pods: what knows the one need not do the other yet.
fn wait_served(cri: &Cri) {
    wait_until("the CRI plugin", || match cri.call("Status", &Message::new()) {
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.to_string()),
    });
}

pub(crate) fn pod(case: &Case, name: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        uses_host_network: false,
        logs: case.folder("logs"),
        cgroup_parent: format!("/{}", case.tag),
        users: None,
        volume: None,
    }
}

fn wait_state(cri: &Cri, id: &str, state: u64) {
    wait_until(&format!("state {state} of {id}"), || {
        let seen = cri.status(id);
        if seen.number(3) == state { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

pub(crate) fn wait_log(case: &Case, name: &str, text: &str) {
    let path = case.dir.join("logs").join(format!("{name}.log"));
    wait_until(&format!("{text:?} in the log of {name}"), || {
        let seen = fs::read_to_string(&path).unwrap_or_default();
        if seen.contains(text) { Ok(()) } else { Err(seen) }
    });
}

pub(crate) fn done(containerd: Containerd<'_>, cri: Cri) {
    containerd.site.wait_without("containerd-shim");
    drop(cri);
    containerd.end();
}

pub(crate) const SERVES: &str = "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done";

fn a_pod_with_two_containers(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    let pod = pod(case, "web");
    let id = cri.run_pod(&pod);
    let status = cri.pod_status(&id);
    assert_eq!(status.number(3), 0, "ready: {status:?}");
    assert!(status.message(5).text(1).starts_with("10.88.0."), "its address: {status:?}");
    let [first, second] = ["first", "second"].map(|name| {
        let container = cri.create((&id, &pod), name, 0, SERVES, 0);
        cri.start(&container);
        wait_log(case, &format!("{name}-0"), "stdout F ready");
        container
    });
    let shims = containerd.site.processes("containerd-shim");
    assert_eq!(shims.len(), 1, "a pod has one shim");
    let ran = cri.exec(&first, "hostname; echo beside >&2; exit 6");
    assert_eq!((ran.stdout.trim(), ran.stderr.trim(), ran.exit_code), ("web", "beside", 6));
    // They share the pod's network and not their processes.
    let link = |container: &str, kind: &str| cri.exec(container, &format!("readlink /proc/self/ns/{kind}")).stdout;
    assert_eq!(link(&first, "net"), link(&second, "net"));
    assert_ne!(link(&first, "pid"), link(&second, "pid"));
    let stats = cri.stats(&second);
    assert!(stats.message(2).message(2).number(1) > 0, "cpu: {stats:?}");
    assert!(stats.message(3).message(2).number(1) > 4096, "memory: {stats:?}");
    cri.stop(&first, 30);
    assert_eq!(cri.status(&first).number(7), 0);
    assert_eq!(cri.status(&second).number(3), RUNNING);
    cri.remove(&first);
    cri.remove_pod(&id);
    done(containerd, cri);
}

fn a_container_is_restarted_and_logs_go_on(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    let pod = pod(case, "again");
    let id = cri.run_pod(&pod);
    for attempt in 0..3 {
        let script = format!("echo attempt {attempt}; echo aside >&2; exit {}", attempt + 1);
        let container = cri.create((&id, &pod), "job", attempt, &script, 0);
        cri.start(&container);
        wait_state(&cri, &container, EXITED);
        let status = cri.status(&container);
        assert_eq!((status.number(7), status.text(10)), (attempt + 1, "Error".to_owned()), "{status:?}");
        wait_log(case, &format!("job-{attempt}"), &format!("stdout F attempt {attempt}"));
        wait_log(case, &format!("job-{attempt}"), "stderr F aside");
        cri.remove(&container);
    }
    cri.remove_pod(&id);
    done(containerd, cri);
}

fn an_out_of_memory_kill_is_the_reason(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    let pod = pod(case, "greedy");
    let id = cri.run_pod(&pod);
    let script = "exec tail /dev/zero";
    let container = cri.create((&id, &pod), "eater", 0, script, 24 << 20);
    cri.start(&container);
    wait_state(&cri, &container, EXITED);
    wait_until("the reason", || {
        let status = cri.status(&container);
        if status.text(10) == "OOMKilled" && status.number(7) == 137 { Ok(()) } else { Err(format!("{status:?}")) }
    });
    cri.remove(&container);
    cri.remove_pod(&id);
    done(containerd, cri);
}

fn a_pod_in_the_hosts_network(case: &Case, setting: Setting) {
    let sandboxed = setting.1.is_sandboxed();
    case.needs(!sandboxed, "containerd 2.1 itself ends in a nil pointer there (core/runtime/v2/bundle.go:106), whatever the shim");
    let (containerd, cri) = start(case, setting);
    let pod = Pod { uses_host_network: true, ..pod(case, "host") };
    let id = cri.run_pod(&pod);
    let container = cri.create((&id, &pod), "box", 0, SERVES, 0);
    cri.start(&container);
    let ours = containerd.site.run("readlink", ["/proc/self/ns/net"]).ok();
    assert_eq!(cri.exec(&container, "readlink /proc/self/ns/net").stdout.trim(), ours.text());
    cri.remove_pod(&id);
    done(containerd, cri);
}

fn stop_asks_before_it_kills(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    let pod = pod(case, "order");
    let id = cri.run_pod(&pod);
    let polite = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 1000 & wait $!; done";
    let deaf = "trap '' TERM; echo ready; while :; do sleep 1000 & wait $!; done";
    let [polite, deaf] = [("polite", polite), ("deaf", deaf)].map(|(name, script)| {
        let container = cri.create((&id, &pod), name, 0, script, 0);
        cri.start(&container);
        wait_log(case, &format!("{name}-0"), "ready");
        container
    });
    cri.stop(&polite, 30);
    assert_eq!(cri.status(&polite).number(7), 5);
    wait_log(case, "polite-0", "asked");
    cri.stop(&deaf, 1);
    assert_eq!(cri.status(&deaf).number(7), 137);
    cri.remove_pod(&id);
    done(containerd, cri);
}

fn containerd_comes_back_to_its_pods(case: &Case, setting: Setting) {
    let (mut containerd, cri) = start(case, setting);
    let pod = pod(case, "stays");
    let id = cri.run_pod(&pod);
    let script = "trap 'echo asked; exit 4' TERM; echo ready; while :; do sleep 1000 & wait $!; done";
    let container = cri.create((&id, &pod), "box", 0, script, 0);
    cri.start(&container);
    wait_log(case, "box-0", "ready");
    drop(cri);
    containerd.restart();
    let cri = Cri::connect(&containerd.socket());
    wait_served(&cri);
    wait_state(&cri, &container, RUNNING);
    assert_eq!(cri.exec(&container, "exit 3").exit_code, 3);
    cri.stop(&container, 30);
    assert_eq!(cri.status(&container).number(7), 4);
    wait_log(case, "box-0", "asked");
    cri.remove_pod(&id);
    done(containerd, cri);
}
