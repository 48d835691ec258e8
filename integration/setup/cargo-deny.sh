#!/bin/sh
# Runs cargo-deny; builds it once into the cache when it is not installed (two to six minutes on two cpus, without optimisation: it runs
# for a second), or into target/tools for who may not write there. Its advisories need a database from GitHub and are not asked for here.
set -eu
version=0.20.2
cd "$(dirname "$0")/../.."
if ! command -v cargo-deny >/dev/null; then
    tools=${KETCH_CACHE:-/var/cache/ketch}/tools-$version
    mkdir -p "$tools" 2>/dev/null && [ -w "$tools" ] || tools=$PWD/target/tools
    [ -x "$tools/bin/cargo-deny" ] || {
        echo "building cargo-deny $version into $tools"
        CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --debug --version "$version" --root "$tools" cargo-deny
        rm -rf "$tools/build"
    }
    PATH=$tools/bin:$PATH
fi
exec cargo deny "$@"
