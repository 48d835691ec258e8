//! Golden tests of config.json.

use super::*;

fn host() -> Host {
    Host {
        unified: true,
        processors: 2,
        cpus: "0-1".into(),
        memory_nodes: "0".into(),
        memory: 1 << 30,
        capabilities: caps::ALL.to_vec(),
        apparmor: false,
        machine: "x86_64".into(),
        open_files: None,
        thermal: vec![],
        message_queues: true,
    }
}

fn of(config: &Config, host_config: &HostConfig) -> Value {
    of_user(config, host_config, None)
}

fn of_user(config: &Config, host_config: &HostConfig, users: Option<&str>) -> Value {
    let host = host();
    let user = User { groups: vec![0], ..User::default() };
    super::config(&Input {
        config,
        host_config,
        host: &host,
        security: &Security::default(),
        seccomp: &DefaultSeccomp::Builtin,
        args: vec!["/bin/sh".into()],
        user: &user,
        cgroup: "/docker/a".into(),
        root: "/r".into(),
        namespaces: Namespaces {
            net: Some(String::new()),
            pid: Some(String::new()),
            ipc: Some(String::new()),
            uts: Some(String::new()),
            cgroup: Some(String::new()),
            user: users.map(str::to_owned),
        },
        mounts: vec![],
        shm: Shm::Own,
        devices: vec![],
        device_rules: vec![],
        propagation: None,
    })
    .unwrap()
}

/// The bundle `docker-default` was written by dockerd: what it has must be what is made here.
#[test]
fn nothing_asked_for_is_dockers_default() {
    let golden: Value =
        serde_json::from_str(include_str!("../../../../oci-bundles/docker-default/config.json")).unwrap();
    let host_config = HostConfig { shm_size: 64 << 20, ..HostConfig::default() };
    let made = of(&Config { hostname: "docker-default".into(), ..Config::default() }, &host_config);
    for part in ["/mounts", "/process/capabilities", "/process/cwd", "/linux/sysctl", "/hostname"] {
        assert_eq!(made.pointer(part), golden.pointer(part), "{part}");
    }
    assert_eq!(made.pointer("/linux/resources/devices"), golden.pointer("/linux/resources/devices"));
    assert_eq!(made["process"]["env"][0], golden["process"]["env"][0]);
    assert_eq!(made["linux"]["seccomp"]["defaultErrnoRet"], 1);
}

#[test]
fn privileged_is_everything() {
    let made = of(&Config::default(), &HostConfig { privileged: true, ..HostConfig::default() });
    assert_eq!(made["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    assert_eq!(made["linux"]["resources"]["devices"], json!([{ "allow": true, "access": "rwm" }]));
    assert!(made["linux"].get("seccomp").is_none());
    assert!(!made["mounts"][3]["options"].as_array().unwrap().contains(&json!("ro")));
}

#[test]
fn a_user_namespace_has_no_group_that_may_ping() {
    let made = of_user(&Config::default(), &HostConfig::default(), Some("/proc/7/ns/user"));
    let kinds = made["linux"]["namespaces"].as_array().unwrap();
    assert!(kinds.contains(&json!({ "type": "user", "path": "/proc/7/ns/user" })), "{kinds:?}");
    assert_eq!(made["linux"]["sysctl"], json!({ "net.ipv4.ip_unprivileged_port_start": "0" }));
}

#[test]
fn variables_replace_and_remove() {
    let config = Config {
        hostname: "h".into(),
        env: Some(vec!["PATH=/x".into(), "A=1".into(), "HOSTNAME".into()]),
        ..Config::default()
    };
    assert_eq!(environment(&config, true, &["A=2".into()]), ["PATH=/x", "TERM=xterm", "A=2"]);
    let again = ["B=1", "A", "A=3"].map(str::to_owned);
    assert_eq!(environment(&config, false, &again), ["PATH=/x", "B=1", "A=3"]);
}

#[test]
fn a_read_only_root_has_read_only_mounts() {
    let made = of(&Config::default(), &HostConfig { readonly_rootfs: true, ..HostConfig::default() });
    assert_eq!(made["root"]["readonly"], true);
    assert!(!made["mounts"][1]["options"].as_array().unwrap().contains(&json!("ro")), "/dev");
    assert!(made["mounts"][3]["options"].as_array().unwrap().contains(&json!("ro")), "/sys");
}
