#!/usr/bin/env bash
# Makes sure of the three servers that the tests need, and prints where they are:
#
#   eval "$(scripts/services.sh)"         start what is missing, print `export …` lines
#   eval "$(scripts/services.sh tests)"   the same, and install the programs that tests start themselves
#   scripts/services.sh stop              end what this script started
#
# LONGSHORE_TEST_RABBITMQCTL is the command by which that RabbitMQ is administered.
#
# First those named by LONGSHORE_TEST_AMQP, LONGSHORE_TEST_POSTGRES and LONGSHORE_TEST_REDIS, which
# must answer; else those at the standard ports; else containers, where an engine runs; else private
# instances on free ports under the target folder, installed with apt-get where they are missing.
# LONGSHORE_SERVICES=private skips the look for servers and containers.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${LONGSHORE_SERVICES:-any}
state=${CARGO_TARGET_DIR:-$PWD/target}/services
containers=$PWD/deploy/services.compose.yaml
mkdir -p "$state"
state=$(cd "$state" && pwd)

say() { echo "services: $*" >&2; }
die() { say "$*"; exit 1; }

# port_of URL DEFAULT, host_of URL
port_of() { [[ $1 =~ ^[a-z]+://([^/]*@)?[^/:]+:([0-9]+) ]] && echo "${BASH_REMATCH[2]}" || echo "$2"; }
host_of() { [[ $1 =~ ^[a-z]+://([^/]*@)?([^/:]+) ]] && echo "${BASH_REMATCH[2]}"; }
answers() { timeout 2 bash -c ": </dev/tcp/$1/$2" 2>/dev/null; }

free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 12000))
    answers 127.0.0.1 "$port" || { echo "$port"; return; }
  done
  die "no free port was found"
}

# alive NAME: whether the instance that this script started still runs. A pid alone could be
# another process's by now, so the process's start time is remembered with it.
started_at() { awk '{print $22}' "/proc/$1/stat" 2>/dev/null; }
alive() {
  [[ -f $state/$1.pid ]] || return 1
  local pid since
  read -r pid since <"$state/$1.pid"
  [[ -n $since && $(started_at "$pid") == "$since" ]]
}
remember() { echo "$2 $(started_at "$2")" >"$state/$1.pid"; }
wait_for() { # NAME PORT SECONDS
  for _ in $(seq $(($3 * 5))); do
    answers 127.0.0.1 "$2" && return
    sleep 0.2
  done
  tail -n 20 "$state/$1/log" >&2 || true
  die "$1 did not start within $3 s; its log is $state/$1/log"
}

install() { # COMMAND PACKAGE
  command -v "$1" >/dev/null && return
  [[ -x /usr/lib/rabbitmq/bin/$1 ]] && return
  compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null && return
  command -v apt-get >/dev/null || die "$2 is missing, and there is no apt-get to install it"
  local sudo=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "$2 is missing; install it, or run this as root"
    sudo=(sudo)
  fi
  say "installing $2"
  # The package would start its own server: a policy that refuses keeps it down.
  local policy=/usr/sbin/policy-rc.d
  local ours=
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod +x "$policy"
    ours=1
  fi
  local done=
  { "${sudo[@]}" apt-get update -qq \
    && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } >&2 && done=1
  [[ -z $ours ]] || "${sudo[@]}" rm -f "$policy"
  [[ -n $done ]] || die "$2 could not be installed"
}

private_redis() {
  if ! alive redis; then
    install redis-server redis-server
    local port
    port=$(free_port)
    rm -rf "$state/redis" && mkdir -p "$state/redis"
    say "starting Redis on port $port"
    setsid redis-server --port "$port" --bind 127.0.0.1 --dir "$state/redis" --save '' \
      --appendonly no >"$state/redis/log" 2>&1 </dev/null 9>&- &
    remember redis $!
    echo "$port" >"$state/redis.port"
    wait_for redis "$port" 20
  fi
  export LONGSHORE_TEST_REDIS="redis://127.0.0.1:$(cat "$state/redis.port")"
}

private_postgres() {
  if ! alive postgres; then
    install initdb postgresql
    local bin port as=()
    bin=$(dirname "$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")
    port=$(free_port)
    # PostgreSQL refuses to run as root, and its user cannot enter root's folders.
    local home=$state/postgres
    if ((EUID == 0)); then
      getent passwd postgres >/dev/null || die "there is no user postgres to run PostgreSQL as"
      as=(setpriv --reuid=postgres --regid=postgres --init-groups)
      [[ -f $state/postgres.home ]] && rm -rf "$(cat "$state/postgres.home")"
      home=$(mktemp -d "${TMPDIR:-/tmp}/longshore-postgres.XXXXXX")
      echo "$home" >"$state/postgres.home"
      chown postgres: "$home"
    fi
    rm -rf "$state/postgres" && mkdir -p "$state/postgres" "$home"
    say "starting PostgreSQL on port $port"
    (cd "$home" && "${as[@]}" "$bin/initdb" -D "$home/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N) \
      >"$state/postgres/log" 2>&1 || die "initdb failed; its log is $state/postgres/log"
    (cd "$home" && exec setsid "${as[@]}" "$bin/postgres" -D "$home/data" -p "$port" -k "$home" \
      -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200) \
      >>"$state/postgres/log" 2>&1 </dev/null 9>&- &
    remember postgres $!
    echo "$port" >"$state/postgres.port"
    wait_for postgres "$port" 30
    # It listens a moment before it lets anybody in.
    for _ in $(seq 50); do
      grep -q 'ready to accept connections' "$state/postgres/log" && break
      sleep 0.2
    done
  fi
  export LONGSHORE_TEST_POSTGRES="postgres://postgres@127.0.0.1:$(cat "$state/postgres.port")/postgres"
}

private_rabbitmq() {
  if ! alive rabbitmq; then
    install rabbitmq-server rabbitmq-server
    local port dist epmd home=$state/rabbitmq
    local server=/usr/lib/rabbitmq/bin/rabbitmq-server
    # The one on the path may be a wrapper that insists on the system's own user.
    [[ -x $server ]] || server=$(command -v rabbitmq-server)
    port=$(free_port) dist=$(free_port) epmd=$(free_port)
    rm -rf "$home" && mkdir -p "$home/home" "$home/mnesia"
    printf 'listeners.tcp.1 = 127.0.0.1:%s\ndisk_free_limit.absolute = 100MB\n' "$port" >"$home/rabbitmq.conf"
    : >"$home/enabled_plugins"
    say "starting RabbitMQ on port $port"
    env HOME="$home/home" ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1 \
      RABBITMQ_NODENAME="longshore-$port@localhost" RABBITMQ_DIST_PORT="$dist" \
      RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_CONF_ENV_FILE=/dev/null \
      RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$home" RABBITMQ_LOGS=- \
      RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
      setsid "$server" >"$home/log" 2>&1 </dev/null 9>&- &
    remember rabbitmq $!
    echo "$port" >"$state/rabbitmq.port"
    echo "$epmd" >"$state/rabbitmq.epmd"
    wait_for rabbitmq "$port" 60
  fi
  local port home=$state/rabbitmq ctl=/usr/lib/rabbitmq/bin/rabbitmqctl
  [[ -x $ctl ]] || ctl=rabbitmqctl
  port=$(cat "$state/rabbitmq.port")
  export LONGSHORE_TEST_AMQP="amqp://guest:guest@127.0.0.1:$port/%2f"
  export LONGSHORE_TEST_RABBITMQCTL="env HOME=$home/home ERL_EPMD_PORT=$(cat "$state/rabbitmq.epmd") \
RABBITMQ_NODENAME=longshore-$port@localhost RABBITMQ_CONF_ENV_FILE=/dev/null $ctl"
}

stop() {
  local name pid
  for name in redis postgres rabbitmq; do
    if alive "$name"; then
      read -r pid _ <"$state/$name.pid"
      say "stopping $name"
      # Each was started as the leader of a group of its own.
      kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid"
      for _ in $(seq 100); do alive "$name" && sleep 0.1 || break; done
      ! alive "$name" || kill -KILL -- "-$pid" 2>/dev/null || true
    fi
    rm -f "$state/$name.pid" "$state/$name.port"
  done
  if [[ -f $state/rabbitmq.epmd ]]; then
    # The port mapper that Erlang left behind; it is ours by its port.
    ERL_EPMD_PORT=$(cat "$state/rabbitmq.epmd") epmd -kill >/dev/null 2>&1 || true
    rm -f "$state/rabbitmq.epmd"
  fi
  if [[ -f $state/postgres.home ]]; then
    rm -rf "$(cat "$state/postgres.home")" "$state/postgres.home"
  fi
  if [[ -f $state/containers ]]; then
    say "stopping the containers"
    docker compose -f "$containers" down --volumes >&2
    rm -f "$state/containers"
  fi
}

exec 9>"$state/lock"
flock 9
what=${1:-start}
case $what in
  start | tests) ;;
  stop) stop; exit ;;
  *) die "unknown: $what (start, tests or stop)" ;;
esac

# look VARIABLE USUAL_URL USUAL_PORT: the server that is named, or the one at the standard port, if
# there is one. Whoever names one means that and no other: tests empty what they use.
look() {
  local url=${!1:-$2} host port
  host=$(host_of "$url") || die "$1 names no host; expected a URL like $2"
  port=$(port_of "$url" "$3")
  if answers "$host" "$port"; then
    export "$1=$url"
  elif [[ -n ${!1:-} ]]; then
    die "nothing answers at $host:$port, which $1 names: start that server, or unset $1"
  fi
}
all_known() { [[ -n ${LONGSHORE_TEST_AMQP:-} && -n ${LONGSHORE_TEST_POSTGRES:-} && -n ${LONGSHORE_TEST_REDIS:-} ]]; }

if [[ $mode == private ]]; then
  unset LONGSHORE_TEST_AMQP LONGSHORE_TEST_POSTGRES LONGSHORE_TEST_REDIS
else
  look LONGSHORE_TEST_AMQP amqp://guest:guest@127.0.0.1:5672/%2f 5672
  look LONGSHORE_TEST_POSTGRES postgres://postgres@127.0.0.1:5432/postgres 5432
  look LONGSHORE_TEST_REDIS redis://127.0.0.1:6379 6379
  if ! all_known && docker info >/dev/null 2>&1; then
    say "starting containers"
    docker compose -f "$containers" up -d --wait >&2
    touch "$state/containers"
    if [[ -z ${LONGSHORE_TEST_AMQP:-} ]]; then
      export LONGSHORE_TEST_AMQP=amqp://guest:guest@127.0.0.1:25672/%2f
      export LONGSHORE_TEST_RABBITMQCTL="docker compose -f $containers exec -T rabbitmq rabbitmqctl"
    fi
    export LONGSHORE_TEST_POSTGRES=${LONGSHORE_TEST_POSTGRES:-postgres://postgres@127.0.0.1:25432/postgres}
    export LONGSHORE_TEST_REDIS=${LONGSHORE_TEST_REDIS:-redis://127.0.0.1:26379}
  fi
fi
[[ -n ${LONGSHORE_TEST_REDIS:-} ]] || private_redis
[[ -n ${LONGSHORE_TEST_POSTGRES:-} ]] || private_postgres
[[ -n ${LONGSHORE_TEST_AMQP:-} ]] || private_rabbitmq

if [[ $what == tests ]]; then
  # Not a server: by it a test sets clocks off. Only that test fails without it.
  (install faketime faketime) || say "faketime is missing: tests that set clocks off will fail"
  # Tests that stop, freeze or kill a server start one of their own, whose program has to be here.
  for program in "rabbitmq-server rabbitmq-server" "initdb postgresql" "redis-server redis-server"; do
    # shellcheck disable=SC2086
    (install $program) || say "the tests that start ${program#* } themselves will fail"
  done
fi

# Of a server that somebody else has started.
export LONGSHORE_TEST_RABBITMQCTL=${LONGSHORE_TEST_RABBITMQCTL:-rabbitmqctl}

for name in LONGSHORE_TEST_AMQP LONGSHORE_TEST_POSTGRES LONGSHORE_TEST_REDIS LONGSHORE_TEST_RABBITMQCTL; do
  say "$name=${!name}"
  printf 'export %s=%q\n' "$name" "${!name}"
done
