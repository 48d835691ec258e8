#!/bin/bash
# The engine's part of the demo, in a network and a mount namespace of its own (demo.sh): ketchd on a private socket, and the stock
# docker command line with Compose. A web container with a health check and a published port comes back when its process is
# killed, and when it hangs; three services of a Compose file wait for each other. Nothing is left. KETCHD may name another build.
#
# The docker command line is that of `make peers` (28, Compose 2.40) where that was made, and Debian's (20.10, docker-compose
# 1.29) elsewhere: those are installed within a minute.
set -euo pipefail
ketchd=${KETCHD:-target/release/ketchd}
peers=${KETCH_CACHE:-/var/cache/ketch}/peers/bin
dir=$(mktemp -d /tmp/ketch-engine.XXXXXX)
parent=ketch-demo-$$
daemon=
export DOCKER_HOST=unix://$dir/docker.sock DOCKER_CONFIG=$dir/config DOCKER_CLI_HINTS=false
mkdir -p "$dir/config/cli-plugins"
if [ -x "$peers/docker" ] && [ -x "$peers/docker-compose" ]; then
    ln -s "$peers/docker-compose" "$dir/config/cli-plugins/"
    docker=$peers/docker compose=("$docker" compose)
else
    integration/setup/packages.sh docker.io docker-compose
    docker=/usr/bin/docker compose=(/usr/bin/docker-compose)
fi

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'the demo failed: %s\n' "$*" >&2; tail -n 5 "$dir/ketchd.log" >&2; exit 1; }
docker() { "$docker" "$@"; }
compose() { "${compose[@]}" --project-name demo --file "$dir/compose.yaml" "$@" 2>>"$dir/compose.log"; }
typed() { printf '$ %s\n' "$*"; "$@"; }
page() { busybox wget -q -O - "http://127.0.0.1:8080/"; }

# until_is <what> <wanted> <command...>: tries until the command prints that.
until_is() {
    local what=$1 wanted=$2 seen= end=$((SECONDS + 30))
    shift 2
    while seen=$("$@" 2>&1) || true; [ "$seen" != "$wanted" ]; do
        [ $SECONDS -lt $end ] || fail "$what: $seen, not $wanted, after 30 s"
        sleep 0.1
    done
}
state() { docker inspect --format '{{.State.Health.Status}}, started again {{.RestartCount}} times' web; }

ended() {
    local code=$?
    [ -z "$daemon" ] || {
        docker ps --all --quiet | xargs -r "$docker" rm --force --volumes >/dev/null || true
        kill "$daemon" || true
        wait "$daemon" || true
    }
    # Before the folder: what is still mounted in it is not ours to empty.
    ! grep -F "$dir" /proc/self/mounts || code=1
    ! pgrep --list-full --full "$dir/exec" || code=1
    find /sys/fs/cgroup -mindepth 1 -depth -type d -path "*/$parent*" -exec rmdir {} + || code=1
    [ $code != 0 ] || rm -rf "$dir"
    [ $code = 0 ] || printf 'the demo failed; what there is to see: %s\n' "$dir" >&2
    exit $code
}
trap ended EXIT

say "The engine: ketchd on a socket of its own, and the stock docker command line"
busybox ip link set lo up
"$ketchd" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" --host "$DOCKER_HOST" \
    --cgroup-parent "/$parent" >"$dir/ketchd.log" 2>&1 &
daemon=$!
until_is "the socket" OK sh -c "docker() { $docker \"\$@\"; }; docker version >/dev/null && echo OK"
docker version --format 'client {{.Client.Version}}, server {{.Server.Version}}, API {{.Server.APIVersion}}'
printf 'compose %s\n' "$("${compose[@]}" version --short)"

say "An image of oci-bundles/web"
integration/setup/demo-image.sh "$dir/image.tar"
typed docker load --quiet --input "$dir/image.tar"

say "A web server with a health check, a published port, and a policy that starts it again"
typed docker run --detach --name web --publish 127.0.0.1:8080:80 --restart always --label ketch.health.restart=true \
    --health-cmd 'wget -q -O /dev/null 127.0.0.1' --health-interval 200ms --health-timeout 1s --health-retries 2 web:demo
until_is "its health" "healthy, started again 0 times" state
printf '$ wget -O - http://127.0.0.1:8080/\n'
page | tee "$dir/page"
grep -q '<' "$dir/page" || fail "that is not the page"

say "Its process is killed: the policy starts it again"
typed kill -KILL "$(docker inspect --format '{{.State.Pid}}' web)"
until_is "its return" "healthy, started again 1 times" state
state
page | cmp - "$dir/page" || fail "another page"

say "Its process hangs: its health says so, and it is started again, which dockerd never does"
typed kill -STOP "$(docker inspect --format '{{.State.Pid}}' web)"
until_is "its return" "healthy, started again 2 times" state
state
page | cmp - "$dir/page" || fail "another page"
docker events --since 5m --until=-1s --filter container=web --format '{{.Action}}' | grep -v exec_ | paste -sd ' ' | fold -sw 110
docker rm --force web >/dev/null

say "Three services of a Compose file, which wait for each other"
cat >"$dir/compose.yaml" <<'END'
services:
  writer:
    image: web:demo
    command: sh -c 'echo "<p>written by one service, served by another</p>" >/site/index.html; exec sleep 600'
    volumes: ["site:/site"]
    stop_grace_period: 0s
    healthcheck: {test: ["CMD", "test", "-e", "/site/index.html"], interval: 200ms}
  web:
    image: web:demo
    command: httpd -f -p 80 -h /site
    ports: ["127.0.0.1:8080:80"]
    volumes: ["site:/site"]
    depends_on: {writer: {condition: service_healthy}}
    stop_grace_period: 0s
    healthcheck: {test: ["CMD", "wget", "-q", "-O", "/dev/null", "127.0.0.1"], interval: 200ms}
  reader:
    image: web:demo
    command: sh -c 'wget -q -O - http://web/; exec sleep 600'
    depends_on: {web: {condition: service_healthy}}
    stop_grace_period: 0s
volumes: {site: {}}
END
printf '$ %s up --detach\n' "${compose[*]##*/}"
compose up --detach || fail "$(tail -n 3 "$dir/compose.log")"
docker ps --format '{{.Names}}: {{.Status}} {{.Ports}}'
[ "$(docker ps --quiet | wc -l)" = 3 ] || fail "not three containers"
printf '$ wget -O - http://127.0.0.1:8080/\n'
page | tee "$dir/page"
grep -q 'written by one service' "$dir/page" || fail "that is not the page"
until_is "what the reader has read over the network" 1 sh -c "$docker ps --quiet --filter name=reader | xargs $docker logs | grep -c written"
printf '$ %s down --volumes\n' "${compose[*]##*/}"
compose down --volumes || fail "$(tail -n 3 "$dir/compose.log")"

say "Nothing is left"
left=$(docker ps --all --quiet; docker volume ls --quiet; docker network ls --quiet --filter type=custom)
[ -z "$left" ] || fail "left: $left"
links=$(busybox ip -o link | grep veth || true)
[ -z "$links" ] || fail "left: $links"
echo "no container, volume, network, interface; then the daemon ends: no process, mount, cgroup"
