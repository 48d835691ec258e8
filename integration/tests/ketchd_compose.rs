//! Compose 2.40 on the engine: three services that wait for each other, with networks, volumes, secrets; scaled and taken down.

use ketch_integration::ketchd::Engine;
use ketch_integration::runtime::Output;
use ketch_integration::{Case, tests, wait_until};

tests![
    up_ps_logs_exec_and_down,
    scale_and_recreate,
    run_and_configuration,
    what_fails_is_told,
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

/// Compose in a project of the site's.
fn compose(engine: &Engine<'_>, line: &str) -> Output {
    let folder = engine.site.path("project");
    std::fs::create_dir_all(&folder).expect("make the project");
    if !folder.join("compose.yaml").exists() {
        std::fs::write(folder.join("compose.yaml"), FILE).expect("write the project");
        std::fs::write(folder.join("word"), "secret-word\n").expect("write the secret");
    }
    engine.program("sh").args(["-c", "cd \"$0\" && shift; eval \"docker compose $1\""]).arg(&folder).args(["-", line]).run()
}

fn nothing_left(engine: &Engine<'_>) {
    assert_eq!(engine.docker("ps -aq").ok().text(), "");
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
