//! Compose 2.40 on the engine: three services that wait for each other, with networks, volumes, secrets; scaled and taken down.
//! And Debian's docker-compose 1.29, at the API of its age.

use std::path::PathBuf;

use ketch_integration::ketchd::Engine;
use ketch_integration::runtime::Output;
use ketch_integration::{Case, tests, wait_until};

tests![
    up_ps_logs_exec_and_down,
    scale_and_recreate,
    run_and_configuration,
    what_fails_is_told,
    profiles_configs_and_what_is_watched,
    debians_docker_compose,
];

const FILE: &str = r#"
services:
  web:
    image: busybox
    command: httpd -f -p 80 -h /site
    ports: ["127.0.0.1:8070:80"]
    volumes: ["site:/site"]
    networks: [front, back]
    depends_on:
      filler: {condition: service_completed_successfully}
      store: {condition: service_healthy}
  filler:
    image: busybox
    command: sh -c 'echo filled >/site/index.html'
    network_mode: none
    volumes: ["site:/site"]
  store:
    image: busybox
    command: sh -c 'cat /run/secrets/word; echo $$GREETING; touch /up; exec sleep 1000'
    environment: {GREETING: hello}
    networks: {back: {aliases: [database]}}
    secrets: [word]
    healthcheck: {test: ["CMD", "test", "-e", "/up"], interval: 100ms, retries: 50}
    stop_grace_period: 0s
networks: {front: {}, back: {internal: true}}
volumes: {site: {}}
secrets: {word: {file: ./word}}
"#;

/// The folder of a project of the site's, which is written where it is not there.
fn project(engine: &Engine<'_>, file: &str) -> PathBuf {
    let folder = engine.site.path("project");
    std::fs::create_dir_all(&folder).expect("make the project");
    if !folder.join("compose.yaml").exists() {
        std::fs::write(folder.join("compose.yaml"), file).expect("write the project");
        std::fs::write(folder.join("word"), "secret-word\n").expect("write the secret");
    }
    folder
}

/// Compose in it.
fn compose(engine: &Engine<'_>, line: &str) -> Output {
    let folder = project(engine, FILE);
    engine.program("sh").args(["-c", "cd \"$0\" && shift; eval \"docker compose $1\""]).arg(&folder).args(["-", line]).run()
}

fn nothing_left(engine: &Engine<'_>) {
    assert_eq!(engine.docker("ps -a --format '{{.Names}} {{.Status}} {{.Command}}'").ok().text(), "");
    assert_eq!(engine.docker("network ls --filter type=custom -q").ok().text(), "");
    assert_eq!(engine.docker("volume ls -q").ok().text(), "");
}

fn up_ps_logs_exec_and_down(case: &Case) {
    let engine = Engine::start(case);
    let _ = compose(&engine, "up -d --quiet-pull").ok();
    let out = compose(&engine, "ps --format '{{.Service}} {{.State}} {{.Health}}'").ok();
    let mut lines: Vec<&str> = out.text().lines().map(str::trim).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["store running healthy", "web running"]);
    wait_until("the page", || {
        let out = engine.sh("busybox wget -qO- http://127.0.0.1:8070/");
        if out.text() == "filled" { Ok(()) } else { Err(out.to_string()) }
    });
    let logs = compose(&engine, "logs --no-log-prefix store").ok();
    assert_eq!(logs.text(), "secret-word\nhello");
    assert_eq!(compose(&engine, "exec -T web sh -c 'ping -c 1 -W 5 database >/dev/null && echo reached'").ok().text(), "reached");
    assert_eq!(compose(&engine, "port web 80").ok().text(), "127.0.0.1:8070");
    assert!(compose(&engine, "top web").ok().text().contains("httpd"));
    let again = compose(&engine, "up -d").ok();
    assert!(!again.stderr.contains("Recreated"), "{again}");
    let _ = compose(&engine, "stop -t 0").ok();
    let _ = compose(&engine, "start").ok();
    let _ = compose(&engine, "restart -t 0 web").ok();
    let _ = compose(&engine, "down -v -t 0").ok();
    nothing_left(&engine);
    engine.end();
}

fn scale_and_recreate(case: &Case) {
    let engine = Engine::start(case);
    let _ = compose(&engine, "up -d store").ok();
    let _ = compose(&engine, "up -d --scale store=3 store").ok();
    assert_eq!(compose(&engine, "ps -q store").ok().text().lines().count(), 3);
    let _ = compose(&engine, "scale store=1").ok();
    let first = compose(&engine, "ps -q store").ok().text().to_owned();
    let file = engine.site.path("project/compose.yaml");
    let text = std::fs::read_to_string(&file).expect("read the project").replace("hello", "goodbye");
    std::fs::write(&file, text).expect("write the project");
    let _ = compose(&engine, "up -d store").ok();
    assert_ne!(compose(&engine, "ps -q store").ok().text(), first);
    assert!(compose(&engine, "logs store").ok().text().contains("goodbye"));
    let _ = compose(&engine, "down -v -t 0").ok();
    nothing_left(&engine);
    engine.end();
}

fn run_and_configuration(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(compose(&engine, "config --services | sort | xargs").ok().text(), "filler store web");
    assert_eq!(compose(&engine, "run --rm -T --no-deps filler sh -c 'exit 5'").exits(5).text(), "");
    let out = compose(&engine, "run --rm -T --no-deps store sh -c 'cat /run/secrets/word; ls -A'").ok();
    assert!(out.text().starts_with("secret-word"), "{out}");
    let _ = compose(&engine, "create store").ok();
    let _ = compose(&engine, "cp word store:/tmp/copied").ok();
    let _ = compose(&engine, "start store").ok();
    assert_eq!(compose(&engine, "exec -T store cat /tmp/copied").ok().text(), "secret-word");
    assert!(compose(&engine, "ls").ok().text().contains("project"));
    let _ = compose(&engine, "kill store").ok();
    let _ = compose(&engine, "rm -f").ok();
    let _ = compose(&engine, "down -v").ok();
    nothing_left(&engine);
    engine.end();
}

fn what_fails_is_told(case: &Case) {
    let engine = Engine::start(case);
    let _ = compose(&engine, "config -q").ok();
    let file = engine.site.path("project/compose.yaml");
    let text = FILE.replace("echo filled >/site/index.html", "exit 4");
    std::fs::write(&file, text).expect("write the project");
    let out = compose(&engine, "up -d").exits(1);
    assert!(out.stderr.contains("service \"filler\" didn't complete successfully: exit 4"), "{out}");
    let _ = compose(&engine, "down -v -t 0").ok();
    nothing_left(&engine);
    engine.end();
}

const MORE: &str = r#"
services:
  web:
    image: more:1
    command: httpd -f -p 80 -h /etc
    ports: ["80"]
    configs: [{source: page, target: /etc/page, mode: 0444}]
    secrets: [{source: word, target: /etc/word}]
    volumes: ["data:/data", "./word:/bound:ro", {type: tmpfs, target: /scratch}]
    networks: {front: {ipv4_address: 10.88.0.7}, back: {}}
    extra_hosts: ["elsewhere:10.1.2.3"]
    labels: {tier: front}
    stop_grace_period: 0s
  odd:
    image: more:1
    command: sleep 1000
    profiles: [odd]
    network_mode: "service:web"
    stop_grace_period: 0s
  helper:
    image: more:1
    command: sh -c 'exit 3'
    profiles: [never]
    deploy: {replicas: 2, resources: {limits: {memory: 64M, cpus: "0.5"}}}
networks:
  front: {ipam: {config: [{subnet: 10.88.0.0/24}]}}
  back: {}
volumes: {data: {labels: {a: b}}}
configs: {page: {content: "configured\n"}}
secrets: {word: {file: ./word}}
"#;

fn profiles_configs_and_what_is_watched(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("tag busybox more:1").ok();
    let folder = project(&engine, MORE);
    let _ = compose(&engine, "up -d").ok();
    assert_eq!(compose(&engine, "ps --services").ok().text(), "web");
    let _ = compose(&engine, "--profile odd up -d").ok();
    assert_eq!(compose(&engine, "--profile odd ps --services | sort | xargs").ok().text(), "odd web");
    let page = compose(&engine, "exec -T web cat /etc/page /etc/word /bound").ok();
    assert_eq!(page.text(), "configured\nsecret-word\nsecret-word");
    let seen = compose(&engine, "--profile odd exec -T odd wget -qO- http://127.0.0.1/page").ok();
    assert_eq!(seen.text(), "configured");
    assert!(compose(&engine, "exec -T web cat /etc/hosts").ok().text().contains("10.1.2.3"));
    assert!(compose(&engine, "exec -T web ip addr").ok().text().contains("10.88.0.7/24"));
    let port = compose(&engine, "port web 80").ok().text().to_owned();
    assert!(port.starts_with("0.0.0.0:"), "{port}");
    assert!(compose(&engine, "top").ok().text().contains("httpd"));
    let _ = compose(&engine, "pause web").ok();
    assert_eq!(compose(&engine, "ps --format '{{.State}}' web").ok().text(), "paused");
    let _ = compose(&engine, "unpause web").ok();
    assert_eq!(compose(&engine, "images -q | sort -u | wc -l").ok().text(), "1");
    assert!(compose(&engine, "volumes -q").ok().text().contains("project_data"));
    assert!(compose(&engine, "stats --no-stream --format '{{.Name}}' web").ok().text().contains("web"));
    let _ = compose(&engine, "cp web:/etc/page ./page").ok();
    assert_eq!(std::fs::read_to_string(folder.join("page")).expect("what was copied"), "configured\n");
    let _ = compose(&engine, "restart -t 0 web").ok();
    // Compose takes the end of the stream for an error, dockerd's as well.
    let watched = compose(&engine, "events --json --since 1h --until 0s web");
    for action in ["create", "start", "pause", "unpause"] {
        assert!(watched.text().contains(&format!("\"action\":\"{action}\"")), "{action}: {watched}");
    }
    assert_eq!(compose(&engine, "run --rm -T helper").exits(3).text(), "");
    let _ = compose(&engine, "--profile odd --profile never down -v -t 0 --rmi all --remove-orphans").ok();
    nothing_left(&engine);
    assert_eq!(engine.docker("images -q more:1").ok().text(), "");
    engine.end();
}

fn debians_docker_compose(case: &Case) {
    let engine = Engine::start(case).with_debians_clients();
    let folder = project(&engine, FILE);
    let old = |line: &str| {
        let script = format!("cd \"$0\"; docker-compose --project-name old {line}");
        engine.program("sh").args(["-c", &script]).arg(&folder).run()
    };
    let _ = old("config -q").ok();
    let _ = old("up -d").ok();
    wait_until("the page", || {
        let out = engine.sh("busybox wget -qO- http://127.0.0.1:8070/");
        if out.text() == "filled" { Ok(()) } else { Err(out.to_string()) }
    });
    assert!(old("ps").ok().text().contains("Up (healthy)"), "{}", old("ps"));
    assert_eq!(old("logs --no-log-prefix store").ok().text().lines().last(), Some("hello"));
    assert_eq!(old("exec -T store cat /run/secrets/word").ok().text(), "secret-word");
    assert_eq!(old("exec -T web sh -c 'ping -c 1 -W 5 database >/dev/null && echo reached'").ok().text(), "reached");
    let _ = old("exec -T web sh -c 'exit 4'").exits(4);
    assert_eq!(old("port web 80").ok().text(), "127.0.0.1:8070");
    assert!(old("top web").ok().text().contains("httpd"));
    let _ = old("pause store").ok();
    assert!(old("ps store").ok().text().contains("Paused"));
    let _ = old("unpause store").ok();
    let _ = old("up -d --scale store=3 store").ok();
    assert_eq!(old("ps -q store").ok().text().lines().count(), 3);
    let _ = old("up -d --scale store=1 store").ok();
    let first = old("ps -q store").ok().text().to_owned();
    let text = FILE.replace("hello", "goodbye");
    std::fs::write(folder.join("compose.yaml"), text).expect("write the project");
    let _ = old("up -d -t 0 store").ok();
    assert_ne!(old("ps -q store").ok().text(), first);
    let _ = old("run --rm -T --no-deps filler sh -c 'exit 5'").exits(5);
    let _ = old("stop -t 0").ok();
    let _ = old("start").ok();
    let _ = old("restart -t 0 web").ok();
    let _ = old("kill store").ok();
    let _ = old("rm -f store").ok();
    let _ = old("down -v -t 0 --rmi local").ok();
    nothing_left(&engine);
    engine.end();
}
