#!/usr/bin/env bash
# Makes sure of a Python with the systems that the benchmarks compare Longshore with, and prints the folder of it. It is kept
# under the target folder and used again. The versions are exact, so that figures of two days can be compared.
set -euo pipefail
cd "$(dirname "$0")/.."

# Below the peers, what does their work: kombu and amqp are Celery's way to the broker, pika is Dramatiq's, psycopg2 is dlt's
# to PostgreSQL.
packages=(
  connectorx==0.4.6 adbc-driver-postgresql==1.13.0 pyarrow==26.0.1
  'dlt[postgres]==1.31.0' sling-linux-amd64==1.4.11
  celery==5.7.0 'dramatiq[rabbitmq]==2.2.1' redis==8.1.0
  adbc-driver-manager==1.13.0 psycopg2-binary==2.9.13 kombu==5.7.0 amqp==5.4.2 billiard==4.3.2 pika==1.4.4
)
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target"
home=$(cd "$target" && pwd)/peers
say() { echo "peers-env: $*" >&2; }

install() { # PACKAGE …
  local sudo=()
  if ((EUID != 0)); then sudo=(sudo); fi
  command -v apt-get >/dev/null || { say "$* is missing; install it"; exit 1; }
  say "installing $*"
  "${sudo[@]}" apt-get update -qq >&2
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2
}

[[ $(uname -sm) == 'Linux x86_64' ]] || { say "Sling's package is for Linux on x86_64"; exit 1; }
exec 9>"$home.lock"
flock 9
command -v psql >/dev/null || install postgresql-client
if [[ ! -f $home/ready || $(cat "$home/ready") != "${packages[*]}" ]]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || install python3 python3-venv
  say "making $home with ${packages[*]}"
  rm -rf "$home"
  python3 -m venv "$home" >&2
  "$home/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2
  echo "${packages[*]}" >"$home/ready"
fi
echo "$home"
