#!/usr/bin/env bash
# Makes sure of a Python with what the tests use (pika, pyarrow, duckdb, fastavro, moto, cryptography), and prints its path. It is
# kept under the target folder and used again.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(pika pyarrow duckdb fastavro 'moto[server,s3]' cryptography)
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target"
home=$(cd "$target" && pwd)/python
say() { echo "python-env: $*" >&2; }

exec 9>"$home.lock"
flock 9
if [[ ! -f $home/ready || $(cat "$home/ready") != "${packages[*]}" ]]; then
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    sudo=()
    if ((EUID != 0)); then sudo=(sudo); fi
    command -v apt-get >/dev/null || { say "python3 with venv is missing; install it"; exit 1; }
    say "installing python3-venv"
    "${sudo[@]}" apt-get update -qq >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >&2
  fi
  say "making $home with ${packages[*]}"
  rm -rf "$home"
  python3 -m venv "$home" >&2
  "$home/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2
  echo "${packages[*]}" >"$home/ready"
fi
echo "$home/bin/python"
