#!/bin/bash
# The mesh's part of the demo, in a network and a mount namespace of its own (demo.sh): three nodes on a bridge, each a ketchd with
# network, process, mount and host name namespaces, folders and a cgroup of its own. They become one swarm; a stack of demo-stack.yaml
# is reached through every node, is updated under load without a failed request, and outlives a node. Nothing is left, when it fails
# or is interrupted, too: whatever a node has started ends with the first process of its process namespace.
#
# The docker command line is that of demo-engine.sh. KETCHD may name another build.
set -euo pipefail
cd "$(dirname "$0")/../.."
ketchd=$(readlink -f "${KETCHD:-target/release/ketchd}")
peers=${KETCH_CACHE:-/var/cache/ketch}/peers/bin
dir=$(mktemp -d /tmp/ketch-mesh.XXXXXX)
parent=ketch-mesh-$$
stack=integration/setup/demo-stack.yaml
nodes=(1 2 3)
declare -A power=()
loads=()
export DOCKER_CONFIG=$dir/config DOCKER_CLI_HINTS=false
docker=$peers/docker
[ -x "$docker" ] || { integration/setup/packages.sh docker.io; docker=/usr/bin/docker; }

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'the demo failed: %s\n' "$*" >&2; tail -n 5 "$dir"/node*/ketchd.log >&2; exit 1; }
# on <number> <command...>: a command of that node's client; typed shows it, too.
on() { "$docker" --host "unix://$dir/node$1/docker.sock" "${@:2}"; }
typed() { printf 'node%s$ docker %s\n' "$1" "${*:2}"; on "$@"; }
page() { curl --silent --max-time 5 "http://10.98.0.$1:8080/"; }
running() { on 1 service ps --filter desired-state=running --format "$1" mesh_web | sort | uniq -c | awk '{ print $2 " " $1 }' | paste -sd ' '; }
# The newest command lines tell on their error output that they don't wait.
deploy() { typed 1 stack deploy --resolve-image never --compose-file "$stack" mesh 2>&1 | grep -v -e --detach; }
links() { nsenter --net="/proc/${power[$1]}/ns/net" ip -oneline link | grep -E 'veth|vxlan' | grep -v ': mesh@' || true; }
replicas() { on 1 stack services --format '{{.Replicas}}' mesh; }

# until_is <what> <wanted> <command...>: tries until the command prints that.
until_is() {
    local what=$1 wanted=$2 seen= end=$((SECONDS + 60))
    shift 2
    while seen=$("$@" 2>&1) || true; [ "$seen" != "$wanted" ]; do
        [ $SECONDS -lt $end ] || fail "$what: $seen, not $wanted, after 60 s"
        sleep 0.2
    done
}

# load <number>: about 70 requests each second to a node's port, each a connection of its own, until it is killed; the codes of their
# answers go to a file, 000 where there was none.
load() {
    curl --silent --max-time 5 --rate 70/s --header 'Connection: close' --output /dev/null --write-out '%{stderr}%{http_code}\n' \
        "http://10.98.0.$1:8080/#[1-1000000]" 2>"$dir/load$1" &
    loads[$1]=$!
}

# What the first process of a node does: it waits for its interface, and is the parent of whatever has none.
machine() {
    hostname "node$1"
    # Nobody answers there, which is heard at once: the nodes have no registry to ask.
    echo "nameserver 127.0.0.1" >"$dir/node$1/resolv.conf"
    mount --bind "$dir/node$1/resolv.conf" /etc/resolv.conf
    until ip link show dev mesh >/dev/null 2>&1; do sleep 0.05; done
    ip link set lo up
    ip address add "10.98.0.$1/24" dev mesh
    ip link set mesh up
    ip route add default via 10.98.0.254
    "$ketchd" --data-root "$dir/node$1/data" --exec-root "$dir/node$1/exec" --pidfile "$dir/node$1/pid" \
        --host "unix://$dir/node$1/docker.sock" --cgroup-parent "/$parent/node$1" >"$dir/node$1/ketchd.log" 2>&1 &
    wait
}

# start <number>: no Ctrl-C reaches it, but it ends with the demo, and everything in it with it.
start() {
    mkdir "$dir/node$1"
    setpriv --pdeathsig KILL setsid unshare --net --mount --uts --pid --fork --kill-child --mount-proc \
        bash -c "$(declare -f machine); dir=$dir parent=$parent ketchd=$ketchd; machine $1" </dev/null 2>"$dir/node$1/machine.log" &
    power[$1]=$!
    until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    ip link add "node$1" type veth peer name mesh netns "/proc/$!/ns/net"
    ip link set "node$1" master mesh up
}

# cut_power <number>: kills the agent, its shims and its containers at once: unshare takes the first process of their namespace with
# it, and that all others.
cut_power() {
    kill -KILL "${power[$1]}" || true
    wait "${power[$1]}" 2>/dev/null || true
    unset "power[$1]"
    until_is "the processes of node$1" "" alive "$1"
}
alive() {
    pgrep --full "$dir/node$1/" || true
    find /sys/fs/cgroup -path "*/$parent/node$1/*" -name cgroup.procs -exec cat {} +
}

ended() {
    local code=$? number
    trap '' INT TERM HUP
    [ ${#loads[@]} = 0 ] || kill "${loads[@]}" 2>/dev/null || true
    for number in "${!power[@]}"; do cut_power "$number"; done
    # What was mounted in a node's namespace is gone with it; a cgroup is not.
    ! grep -F "$dir" /proc/self/mounts || code=1
    find /sys/fs/cgroup -mindepth 1 -depth -type d -path "*/$parent*" -exec rmdir {} + || code=1
    rm -rf "$dir"/image.tar "$dir"/node*/{data,exec}
    case $code in
    0 | 130) rm -rf "$dir" ;;
    *) printf 'the demo failed; what there is to see: %s\n' "$dir" >&2 ;;
    esac
    exit "$code"
}
trap ended EXIT
trap 'exit 130' INT TERM HUP

say "The mesh: three nodes on a bridge, each a ketchd in namespaces of its own"
ip link set lo up
ip link add mesh type bridge
ip address add 10.98.0.254/24 dev mesh
ip link set mesh up
for number in "${nodes[@]}"; do start "$number"; done
for number in "${nodes[@]}"; do until_is "the socket of node$number" OK eval "on $number version >/dev/null && echo OK"; done
typed 1 swarm init --advertise-addr 10.98.0.1 | grep -v '^$' | head -n 2
printf 'node1$ docker swarm join-token --quiet manager\n'
token=$(on 1 swarm join-token --quiet manager)
for number in 2 3; do
    printf 'node%s$ docker swarm join --token %s... 10.98.0.1:2377\n' "$number" "${token:0:16}"
    on "$number" swarm join --token "$token" 10.98.0.1:2377
done
until_is "the members" "Ready Ready Ready " eval "on 1 node ls --format '{{.Status}}' | tr '\n' ' '"
typed 1 node ls --format 'table {{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}'

say "A stack of a Compose file; its page through every node's port, wherever its tasks are"
integration/setup/demo-image.sh "$dir/image.tar"
for number in "${nodes[@]}"; do typed "$number" load --quiet --input "$dir/image.tar"; done
export VERSION=1
deploy
until_is "the replicas" 6/6 replicas
typed 1 service ps --filter desired-state=running --format '{{.Name}} on {{.Node}}: {{.CurrentState}}' mesh_web
for number in "${nodes[@]}"; do
    printf '$ curl http://10.98.0.%s:8080/\n' "$number"
    page "$number" | tee "$dir/page"
    grep -q 'version 1, task' "$dir/page" || fail "that is not the page"
done

say "A rolling update under load: start-first, two at a time, each balanced to once it is healthy"
for number in "${nodes[@]}"; do load "$number"; done
export VERSION=2
printf '$ VERSION=2\n'
deploy
until_is "the update" completed on 1 service inspect --format '{{.UpdateStatus.State}}' mesh_web
for number in "${nodes[@]}"; do
    kill "${loads[$number]}"
    wait "${loads[$number]}" || true
    page "$number" | grep 'version 2' || fail "a page that is not of version 2"
done
requests=$(cat "$dir"/load* | wc -l)
failures=$(cat "$dir"/load* | grep -vc 200 || true)
echo "$requests requests through 3 nodes, $failures failed"
[ "$requests" -gt 100 ] || fail "that was no load"
[ "$failures" = 0 ] || fail "requests failed: $(cat "$dir"/load* | sort | uniq -c | paste -sd ' ')"

say "Beyond Docker: of a service one port is open, to one neighbour; and any manager reaches a task's container, wherever that is"
typed 1 stack deploy --resolve-image never --compose-file integration/setup/demo-beyond.yaml bank 2>&1 | grep -v -e --detach
until_is "the replicas" "1/1 1/1 1/1 1/1" eval "on 1 stack services --format '{{.Replicas}}' bank | paste -sd ' '"
grep ketch.allow integration/setup/demo-beyond.yaml
task_of() { on 1 service ps --no-trunc --filter desired-state=running --format '{{.Name}}.{{.ID}}' "bank_$1"; }
# asks <service> <port>: from inside of the task of that service, whichever node has it.
asks() {
    # Debian's static wget can't look names up, and has no working timeout of its own.
    typed 2 exec "$(task_of "$1")" sh -c "timeout 3 wget -q -O - \$(nslookup -type=a vault | sed -n 's/^Address: //p'):$2 || echo refused" 2>&1
}
asks till 8080 | tee "$dir/page"
grep -q '^gold$' "$dir/page" || fail "the till does not get it"
for try in "till 8081" "thief 8080"; do
    # shellcheck disable=SC2086 # two words
    if asks $try | tee "$dir/page" && grep -q '^gold$' "$dir/page"; then fail "$try gets the gold"; fi
done

say "A service that follows its load, between bounds"
grep ketch.scale integration/setup/demo-beyond.yaml
mint() { on 1 service ls --filter name=bank_mint --format '{{.Replicas}}'; }
begun=$SECONDS
typed 1 exec "$(task_of mint)" touch /tmp/work
until_is "replicas for the work" 3/3 mint
echo "3 replicas after $((SECONDS - begun)) s"

say "Why is it so?"
printf 'node1$ ketchd cluster explain bank_mint\n'
"$ketchd" cluster explain -H "unix://$dir/node1/docker.sock" bank_mint | tee "$dir/explained" | sed -n 1,12p
grep -q . "$dir/explained" || fail "nothing is explained"
on 1 stack rm bank >/dev/null

say "node3 loses its power: its agent and its containers are gone at once"
running '{{.Node}}'
printf '$ kill -KILL %s\n' "${power[3]}"
killed=$SECONDS
cut_power 3
until_is "its tasks elsewhere" "node1 3 node2 3" running '{{if eq (slice .CurrentState 0 7) "Running"}}{{.Node}}{{end}}'
echo "all six run after $((SECONDS - killed)) s:"
running '{{.Node}}'
typed 1 node ls --format 'table {{.Hostname}}\t{{.Status}}\t{{.ManagerStatus}}'
for number in 1 2; do page "$number" || fail "no page"; done

say "Nothing is left"
typed 1 stack rm mesh
for number in 1 2; do until_is "the end of the tasks on node$number" "" on "$number" ps --all --quiet; done
for number in 2 1; do typed "$number" swarm leave --force; done
for number in 1 2; do
    left=$(on "$number" ps --all --quiet; on "$number" volume ls --quiet; on "$number" network ls --quiet --filter scope=swarm)
    [ -z "$left" ] || fail "left on node$number: $left"
    # The kernel takes a namespace's interfaces away some time after the namespace.
    until_is "the interfaces of node$number" "" links "$number"
done
echo "no container, volume, network, interface; then the nodes end: no process, mount, cgroup"
