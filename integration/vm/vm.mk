# The VM with systemd and the whole of cgroup v2; integration/vm/README.md says how to run one command in it.
TEST_STEPS += vm-test vm-bats-sample

.PHONY: vm-setup vm-image vm-shell vm-test vm-bench vm-bats vm-bats-sample

vm-setup:
	@integration/setup/packages.sh qemu-system-x86 qemu-utils debootstrap e2fsprogs busybox-static cpio binutils jq

vm-image: vm-setup ## Build the VM's root image in the cache
	integration/vm/build.sh

vm-shell: build vm-setup ## A root console in the VM, with target/release/ketch on its PATH
	@integration/vm/run.sh --copy target/release/ketch:/usr/local/bin/ketch --shell

vm-test: build vm-setup peers ## The suite in the VM, under systemd: a sample; FULL=1 all of it; FILTER= RUNTIME=runc
	@FULL=$(FULL) FILTER="$(FILTER)" RUNTIME=$(RUNTIME) integration/vm/test.sh

vm-bench: build vm-setup $(BENCH_PROGRAMS) ## The bench in the VM, with real controllers; ROUNDS=30 BESIDE=99
	@integration/vm/bench.sh

# SRC is a checkout of runc, as for `make bats`; goes on where the last run stopped.
vm-bats: build vm-setup ## runc's suite in the VM, file by file, resumable: SRC=<runc> BATS_ARGS="--subset --mode vm-root"
	@PYTHONDONTWRITEBYTECODE=1 python3 integration/bats/vm.py --src $(SRC) $(BATS_ARGS)

# Ten minutes, held against the ledger; without SRC it takes what an earlier run has built in the cache, or skips and says so.
vm-bats-sample: $(BUILD_OF_RUNTIME) vm-setup
	@PYTHONDONTWRITEBYTECODE=1 python3 integration/bats/sample.py $(if $(SRC),--src $(SRC))
