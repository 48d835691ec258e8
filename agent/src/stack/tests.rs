use super::*;
use ketch_engine_api::swarm::service::ServiceSpec;
use serde_json::json;

fn read(text: &str) -> Result<Stack, StackError> {
    let environment = BTreeMap::from([("TAG".to_owned(), "2".to_owned())]);
    Stack::read("shop", text, &Around { folder: Path::new("/nowhere"), environment: &environment })
}

const FILE: &str = r#"
version: "3.8"
x-common: &common
  stop_grace_period: 2s
services:
  web:
    <<: *common
    image: web:${TAG}
    command: sh -c 'echo "$$HOME"'
    environment: {B: "2", A: 1}
    ports: ["8080:80", "53:53/udp"]
    networks: {front: {aliases: [www]}, default: null}
    secrets: [key]
    healthcheck: {test: wget localhost, interval: 1s}
    deploy:
      replicas: 3
      labels: {ketch.allow: "lb:80/tcp"}
      placement: {constraints: ["node.role==worker"], preferences: [{spread: node.labels.zone}]}
      resources: {reservations: {cpus: "0.5", memory: 64M}}
      update_config: {parallelism: 2, order: start-first}
  db:
    image: db
    depends_on: [web]
    volumes: ["data:/var/lib/db", "/etc/x:/x:ro"]
networks: {front: {external: true, name: edge}}
volumes: {data: null}
secrets: {key: {external: true}}
"#;

#[test]
fn a_file_becomes_the_requests_of_stack_deploy() {
    let stack = read(FILE).unwrap();
    let names: Vec<_> = stack.services.iter().map(|it| it["Name"].clone()).collect();
    assert_eq!(names, ["shop_db", "shop_web"]);
    assert_eq!(stack.networks.len(), 1);
    assert_eq!(
        (&stack.networks[0]["Name"], &stack.networks[0]["Driver"]),
        (&json!("shop_default"), &json!("overlay"))
    );
    let web = &stack.services[1];
    let container = &web["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Image"], "web:2");
    assert_eq!(container["Args"], json!(["sh", "-c", "echo \"$HOME\""]));
    assert_eq!(container["Env"], json!(["A=1", "B=2"]));
    assert_eq!(container["StopGracePeriod"], 2_000_000_000_i64);
    assert_eq!(container["Healthcheck"]["Test"], json!(["CMD-SHELL", "wget localhost"]));
    assert_eq!(container["Secrets"][0]["SecretName"], "key");
    assert_eq!(
        web["Labels"],
        json!({"com.docker.stack.image": "web:2", "com.docker.stack.namespace": "shop", "ketch.allow": "lb:80/tcp"})
    );
    assert_eq!(
        web["TaskTemplate"]["Networks"],
        json!([{"Target": "edge", "Aliases": ["www", "web"]}, {"Target": "shop_default", "Aliases": ["web"]}])
    );
    assert_eq!(
        web["TaskTemplate"]["Resources"]["Reservations"],
        json!({"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20})
    );
    assert_eq!(web["Mode"]["Replicated"]["Replicas"], 3);
    assert_eq!(web["EndpointSpec"]["Ports"][0]["Protocol"], "udp");
    let db = &stack.services[0]["TaskTemplate"]["ContainerSpec"]["Mounts"];
    assert_eq!((&db[0]["Source"], &db[0]["Type"]), (&json!("shop_data"), &json!("volume")));
    assert_eq!((&db[1]["Source"], &db[1]["ReadOnly"]), (&json!("/etc/x"), &json!(true)));
    for service in stack.services {
        let spec: ServiceSpec = serde_json::from_value(service).unwrap();
        assert!(spec.name.starts_with("shop_"));
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, wanted) in [
        ("services: {web: {}}", "services.web: needs an image"),
        (
            "services: {web: {image: a, colour: red}}",
            "services.web.colour: is not something that a stack can have here",
        ),
        ("services: {web: {image: a, networks: [x]}}", "services.web.networks: undefined network \"x\""),
        (
            "services: {web: {image: a, ports: [x]}}",
            "services.web.ports.0: must be published:target/protocol",
        ),
        (
            "services: {web: {image: a, deploy: {replicas: many}}}",
            "services.web.deploy.replicas: must be a whole number",
        ),
        ("services: {web: {image: a, secrets: [x]}}", "services.web.secrets.0: undefined secrets \"x\""),
        (
            "services: {web: {image: 'a:${N:?no tag}'}}",
            "\"a:${N:?no tag}\": required variable N is missing a value: no tag",
        ),
        ("secrets: {a: {file: x}}", "secrets.a.file: reading x: No such file or directory (os error 2)"),
        ("colours: {}", "colours: is not something that a stack can have here"),
        ("[", "the file is no YAML: "),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{text}: {error}");
    }
}

#[test]
fn ports_come_in_ranges() {
    let stack = read("services: {a: {image: a, ports: ['8000-8001:80-81', 90]}}").unwrap();
    let ports = &stack.services[0]["EndpointSpec"]["Ports"];
    let pairs: Vec<_> = ports
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["PublishedPort"].as_u64().unwrap(), it["TargetPort"].as_u64().unwrap()))
        .collect();
    assert_eq!(pairs, [(0, 90), (8000, 80), (8001, 81)]);
}

#[test]
fn keys_may_have_dots() {
    let stack = read(
        "services: {web.v2: {image: a, configs: [nginx.conf]}}\nconfigs: {nginx.conf: {external: true}}\nnetworks: {a.b: {}}",
    )
    .unwrap();
    let web = &stack.services[0];
    assert_eq!(web["Name"], "shop_web.v2");
    assert_eq!(web["TaskTemplate"]["ContainerSpec"]["Configs"][0]["ConfigName"], "nginx.conf");
    assert_eq!(web["TaskTemplate"]["Networks"][0]["Aliases"], json!(["web.v2"]));
    assert_eq!(stack.networks[0]["Name"], "shop_a.b");
}

#[test]
fn variables_of_files_come_before_the_services_own() {
    let folder = crate::scratch::Folder::new("stack");
    std::fs::write(folder.path().join("a.env"), "# all\nA=1\nB=x=y\n\nTAG\nNONE\n").unwrap();
    let text = "services: {web: {image: a, env_file: a.env, environment: {A: 2}, shm_size: 1g}}";
    let environment = BTreeMap::from([("TAG".to_owned(), "2".to_owned())]);
    let around = Around { folder: folder.path(), environment: &environment };
    let stack = Stack::read("shop", text, &around).unwrap();
    let container = &stack.services[0]["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Env"], json!(["A=2", "B=x=y", "TAG=2"]));
    let missing = read("services: {web: {image: a, env_file: [b.env]}}").unwrap_err().to_string();
    assert!(missing.starts_with("services.web.env_file: reading b.env: No such file"), "{missing}");
}
