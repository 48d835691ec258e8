//! What the engine is asked for, as JSON: the fields that differ from a request that says nothing.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use ketch_cluster::objects::container::{
    ConfigReference, ConfigTarget, DnsConfig, FileTarget, Mount, MountKind, SecretReference, SelinuxContext,
    TmpfsOptions, Ulimit as ClusterUlimit,
};
use ketch_cluster::objects::endpoint::Protocol;
use ketch_cluster::objects::node::Platform;
use ketch_cluster::objects::resources::Limits;
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{
    Config as ClusterConfig, ConfigSpec, Driver, Endpoint, Labels, Meta, Secret, SecretSpec, TaskSpec,
    TaskState, TaskStatus,
};
use serde_json::{Value, json};

use super::*;

pub(in crate::node::executor) fn task(container: ContainerSpec) -> Task {
    Task {
        service: Some(ServiceId::of(1)),
        slot: 2,
        node: Some(NodeId::of(4)),
        name: format!("web.2.{}", TaskId::of(3)).into(),
        service_name: "web".into(),
        service_labels: Labels::from([("zone".to_owned(), "a".to_owned())]),
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
        ..Task::new(
            TaskId::of(3),
            Arc::new(TaskSpec {
                runtime: TaskRuntime::Container(Box::new(container)),
                ..TaskSpec::default()
            }),
        )
    }
}

fn node() -> NodeDescription {
    NodeDescription {
        hostname: "host-1".to_owned(),
        platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
        ..NodeDescription::default()
    }
}

fn request_of(task: Task) -> Result<Request, String> {
    let work = Work { task: Arc::new(task), secrets: Vec::new(), configs: Vec::new() };
    Request::of(&work, &node(), &Known::default())
}

/// The fields of a value that differ from those of another.
fn changed(value: impl serde::Serialize, from: impl serde::Serialize) -> Value {
    let (value, from) = (serde_json::to_value(value).unwrap(), serde_json::to_value(from).unwrap());
    let fields = value.as_object().unwrap().iter().filter(|(key, value)| from.get(key) != Some(value));
    Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_plain_task() {
    let request =
        request_of(task(ContainerSpec { image: "nginx".into(), ..ContainerSpec::default() })).unwrap();
    let (one, three, four) = (ServiceId::of(1), TaskId::of(3), NodeId::of(4));
    let name = format!("web.2.{three}");
    assert_eq!((request.name.as_str(), request.image.as_str()), (name.as_str(), "nginx:latest"));
    assert_eq!(
        changed(&request.body.config, Config::default()),
        json!({
            "Image": "nginx:latest",
            "Env": [],
            "ExposedPorts": {},
            "Labels": {
                "com.docker.swarm.node.id": four.to_string(),
                "com.docker.swarm.service.id": one.to_string(),
                "com.docker.swarm.service.name": "web",
                "com.docker.swarm.task": "",
                "com.docker.swarm.task.id": three.to_string(),
                "com.docker.swarm.task.name": name,
            },
        })
    );
    assert_eq!(
        changed(request.body.placing.host_config.unwrap(), HostConfig::default()),
        json!({ "NetworkMode": "default", "PortBindings": {}, "Isolation": "default" })
    );
    assert!(request.files.is_empty() && request.networks.is_empty());
}

#[test]
fn a_task_that_says_all() {
    let mut asked = task(ContainerSpec {
        image:
            "reg.example:5000/app:1@sha256:0123456789012345678901234567890123456789012345678901234567890123"
                .into(),
        labels: Labels::from([
            ("a".to_owned(), "b".to_owned()),
            ("com.docker.swarm.task.id".to_owned(), "a user's".to_owned()),
        ]),
        command: texts(&["/bin/app"]),
        args: texts(&["-v"]),
        hostname: "{{.Node.Hostname}}-{{.Task.Slot}}".into(),
        env: texts(&["A=1", "SERVICE={{.Service.Name}}"]),
        dir: "/srv".into(),
        user: "1000:1000".into(),
        groups: texts(&["audio"]),
        privileges: Privileges {
            no_new_privileges: true,
            selinux: Some(SelinuxContext { disable: true, ..SelinuxContext::default() }),
            seccomp: SeccompMode::Custom(b"{}".to_vec()),
            apparmor: AppArmorMode::Disabled,
            ..Privileges::default()
        },
        init: Some(true),
        stop_signal: "SIGINT".into(),
        tty: true,
        open_stdin: true,
        read_only: true,
        mounts: vec![Mount {
            kind: MountKind::Bind,
            source: "/data/{{.Task.Slot}}".into(),
            target: "/data".into(),
            read_only: true,
            ..Mount::default()
        }],
        health_check: Some(HealthCheck {
            test: texts(&["CMD", "true"]),
            interval: Duration::from_secs(2),
            retries: 4,
            ..HealthCheck::default()
        }),
        hosts: texts(&["10.0.0.1 one two", "nothing"]),
        dns: DnsConfig {
            nameservers: vec!["1.1.1.1".parse().unwrap()],
            search: texts(&["example"]),
            options: texts(&["ndots:1"]),
        },
        sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        cap_add: texts(&["NET_ADMIN"]),
        cap_drop: texts(&["CHOWN"]),
        ulimits: vec![ClusterUlimit { name: "nofile".into(), soft: 1, hard: 2 }],
        oom_score_adj: -5,
        ..ContainerSpec::default()
    });
    let spec = Arc::make_mut(&mut asked.spec);
    spec.resources.limits = Limits { nano_cpus: 500_000_000, memory_bytes: 64 << 20, pids: 9 };
    spec.resources.reservations.memory_bytes = 32 << 20;
    spec.resources.swap_bytes = Some(1 << 20);
    spec.resources.memory_swappiness = Some(10);
    asked.log_driver =
        Some(Driver { name: "json-file".into(), options: [("max-size".to_owned(), "1m".to_owned())].into() });
    asked.generic_resources = vec![
        GenericResource::Named { kind: "gpu".into(), values: ["a", "b"].map(str::to_owned).into() },
        GenericResource::Count { kind: "ssd".into(), amount: 3 },
    ];
    let port = |target_port, published_port, publish_mode| PortConfig {
        name: String::new(),
        protocol: Protocol::Udp,
        target_port,
        published_port,
        publish_mode,
    };
    asked.endpoint = Some(Endpoint {
        ports: vec![
            port(53, 5353, PublishMode::Host),
            port(53, 0, PublishMode::Host),
            port(80, 8080, PublishMode::Ingress),
        ],
        ..Endpoint::default()
    });
    let request = request_of(asked).unwrap();
    let mut config = changed(&request.body.config, Config::default());
    assert_eq!(config["Labels"]["com.docker.swarm.task.id"], TaskId::of(3).to_string());
    assert_eq!(config["Labels"].as_object().unwrap().len(), 7);
    let _shown = config.as_object_mut().unwrap().remove("Labels");
    assert_eq!(
        config,
        json!({
            "Hostname": "host-1-2",
            "User": "1000:1000",
            "ExposedPorts": { "53/udp": {} },
            "Tty": true,
            "OpenStdin": true,
            "Env": ["A=1", "SERVICE=web", "DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_SSD=3"],
            "Cmd": ["-v"],
            "Healthcheck": { "Test": ["CMD", "true"], "Interval": 2_000_000_000_i64, "Retries": 4 },
            "Image": "reg.example:5000/app:1@sha256:0123456789012345678901234567890123456789012345678901234567890123",
            "WorkingDir": "/srv",
            "Entrypoint": ["/bin/app"],
            "StopSignal": "SIGINT",
        })
    );
    assert_eq!(
        changed(request.body.placing.host_config.unwrap(), HostConfig::default()),
        json!({
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m" } },
            "NetworkMode": "default",
            "PortBindings": {
                "53/udp": [{ "HostIp": "", "HostPort": "5353" }, { "HostIp": "", "HostPort": "" }],
            },
            "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["CHOWN"],
            "Dns": ["1.1.1.1"],
            "DnsOptions": ["ndots:1"],
            "DnsSearch": ["example"],
            "ExtraHosts": ["one:10.0.0.1", "two:10.0.0.1"],
            "GroupAdd": ["audio"],
            "OomScoreAdj": -5,
            "ReadonlyRootfs": true,
            "SecurityOpt": ["label=disable", "seccomp={}", "apparmor=unconfined", "no-new-privileges=true"],
            "Sysctls": { "net.ipv4.ip_forward": "1" },
            "Isolation": "default",
            "Memory": 64 << 20,
            "NanoCpus": 500_000_000,
            "MemorySwap": 65 << 20,
            "MemorySwappiness": 10,
            "PidsLimit": 9,
            "Ulimits": [{ "Name": "nofile", "Hard": 2, "Soft": 1 }],
            "Mounts": [{
                "Type": "bind", "Source": "/data/2", "Target": "/data", "ReadOnly": true, "BindOptions": {},
            }],
            "Init": true,
        })
    );
}

#[test]
fn swap_is_of_memory_and_swap_together() {
    let of = |memory_bytes, swap_bytes| {
        let limits = Limits { memory_bytes, ..Limits::default() };
        let asked = ResourceRequirements { limits, swap_bytes, ..ResourceRequirements::default() };
        resources(&asked, &ContainerSpec::default()).memory_swap
    };
    let all = [of(10, Some(5)), of(10, Some(0)), of(10, Some(-1)), of(10, None), of(0, Some(5))];
    assert_eq!(all, [15, 10, -1, 0, 0]);
}

#[test]
fn arguments_alone_are_the_images_entrypoints() {
    let asked = task(ContainerSpec { image: "i".into(), args: texts(&["x"]), ..ContainerSpec::default() });
    let config = request_of(asked).unwrap().body.config;
    assert_eq!((config.entrypoint, config.cmd), (None, Some(texts(&["x"]))));
}

#[test]
fn a_task_without_a_slot_is_named_by_its_node() {
    let global = Task { slot: 0, ..task(ContainerSpec { image: "i".into(), ..ContainerSpec::default() }) };
    assert_eq!(request_of(global).unwrap().name, format!("web.{}.{}", NodeId::of(4), TaskId::of(3)));
}

#[test]
fn mounts_of_each_kind() {
    let of = |kind, source: &str| {
        let options = TmpfsOptions { size_bytes: 5, mode: 0o700, ..TmpfsOptions::default() };
        let mut asked =
            Mount { kind, source: source.into(), target: "/t".into(), tmpfs: options, ..Mount::default() };
        asked.volume.driver = Some(Driver { name: "local".into(), ..Driver::default() });
        asked.image_subpath = "s".into();
        mounts::mount(&asked).map(|mount| serde_json::to_value(mount).unwrap())
    };
    assert_eq!(
        of(MountKind::Volume, "v"),
        Ok(
            json!({ "Type": "volume", "Source": "v", "Target": "/t", "VolumeOptions": { "DriverConfig": { "Name": "local" } } })
        )
    );
    assert_eq!(
        of(MountKind::Tmpfs, ""),
        Ok(json!({ "Type": "tmpfs", "Target": "/t", "TmpfsOptions": { "SizeBytes": 5, "Mode": 0o700 } }))
    );
    assert_eq!(
        of(MountKind::Image, "i"),
        Ok(json!({ "Type": "image", "Source": "i", "Target": "/t", "ImageOptions": { "Subpath": "s" } }))
    );
    assert!(of(MountKind::NamedPipe, "p").unwrap_err().contains("Windows"));
    assert!(of(MountKind::Cluster, "c").unwrap_err().contains("CSI"));
}

#[test]
fn secrets_and_configs_are_files_with_their_templates_expanded() {
    let target = |name: &str, uid: &str| FileTarget {
        name: name.into(),
        uid: uid.into(),
        gid: "7".into(),
        mode: 0o440,
    };
    let asked = task(ContainerSpec {
        image: "i".into(),
        env: texts(&["COLOUR=red"]),
        secrets: vec![
            SecretReference { secret: SecretId::of(1), name: "key".into(), file: target("key", "") },
            SecretReference { secret: SecretId::of(1), name: "key".into(), file: target("/etc/../key", "5") },
        ],
        configs: vec![
            ConfigReference {
                config: ConfigId::of(2),
                name: "conf".into(),
                target: ConfigTarget::File(target("etc/conf", "")),
            },
            ConfigReference { config: ConfigId::of(2), name: "conf".into(), target: ConfigTarget::Runtime },
        ],
        ..ContainerSpec::default()
    });
    let secret = Secret {
        id: SecretId::of(1),
        meta: Meta::default(),
        spec: SecretSpec { name: "key".into(), data: vec![0xff, 1], ..SecretSpec::default() },
        internal: false,
        superseded: false,
    };
    let golang = Driver { name: "golang".into(), ..Driver::default() };
    let config = ClusterConfig {
        id: ConfigId::of(2),
        meta: Meta::default(),
        spec: ConfigSpec {
            data: b"{{.Service.Name}} is {{env \"COLOUR\"}}".to_vec(),
            templating: Some(golang),
            ..ConfigSpec::default()
        },
        superseded: false,
    };
    let work =
        Work { task: Arc::new(asked), secrets: vec![Arc::new(secret)], configs: vec![Arc::new(config)] };
    let files = Request::of(&work, &node(), &Known::default()).unwrap().files;
    let file = |path: &str, uid, data: &[u8]| TaskFile {
        target: path.to_owned(),
        owner: (uid, 7),
        mode: 0o440,
        data: data.to_vec(),
    };
    let wanted = [
        file("/run/secrets/key", 0, &[0xff, 1]),
        file("/key", 5, &[0xff, 1]),
        file("/etc/conf", 0, b"web is red"),
    ];
    assert_eq!(files, wanted);
    let without = Work { secrets: Vec::new(), ..work };
    let refused = Request::of(&without, &node(), &Known::default()).unwrap_err();
    assert_eq!(refused, "secret key was not given to this node");
}

#[test]
fn what_can_not_run_is_refused() {
    assert_eq!(request_of(task(ContainerSpec::default())).unwrap_err(), "dockerexec: image required");
    let mut attachment = task(ContainerSpec::default());
    Arc::make_mut(&mut attachment.spec).runtime = TaskRuntime::Attachment { container: "x".into() };
    assert_eq!(request_of(attachment).unwrap_err(), "exec: unsupported runtime");
    let template =
        ContainerSpec { image: "i".into(), hostname: "{{.Nobody}}".into(), ..ContainerSpec::default() };
    assert!(request_of(task(template)).unwrap_err().starts_with("expanding hostname failed: "));
    let mut in_network = task(ContainerSpec { image: "i".into(), ..ContainerSpec::default() });
    in_network.networks = vec![ketch_cluster::objects::NetworkAttachment {
        network: NetworkId::of(9),
        addresses: Vec::new(),
        aliases: Vec::new(),
        driver_options: Labels::new(),
    }];
    let refused = request_of(in_network).unwrap_err();
    assert_eq!(refused, format!("network {} was not given to this node", NetworkId::of(9)));
}
