"""Asks dockerd, and writes down what it was sent and what it shows. Called by record.sh, which says how."""

import base64
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

WORK, GOLDEN = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
DOCKERD = str(WORK / "s/docker.sock")
TAP = str(WORK / "tap.sock")


class Unix(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("docker")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(DOCKERD)


def raw(method, path, body=None, headers=()):
    connection = Unix()
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def ask(method, path, body=None):
    """One call; its JSON. A refusal ends the recording."""
    text = None if body is None else json.dumps(body)
    status, _, answer = raw(method, path, text, {"Content-Type": "application/json"})
    if status >= 300:
        sys.exit(f"{method} {path}: {status} {answer.decode()}\n{text}")
    return json.loads(answer) if answer.strip() else None


BODIES = []


def tap(connection):
    """A call of the command line: passed on, its body kept."""
    stream = connection.makefile("rwb")
    line = stream.readline().decode().split()
    if not line:
        return
    headers = http.client.parse_headers(stream)
    body = stream.read(int(headers.get("Content-Length") or 0))
    if body:
        BODIES.append((line[1], json.loads(body)))
    status, answered, answer = raw(line[0], line[1], body or None, headers.items())
    head = [f"HTTP/1.1 {status} X", "Connection: close", f"Content-Length: {len(answer)}"]
    head += [f"{k}: {v}" for k, v in answered.items() if k not in ("Transfer-Encoding", "Content-Length")]
    stream.write("\r\n".join(head).encode() + b"\r\n\r\n" + (b"" if line[0] == "HEAD" else answer))
    stream.flush()
    stream.close()
    connection.close()


def serve():
    server = socket.socket(socket.AF_UNIX)
    server.bind(TAP)
    server.listen(16)
    while True:
        threading.Thread(target=tap, args=(server.accept()[0],), daemon=True).start()


def docker(*args, given=None):
    """A command; what it prints, and the last body that it sent to a path with `create` or `update`."""
    BODIES.clear()
    command = ["docker", "-H", f"unix://{TAP}", *args]
    out = subprocess.run(command, input=given, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{command}: {out.stderr}")
    sent = [body for path, body in BODIES if "create" in path or "update" in path]
    return out.stdout.strip(), sent[-1] if sent else None


def write(name, value):
    (GOLDEN / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


def until(what, condition):
    for _ in range(150):
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    sys.exit(f"{what}: not in time")


def is_allocated(shown):
    """What has neither ports nor, by virtual addresses, networks never is."""
    spec = shown["Spec"].get("EndpointSpec") or {}
    wants = spec.get("Ports") or (shown["Spec"]["TaskTemplate"].get("Networks") and spec.get("Mode") == "vip")
    return not wants or shown["Endpoint"]["Spec"] == spec


SERVICES = []


def note(how, sent, id, keep=False):
    """A service as it is shown, both ways; then it goes."""
    path = f"/services/{id}"

    def both():
        shown, filled = ask("GET", path), ask("GET", path + "?insertDefaults=true")
        return (shown, filled) if is_allocated(shown) and shown["Version"] == filled["Version"] else None

    shown, filled = until(how, both)
    SERVICES.append({"how": how, "sent": sent, "shown": shown, "filled": filled})
    if not keep:
        ask("DELETE", path)


def cli(line, keep=False):
    args = line.split()
    out, sent = docker("service", "create", "--detach", "--no-resolve-image", *args)
    note(f"docker service create {line}", sent, out.splitlines()[0], keep)


def body(how, spec, keep=False):
    spec = {"Name": "raw" + str(len(SERVICES)), **spec}
    note(how, spec, ask("POST", "/services/create", spec)["ID"], keep)


def container(**fields):
    return {"TaskTemplate": {"ContainerSpec": {"Image": "busybox", **fields}}}


def task(**fields):
    return {"TaskTemplate": {"ContainerSpec": {"Image": "busybox"}, **fields}}


def services(ids):
    cli("--name plain busybox")
    cli("--name words --replicas 0 --env A=1 --env B --label l=1 --container-label c=2 --user 1:2 --workdir /w --group g busybox echo a b")
    cli("--name entry --replicas 0 --entrypoint /bin/sh --hostname {{.Task.Name}} --tty --read-only --init busybox -c true")
    cli("--name cpu --replicas 0 --limit-cpu 0.5 --limit-memory 64m --limit-pids 9 --reserve-cpu 0.25 --reserve-memory 16m busybox")
    cli("--name generic --replicas 0 --generic-resource GPU=1 --generic-resource SSD=2 busybox")
    cli("--name restart --replicas 0 --restart-condition on-failure --restart-max-attempts 3 busybox")
    cli("--name restart2 --replicas 0 --restart-condition none --restart-delay 0s --restart-window 1m busybox")
    cli("--name update --replicas 0 --update-parallelism 2 --update-delay 3s --update-order start-first --update-failure-action rollback --update-monitor 7s --update-max-failure-ratio 0.3 busybox")
    cli("--name rollback --replicas 0 --rollback-parallelism 0 --rollback-delay 1ms --rollback-failure-action continue busybox")
    cli("--name place --replicas 0 --constraint node.role==manager --constraint node.labels.a!=b --placement-pref spread=node.labels.zone --replicas-max-per-node 2 busybox")
    cli("--name ports --replicas 0 --publish 8080:80 --publish published=8081,target=81,protocol=udp --publish mode=host,target=82 busybox")
    cli("--name dnsrr --replicas 0 --endpoint-mode dnsrr --network name=front,alias=a,alias=b --network back busybox")
    cli("--name opts --replicas 0 --network name=front,driver-opt=k=v busybox")
    cli("--name global --mode global --constraint node.labels.nowhere==x busybox")
    cli("--name job --mode replicated-job --replicas 5 --max-concurrent 2 --constraint node.labels.nowhere==x busybox")
    cli("--name gjob --mode global-job --constraint node.labels.nowhere==x busybox")
    cli("--name mounts --replicas 0 --mount type=bind,source=/tmp,target=/b,bind-propagation=rslave,readonly --mount type=volume,source=v,target=/v,volume-label=a=b,volume-driver=local,volume-opt=o=p,volume-nocopy --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777 --mount type=volume,target=/anonymous busybox")
    cli("--name health --replicas 0 --health-cmd true --health-interval 5s --health-timeout 2s --health-retries 4 --health-start-period 6s --health-start-interval 1s --stop-signal SIGINT --stop-grace-period 3s busybox")
    cli("--name unhealthy --replicas 0 --no-healthcheck busybox")
    cli("--name names --replicas 0 --host h:1.2.3.4 --dns 1.1.1.1 --dns 2001:db8::1 --dns-search s --dns-option o busybox")
    cli("--name kernel --replicas 0 --cap-add NET_ADMIN --cap-drop CHOWN --sysctl net.core.somaxconn=5 --ulimit nofile=1:2 --oom-score-adj 7 busybox")
    cli("--name logs --replicas 0 --log-driver json-file --log-opt max-size=1m busybox")
    cli("--name secret --replicas 0 --secret key --secret source=key,target=/x/y,uid=1,gid=2,mode=0400 busybox")
    cli("--name config --replicas 0 --config conf --config source=conf,target=/c,mode=0444 busybox")
    cli("--name windows --replicas 0 --isolation process --credential-spec file://f busybox")
    none = {"Mode": {"Replicated": {"Replicas": 0}}}
    body("nothing but an image", container())
    body("nothing in any part", {
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox", "Labels": {}, "Env": [], "Command": [], "Mounts": [], "Secrets": [], "Configs": [], "Privileges": {}, "DNSConfig": {}, "Healthcheck": {}, "Ulimits": []},
                         "Resources": {}, "RestartPolicy": {}, "Placement": {}, "LogDriver": {}, "Networks": []},
        "Labels": {}, "UpdateConfig": {}, "RollbackConfig": {}, "EndpointSpec": {}, "Mode": {"Replicated": {}}})
    body("null in any part", {
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox", "Labels": None, "Env": None, "Mounts": None, "Privileges": None, "DNSConfig": None, "Init": None, "StopGracePeriod": None},
                         "Resources": None, "RestartPolicy": None, "Placement": None, "LogDriver": None, "Networks": None},
        "Labels": None, "UpdateConfig": None, "EndpointSpec": None, "Mode": {"Replicated": {"Replicas": None}}})
    body("resources with nothing in them", task(Resources={"Limits": {}, "Reservations": {}}) | none)
    body("a limit of processes alone", task(Resources={"Limits": {"Pids": 5}}) | none)
    body("a restart policy of zeros", task(RestartPolicy={"Condition": "any", "Delay": 0, "MaxAttempts": 0, "Window": 0}) | none)
    body("a restart policy of defaults", task(RestartPolicy={"Delay": 5000000000, "MaxAttempts": 2}) | none)
    body("placement in all its parts", task(Placement={"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.a"}}, {}], "Platforms": [{}, {"OS": "linux", "Architecture": "amd64"}]}) | none)
    body("modes of privileges by default", container(Privileges={"Seccomp": {}, "AppArmor": {}}) | none)
    body("privileges in all their parts", container(Privileges={"CredentialSpec": {"Registry": "r"}, "SELinuxContext": {"User": "u", "Role": "r", "Type": "t", "Level": "l", "Disable": True}, "Seccomp": {"Mode": "custom", "Profile": "e30="}, "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": True}) | none)
    body("unconfined", container(Privileges={"Seccomp": {"Mode": "unconfined"}}) | none)
    body("mounts with options that say nothing", container(Mounts=[{"Target": "/a", "Source": "/"}, {"Type": "volume", "Target": "/b", "Consistency": "cached", "VolumeOptions": {}}, {"Type": "BIND", "Source": "/x", "Target": "/c", "BindOptions": {}}, {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {}}, {"Type": "tmpfs", "Target": "/e", "TmpfsOptions": {"SizeBytes": 100, "Mode": 511, "Options": [["exec"], ["a", "b"]]}}, {"Type": "bind", "Source": "/x", "Target": "/f", "BindOptions": {"NonRecursive": True}}, {"Type": "npipe", "Source": "p", "Target": "/p"}, {"Type": "cluster", "Source": "group:x", "Target": "/i"}]) | none)
    body("options of binds that dockerd forgets", container(Mounts=[{"Type": "bind", "Source": "/x", "Target": "/c", "BindOptions": {"ReadOnlyNonRecursive": True}}, {"Type": "bind", "Source": "/x", "Target": "/d", "BindOptions": {"CreateMountpoint": True}}, {"Type": "bind", "Source": "/x", "Target": "/e", "BindOptions": {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}}]) | none)
    body("a volume in all its parts", container(Mounts=[{"Type": "volume", "Source": "v", "Target": "/b", "ReadOnly": True, "VolumeOptions": {"NoCopy": True, "Subpath": "s", "Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"o": "p"}}}}, {"Type": "volume", "Source": "w", "Target": "/w", "VolumeOptions": {"DriverConfig": {}}}]) | none)
    body("spans of zero", container(StopGracePeriod=0, Isolation="hyperv", Healthcheck={"Test": ["NONE"]}) | none)
    body("a config for the runtime", container(Configs=[{"Runtime": {}, "ConfigID": ids["conf"], "ConfigName": "conf"}], Privileges={"CredentialSpec": {"Config": ids["conf"]}}) | none)
    body("a job that says nothing", container() | {"Mode": {"ReplicatedJob": {}}})
    body("a job of zero", container() | {"Mode": {"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 0}}})
    body("an update config of zeros", container() | none | {"UpdateConfig": {"Parallelism": 0, "Delay": 0, "Monitor": 0, "MaxFailureRatio": 1}})
    body("an endpoint with a port that says little", container() | none | {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishMode": "host"}, {"Name": "n", "Protocol": "SCTP", "TargetPort": 81, "PublishMode": "HOST"}]}})
    body("networks in the old place", container() | none | {"Networks": [{"Target": "front", "Aliases": ["x"]}]})
    body("forced", task(ForceUpdate=3, Runtime="container") | none)
    updates()
    stack()


STACK = """
services:
  web:
    image: busybox
    command: sleep 1000
    environment: {A: "1", B: "2"}
    ports: ["8099:80", {target: 81, mode: host}]
    networks: {front: {aliases: [w]}}
    volumes: ["data:/data", "/tmp:/host:ro", {type: tmpfs, target: /t, tmpfs: {size: 1024}}]
    secrets: [key, {source: key, target: other, uid: "7", mode: 0400}]
    configs: [{source: conf, target: /etc/conf}]
    healthcheck: {test: [CMD, "true"], interval: 1m30s, retries: 3, start_period: 2s}
    logging: {driver: json-file, options: {max-file: "2"}}
    stop_grace_period: 1m
    extra_hosts: ["h:1.2.3.4"]
    dns: 1.1.1.1
    ulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}}
    deploy:
      replicas: 0
      labels: {l: "1"}
      update_config: {parallelism: 2, delay: 10s, failure_action: rollback, order: start-first, max_failure_ratio: 0.1}
      rollback_config: {parallelism: 1, monitor: 1s}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 120s}
      resources: {limits: {cpus: "0.50", memory: 50M, pids: 4}, reservations: {memory: 20M, generic_resources: [{discrete_resource_spec: {kind: GPU, value: 1}}]}}
      placement: {constraints: [node.role == manager], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
  everywhere:
    image: busybox
    networks: [front]
    deploy: {mode: global, endpoint_mode: dnsrr, placement: {constraints: [node.labels.nowhere == x]}}
volumes: {data: {driver: local, driver_opts: {o: p}, labels: {a: b}}}
networks: {front: {external: true}}
secrets: {key: {external: true}}
configs: {conf: {external: true}}
"""


def stack():
    """What `docker stack deploy` sends for each of its services."""
    file = WORK / "stack.yaml"
    file.write_text("version: '3.12'\n" + STACK)
    docker("stack", "deploy", "--detach", "--resolve-image", "never", "--compose-file", str(file), "pile")
    for path, sent in list(BODIES):
        if path.endswith("/services/create"):
            id = next(it["ID"] for it in ask("GET", "/services") if it["Spec"]["Name"] == sent["Name"])
            note(f"docker stack deploy: {sent['Name']}", sent, id)


def state(id):
    return ask("GET", f"/services/{id}").get("UpdateStatus", {}).get("State")


def updates():
    """An update to its end, then back."""
    out, _ = docker("service", "create", "--detach", "--no-resolve-image", "--name", "turn", "--update-monitor", "100ms", "--rollback-monitor", "100ms", "busybox", "sleep", "1000")
    id = out.splitlines()[0]
    for how in (["--env-add", "A=1", "--label-add", "l=2", "--mount-add", "type=tmpfs,target=/t"], ["--rollback"]):
        _, sent = docker("service", "update", "--detach", *([] if how == ["--rollback"] else ["--no-resolve-image"]), *how, "turn")
        until("an update", lambda: state(id) in ("completed", "rollback_completed"))
        # A rollback's body is the spec that it leaves: nobody looks at it.
        note("docker service update " + " ".join(how), sent if how != ["--rollback"] else None, id, keep=True)
    ask("DELETE", f"/services/{id}")


def tasks():
    docker("service", "create", "--detach", "--no-resolve-image", "--name", "web", "--replicas", "2", "--network", "front", "--publish", "8090:80", "--publish", "mode=host,target=81", "--generic-resource", "GPU=1", "busybox", "sleep", "1000")
    docker("service", "create", "--detach", "--no-resolve-image", "--name", "everywhere", "--mode", "global", "busybox", "sleep", "1000")
    docker("service", "create", "--detach", "--no-resolve-image", "--name", "done", "--mode", "replicated-job", "busybox", "true")
    docker("service", "create", "--detach", "--no-resolve-image", "--name", "broken", "--restart-condition", "none", "busybox", "nothing")
    docker("service", "create", "--detach", "--no-resolve-image", "--name", "waiting", "--constraint", "node.labels.nowhere==x", "busybox")

    def settled():
        shown = ask("GET", "/tasks")
        states = [task["Status"]["State"] for task in shown]
        rest = {"complete", "failed", "pending", "rejected", "running"}
        is_settled = len(states) == 6 and set(states) <= rest and states.count("running") == 3
        return shown if is_settled and states.count("pending") == 1 else None

    shown = until("tasks", settled)
    write("tasks", {"networks": {it["Id"]: ask("GET", f"/networks/{it['Id']}") for it in ask("GET", "/networks") if it["Scope"] == "swarm"}, "shown": shown, "services": ask("GET", "/services?status=true")})
    for service in ask("GET", "/services"):
        ask("DELETE", f"/services/{service['ID']}")
    until("tasks to go", lambda: not ask("GET", "/tasks"))


def networks():
    shown = []
    for how in ("front --attachable", "back --internal --label l=1", "wide --subnet 10.77.0.0/24 --ip-range 10.77.0.128/25 --gateway 10.77.0.9 --aux-address a=10.77.0.7", "hidden --opt encrypted", "six --ipv6 --subnet fd77::/64"):
        out, sent = docker("network", "create", "--driver", "overlay", *how.split())
        shown.append({"how": "docker network create --driver overlay " + how, "sent": sent, "shown": ask("GET", f"/networks/{out}")})
    sent = {"Name": "bare", "Driver": "overlay"}
    id = ask("POST", "/networks/create", sent)["Id"]
    shown.append({"how": "nothing but a driver", "sent": sent, "shown": ask("GET", f"/networks/{id}")})
    write("networks", shown)


def payloads():
    ids, secrets, configs = {}, [], []
    for kind, into in (("secret", secrets), ("config", configs)):
        named = {"secret": "key", "config": "conf"}[kind]
        for line in (named, f"--label l=1 --template-driver golang {kind}2"):
            out, sent = docker(kind, "create", *line.split(), "-", given="hunter2")
            into.append({"how": f"docker {kind} create {line} -", "sent": sent, "shown": ask("GET", f"/{kind}s/{out}")})
            ids.setdefault(named, out)
        sent = {"Name": f"{kind}3", "Labels": {}, "Templating": {}, "Data": base64.b64encode(b"x").decode()}
        id = ask("POST", f"/{kind}s/create", sent)["ID"]
        into.append({"how": "a template without a driver", "sent": sent, "shown": ask("GET", f"/{kind}s/{id}")})
    write("secrets", secrets)
    write("configs", configs)
    return ids


def nodes(id):
    shown = []
    for sent in ({"Role": "manager", "Availability": "active"}, {"Name": "n", "Role": "Manager", "Availability": "DRAIN", "Labels": {"a": "b"}}, {"Role": "manager", "Availability": "active", "Labels": {}}):
        version = ask("GET", f"/nodes/{id}")["Version"]["Index"]
        ask("POST", f"/nodes/{id}/update?version={version}", sent)
        shown.append({"how": "a body", "sent": sent, "shown": ask("GET", f"/nodes/{id}")})
    write("nodes", shown)


def swarm():
    shown = []
    for how in ("--task-history-limit 7 --snapshot-interval 500 --max-snapshots 2 --cert-expiry 48h --dispatcher-heartbeat 7s", "--autolock", "--autolock=false --task-history-limit 5"):
        _, sent = docker("swarm", "update", *how.split())
        shown.append({"how": "docker swarm update " + how, "sent": sent, "shown": ask("GET", "/swarm"), "info": ask("GET", "/info")["Swarm"], "unlock_key": ask("GET", "/swarm/unlockkey")})
    for sent in ({}, {"Labels": {"a": "b"}, "Name": "default"}, {"Labels": {}}):
        version = ask("GET", "/swarm")["Version"]["Index"]
        ask("POST", f"/swarm/update?version={version}", sent)
        shown.append({"how": "a body", "sent": sent, "shown": ask("GET", "/swarm"), "info": ask("GET", "/info")["Swarm"], "unlock_key": ask("GET", "/swarm/unlockkey")})
    write("swarm", shown)


def main():
    GOLDEN.mkdir(exist_ok=True)
    threading.Thread(target=serve, daemon=True).start()
    until("the tap", lambda: os.path.exists(TAP))
    tree = WORK / "root/bin"
    tree.mkdir(parents=True)
    (tree / "busybox").write_bytes(pathlib.Path("/bin/busybox").read_bytes())
    (tree / "busybox").chmod(0o755)
    for applet in ("sh", "sleep", "true"):
        (tree / applet).symlink_to("busybox")
    tar = subprocess.run(["tar", "-C", str(WORK / "root"), "-c", "."], capture_output=True, check=True)
    load = ["docker", "-H", f"unix://{DOCKERD}", "import", "--change", 'CMD ["sleep","1000"]', "-", "busybox:latest"]
    subprocess.run(load, input=tar.stdout, check=True, capture_output=True)
    init = {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"}
    node = ask("POST", "/swarm/init", init)
    networks()
    ids = payloads()
    write("ids", {"version": ask("GET", "/version")["Version"], "node": node, **ids})
    services(ids)
    write("services", SERVICES)
    tasks()
    nodes(node)
    swarm()


main()
