#!/usr/bin/env bash
# Fuzzes, guided by coverage: scripts/fuzz.sh SECONDS [TARGET…], all targets unless some are named.
# What reaches new code is kept in tests/fuzz/corpus; an input that does harm is left in the target
# folder, and told. libFuzzer is built by cargo, with a C++ compiler; no other toolchain is needed:
# the coverage is what the compiler's own sanitizer pass counts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?how many seconds for each target}
shift
mapfile -t all < <(ls tests/fuzz/corpus)
targets=("$@")
((${#targets[@]})) || targets=("${all[@]}")
for target in "${targets[@]}"; do
  if [[ ! -d tests/fuzz/corpus/$target ]]; then
    echo "no target $target; there are: ${all[*]}" >&2
    exit 2
  fi
done
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# Build scripts and macros are not fuzzed, and have no fuzzer to link against: with a target given,
# the flags are for what is fuzzed alone.
host=$(rustc -vV | sed -n 's/^host: //p')
# The same versions as everywhere else; only the fuzzer's own is found anew.
cp Cargo.lock fuzz/Cargo.lock
cargo build --manifest-path fuzz/Cargo.toml --target "$host"
for target in "${targets[@]}"; do
  fuzz=(env LONGSHORE_FUZZ="$target" "$CARGO_TARGET_DIR/$host/debug/target")
  found=$CARGO_TARGET_DIR/found/$target
  mkdir -p "$found"
  echo "--- $target, $seconds s"
  # The corpus first; what is new goes to a folder of its own, and what of that counts is merged.
  new=$CARGO_TARGET_DIR/new/$target
  rm -rf "$new" && mkdir -p "$new"
  # An input that is found once more has the name that it had.
  touch "$new.begun"
  "${fuzz[@]}" "$new" "tests/fuzz/corpus/$target" \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=4096 \
    -artifact_prefix="$found/" -print_final_stats=1 2>&1 | { grep -v '^#\|NEW\|REDUCE\|pulse' || true; } || {
      harm=$(find "$found" -type f -newer "$new.begun")
      if [[ -n $harm ]]; then
        echo "an input does harm; it is $harm" >&2
      else
        echo "the fuzzer of $target failed, by no input; it has told above why" >&2
      fi
      exit 1
    }
  "${fuzz[@]}" -merge=1 "tests/fuzz/corpus/$target" "$new" >"$new.merged" 2>&1 || {
    cat "$new.merged" >&2
    echo "what is new of $target was not merged into tests/fuzz/corpus; it is in $new" >&2
    exit 1
  }
done
