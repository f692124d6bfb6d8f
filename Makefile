# A target folder outside the checkout lets clean clones share one build.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/longshore/target

SHELL := /bin/bash

.PHONY: demo test acceptance check reference model soak mutants fuzz bench services services-stop

# Four deliveries and one dead letter, with nothing but this checkout.
demo:
	cargo run --locked -- dev --demo

# Many tests wait for leases to end more than they work: four at once, whatever the number of cores.
test: export RUST_TEST_THREADS ?= 4
# The tests need RabbitMQ, PostgreSQL, Redis and a Python; what is missing is started or installed.
test:
	set -euo pipefail; \
	services=$$(scripts/services.sh tests); eval "$$services"; \
	LONGSHORE_TEST_PYTHON=$$(scripts/python-env.sh); export LONGSHORE_TEST_PYTHON; \
	cargo test --locked

# What takes minutes: three RabbitMQ nodes of which one is killed, cut off and frozen, exports longer
# than the broker's patience; then the larger worlds of the model. One after the other.
acceptance:
	set -euo pipefail; \
	services=$$(scripts/services.sh tests); eval "$$services"; \
	LONGSHORE_TEST_PYTHON=$$(scripts/python-env.sh); export LONGSHORE_TEST_PYTHON; \
	cargo test --locked --test it -- --ignored --nocapture --test-threads=1 acceptance::
	$(MAKE) model

check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo deny --locked check

# Writes the pages and schemas of docs/ anew that are generated from the code; tests hold them equal.
reference:
	LONGSHORE_REGENERATE=1 cargo test --locked --lib -- reference:: catalogue schema metrics::page

# Every state of the larger worlds of the model, in some minutes. The dependencies are as in the
# tests: it is Longshore's own code, and the model's, that has to be fast.
model:
	cargo test --locked --config 'profile.dev.package.longshore.opt-level=3' \
		--test model -- --ignored --nocapture

# Takes each guard of the promises away, and looks whether a test notices.
mutants:
	set -euo pipefail; \
	services=$$(scripts/services.sh tests); eval "$$services"; \
	LONGSHORE_TEST_PYTHON=$$(scripts/python-env.sh); export LONGSHORE_TEST_PYTHON; \
	cargo test --locked --test mutants -- --ignored --nocapture

# Fuzzes each target for SECONDS, guided by coverage; TARGET=csv for one alone. It needs a C++ compiler
# and no server, and adds what reaches new code to tests/fuzz/corpus.
fuzz: SECONDS ?= 60
fuzz:
	scripts/fuzz.sh $(SECONDS) $(TARGET)

# Everything at work on real servers while everything fails, for so many minutes; then every accepted key
# is held against its delivery, and every row against its source. The servers are those of the tests.
# SEED=n repeats the choices of an earlier run, which has printed it.
MINUTES ?= 10
soak:
	set -euo pipefail; \
	services=$$(scripts/services.sh); eval "$$services"; \
	LONGSHORE_TEST_PYTHON=$$(scripts/python-env.sh); export LONGSHORE_TEST_PYTHON; \
	MINUTES=$(MINUTES) SEED=$(SEED) cargo test --locked --test it -- --ignored --exact --nocapture \
		soak::nothing_is_lost_or_doubled_whatever_fails

# Measures Longshore beside psql and other systems, and writes docs/benchmarks.md. OPTIONS are those of the
# benchmarks: --large measures ten times the rows too, --without-peers leaves the other systems out.
bench:
	set -euo pipefail; \
	services=$$(scripts/services.sh); eval "$$services"; \
	case " $(OPTIONS) " in \
	*" --without-peers "*) ;; \
	*) LONGSHORE_TEST_PEERS=$$(scripts/peers-env.sh); export LONGSHORE_TEST_PEERS ;; \
	esac; \
	cargo bench --locked -- $(OPTIONS)

# Prints where the servers of the tests are, after starting those that are missing.
services:
	@scripts/services.sh

# Ends those that were started here, and no others.
services-stop:
	@scripts/services.sh stop
