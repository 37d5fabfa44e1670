# What a contributor does. `make` alone lists it.
.DEFAULT_GOAL := help
CARGO ?= cargo
FUZZ_SECONDS ?= 10

.PHONY: help run test lint bench package fuzz fuzz-smoke peers peers-others bench-peers guarantees doc deps deps-bench t1 models broker audit

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## the edge server on its embedded broker: http://127.0.0.1:8080/b.gif, status on http://127.0.0.1:9090/
	$(CARGO) run --release --locked

deps: ## install what the tests need and is missing: RabbitMQ, Redis, strace and Chromium through the system's package manager; stomp.py in target/python
	@sh tests/rabbitmq/install-deps.sh --python --browser
	@sh stomp/tests/foreign/install.sh target/python

deps-bench: ## the same, and nginx, which the reference measurement compares with
	@sh tests/rabbitmq/install-deps.sh --bench

test: deps ## every test; against a private RabbitMQ where one is needed
	$(CARGO) test --workspace --all-features --locked

lint: ## formatting, clippy and rustdoc, all without a warning; stompwire in each set of features
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	for features in "" std tokio broker tokio,broker tokio,tracing broker,tracing tokio,rustls tokio,ws rustls,ws; do \
	  $(CARGO) clippy -p stompwire --no-default-features --features "$$features" --locked -- -D warnings || exit 1; \
	done
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc -p stompwire --no-deps --locked

package: ## stompwire builds by itself, from what would be published, with fewer than 25 crates below it
	$(CARGO) package -p stompwire --locked --allow-dirty
	test "$$($(CARGO) tree -p stompwire --locked -e normal --prefix none --no-dedupe --format '{p}' | grep -v '^stompwire ' | sort -u | wc -l)" -lt 25

bench: ## the hot paths: intake, ring, batch; decode, encode (criterion, some minutes)
	$(CARGO) bench --locked -p beacon-edge
	$(CARGO) bench --locked -p stompwire

t1: deps-bench ## CPU of the edge per beacon against nginx per request (some minutes; leave the machine alone)
	sh loadtest/t1.sh --rounds 7 --duration 8

models: deps ## the first model, the second model and the edge side by side (some 20 minutes; leave the machine alone)
	$(CARGO) build --release --locked -p beacon-edge -p loadtest
	target/release/loadtest models --pin --json target/models.json --csv target/models.csv --html target/models.html

broker: deps ## STOMP against AMQP 0.9.1 over every sweep (some 35 minutes; leave the machine alone)
	$(CARGO) build --release --locked -p loadtest
	target/release/loadtest broker --sweep all --time 2500ms --warmup 500ms --json=target/broker.json --csv target/broker.csv --html target/broker.html

guarantees: deps ## breaks edge, broker, network and disk, and fills in the table of docs/guarantees.md (about a quarter of an hour)
	$(CARGO) build --release --locked -p beacon-edge -p loadtest
	target/release/loadtest faults --seeds 1..3 --report target/faults.json --markdown docs/guarantees.md

fuzz: ## each fuzz target for FUZZ_SECONDS (10), with a corpus that stays; needs a nightly toolchain
	FUZZ_REQUIRED=1 FUZZ_SECONDS=$(FUZZ_SECONDS) CARGO="$(CARGO)" sh stomp/fuzz/run.sh stomp/fuzz/corpus

fuzz-smoke: ## the same from the committed seeds alone, for CI; skipped without a nightly toolchain, unless FUZZ_REQUIRED is set
	rm -rf target/fuzz-smoke
	FUZZ_SECONDS=$(FUZZ_SECONDS) CARGO="$(CARGO)" sh stomp/fuzz/run.sh target/fuzz-smoke

peers: ## the conformance vectors against the other STOMP crates; writes stomp/BENCHMARKS.md
	$(CARGO) run --release --locked --manifest-path stomp/peers/Cargo.toml -- conformance --write

peers-others: ## the same for three STOMP libraries in JavaScript and Python; installs them into stomp/peers/others
	cd stomp/peers/others && npm ci --no-fund --no-audit && python3 -m venv venv && venv/bin/pip install -q -r requirements.txt
	$(CARGO) run --release --locked --manifest-path stomp/peers/Cargo.toml -- others --write

bench-peers: ## the codec against the other STOMP crates, side by side; writes stomp/BENCHMARKS.md (about two minutes)
	$(CARGO) run --release --locked --manifest-path stomp/peers/Cargo.toml -- bench --write
	$(CARGO) run --release --locked --manifest-path stomp/peers/Cargo.toml --bin allocations -- --write

doc: ## the documentation of all crates, in target/doc
	$(CARGO) doc --workspace --all-features --no-deps --locked

audit: ## licences, advisories and sources of the dependencies; needs cargo-deny
	$(CARGO) deny check
