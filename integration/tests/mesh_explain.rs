//! Why things are as they are, and how it goes: `ketchd cluster explain`, events of what is decided, metrics that Debian's
//! Prometheus reads with the example configuration and all queries of the board. On a real cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ketch_integration::mesh::Mesh;
use ketch_integration::runtime::Output;
use ketch_integration::wait::wait_within;
use ketch_integration::{Case, tests};
use serde_json::Value;

tests![
    tasks_and_nodes_are_explained,
    a_stack_is_simulated_and_nothing_is_changed,
    what_is_decided_is_told,
    prometheus_reads_the_cluster,
];

const PATIENCE: Duration = Duration::from_secs(60);

fn formed<'a>(case: &'a Case, managers: usize, workers: usize, flags: &[&str]) -> Mesh<'a> {
    let mesh = Mesh::with_flags(case, managers + workers, flags);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd explains nothing");
    mesh.form(managers);
    mesh
}

/// `ketchd cluster explain` at a node.
fn explain(mesh: &Mesh<'_>, node: usize, arguments: &[&str]) -> Output {
    let engine = &mesh.node(node).engine;
    engine.program(engine.command_line().0).args(["cluster", "explain"]).args(arguments).run()
}

/// Waits until its answer has all of these.
#[track_caller]
fn wait_explained(mesh: &Mesh<'_>, node: usize, name: &str, wanted: &[&str]) -> String {
    wait_within(PATIENCE, &format!("cluster explain {name}: {wanted:?}"), || {
        let out = explain(mesh, node, &[name]);
        if out.code == 0 && wanted.iter().all(|text| out.stdout.contains(text)) {
            Ok(out.stdout)
        } else {
            std::thread::sleep(Duration::from_millis(300));
            Err(out.to_string())
        }
    })
}

fn tasks_and_nodes_are_explained(case: &Case) {
    let mut mesh = formed(case, 3, 1, &[]);
    let follower = if mesh.leader(1, PATIENCE) == 2 { 3 } else { 2 };
    mesh.create("--name big --reserve-memory 4000g", "sleep 1000");
    let text = wait_explained(&mesh, follower, "big", &["big.1", "pending for", "no suitable node", "node4: insufficient resources: asked for"]);
    assert!(text.contains("made with the service"), "{text}");

    mesh.create("--name crash --restart-delay 200ms --restart-max-attempts 2", "sh -c 'sleep 1; exit 7'");
    let text = wait_explained(&mesh, follower, "crash", &["restarted: task ", "failed for ", "with exit code 7", "at most 2 times", "before:"]);
    assert!(text.contains("chosen of 4 nodes, with 0 tasks of the service"), "{text}");

    mesh.create("--name web --replicas 2 --constraint node.hostname!=node1 --constraint node.hostname!=node2 --constraint node.hostname!=node3 --stop-grace-period 1s", "sleep 1000");
    let _ = mesh.wait_running(1, "web", 2, |node| node == 4);
    let out = explain(&mesh, follower, &["--format", "json", "web"]).ok();
    let told: Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!((&told["kind"], &told["tasks"][1]["name"], &told["tasks"][1]["cause"]), (&"service".into(), &"web.2".into(), &"created".into()), "{told}");
    let task = told["tasks"][0]["id"].as_str().expect("a task's id");
    let text = explain(&mesh, 1, &[task]).ok().stdout;
    assert!(text.contains("other nodes:") && text.contains("node2: constraint not satisfied: node.hostname!=node2"), "{text}");
    let _ = mesh.docker(1, "service update -q -d --constraint-rm node.hostname!=node2 --replicas 3 web").ok();
    let _ = mesh.wait_running(1, "web", 3, |node| node == 4 || node == 2);
    let _ = wait_explained(&mesh, follower, "web", &["made since the service wants more tasks than before"]);

    mesh.node_mut(4).kill_all();
    let _ = wait_explained(&mesh, follower, "web", &["moved: node node4 is down (", "running for"]);
    let _ = wait_explained(&mesh, follower, "node4", &["node node4 (", "takes no new tasks: it is down", "was asked to stop, and its node is not there"]);
    explain(&mesh, follower, &["nobody"]).refuses(&["Error response from daemon: no such service, task or node: nobody"]);
    mesh.end();
}

const STACK: &str = r#"
version: "3.8"
services:
  web:
    image: 10.99.0.254:5000/busybox:1
    command: sh -c 'echo "$$HOSTNAME"; exec sleep 1000'
    environment: {ONE: "1", TWO: "two"}
    labels: {tier: front}
    ports: ["8080:80"]
    networks: {front: {aliases: [www]}}
    secrets: [key]
    stop_grace_period: 1s
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    deploy:
      replicas: 2
      placement: {constraints: ["node.hostname!=node1"]}
      resources: {reservations: {cpus: "0.1", memory: 16M}}
      restart_policy: {condition: any, delay: 1s}
      update_config: {parallelism: 1, monitor: 1s}
  idle:
    image: 10.99.0.254:5000/busybox:1
    command: sleep 1000
    volumes: ["data:/data"]
networks: {front: {attachable: true}}
volumes: {data: {}}
secrets: {key: {file: key.txt}}
"#;

fn a_stack_is_simulated_and_nothing_is_changed(case: &Case) {
    let mesh = formed(case, 3, 0, &[]);
    let engine = &mesh.node(1).engine;
    fs::write(engine.site.path("key.txt"), "secret").expect("write the secret");
    let file = engine.site.path("shop.yml");
    let simulate = |text: &str| {
        fs::write(&file, text).expect("write the stack");
        let file = file.display().to_string();
        engine.program(engine.command_line().0).args(["cluster", "simulate", "--stack", "shop", "-f", &file]).run()
    };
    let deploy = || mesh.docker(1, &format!("stack deploy --detach=true -c {} shop", file.display())).ok();
    let state = "service ls --format '{{.Name}} {{.Replicas}} {{.Image}} {{.Ports}}'";
    let text = simulate(STACK).ok().stdout;
    for line in [
        "network shop_front: would be created",
        "secret shop_key: would be created",
        "service shop_web: would be created",
        "+ shop_web.1 on node",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!((mesh.docker(2, state).text(), mesh.docker(2, "secret ls -q").text()), ("", ""), "nothing is there");
    let _ = deploy();
    let _ = mesh.wait_running(1, "shop_web", 2, |node| node != 1);
    let _ = mesh.wait_running(1, "shop_idle", 1, |_| true);
    let before = mesh.docker(1, state).ok().stdout;
    let text = simulate(STACK).ok().stdout;
    assert!(text.contains("service shop_web: would stay as it is\nservice") || text.ends_with("service shop_web: would stay as it is\n"), "{text}");
    assert!(text.contains("service shop_idle: would stay as it is"), "{text}");
    let rolled = STACK.replacen("busybox:1", "busybox:2", 1).replace("replicas: 2", "replicas: 3");
    let text = simulate(&rolled).ok().stdout;
    for line in ["service shop_web: would be updated, its tasks replaced", "update: completes", "- shop_web.1 on", "+ shop_web.3 on"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let text = simulate(&STACK.replace("memory: 16M", "memory: 4000G")).ok().stdout;
    assert!(text.contains("would wait: no suitable node") && text.contains("node2: insufficient resources: asked for"), "{text}");
    let conflict = STACK.replace("volumes: [\"data:/data\"]", "ports: [\"8080:81\"]");
    let text = simulate(&conflict).ok().stdout;
    assert!(text.contains("service shop_idle: would be refused: ") && text.contains("port '8080' is already in use by service 'shop_web'"), "{text}");
    let gone = STACK.split("  idle:").next().expect("a part").to_owned() + "networks: {front: {attachable: true}}\nsecrets: {key: {file: key.txt}}\n";
    let text = simulate(&gone).ok().stdout;
    assert!(text.contains("service shop_idle: is not in the file, and stays"), "{text}");
    assert_eq!(mesh.docker(1, state).ok().stdout, before, "nothing was changed");
    // What was said is what happens.
    fs::write(&file, &rolled).expect("write the stack");
    let _ = deploy();
    let _ = mesh.wait_output(1, "service inspect --format '{{.UpdateStatus.State}}' shop_web", |text| text == "completed");
    let _ = mesh.wait_running(1, "shop_web", 3, |node| node != 1);
    mesh.end();
}

fn what_is_decided_is_told(case: &Case) {
    let mesh = formed(case, 1, 0, &[]);
    mesh.create("--name crash --restart-delay 200ms --restart-max-attempts 1", "sh -c 'exit 7'");
    mesh.create("--name big --reserve-memory 4000g", "sleep 1000");
    let _ = mesh.docker(1, "service update -q -d --replicas 2 big").ok();
    mesh.create("--name late --mode replicated-job --label ketch.schedule='* * * * *'", "sleep 200");
    mesh.create("--name gated --label ketch.depends_on=nobody", "sleep 1000");
    let line = "events --since 10m --until 0s --filter type=service --format '{{.Action}} {{.Scope}} {{.Actor.Attributes}}'";
    for (action, parts) in [
        ("create", &["swarm", "name:crash"][..]),
        ("update", &["name:big", "replicas.new:2", "replicas.old:1"]),
        ("task_restart", &["name:crash", "exitCode:7", "cause:ended", "slot:1"]),
        ("task_wait", &["name:big", "reason:no suitable node"]),
        ("task_wait", &["name:gated", "reason:waiting for service nobody"]),
    ] {
        let _ = mesh.wait_output(1, line, |text| {
            text.lines().any(|line| line.starts_with(&format!("{action} ")) && parts.iter().all(|part| line.contains(part)))
        });
    }
    // The run of one minute goes on in the next.
    let _ = mesh.wait_output_within(Duration::from_secs(150), 1, line, |text| {
        let has = |action: &str, part: &str| text.lines().any(|line| line.starts_with(action) && line.contains(part));
        has("schedule_run", "iteration:1") && has("schedule_skip", "reason:the run before goes on")
    });
    let _ = wait_explained(&mesh, 1, "late", &["ago made no run: the run before goes on", "made for run 1 of the job"]);
    mesh.end();
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/observability");

fn prometheus_reads_the_cluster(case: &Case) {
    let prometheus = Path::new("/usr/bin/prometheus");
    case.needs(prometheus.exists(), "no /usr/bin/prometheus (make setup)");
    let mesh = formed(case, 3, 0, &["--metrics-addr", "0.0.0.0:9323"]);
    mesh.create("--name web --replicas 3 --health-cmd true --health-interval 500ms", "sleep 1000");
    mesh.create("--name big --reserve-memory 4000g", "sleep 1000");
    let _ = mesh.wait_running(1, "web", 3, |_| true);
    let engine = &mesh.node(1).engine;
    let site = &engine.site;
    let targets: Vec<_> = mesh.nodes().iter().map(|node| format!("{:?}", format!("{}:9323", node.address))).collect();
    let example = fs::read_to_string(format!("{FOLDER}/prometheus.yml")).expect("read the example");
    let text = example.replace("\"127.0.0.1:9323\"", &targets.join(", ")).replace("_interval: 15s", "_interval: 1s");
    assert_ne!(text, example);
    let file = site.path("prometheus.yml");
    fs::write(&file, text).expect("write the configuration");
    let _ = fs::copy(format!("{FOLDER}/rules.yml"), site.path("rules.yml")).expect("copy the rules");
    let _ = engine.program("promtool").args(["check", "config"]).arg(&file).run().ok();
    let arguments = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", site.path("tsdb").display()),
        "--web.listen-address=10.99.0.1:9090".to_owned(),
    ];
    let server = site.daemon("/usr/bin/prometheus", arguments);
    let ask = |path: &str, query: &str| -> Result<Value, String> {
        let url = format!("http://10.99.0.1:9090{path}");
        let out = engine.program("curl").args(["-sS", "-G", &url, "--data-urlencode", &format!("query={query}")]).run();
        serde_json::from_str(&out.stdout).map_err(|error| format!("{error}: {out}"))
    };
    // Two looks at each target, so that there are rates.
    let _ = wait_within(PATIENCE, "Prometheus reads each ketchd", || {
        let up = ask("/api/v1/query", "min(count_over_time(up[30s])) > 3 and sum(up) == 3")?;
        if up["data"]["result"].as_array().is_some_and(|it| !it.is_empty()) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
        Err(up.to_string())
    });
    let known = ask("/api/v1/label/__name__/values", "").expect("the metrics' names");
    let known: BTreeSet<&str> = known["data"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    let queries = queries();
    assert!(queries.len() > 30, "{queries:?}");
    for query in &queries {
        let answer = ask("/api/v1/query", &query.replace("$__rate_interval", "30s")).expect("an answer");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        for name in metrics_of(query) {
            assert!(known.contains(name), "{name} of {query} is not among {known:?}");
        }
    }
    // The board's own question about the cluster has the right answer.
    let running = ask("/api/v1/query", "sum(ketch_cluster_tasks{state=\"running\"})").expect("an answer");
    assert_eq!(running["data"]["result"][0]["value"][1], "3", "{running}");
    let waits = ask("/api/v1/query", "sum(ketch_cluster_tasks{state=\"pending\"})").expect("an answer");
    assert_eq!(waits["data"]["result"][0]["value"][1], "1", "{waits}");
    server.stop();
    mesh.end();
}

/// Those of the board and of the rules.
fn queries() -> Vec<String> {
    let text = fs::read_to_string(format!("{FOLDER}/board.json")).expect("read the board");
    let board: Value = serde_json::from_str(&text).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let of_board = targets.map(|target| target["expr"].as_str().expect("a query").to_owned());
    let rules = fs::read_to_string(format!("{FOLDER}/rules.yml")).expect("read the rules");
    let of_rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned);
    of_board.chain(of_rules).collect()
}

fn metrics_of(query: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(move |c: char| !is_part(c));
    words.filter(|word| ["ketch_", "engine_daemon_", "process_"].iter().any(|start| word.starts_with(start)))
}
