#!/usr/bin/env python3
"""How long a pull of a 1 GiB image takes: ketchd, dockerd of the current peers and skopeo with tar, in turns, from a registry on loopback.

pull.py --ketchd PATH [--runs N] [--kinds gzip,zstd] [--engines ketchd,dockerd,skopeo]

The image is ten layers of files, half of whose bytes do not compress; it is made once, and kept with the registry's folder in
KETCH_CACHE. Runs itself in mount and network namespaces of its own. Prints one JSON object: seconds by engine and kind, each a
list; `again` is a second pull of the same, `load` and `save` of the gzip image's archive.
"""

import argparse
import hashlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

CACHE = Path(os.environ.get("KETCH_CACHE", "/var/cache/ketch"))
HERE = CACHE / "pull-image-1"
LAYERS, SIZE = 10, 1 << 30
REGISTRY = "127.0.0.1:5000"


def sizes(rng, total):
    """Files as images have them: most are small, most bytes are in large ones."""
    while total > 0:
        size = min(total, rng.choice([400, 2000, 8000, 30000, 30000, 120000, 1 << 20, 4 << 20]))
        total -= size
        yield size


def write_layer(path, number):
    rng = random.Random(number)
    words = [rng.randbytes(rng.randint(3, 12)) for _ in range(3000)]
    noise = rng.randbytes(8 << 20)
    text = b" ".join(rng.choices(words, k=600000))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for index, size in enumerate(sizes(rng, SIZE // LAYERS)):
            source = noise if index % 2 else text
            start = rng.randrange(len(source) // 2)
            content = source[start : start + size]
            content += rng.randbytes(size - len(content))
            member = tarfile.TarInfo(f"layer{number}/d{index // 50}/f{index}")
            member.size = size
            tar.addfile(member, io.BytesIO(content))


def digest(path):
    sum_ = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            sum_.update(piece)
    return sum_.hexdigest()


def make_image(kind, layout, tars):
    """An OCI layout whose layers are compressed by gzip or zstd."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(content):
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        return {"digest": f"sha256:{name}", "size": len(content)}

    program = ["gzip", "-n", "-6", "-c"] if kind == "gzip" else ["zstd", "-q", "-3", "-c"]
    layers = []
    for tar in tars:
        packed = layout / "packed"
        with open(packed, "wb") as out:
            subprocess.run([*program, str(tar)], stdout=out, check=True)
        name, size = digest(packed), packed.stat().st_size
        packed.rename(blobs / name)
        media = f"application/vnd.oci.image.layer.v1.tar+{kind}"
        layers.append({"mediaType": media, "digest": f"sha256:{name}", "size": size})
    diffs = [f"sha256:{digest(tar)}" for tar in tars]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}}
    config = add(json.dumps(config).encode()) | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    }
    manifest = add(json.dumps(manifest).encode()) | {"mediaType": manifest["mediaType"]}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))


def start_registry(folder, log):
    config = folder.parent / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {accesslog: {disabled: true}, level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: {REGISTRY}}}\n"
    )
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    wait_for(lambda: socket.create_connection(REGISTRY.split(":"), 1).close())
    return process


def wait_for(condition):
    for _ in range(600):
        try:
            return condition()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("pull.py: a server does not come up")


def prepare():
    """The registry's folder with both images, made on the first call."""
    if (HERE / "done").exists():
        return
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    tars = []
    for number in range(LAYERS):
        tars.append(HERE / f"layer{number}.tar")
        write_layer(tars[-1], number)
    with open(HERE / "log", "wb") as log:
        registry = start_registry(HERE / "registry", log)
        for kind in ["gzip", "zstd"]:
            layout = HERE / kind
            make_image(kind, layout, tars)
            copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{REGISTRY}/big:{kind}"]
            subprocess.run(copy, check=True)
            shutil.rmtree(layout)
        end(registry)
    for tar in tars:
        tar.unlink()
    (HERE / "done").touch()


def end(process):
    process.send_signal(signal.SIGTERM)
    process.wait(60)


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("docker")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Engine:
    def __init__(self, name, program, folder, log):
        self.name, self.folder, self.processes = name, folder, []
        self.socket = f"{folder}/s"
        folder.mkdir()
        extra = []
        if name == "dockerd":
            bin_ = Path(program).parent
            config = folder / "containerd.toml"
            config.write_text(
                f'version = 3\nroot = "{folder}/croot"\nstate = "{folder}/cstate"\n'
                'disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]\n'
                f'[grpc]\naddress = "{folder}/c.sock"\n'
            )
            containerd = [str(bin_ / "containerd"), "--config", str(config)]
            self.processes.append(subprocess.Popen(containerd, stdout=log, stderr=log))
            wait_for(lambda: os.stat(folder / "c.sock"))
            extra = ["--containerd", str(folder / "c.sock")]
        (folder / "daemon.json").write_text("{}")
        command = [program, "--host", f"unix://{self.socket}", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        command += ["--pidfile", f"{folder}/pid", "--config-file", str(folder / "daemon.json"), "--bridge", "none"]
        self.processes.insert(0, subprocess.Popen([*command, "--iptables=false", *extra], stdout=log, stderr=log))
        wait_for(lambda: self.call("GET", "/_ping"))

    def call(self, method, path, body=None, to=None):
        connection = Connection(self.socket)
        headers = {"Content-Type": "application/x-tar"} if body else {}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        if to is None:
            text = answer.read().decode()
        else:
            text = ""
            while piece := answer.read(1 << 20):
                to.write(piece)
        connection.close()
        if answer.status >= 300 or '"errorDetail"' in text:
            raise SystemExit(f"{self.name}: {method} {path}: {answer.status} {text[-500:]}")
        return text

    def end(self):
        for process in self.processes:
            end(process)
        shutil.rmtree(self.folder)


def timed(call):
    os.sync()
    begun = time.monotonic()
    call()
    return round(time.monotonic() - begun, 3)


def by_skopeo(folder, kind):
    """A copy into a folder, and each layer's tar, one after the other."""
    def work():
        source = f"docker://{REGISTRY}/big:{kind}"
        subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", source, f"dir:{folder}/copy"], check=True)
        manifest = json.loads((folder / "copy/manifest.json").read_text())
        for layer in manifest["layers"]:
            (folder / "root").mkdir(exist_ok=True)
            flag = "-xzf" if kind == "gzip" else "--zstd -xf"
            name = layer["digest"].split(":")[1]
            subprocess.run(["tar", "-C", str(folder / "root"), *flag.split(), str(folder / "copy" / name)], check=True)

    folder.mkdir()
    seconds = timed(work)
    shutil.rmtree(folder)
    return seconds


def measure(arguments, folder, log):
    kinds, names = arguments.kinds.split(","), arguments.engines.split(",")
    programs = {"ketchd": arguments.ketchd, "dockerd": arguments.dockerd}
    engines = [Engine(name, programs[name], folder / name, log) for name in names if name in programs]
    results = {}

    def add(name, what, seconds):
        results.setdefault(name, {}).setdefault(what, []).append(seconds)
        print(f"{name} {what}: {seconds} s", file=sys.stderr)

    for _ in range(arguments.runs):
        for kind in kinds:
            pull = f"/images/create?fromImage={REGISTRY}/big&tag={kind}"
            for engine in engines:
                add(engine.name, f"pull {kind}", timed(lambda: engine.call("POST", pull)))
                add(engine.name, f"again {kind}", timed(lambda: engine.call("POST", pull)))
                if kind == "gzip" and arguments.archives:
                    saved = folder / "saved.tar"
                    with open(saved, "wb") as out:
                        add(engine.name, "save", timed(lambda: engine.call("GET", f"/images/{REGISTRY}/big:gzip/get", to=out)))
                    engine.call("DELETE", f"/images/{REGISTRY}/big:{kind}?force=1")
                    with open(saved, "rb") as archive:
                        add(engine.name, "load", timed(lambda: engine.call("POST", "/images/load?quiet=1", body=archive)))
                    saved.unlink()
                engine.call("DELETE", f"/images/{REGISTRY}/big:{kind}?force=1")
            if "skopeo" in names:
                add("skopeo", f"pull {kind}", by_skopeo(folder / "skopeo", kind))
    for engine in engines:
        engine.end()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ketchd", required=True)
    parser.add_argument("--dockerd", default=str(CACHE / "peers/bin/dockerd"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kinds", default="gzip,zstd")
    parser.add_argument("--engines", default="ketchd,dockerd,skopeo")
    parser.add_argument("--archives", action="store_true", help="load and save too")
    parser.add_argument("--folder", default=f"/tmp/ketch-pull.{os.getpid()}")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        again = [sys.executable, __file__, *sys.argv[1:], "--inside", "--folder", arguments.folder]
        raise SystemExit(subprocess.run(["unshare", "--mount", "--net", *again]).returncode)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    prepare()
    folder = Path(arguments.folder)
    folder.mkdir()
    with open(folder / "log", "wb") as log:
        registry = start_registry(HERE / "registry", log)
        try:
            print(json.dumps(measure(arguments, folder, log), indent=1))
        finally:
            end(registry)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
