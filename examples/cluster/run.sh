#!/usr/bin/env bash
# Starts a Redis, and three nodes that are one cluster, on this machine: http://127.0.0.1:8081/, :8082 and :8083. All of it ends with this.
# A first port other than 8081 may be given.
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

redis-server --port 0 --unixsocket "$folder/redis" --dir "$folder" --save "" --appendonly no >"$folder/log" &
until [ -S "$folder/redis" ]; do sleep 0.1; done
export SESSION_KEY
SESSION_KEY=$(head -c 32 /dev/urandom | base64)
for node in 1 2 3; do
  "${CARGO_TARGET_DIR:-target}/release/examples/cluster" "127.0.0.1:$((first + node - 1))" $node "redis+unix://$folder/redis" &
done
wait
