# Everything a person or CI does here. `make help` lists the targets; each works from a fresh clone.

SHELL := /bin/bash
.DEFAULT_GOAL := help

TARGET := x86_64-unknown-linux-gnu
# Cargo's output; the binaries are copied to target/release of the checkout, wherever this is.
BUILD_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARIES := ketch containerd-shim-ketch-v2 ketchd
PREFIX ?= /usr/local

# The runtime that the tests drive: a path, or a name on PATH (make integration RUNTIME=runc).
RUNTIME ?= target/release/ketch
# The shim that the tests drive: a path, or peer (Debian's Go shim), peer-new (that of make peers); ours when empty.
SHIM ?=
# The engine that the tests drive: a path, or peer (dockerd 28.5 of make peers); ours when empty.
KETCHD ?=
# native, v2, or both when empty.
LAYOUT ?=
# Parts of test names, as `module::test`.
FILTER ?=
# Who runs the runtime: root, or user (one without rights, made for the tests).
CALLER ?= root
# Tests at once; the number of cpus when empty, and half as many more of tests that wait (mesh_).
JOBS ?=

SUITE_ARGS = --as $(CALLER) $(addprefix --layout ,$(LAYOUT)) $(addprefix --jobs ,$(JOBS)) $(FILTER)
# Cargo runs a test in its package's folder, so a path is made absolute; a bare name stays one on PATH.
RUNTIME_PATH = $(if $(findstring /,$(RUNTIME)),$(abspath $(RUNTIME)),$(RUNTIME))
SHIM_PATH = $(if $(findstring /,$(SHIM)),$(abspath $(SHIM)),$(SHIM))
KETCHD_PATH = $(if $(findstring /,$(KETCHD)),$(abspath $(KETCHD)),$(KETCHD))
# Of the whole workspace everywhere: of one package, what it depends on would be built once more, with fewer features.
TEST_PROGRAM = cargo test --quiet --workspace
SUITE = RUNTIME=$(RUNTIME_PATH) SHIM=$(SHIM_PATH) KETCHD=$(KETCHD_PATH) $(TEST_PROGRAM) --test suite --
# What of the suite is about more than the runtime, which another runtime is not asked for.
OF_OURS = shim_ ketchd_ mesh_
# Only our own binary is ours to build.
BUILD_OF_RUNTIME = $(if $(filter target/release/%,$(RUNTIME)),build)

# What `make test` runs, in order; the included files add their own.
TEST_STEPS := check unit sim-sample suite-native suite-v2 suite-user suite-shim suite-ketchd

-include integration/peers/peers.mk
-include integration/bats/bats.mk
-include integration/bench/bench.mk
-include integration/vm/vm.mk

.PHONY: help setup build check fmt-check clippy deny layering unit test integration suite-native suite-v2 suite-user suite-shim suite-ketchd bare-root differential \
	fault-injection attack sim sim-faults sim-sample sim-linear sim-linear-sample sim-linear-faults soak sanitise fuzz fix install man completions bundles demo

help: ## This list
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

setup: ## Install the Debian packages that building and testing need, when missing
	@integration/setup/packages.sh gcc libc6-dev libseccomp-dev busybox-static procps util-linux iproute2 strace jq \
		containerd containernetworking-plugins docker.io podman buildah uidmap slirp4netns fuse-overlayfs dbus-daemon nftables \
		docker-compose docker-registry prometheus skopeo zstd bzip2 curl attr apache2-utils openssl python3-venv

build: ## Static release binaries at target/release/
	@integration/setup/packages.sh gcc libc6-dev
	KETCH_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null) KETCH_BUILD_TIME=$$(git log -1 --format=%cI 2>/dev/null) \
		cargo build --release --package ketch --package containerd-shim-ketch --package ketchd $(addprefix --bin ,$(BINARIES))
	@mkdir -p target/release
	@for binary in $(BINARIES); do \
		install -m 755 $(BUILD_DIR)/$(TARGET)/release/$$binary target/release/.$$binary.new && \
		mv target/release/.$$binary.new target/release/$$binary && \
		ls -l target/release/$$binary | awk '{ print $$9 ": " $$5 " bytes" }' || exit 1; \
	done

check: fmt-check clippy deny layering ## Formatting, lints, licences and sources, layering rules

fmt-check:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy --package ketch --bin ketch --features fault-injection --quiet -- -D warnings

deny:
	@integration/setup/cargo-deny.sh check --hide-inclusion-graph bans licenses sources

layering:
	$(TEST_PROGRAM) --test layering

# Of the property tests' cases: CI's are the same each time, `make soak` and `make fuzz` draw others.
SEED ?= 1
unit: ## Unit, golden and property tests: SEED=1
	PROPTEST_RNG_SEED=$(SEED) cargo test --workspace --no-fail-fast

# Behind them the last steps begin no test, and say which they have not run.
MINUTES ?= 55
test: setup ## Everything: checks, unit tests, the integration suite on both cgroup layouts; ends with the counts: MINUTES=55
	@integration/setup/run-steps.sh $(MINUTES) $(TEST_STEPS)

# tokio's own draws are seeded only in a build that is marked as unstable: one of its own, in a folder of its own.
SIM = RUSTFLAGS="--cfg tokio_unstable" cargo run --quiet --profile sim --package ketch-sim --target-dir target/sim --
sim: ## Whole clusters in a seeded simulation: SEEDS=200 FIRST=1, or SEED=N for one with all its events
	$(SIM) $(if $(filter command,$(firstword $(origin SEED))),--seed $(SEED),--first $(or $(FIRST),1) --seeds $(or $(SEEDS),200))

sim-faults: ## Which seed is the first to find each fault that is made on purpose: SEEDS=200 FIRST=1
	$(subst --package,--features faults --package,$(SIM)) --hunt --first $(or $(FIRST),1) --seeds $(or $(SEEDS),200)

sim-sample: sim-linear-sample # As many seeds as a minute has room for
	$(SIM) --seconds 60

sim-linear: ## The same cluster's store, read and written through all managers: is its history linearizable? SEEDS=200 FIRST=1, or SEED=N
	$(SIM) linear $(if $(filter command,$(firstword $(origin SEED))),--seed $(SEED),--first $(or $(FIRST),1) --seeds $(or $(SEEDS),200))

sim-linear-sample: # Before the other sample, and shorter
	$(SIM) linear --seconds 30

# Each of them must be found: the loop ends with 1 when one is not.
sim-linear-faults: ## Histories of stores that are broken on purpose: a stale read, a lost update, a leader that was replaced
	$(subst run --quiet,build --quiet,$(SIM:--=)) --features faults
	for fault in follower-read stale-version barrier-skipped; do \
		KETCH_FAULT=$$fault $(subst --package,--features faults --package,$(SIM)) linear --seeds 20 \
			| awk '/is not linearizable|has versions/ && !found++ { print } END { exit !found }' || { echo "$$fault is not found"; exit 1; }; \
	done

fault-injection: ## The build for fault_sweep::, which lets the n-th system call fail; apart from the release
	cargo build --quiet --profile quick --bin ketch --features fault-injection --target-dir target/fault-injection

integration: setup $(BUILD_OF_RUNTIME) ## The privileged suite: RUNTIME=runc SHIM=peer LAYOUT=native|v2 CALLER=root|user FILTER='hooks exec::' JOBS=1
	$(SUITE) $(SUITE_ARGS) $(if $(BUILD_OF_RUNTIME)$(FILTER),,$(addprefix --without ,$(OF_OURS)))

suite-native: $(BUILD_OF_RUNTIME) fault-injection
	$(SUITE) --layout native --without shim_ --without ketchd_ --without mesh_ $(FILTER)

suite-v2: $(BUILD_OF_RUNTIME) fault-injection
	$(SUITE) --layout v2 --without shim_ --without ketchd_ --without mesh_ $(FILTER)

suite-user: $(BUILD_OF_RUNTIME)
	$(SUITE) --as user $(FILTER)

suite-shim: $(BUILD_OF_RUNTIME) peers
	$(SUITE) $(addprefix --layout ,$(LAYOUT)) $(or $(FILTER),--without ketchd_ shim_)

# What the VM takes behind it is left to it.
suite-ketchd: $(BUILD_OF_RUNTIME) peers bare-root
	$(SUITE) --layout native $$(integration/setup/time-left.sh 840 240) $(or $(FILTER),ketchd_ mesh_)

bare-root: # The root in which ketchd is alone, built once
	@integration/setup/bare-root.sh >/dev/null

# KETCHD=peer compares dockerd with itself: nothing may differ then.
differential: setup build peers ## 1,203 docker command lines on dockerd 28.5 (and 20.10) and on ketchd: prints what differs (integration/differential)
	@rm -f target/differences.md
	-@KETCH_DIFFERENCES=$(abspath target/differences.md) $(SUITE) --layout native ketchd_differential:: >/dev/null
	@cat target/differences.md

# Debian's runtimes and the current ones, as far as they are here.
ATTACK_PEERS = $(wildcard /usr/sbin/runc /usr/bin/crun /var/cache/ketch/peers/bin/runc /var/cache/ketch/peers/bin/crun)

attack: setup $(BUILD_OF_RUNTIME) ## The attacks of integration/tests/attack*.rs on ketch and its peers: the table of who falls
	$(TEST_PROGRAM) --test suite --no-run
	integration/attack/table.py $$(ls -t $(BUILD_DIR)/$(TARGET)/debug/deps/suite-* | grep -v '\.d$$' | head -1) \
		$(BUILD_DIR)/$(TARGET)/debug/naive_runtime $(RUNTIME_PATH) $(ATTACK_PEERS)

# Races get 120 s each (KETCH_RACE_SECONDS), and print what they did in them.
soak: setup $(BUILD_OF_RUNTIME) peers fault-injection sanitise ## 2,000 run cycles, 1,000 of ketchd; thousands of rounds of each race; kill -9 of ketch, of the container's init, of ketchd, and every error, at every step; clusters 20 times; make sanitise
	KETCH_SOAK_CYCLES=2000 $(SUITE) $(addprefix --layout ,$(LAYOUT)) --jobs 1 soak:: kill_sweep fault_sweep:: shim_leaks:: \
		attack_image::a_mount_target_that_is_swapped attack_inside::
	KETCH_SOAK_CYCLES=1000 $(SUITE) --layout native ketchd_sweep:: ketchd_leaks:: mesh_recovery::
	KETCH_SOAK_CYCLES=1 $(SUITE) --layout native $(patsubst %,mesh_%::,explain full layers priority proxy scale)
	for round in $$(seq 20); do $(SUITE) --layout native mesh_cluster:: || exit 1; done
	KETCH_SNAPSHOT_MIB=1024 cargo test --quiet --package ketch-raft --test large_snapshot -- --ignored --nocapture
	for round in $$(seq 20); do cargo test --quiet --package ketch-cluster --package ketch-raft || exit 1; done
	$(MAKE) sim FIRST=$$(date +%s) SEEDS=1000
	$(MAKE) sim-linear FIRST=$$(date +%s) SEEDS=1000
	$(MAKE) sim-linear-faults

sanitise: setup ## The unit tests and the suite on a build with AddressSanitizer, both layouts: FILTER='exec:: mounts::'
	integration/sanitise/run.sh $(FILTER)

fuzz: ## Fuzz targets (FUZZ_SECONDS=60 each), property tests with very many cases (PROPTEST_CASES=200000)
	@integration/setup/packages.sh g++ libc6-dev
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) integration/setup/fuzz.sh runtime/fuzz
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) integration/setup/fuzz.sh shim/fuzz
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) integration/setup/fuzz.sh agent/fuzz
	PROPTEST_CASES=$(or $(PROPTEST_CASES),200000) cargo test --profile quick --package ketch

fix: ## Format, and apply what clippy can repair
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

man completions: ## Manual pages and completions (bash, zsh, fish), from the command line's own types, in target/share
	cargo run --quiet --profile quick --package ketch --example manual -- target/share

SHARE = $(DESTDIR)$(PREFIX)/share
install: build man ## Copy the binaries to PREFIX/bin (/usr/local), the manual pages and completions to PREFIX/share, ketchd's units to PREFIX/lib/systemd
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(addprefix target/release/,$(BINARIES)) $(DESTDIR)$(PREFIX)/bin/
	install -D -m 644 -t $(SHARE)/man/man1 target/share/man1/*.1
	install -D -m 644 target/share/completions/ketch.bash $(SHARE)/bash-completion/completions/ketch
	install -D -m 644 -t $(SHARE)/zsh/site-functions target/share/completions/_ketch
	install -D -m 644 -t $(SHARE)/fish/vendor_completions.d target/share/completions/ketch.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in ketchd.service ketchd.socket; do \
		sed 's|@BINDIR@|$(PREFIX)/bin|' agent/systemd/$$unit >$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit && \
		chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; \
	done

bundles: ## Assemble the rootfs of each bundle in oci-bundles/ from Debian's busybox-static and debootstrap
	@integration/setup/packages.sh busybox-static debootstrap
	@integration/setup/rootfs.sh oci-bundles/*/

demo: build bundles ## ketch runs bundles; ketchd with the stock docker CLI: a web server that comes back, a Compose file, a swarm of three nodes
	@integration/setup/packages.sh procps iproute2 util-linux curl
	@integration/setup/demo.sh
