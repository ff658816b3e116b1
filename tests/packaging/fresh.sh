#!/usr/bin/env bash
# README's first commands, as somebody has them who has a new Debian, Rust, git and ca-certificates, and nothing else.
#
#     tests/packaging/fresh.sh [quick|all|full]      what `tests/run` is to run in it; quick if nothing is said
#
# Needs root and debootstrap. Debian's packages are fetched; Rust is that of this machine, and so are the crates that it has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/packaging/debian.sh
what=${1:-quick}

sysroot=$(rustc --print sysroot)
crates=${CARGO_HOME:-$HOME/.cargo}/registry

# A line of README's first block, without what it says beside.
line() { # BEGINNING
  awk '/^```/ { n++ } n == 1 && !/^```/' README.md | sed -n "/^$1/{s/ *#.*//;p}"
}
packages=$(line 'sudo apt') serve=$(line 'cargo run') tests=$(line 'tests\/run')
check "README begins as it did" test "$serve, $tests" = "cargo run --release, tests/run"

say "a new Debian"
new_debian fresh
mkdir -p "$root/opt/rust" "$root/root/.cargo/registry"
mounts="mount --bind -o ro '$sysroot' '$root/opt/rust'"
# What the installer of Debian writes, and debootstrap does not.
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
# Not those that are unpacked: they are unpacked here.
for kind in index cache; do
  [ ! -d "$crates/$kind" ] || cp -a "$crates/$kind" "$root/root/.cargo/registry"
done
# Who reaches crates.io by a proxy with a CA of its own has that among those of this machine.
authorities=/etc/ssl/certs/ca-certificates.crt
[ -e $authorities ] || authorities=$root$authorities
cp "$authorities" "$root/opt/authorities.pem"
inside apt-get -q update
inside apt-get -q install --no-install-recommends git
# Whoever is root already may not have it.
printf '#!/bin/sh\nexec "$@"\n' >"$root/usr/local/bin/sudo"
chmod +x "$root/usr/local/bin/sudo"
git clone -q --no-hardlinks . "$root/root/switchboard"
user() { # COMMAND
  inside env -i HOME=/root TERM=dumb PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    DEBIAN_FRONTEND=noninteractive CARGO_HTTP_CAINFO=/opt/authorities.pem bash -ec "cd ~/switchboard && $1"
}
check "there is no compiler, and no OpenSSL to build with" user '! command -v cc && [ ! -e /usr/include/openssl ]'

say "$packages"
user "$packages"

say "$serve"
curl -s --max-time 2 http://127.0.0.1:8080/ >"$folder/page" && { echo "something serves port 8080 of this machine already" && exit 1; }
set -m # a process group of its own
user "$serve" &
server=$!
set +m
trap 'kill -- -$server || true; wait $server || true; rm -rf "$root"' EXIT
while kill -0 $server && ! curl -s --fail --max-time 2 http://127.0.0.1:8080/ >"$folder/page"; do sleep 1; done
check "it serves its page" grep -q '<title>Switchboard</title>' "$folder/page"
kill -- -$server
wait $server || true
check "it is gone" test "$(curl -s --max-time 2 http://127.0.0.1:8080/)" = ""
trap 'rm -rf "$root"' EXIT

# What a step has said stays.
keep() {
  rm -rf "$folder/fresh-logs"
  cp -r "$root/root/switchboard/target/test-logs" "$folder/fresh-logs"
}
trap 'keep; rm -rf "$root"' EXIT

say "$tests $what"
user "$tests $what"
check "all tests pass" true

echo "$checked checks passed"
