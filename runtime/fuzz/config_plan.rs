//! `config.json` to plan: nothing panics, and what is planned survives being written and read.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use ketch::host::HostFacts;
use ketch::plan::cgroup::{CgroupLayout, Privilege, UserNamespace};
use ketch::plan::rootfs::RootEntry;
use ketch::plan::{Caller, KeyringChoice, Plan, PlanOptions};
use ketch::seccomp::FilterFlags;
use ketch::spec::{Spec, SpecFacts, ValidationContext, validate_with};
use libfuzzer_sys::fuzz_target;

const UNIFIED: &str = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
const LEGACY: &str = "25 1 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
    26 1 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
    28 1 0:25 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";

static HOSTS: LazyLock<[HostFacts; 2]> = LazyLock::new(|| {
    [(UNIFIED, "0::/\n"), (LEGACY, "3:memory:/\n2:cpu,cpuacct:/\n1:devices:/\n")].map(|(mountinfo, own)| HostFacts {
        cgroups: CgroupLayout::parse(mountinfo, own),
        caller: Caller::Root,
        user_namespace: UserNamespace::Initial,
        seccomp_flags: FilterFlags::SPEC_ALLOW,
        systemd: None,
    })
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = Spec::from_slice(bytes) else { return };
    let written = serde_json::to_vec(&spec).expect("a configuration can be written");
    assert_eq!(Spec::from_slice(&written).expect("what was written can be read"), spec);
    let bundle = Path::new("/bundle");
    for host in HOSTS.iter() {
        let Ok(valid) = validate_with(spec.clone(), &ValidationContext::new(bundle), &SpecFacts::default()) else {
            return;
        };
        let options = PlanOptions {
            id: "fuzz",
            bundle,
            entry: RootEntry::PivotRoot,
            keyring: KeyringChoice::New,
            privilege: Privilege::Root,
        };
        if let Ok(planned) = Plan::new(valid, host, &options) {
            let json = serde_json::to_vec(&planned.plan).expect("a plan can be written");
            let again: Plan = serde_json::from_slice(&json).expect("a written plan can be read");
            assert_eq!(again, planned.plan);
        }
    }
});
