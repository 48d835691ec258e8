//! Any bytes as the body of a container's creation: refused in words, or made into a config.json.
#![no_main]

use ketch_engine_api::container::{Config, Placing};
use ketchd::engine::bundle::{self, Input, Namespaces, Shm};
use ketchd::engine::host::Host;
use ketchd::engine::security::{DefaultSeccomp, Security};
use ketchd::engine::users::User;
use ketchd::engine::{caps, devices, mounts, validate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (Ok(config), Ok(placing)) =
        (serde_json::from_slice::<Config>(input), serde_json::from_slice::<Placing>(input))
    else {
        return;
    };
    let host = Host {
        unified: true,
        processors: 2,
        cpus: "0-1".into(),
        memory_nodes: "0".into(),
        memory: 1 << 30,
        capabilities: caps::ALL.to_vec(),
        apparmor: true,
        machine: "x86_64".into(),
        thermal: vec![],
        open_files: None,
    };
    let host_config = placing.host_config.unwrap_or_default();
    let checked = validate::config(&config)
        .and_then(|()| validate::host_config(&host_config, &host))
        .and_then(|()| validate::network(&config, &host_config));
    if checked.is_err() {
        return;
    }
    let Ok(planned) = mounts::asked(&host_config) else { return };
    for one in &planned {
        assert!(one.shown.destination.starts_with('/') && !one.shown.destination.contains("/../"));
    }
    let Ok(security) = Security::read(host_config.security_opt.as_deref().unwrap_or_default(), false) else {
        return;
    };
    let Ok(devices) = devices::of(&host_config) else { return };
    let _made = bundle::config(&Input {
        config: &config,
        host_config: &host_config,
        host: &host,
        security: &security,
        seccomp: &DefaultSeccomp::Builtin,
        args: vec!["/bin/sh".into()],
        user: &User::default(),
        cgroup: "/docker/a".into(),
        root: "/r".into(),
        namespaces: Namespaces::default(),
        mounts: planned.iter().map(|one| mounts::specified(one, "/source")).collect(),
        shm: Shm::Own,
        devices: devices.devices,
        device_rules: devices.rules,
        propagation: None,
    });
});
