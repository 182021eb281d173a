# Thin doors to scripts/ and to the binaries of the lab. Start with: make demo
.DEFAULT_GOAL := help
.PHONY: help setup build demo lab lab-down check test test-calico deny soak soak-ipam bench bench-bgp bench-ipam bgp-cases clean

# Where daemons and rustup's cargo live, when the caller's PATH leaves them out.
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

CARGO_DENY := 0.20.2
DENY := $(CURDIR)/target/tools/bin/cargo-deny

help:
	@echo 'make demo       build, bring a fabric up in network namespaces, prove it, clean up (JSON=FILE for a report)'
	@echo 'make lab        the same fabric, left running; make lab-down ends it'
	@echo 'make test       format, lints, every test, the demo and its negative twins'
	@echo 'make test-calico CALICOCTL=PATH   an unmodified calicoctl v3.32.1 beside Twill, every verb both ways'
	@echo '                 [BIRD=PATH RENDERED=DIR]   and a node that goes to the BIRD of Calico and comes back'
	@echo 'make build      release binaries into bin/'
	@echo 'make bench      the numbers of docs/numbers.md; make bench-ipam: those of addresses'
	@echo 'make bench-bgp  the BGP speaker against BIRD, FRR, GoBGP and OpenBGPD (DUT=.. SCENARIO=.. RUNS=3)'
	@echo 'make bgp-cases   black-box cases against the BGP speaker, or DUT=bird, DUT=frr (ONLY=words of a name, JSON=FILE)'
	@echo 'make soak       demo and fault tests again and again (TIMES=10); make soak-ipam: addresses alone'
	@echo 'make deny       licences, sources and bans of all dependencies'

setup:
	@scripts/setup

build: setup
	@scripts/build

demo: build
	@bin/twill-lab demo $(if $(JSON),--json '$(JSON)')

lab: build
	@bin/twill-lab up
	@echo 'enter a node:      bin/twill-lab exec n1 -- bash      (also n2, n3, tor, host, etcd, seg)'
	@echo 'look into etcd:    bin/twill-lab exec etcd -- etcdctl get --prefix --keys-only /calico'
	@echo 'run twillctl:      bin/twill-lab ctl --node n1 -- get nodes -o wide'
	@echo 'attach a pod:      bin/twill-lab pod add n1 web && bin/twill-lab pod exec web -- ip addr'
	@echo 'end it:            make lab-down'

lab-down:
	@bin/twill-lab down

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# The tests of the lab run the workspace's own debug binaries, so these are built first.
test: setup check
	cargo build --locked --workspace
	cargo test --locked --workspace
ifdef CI
	@$(MAKE) --no-print-directory deny
endif

# The tool is built from its public source, outside this tree.
test-calico: setup
	@test -n '$(CALICOCTL)' || { echo 'make test-calico CALICOCTL=PATH: the path of a calicoctl v3.32.1 is needed' >&2; exit 1; }
	cargo build --locked --workspace
	@"$${CARGO_TARGET_DIR:-target}/debug/twill-lab" --name calico test-calico --calicoctl '$(CALICOCTL)' \
	    $(if $(BIRD),--bird '$(BIRD)' --rendered '$(RENDERED)')

deny: $(DENY)
	PATH="$(dir $(DENY)):$$PATH" cargo deny --locked check bans licenses sources

$(DENY):
	cargo install --locked --version $(CARGO_DENY) --root target/tools cargo-deny

bench: build
	@for what in cni reach policy; do bin/twill-lab --name bench bench $$what || exit 1; done

DUT ?= twill,bird,frr,gobgp,openbgpd
SCENARIO ?= a100k,a1m,b,c,d
RUNS ?= 3
bench-bgp:
	@scripts/setup
	@cargo build --locked --release -p twilld -p bgpbench
	@mkdir -p bin
	@for name in twilld bgpbench; do install -m 755 "$${CARGO_TARGET_DIR:-target}/release/$$name" "bin/$$name"; done
	@integration/benches/bgpbench/measure.sh --dut $(DUT) --scenario $(SCENARIO) --runs $(RUNS) $(if $(JSON),--json '$(JSON)')

# The same table for each: what a peer may say and should not say, and what the RFCs make of it.
bgp-cases: DUT := $(if $(filter command line environment,$(origin DUT)),$(DUT),twill)
bgp-cases:
	@scripts/setup
	@cargo build --locked -p twilld -p bgpcases
	@"$${CARGO_TARGET_DIR:-target}/debug/bgpcases" run --dut '$(DUT)' $(if $(ONLY),--only '$(ONLY)') $(if $(JSON),--json '$(JSON)')

TIMES ?= 10
soak: build
	@for i in $$(seq $(TIMES)); do echo "soak: round $$i of $(TIMES)"; bin/twill-lab demo --name soak || exit 1; done
	@$(MAKE) --no-print-directory soak-ipam

# Addresses under faults against three real etcd members, judged from the whole history by a checker that shares no code with the allocator.
ASSIGNMENTS ?= 100000
FAULTS ?= 1000
SEED ?= 1
soak-ipam:
	@cargo run --locked --release -q -p twill-ipam-rig -- soak --assignments $(ASSIGNMENTS) --faults $(FAULTS) --seed $(SEED)

bench-ipam:
	@cargo run --locked --release -q -p twill-ipam-rig -- bench

clean:
	cargo clean
	rm -rf bin
