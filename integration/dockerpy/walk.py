"""Walks docker-py's public API on the engine of DOCKER_HOST, which has busybox:latest; prints `walked` at its end."""
import io
import tarfile

import docker
from docker import errors

client = docker.from_env(version="1.50")


def refused(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"{call} was not refused")


# The engine.
assert client.ping()
assert client.version()["MinAPIVersion"] == "1.24"
assert docker.from_env(version="auto").api.api_version
assert client.info()["OSType"] == "linux"
assert set(client.df()) >= {"Images", "Containers", "Volumes"}

# Images.
image = client.images.get("busybox")
assert image.tags == ["busybox:latest"] and image.short_id.startswith("sha256:")
assert [i.id for i in client.images.list()] == [image.id]
assert client.images.list(filters={"dangling": True}) == []
assert image.tag("walk", "1") and client.images.get("walk:1").id == image.id
image.reload()
saved = b"".join(image.save(named="walk:1"))
client.images.remove("walk:1")
refused(errors.ImageNotFound, client.images.get, "walk:1")
assert client.images.load(saved)[0].tags
client.images.remove("walk:1")
assert image.history()[0]["CreatedBy"]
assert client.images.prune()["SpaceReclaimed"] == 0

# Containers: run in every form.
none = {"network_mode": "none"}
assert client.containers.run("busybox", ["echo", "out"], remove=True, **none) == b"out\n"
error = refused(errors.ContainerError, client.containers.run, "busybox", "sh -c 'echo bad >&2; exit 3'", **none)
assert error.exit_status == 3 and error.stderr == b"bad\n"
assert client.containers.prune()["ContainersDeleted"]
lines = client.containers.run("busybox", ["seq", "3"], stream=True, remove=True, **none)
assert list(lines) == [b"1\n", b"2\n", b"3\n"]
box = client.containers.run("busybox", ["sleep", "1000"], name="box", detach=True, labels={"a": "b"}, environment={"A": "b"},
                            mem_limit="64m", cap_add=["NET_ADMIN"], hostname="walker", **none)
assert client.containers.get("box") == box
assert client.containers.list(filters={"label": "a=b"}) == [box]
assert client.containers.list(all=True, filters={"status": "exited"}) == []
assert box.labels == {"a": "b"} and box.attrs["HostConfig"]["Memory"] == 64 << 20
assert box.top()["Processes"]
assert box.stats(stream=False)["pids_stats"]["current"] == 1
assert box.exec_run("echo in").output == b"in\n"
assert box.exec_run("sh -c 'exit 4'").exit_code == 4
assert box.exec_run("sh -c 'echo o; echo e >&2'", demux=True).output == (b"o\n", b"e\n")
assert b"".join(box.exec_run(["seq", "2"], stream=True).output) == b"1\n2\n"
assert box.exec_run("id -u", user="user", workdir="/tmp").output == b"1000\n"
socket = box.exec_run("cat", stdin=True, socket=True).output
socket._sock.send(b"typed\n")
assert socket._sock.recv(8)[0] == 1 and socket._sock.recv(99) == b"typed\n"
socket.close()
tar = io.BytesIO()
with tarfile.open(fileobj=tar, mode="w") as archive:
    member = tarfile.TarInfo("file")
    member.size = 7
    archive.addfile(member, io.BytesIO(b"content"))
assert box.put_archive("/tmp", tar.getvalue())
stream, stat = box.get_archive("/tmp/file")
assert stat["name"] == "file" and stat["size"] == 7
with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
    assert archive.extractfile("file").read() == b"content"
assert {"Path": "/tmp/file", "Kind": 1} in box.diff()
assert client.images.get(box.commit("walked", "1").id).tags == ["walked:1"]
client.images.remove("walked:1")
assert sum(map(len, box.export())) > 100_000
box.pause()
box.reload()
assert box.status == "paused"
box.unpause()
box.rename("other")
box.update(mem_limit="32m", memswap_limit="64m")
box.restart(timeout=0)
box.stop(timeout=0)
assert box.wait()["StatusCode"] == 137
box.start()
box.kill()
box.wait()
box.remove()
refused(errors.NotFound, client.containers.get, "other")
talks = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"], **none)
attached = talks.attach(stdout=True, stderr=True, stream=True, logs=True)
talks.start()
assert sorted(attached) == [b"err\n", b"out\n"]
talks.wait()
assert talks.logs(stdout=True, stderr=False) == b"out\n"
assert talks.logs(stdout=False, tail=2) == b"err\n"
assert list(talks.logs(stream=True, follow=True, stderr=False)) == [b"out\n"]
talks.remove()
refused(errors.ImageNotFound, client.containers.create, "nonsense")
refused(errors.APIError, client.containers.run, "busybox", "nonsense-program", **none)
client.containers.prune()

# Networks.
pool = docker.types.IPAMPool(subnet="10.66.0.0/24", gateway="10.66.0.1")
net = client.networks.create("walk", driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"n": "l"})
assert client.networks.get("walk") == net and net in client.networks.list(names=["walk"])
box = client.containers.run("busybox", ["sleep", "1000"], detach=True, **none)
client.api.disconnect_container_from_network(box.id, "none")
net.connect(box, aliases=["alias"], ipv4_address="10.66.0.7")
net.reload()
assert net.containers == [box]
net.disconnect(box)
box.remove(force=True)
web = client.containers.run("busybox", ["sleep", "1000"], detach=True, network="walk", ports={"80/tcp": ("127.0.0.1", 8066)})
web.reload()
assert web.ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8066"}]
refused(errors.APIError, net.remove)
web.remove(force=True)
net.remove()
client.networks.create("unused")
assert client.networks.prune()["NetworksDeleted"] == ["unused"]

# Volumes.
volume = client.volumes.create("walk", labels={"v": "l"})
assert client.volumes.get("walk").name == "walk" and client.volumes.list(filters={"label": "v=l"}) == [volume]
client.containers.run("busybox", ["touch", "/v/kept"], remove=True, volumes={"walk": {"bind": "/v", "mode": "rw"}}, **none)
mount = docker.types.Mount("/m", "walk", read_only=True)
assert client.containers.run("busybox", ["ls", "/m"], remove=True, mounts=[mount], **none) == b"kept\n"
volume.remove()
assert client.volumes.prune()["SpaceReclaimed"] == 0

# Events, up to now.
events = list(client.events(since=0, until=int(__import__("time").time()) + 1, decode=True))
assert {event["Type"] for event in events} >= {"container", "network", "volume", "image"}

# Swarm is off, and says so.
refused(errors.APIError, client.services.list)
print("walked")
