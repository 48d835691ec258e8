# ketch, its peers and the floor in one interleaved run; see integration/bench/README.md.
# Debian's runc and crun and those of `make peers` are columns to compare with, left out by name when absent.

BENCH := integration/bench
BENCH_PROGRAMS := target/bench/floor target/bench/spawner

.PHONY: bench bench-quick bench-shim bench-ketchd bench-mesh bench-pull bench-scale bench-setup

bench-setup:
	@integration/setup/packages.sh gcc libc6-dev busybox-static python3

target/bench/%: $(BENCH)/%.c | bench-setup
	@mkdir -p $(@D)
	cc -O2 -static -Wall -Wextra -o $@ $<

bench: build $(BENCH_PROGRAMS) ## Speed and memory against runc, crun and the bare system calls: ROUNDS=50 BESIDE=999 (10 minutes)
	@PYTHONDONTWRITEBYTECODE=1 python3 $(BENCH)/bench.py
	@$(MAKE) --no-print-directory bench-shim
	@$(MAKE) --no-print-directory bench-ketchd
	@$(MAKE) --no-print-directory bench-mesh

bench-quick: build $(BENCH_PROGRAMS) ## The same in one minute: fewer rounds, nothing beside
	@RESULTS=target/bench/results.json PYTHONDONTWRITEBYTECODE=1 python3 $(BENCH)/bench.py --quick

# Bundles are on a tmpfs, as in containerd's /run: making a file takes 0.7 ms on this disk.
SHIM_BENCH_FOLDER := /tmp/ketch-integration
bench-shim: build ## The shim beside containerd's own, with runc and with ketch under it: ROUNDS=30 MANY=100 GIB=4
	@integration/setup/packages.sh containerd runc busybox-static
	cargo build --quiet --release --package ketch-integration --bin shim_bench
	@mkdir -p $(SHIM_BENCH_FOLDER)
	unshare --mount sh -ec 'mount -t tmpfs -o size=1g bench $(SHIM_BENCH_FOLDER); exec "$$0"' $(BUILD_DIR)/$(TARGET)/release/shim_bench

# Both engines' data is on the disk that /tmp is on, what belongs in /run on tmpfs.
bench-ketchd: build peers ## ketchd beside dockerd 28.5: ROUNDS=40 HEAVY_ROUNDS=3 CASES=idle,life,network,rate,pull,crowd QUICK=1
	@integration/setup/packages.sh busybox-static docker-registry skopeo jq zstd python3 util-linux iproute2
	cargo build --quiet --release --package ketch-integration --bin engine_bench
	$(BUILD_DIR)/$(TARGET)/release/engine_bench

# The hundred nodes that have no containers are an example of ketchd's crate: the very node and worker over real connections.
bench-mesh: build peers ## A cluster of three ketchds, beside dockerd 28.5 where that can: HEAVY_ROUNDS=3 CASES=layers,replicas,failover,autoscale,rest,routing QUICK=1 (14 minutes)
	@integration/setup/packages.sh busybox-static docker-registry curl python3 util-linux iproute2 nftables strace
	cargo build --quiet --release --package ketchd --example fake_nodes
	@install -m 755 $(BUILD_DIR)/$(TARGET)/release/examples/fake_nodes target/release/fake_nodes
	cargo build --quiet --release --package ketch-integration --bin engine_bench
	$(BUILD_DIR)/$(TARGET)/release/engine_bench mesh

# No containers, no network: the product's managers, store, scheduler and dispatcher, and nodes that only pretend.
bench-scale: ## A million tasks over ten thousand nodes: the scheduler alone, and three managers: CASES=scheduler,cluster QUICK=1 (10 minutes)
	@integration/setup/packages.sh gcc libc6-dev
	cargo build --quiet --release --package ketch-scale
	@mkdir -p target/release
	@install -m 755 $(BUILD_DIR)/$(TARGET)/release/ketch-scale target/release/ketch-scale
	cargo build --quiet --release --package ketch-integration --bin engine_bench
	$(BUILD_DIR)/$(TARGET)/release/engine_bench scale

bench-pull: build ## Pulls, loads and saves of a 1 GiB image beside dockerd's of `make peers` and skopeo's: RUNS=3 (4 minutes)
	@integration/setup/packages.sh docker-registry skopeo zstd iproute2 python3
	@PYTHONDONTWRITEBYTECODE=1 python3 $(BENCH)/pull.py --ketchd target/release/ketchd --archives --runs $(or $(RUNS),3)
