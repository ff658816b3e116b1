#!/usr/bin/env bash
# Starts a Redis, and three nodes that are one cluster, on this machine: http://127.0.0.1:8081/, :8082 and :8083. All of it ends with this.
# A first port other than 8081 may be given. Kill a node, or the Redis, to see what the pages say.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
first=${1:-8081}

command -v redis-server >/dev/null || { echo "redis-server is missing: apt install redis-server" >&2 && exit 1; }
cargo build --release --example cluster --no-default-features --features cluster

folder=$(mktemp -d)
end() {
  kill $(jobs -p) 2>/dev/null || true
  wait
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 0' INT TERM

# Waits until this is so, while what was started last runs.
until_so() {
  until "$@"; do
    kill -0 $! 2>/dev/null || return 1
    sleep 0.1
  done
}

redis-server --port 0 --unixsocket "$folder/redis" --dir "$folder" --save "" --appendonly no >"$folder/log" &
until_so test -S "$folder/redis" || { cat "$folder/log" >&2 && exit 1; }
export SESSION_KEY
SESSION_KEY=$(head -c 32 /dev/urandom | base64)
for node in 1 2 3; do
  port=$((first + node - 1))
  "${CARGO_TARGET_DIR:-target}/release/examples/cluster" "127.0.0.1:$port" $node "redis+unix://$folder/redis" >"$folder/$node" &
  until_so grep -s "listening on" "$folder/$node" || { echo "node $node has not started on port $port, and the others end" >&2 && exit 1; }
done
wait
