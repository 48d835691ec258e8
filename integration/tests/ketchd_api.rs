//! The API's frame over raw HTTP: versions, headers, error bodies byte by byte, unknown pages, limits of bodies.

use ketch_integration::ketchd::{Answer, Engine, Http};
use ketch_integration::{Case, tests};

tests![
    ping_says_what_clients_negotiate_with,
    a_head_has_no_body,
    version_is_by_number_and_whole,
    a_version_out_of_range_is_refused,
    every_answer_bears_the_servers_headers,
    unknown_pages_and_methods_are_not_found,
    error_bodies_are_exact,
    a_body_must_be_json,
    a_connection_serves_many_requests,
    a_head_that_is_no_http_is_refused,
    a_huge_body_is_refused_and_the_engine_lives,
    filters_in_both_forms_and_bad_ones,
    info_tells_the_roots,
    what_is_not_served_says_so,
    start_takes_no_body,
];

fn engine(case: &Case) -> Engine<'_> {
    Engine::bare(case, &[])
}

fn ping_says_what_clients_negotiate_with(case: &Case) {
    let engine = engine(case);
    for path in ["/_ping", "/v1.24/_ping", "/v1.50/_ping"] {
        let answer = engine.call("GET", path, "").is(200);
        assert_eq!(answer.body, "OK");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("cache-control"), "no-cache, no-store, must-revalidate");
        assert_eq!(answer.header("pragma"), "no-cache");
        assert_eq!(answer.header("swarm"), "inactive");
        assert_eq!(answer.header("docker-experimental"), "false");
        assert!(["1", "2"].contains(&answer.header("builder-version")), "{answer:?}");
    }
    engine.end();
}

fn a_head_has_no_body(case: &Case) {
    let engine = engine(case);
    let mut http = engine.http();
    let answer = http.call("HEAD", "/_ping", &[], "").is(200);
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("content-length"), "0");
    // Were a body sent, the next answer would begin with it.
    assert_eq!(http.call("GET", "/_ping", &[], "").is(200).body, "OK");
    engine.end();
}

fn version_is_by_number_and_whole(case: &Case) {
    let engine = engine(case);
    let version = engine.call("GET", "/version", "").is(200);
    assert_eq!(version.header("content-type"), "application/json");
    assert!(version.body.ends_with("}\n"), "{version:?}");
    let version = version.json();
    assert_eq!(version["MinAPIVersion"], "1.24");
    assert_eq!(version["Os"], "linux");
    assert_eq!(version["Arch"], "amd64");
    assert!(version["Version"].as_str().is_some_and(|text| text.starts_with("28.")), "{version}");
    assert!(version["Components"].as_array().is_some_and(|parts| !parts.is_empty()), "{version}");
    for field in ["Platform", "KernelVersion", "GitCommit", "GoVersion", "BuildTime", "ApiVersion"] {
        assert!(!version[field].is_null(), "{field}: {version}");
    }
    let out = engine.docker("version --format '{{.Server.APIVersion}} {{.Client.APIVersion}}'").ok();
    let server = version["ApiVersion"].as_str().unwrap_or_default();
    assert_eq!(out.text(), format!("{server} 1.51"));
    engine.end();
}

fn a_version_out_of_range_is_refused(case: &Case) {
    let engine = engine(case);
    let most = engine.call("GET", "/_ping", "").header("api-version").to_owned();
    // The errors of before 1.24 are plain text.
    let old = engine.call("GET", "/v1.23/version", "").is(400);
    assert_eq!(old.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(old.body, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n");
    let new = engine.call("GET", "/v1.99/version", "").refuses(400);
    assert_eq!(new, format!("client version 1.99 is too new. Maximum supported API version is {most}"));
    let _ = engine.call("GET", "/v1.24/version", "").is(200);
    engine.end();
}

fn every_answer_bears_the_servers_headers(case: &Case) {
    let engine = engine(case);
    for (path, status) in [("/info", 200), ("/containers/none/json", 404), ("/v1.50/version", 200), ("/nowhere", 404)] {
        let answer = engine.call("GET", path, "").is(status);
        // Those are the middleware's, which a page that is not there does not reach.
        if path != "/nowhere" {
            assert_eq!(answer.header("ostype"), "linux", "{path}");
            assert!(answer.header("server").starts_with("Docker/28."), "{path}: {answer:?}");
            assert!(answer.header("server").ends_with(" (linux)"), "{path}: {answer:?}");
            assert!(answer.header("api-version").starts_with("1."), "{path}");
        }
        assert!(answer.line.starts_with("HTTP/1.1 "), "{answer:?}");
        assert!(!answer.header("date").is_empty(), "{answer:?}");
    }
    engine.end();
}

fn unknown_pages_and_methods_are_not_found(case: &Case) {
    let engine = engine(case);
    let pages = [
        ("GET", "/"), ("GET", "/nowhere"), ("GET", "/v1.50/nowhere"), ("GET", "/containers"), ("GET", "/v1.50"), ("DELETE", "/version"),
        ("PATCH", "/containers/json"), ("PUT", "/containers/create"), ("POST", "/containers/json"), ("GET", "/v1.x/version"),
        ("POST", "/_ping"),
    ];
    for (method, page) in pages {
        let answer = engine.call(method, page, "").is(404);
        assert_eq!(answer.body, "{\"message\":\"page not found\"}\n", "{method} {page}");
        assert_eq!(answer.header("content-type"), "application/json", "{method} {page}");
    }
    engine.end();
}

fn error_bodies_are_exact(case: &Case) {
    let engine = engine(case);
    let cases = [
        ("GET", "/containers/nope/json", "", 404, "No such container: nope"),
        ("GET", "/containers/nope/logs?stdout=1", "", 404, "No such container: nope"),
        ("POST", "/containers/nope/start", "", 404, "No such container: nope"),
        ("POST", "/containers/nope/stop", "", 404, "No such container: nope"),
        ("DELETE", "/containers/nope", "", 404, "No such container: nope"),
        ("POST", "/containers/nope/exec", r#"{"Cmd":["true"]}"#, 404, "No such container: nope"),
        ("GET", "/exec/nope/json", "", 404, "No such exec instance: nope"),
        ("GET", "/images/nope/json", "", 404, "No such image: nope:latest"),
        ("DELETE", "/images/nope", "", 404, "No such image: nope:latest"),
        ("GET", "/images/nope/history", "", 404, "No such image: nope:latest"),
        ("POST", "/containers/create", r#"{"Image":"nope"}"#, 404, "No such image: nope:latest"),
        ("GET", "/networks/nope", "", 404, "network nope not found"),
        ("DELETE", "/networks/nope", "", 404, "network nope not found"),
        ("GET", "/volumes/nope", "", 404, "get nope: no such volume"),
        ("DELETE", "/volumes/nope", "", 404, "get nope: no such volume"),
        ("POST", "/containers/create", r#"{}"#, 400, "config cannot be empty in order to create a container"),
        ("POST", "/networks/create", r#"{"Name":""}"#, 400, "invalid name: name is empty"),
        ("POST", "/volumes/create", r#"{"Name":"a/b"}"#, 400, "create a/b: \"a/b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"),
        ("POST", "/images/UPPER/tag?repo=x", "", 404, "invalid reference format: repository name (library/UPPER) must be lowercase"),
    ];
    for (method, path, body, status, message) in cases {
        let answer = engine.call(method, path, body);
        assert_eq!((answer.status, answer.json()["message"].as_str()), (status, Some(message)), "{method} {path}");
        let _ = answer.refuses(status);
    }
    engine.end();
}

fn a_body_must_be_json(case: &Case) {
    let engine = engine(case);
    let post = |kind: &[&str], body: &str| engine.http().call("POST", "/volumes/create", kind, body);
    let json = "Content-Type: application/json";
    let wrong = post(&["Content-Type: text/plain"], "{}").refuses(400);
    assert_eq!(wrong, "unsupported Content-Type header (text/plain): must be 'application/json'");
    assert_eq!(post(&[json], "{").refuses(400), "invalid JSON: unexpected EOF");
    assert!(post(&[json], "x").refuses(400).starts_with("invalid JSON: invalid character 'x' looking for beginning of value"));
    assert!(post(&[json], r#"{"Name":5}"#).refuses(400).starts_with("invalid JSON: json: cannot unmarshal number into Go struct field"));
    assert_eq!(post(&[json], r#"{"Name":"ab"} {}"#).refuses(400), "unexpected content after JSON");
    let created = post(&["Content-Type: application/json; charset=utf-8"], r#"{"Name":"ab"}"#).is(201);
    assert_eq!(created.json()["Name"], "ab");
    let _ = engine.call("DELETE", "/volumes/ab", "").is(204);
    engine.end();
}

fn a_connection_serves_many_requests(case: &Case) {
    let engine = engine(case);
    let mut http = engine.http();
    for _ in 0..50 {
        let _ = http.call("GET", "/containers/nope/json", &[], "").refuses(404);
        assert_eq!(http.call("GET", "/containers/json", &[], "").is(200).body, "[]\n");
    }
    // Several at once, answered in their order.
    for path in ["/_ping", "/images/json", "/_ping"] {
        http.ask("GET", path, &[], "");
    }
    let bodies: Vec<String> = (0..3).map(|_| http.answer(false).is(200).body).collect();
    assert_eq!(bodies, ["OK", "[]\n", "OK"]);
    engine.end();
}

fn a_head_that_is_no_http_is_refused(case: &Case) {
    let engine = engine(case);
    let send = |bytes: &[u8]| -> Answer {
        let mut http: Http = engine.http();
        http.send(bytes);
        http.answer(false)
    };
    assert_eq!(send(b"hello\r\n\r\n").status, 400);
    assert_eq!(send(b"GET /_ping HTTP/1.1\r\n\r\n").status, 400);
    let long = format!("GET /_ping HTTP/1.1\r\nHost: docker\r\nX-Long: {}\r\n\r\n", "x".repeat(4 << 20));
    assert_eq!(send(long.as_bytes()).status, 431);
    assert_eq!(engine.call("GET", "/_ping", "").is(200).body, "OK");
    engine.end();
}

fn a_huge_body_is_refused_and_the_engine_lives(case: &Case) {
    let engine = engine(case);
    engine.only_ketch("it reads a body of any length into memory");
    let huge = format!(r#"{{"Name":"{}"}}"#, "x".repeat(24 << 20));
    let answer = engine.call("POST", "/volumes/create", &huge);
    assert!([400, 413].contains(&answer.status), "{}", answer.line);
    let deep = format!(r#"{{"Name":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let _ = engine.call("POST", "/volumes/create", &deep).refuses(400);
    assert_eq!(engine.call("GET", "/_ping", "").is(200).body, "OK");
    engine.end();
}

fn filters_in_both_forms_and_bad_ones(case: &Case) {
    let engine = engine(case);
    let list = |filters: &str| engine.call("GET", &format!("/containers/json?filters={filters}"), "");
    assert_eq!(list("%7B%22status%22:%7B%22exited%22:true%7D%7D").is(200).body, "[]\n");
    assert_eq!(list("%7B%22status%22:%5B%22exited%22%5D%7D").is(200).body, "[]\n");
    assert_eq!(list("%7B%22nonsense%22:%5B%22a%22%5D%7D").refuses(400), "invalid filter 'nonsense'");
    assert_eq!(list("%7B%22status%22:%5B%22asleep%22%5D%7D").refuses(400), "invalid filter 'status=asleep': invalid value for state (asleep): must be one of created, running, paused, restarting, removing, exited, dead");
    let _ = list("nonsense").refuses(400);
    for page in ["/images/json", "/networks", "/volumes"] {
        let answer = engine.call("GET", &format!("{page}?filters=%7B%22nonsense%22:%5B%22a%22%5D%7D"), "");
        assert_eq!(answer.refuses(400), "invalid filter 'nonsense'", "{page}");
    }
    engine.end();
}

fn info_tells_the_roots(case: &Case) {
    let engine = engine(case);
    let info = engine.call("GET", "/info", "").is(200).json();
    assert_eq!(info["DockerRootDir"], engine.site.path("data").display().to_string());
    assert_eq!(info["Containers"], 0);
    assert_eq!(info["Images"], 0);
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["Architecture"], "x86_64");
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    assert!(info["NCPU"].as_u64().is_some_and(|cpus| cpus > 0), "{info}");
    assert!(info["MemTotal"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{info}");
    assert!(info["ID"].as_str().is_some_and(|id| !id.is_empty()), "{info}");
    assert!(info["DefaultRuntime"].as_str().is_some_and(|name| !info["Runtimes"][name].is_null()), "{info}");
    let again = engine.call("GET", "/info", "").is(200).json();
    assert_eq!(info["ID"], again["ID"]);
    engine.end();
}

fn what_is_not_served_says_so(case: &Case) {
    let engine = engine(case);
    let _ = engine.call("GET", "/swarm", "").refuses(503);
    let _ = engine.call("GET", "/services", "").refuses(503);
    let _ = engine.call("GET", "/nodes", "").refuses(503);
    assert_eq!(engine.call("GET", "/plugins", "").is(200).json(), serde_json::json!([]));
    engine.end();
}

fn start_takes_no_body(case: &Case) {
    let engine = Engine::start(case);
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}"#;
    let id = engine.call("POST", "/containers/create", body).is(201).json()["Id"].as_str().map(str::to_owned);
    let id = id.expect("an id");
    let answer = engine.call("POST", &format!("/containers/{id}/start"), r#"{"Binds":["/a:/b"]}"#).refuses(400);
    assert_eq!(answer, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24");
    let _ = engine.call("POST", &format!("/containers/{id}/start"), "").is(204);
    engine.end();
}
