#!/bin/bash
# Shows what ketch does, with bundles of oci-bundles/: a container's output, its state, a limit being enforced, a system
# call being refused. Ends with failure when one of them did not happen. RUNTIME may name another runtime.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "the demo makes containers: run it as root" >&2; exit 1; }
runtime=${RUNTIME:-target/release/ketch}
state=$(mktemp -d /tmp/ketch-demo.XXXXXX)
id=demo$$
web=web$$
ketch() { "$runtime" --root "$state" "$@"; }
trap 'ketch delete --force "$web" >/dev/null 2>&1 || true; rm -rf "$state"' EXIT

say() { printf '\n== %s\n' "$*"; }
shown() { # shown <text that must appear> <command...>
    local text=$1 out
    shift
    printf '$ ketch %s\n' "$*"
    out=$(ketch "$@" 2>&1) || true
    printf '%s\n' "$out"
    grep -qF -- "$text" <<<"$out" || { printf 'the demo failed: no "%s" in this output\n' "$text" >&2; exit 1; }
}

say "A container's output"
shown 'Hello from a container' run --bundle oci-bundles/hello "$id"

say "A container's state"
printf '$ ketch run --detach --bundle oci-bundles/web %s\n' "$web"
ketch run --detach --bundle oci-bundles/web "$web" </dev/null >"$state/web.log" 2>&1
shown '"status": "running"' state "$web"
shown "$web" list
shown httpd exec "$web" /bin/ps
ketch kill "$web" KILL
ketch delete --force "$web"

say "A limit being enforced: 16 processes, and the program wants 32"
shown "can't fork" run --bundle oci-bundles/limits "$id"

say "A system call being refused: mount(2), by Docker's seccomp profile"
shown 'mount(2) was refused' run --bundle oci-bundles/docker-default "$id"

say "done"
