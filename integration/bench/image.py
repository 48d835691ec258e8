#!/usr/bin/env python3
"""Makes the image of `make bench-ketchd`'s pulls, as the folder of a docker-registry: `big:gzip` and `big:zstd`.

1 GiB of files in ten layers of 102 MiB: many small files, some of megabytes, of words that compress about as files of real
images do (2.5 to 1). Made once, and kept: by argument, the folder. Called by engine_bench.
"""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile

LAYERS = 10
LAYER = (1 << 30) // LAYERS
VERSION = "2"
KINDS = {"gzip": (["gzip", "-6"], "tar+gzip"), "zstd": (["zstd", "-3", "-q"], "tar+zstd")}


def contents(source, size):
    """Words, and bytes at random after every sixty of them."""
    parts, have = [], 0
    while have < size:
        words = b" ".join(source.choices(WORDS, k=60))
        noise = source.randbytes(len(words) // 12)
        parts += [words, noise]
        have += len(words) + len(noise)
    return b"".join(parts)[:size]


def layer(number):
    source = random.Random(number)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        have, count = 0, 0
        while have < LAYER:
            size = min(source.choices([2_000, 12_000, 60_000, 400_000, 5_000_000], [30, 40, 20, 8, 2])[0], LAYER - have)
            name = f"usr/lib{number}/part{count // 50}/file{count}"
            if count % 50 == 0:
                folder = tarfile.TarInfo(os.path.dirname(name))
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            file = tarfile.TarInfo(name)
            file.size, file.mode = size, 0o644
            tar.addfile(file, io.BytesIO(contents(source, size)))
            have, count = have + size, count + 1
    return out.getvalue()


def put(folder, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{folder}/blobs/sha256/{digest}", "wb") as file:
        file.write(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def build(folder):
    layouts = {kind: f"{folder}/{kind}" for kind in KINDS}
    for layout in layouts.values():
        os.makedirs(f"{layout}/blobs/sha256")
        with open(f"{layout}/oci-layout", "w", encoding="ascii") as file:
            file.write('{"imageLayoutVersion":"1.0.0"}')
    diff_ids, packed = [], {kind: [] for kind in KINDS}
    for number in range(LAYERS):
        data = layer(number)
        diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
        for kind, (command, media) in KINDS.items():
            out = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
            packed[kind].append({"mediaType": f"application/vnd.oci.image.layer.v1.{media}", **put(layouts[kind], out)})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    for kind, layout in layouts.items():
        about = put(layout, json.dumps(config).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **about},
            "layers": packed[kind],
        }
        described = put(layout, json.dumps(manifest).encode())
        index = {"schemaVersion": 2, "manifests": [{"mediaType": manifest["mediaType"], **described}]}
        with open(f"{layout}/index.json", "w", encoding="ascii") as file:
            json.dump(index, file)
    return layouts


def fill(folder, layouts):
    """What a registry has after a push of both: blobs, links to them, and tags."""
    registry = f"{folder}/docker/registry/v2"
    for kind, layout in layouts.items():
        repository = f"{registry}/repositories/big"
        with open(f"{layout}/index.json", encoding="ascii") as file:
            manifest = json.load(file)["manifests"][0]["digest"].removeprefix("sha256:")
        for digest in os.listdir(f"{layout}/blobs/sha256"):
            place = f"{registry}/blobs/sha256/{digest[:2]}/{digest}"
            os.makedirs(place, exist_ok=True)
            os.replace(f"{layout}/blobs/sha256/{digest}", f"{place}/data")
            link(f"{repository}/_layers/sha256/{digest}", digest)
        link(f"{repository}/_manifests/revisions/sha256/{manifest}", manifest)
        link(f"{repository}/_manifests/tags/{kind}/current", manifest)
        link(f"{repository}/_manifests/tags/{kind}/index/sha256/{manifest}", manifest)
        shutil.rmtree(layout)


def link(place, digest):
    os.makedirs(place, exist_ok=True)
    with open(f"{place}/link", "w", encoding="ascii") as file:
        file.write(f"sha256:{digest}")


def main():
    folder = sys.argv[1]
    done = f"{folder}/version"
    if os.path.exists(done):
        with open(done, encoding="ascii") as file:
            if file.read() == VERSION:
                return
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    print("making the image of 1 GiB, once", file=sys.stderr)
    fill(folder, build(folder))
    with open(done, "w", encoding="ascii") as file:
        file.write(VERSION)


WORDS = [bytes(random.Random(n).choices(b"abcdefghijklmnopqrstuvwxyz_", k=3 + n % 9)) for n in range(4000)]

if __name__ == "__main__":
    main()
