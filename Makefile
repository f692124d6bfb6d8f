# A target folder outside the checkout lets clean clones share one build.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/longshore/target

.PHONY: test check

test:
	cargo test --locked

check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
