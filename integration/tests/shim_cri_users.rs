//! Kubernetes pods with a user namespace (`hostUsers: false`) through containerd's CRI plugin: roots whose owners are mapped,
//! volumes, exec, logs, and nothing left after them.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use ketch_integration::containerd::{Age, Cri as Plugin};
use ketch_integration::cri::Pod;
use ketch_integration::{Case, probe, tests};

use crate::shim_cri::{SERVES, Setting, done, pod, start, wait_log};

tests![
    root_in_a_pod_is_nobody_on_the_host_2,
    root_in_a_pod_is_nobody_on_the_host_sandboxed,
    a_volumes_owners_are_as_the_pod_sees_them_2,
    a_volumes_owners_are_as_the_pod_sees_them_sandboxed,
    two_pods_have_different_users_2,
    two_pods_have_different_users_sandboxed,
    ids_that_the_kernel_does_not_map_are_refused_2,
    ids_that_the_kernel_does_not_map_are_refused_sandboxed,
];

macro_rules! with_and_without_a_pause_process {
    ($($name:ident $with:ident $without:ident),* $(,)?) => {
        $(
            fn $with(case: &Case) {
                $name(case, (Age::V2, Plugin::Users));
            }

            fn $without(case: &Case) {
                $name(case, (Age::V2, Plugin::UsersSandboxed));
            }
        )*
    };
}

with_and_without_a_pause_process![
    root_in_a_pod_is_nobody_on_the_host root_in_a_pod_is_nobody_on_the_host_2
        root_in_a_pod_is_nobody_on_the_host_sandboxed,
    a_volumes_owners_are_as_the_pod_sees_them a_volumes_owners_are_as_the_pod_sees_them_2
        a_volumes_owners_are_as_the_pod_sees_them_sandboxed,
    two_pods_have_different_users two_pods_have_different_users_2
        two_pods_have_different_users_sandboxed,
    ids_that_the_kernel_does_not_map_are_refused ids_that_the_kernel_does_not_map_are_refused_2
        ids_that_the_kernel_does_not_map_are_refused_sandboxed,
];

const FIRST: u32 = 200_000;

fn mapped(case: &Case, name: &str, first: u32) -> Pod {
    Pod { users: Some(first), ..pod(case, name) }
}

fn root_in_a_pod_is_nobody_on_the_host(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    assert!(cri.offers_users(), "Kubernetes starts no such pod without");
    let mounts = containerd.site.mounts(&containerd.site.dir);
    let pod = mapped(case, "mapped", FIRST);
    let id = cri.run_pod(&pod);
    let containers = ["first", "second"].map(|name| {
        let container = cri.create((&id, &pod), name, 0, SERVES, 0);
        cri.start(&container);
        wait_log(case, &format!("{name}-0"), "stdout F ready");
        container
    });
    for container in &containers {
        let ran = cri.exec(container, "id -u; cat /proc/self/uid_map /proc/self/gid_map; hostname; echo beside >&2; exit 6");
        let words: Vec<_> = ran.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "200000", "65536", "0", "200000", "65536", "mapped"]);
        assert_eq!((ran.stderr.trim(), ran.exit_code), ("beside", 6));
        // The image's files are root's, and so is what root makes; another's is another's.
        let script = "echo by root >/made && chown 1000:1000 /made && touch /bin/busybox && stat -c %u:%g /bin/busybox /etc /made /tmp/.";
        let ran = cri.exec(container, script);
        assert_eq!(ran.stdout.split_whitespace().collect::<Vec<_>>(), ["0:0", "0:0", "1000:1000", "0:0"], "{ran:?}");
        // Root may open its own output by name, whoever has made the fifo.
        let ran = cri.exec(container, "echo by name >/dev/stdout");
        assert_eq!((ran.stdout.trim(), ran.exit_code), ("by name", 0), "{ran:?}");
        let pid = cri.pid(container);
        assert!(probe::status_field(pid, "Uid").starts_with("200000\t"));
        let on_host = |path: &str| {
            let data = fs::metadata(format!("/proc/{pid}/root{path}")).unwrap_or_else(|e| panic!("{path}: {e}"));
            (data.uid(), data.gid())
        };
        assert_eq!((on_host("/bin/busybox"), on_host("/made")), ((FIRST, FIRST), (FIRST + 1000, FIRST + 1000)));
    }
    // The layer itself has never been touched: another container of the image finds it as it was.
    let [first, second] = containers.each_ref().map(|container| cri.pid(container));
    let here = std::process::id().cast_signed();
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(probe::namespace_of(first, kind), probe::namespace_of(second, kind), "{kind} is the pod's");
        assert_ne!(probe::namespace_of(first, kind), probe::namespace_of(here, kind), "{kind} is not the host's");
    }
    cri.stop(&containers[0], 30);
    assert_eq!(cri.status(&containers[0]).number(7), 0);
    cri.remove(&containers[0]);
    cri.remove_pod(&id);
    assert_eq!(containerd.site.mounts(&containerd.site.dir), mounts, "what was mounted for the pod is gone");
    done(containerd, cri);
}

fn a_volumes_owners_are_as_the_pod_sees_them(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    let volume = case.folder("volume");
    for (name, owner) in [("roots", 0), ("users", 1000)] {
        fs::write(volume.join(name), name).expect("write into the volume");
        chown(volume.join(name), Some(owner), Some(owner)).expect("give the file away");
    }
    let pod = Pod { volume: Some(volume.clone()), ..mapped(case, "volume", FIRST) };
    let id = cri.run_pod(&pod);
    let container = cri.create((&id, &pod), "box", 0, SERVES, 0);
    cri.start(&container);
    let ran = cri.exec(&container, "cd /volume && stat -c %u:%g roots users && echo >>roots && echo >made");
    assert_eq!((ran.stdout.as_str(), ran.exit_code), ("0:0\n1000:1000\n", 0), "{ran:?}");
    let made = fs::metadata(volume.join("made")).expect("what the container has made");
    assert_eq!((made.uid(), made.gid()), (0, 0), "the volume is the host's, and its files are as the pod sees them");
    cri.remove_pod(&id);
    done(containerd, cri);
}

fn two_pods_have_different_users(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    let pods = [("one", FIRST), ("two", FIRST + 65_536)].map(|(name, first)| {
        let pod = mapped(case, name, first);
        let id = cri.run_pod(&pod);
        let container = cri.create((&id, &pod), name, 0, SERVES, 0);
        cri.start(&container);
        (id, container, first)
    });
    for (_, container, first) in &pods {
        assert_eq!(cri.exec(container, "stat -c %u /bin/busybox").stdout.trim(), "0");
        assert!(probe::status_field(cri.pid(container), "Uid").starts_with(&format!("{first}\t")));
    }
    for (id, ..) in &pods {
        cri.remove_pod(id);
    }
    done(containerd, cri);
}

fn ids_that_the_kernel_does_not_map_are_refused(case: &Case, setting: Setting) {
    let (containerd, cri) = start(case, setting);
    let mounts = containerd.site.mounts(&containerd.site.dir);
    // The last of them would be beyond the last id.
    let pod = mapped(case, "beyond", u32::MAX - 1000);
    assert!(cri.try_pod(&pod).is_err());
    assert_eq!(containerd.site.mounts(&containerd.site.dir), mounts);
    done(containerd, cri);
}
