#!/usr/bin/env bash
# How large programs are with the profile `small`, and what memory they have taken when they have just started to listen:
# the rows of the README's table "Sizes".
#
#     benches/sizes.sh [TARGET...]     by default this machine's, by glibc and by musl: two targets, a quarter of an hour
#
# For another processor's target, cargo has to know its linker; then only sizes are told, as memory under qemu would be qemu's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

machine=$(uname -m)
target=${CARGO_TARGET_DIR:-$PWD/target}/sizes
targets=("$@")
[ $# != 0 ] || targets=("$machine-unknown-linux-gnu" "$machine-unknown-linux-musl")
export CARGO_TARGET_DIR=$target
export OPENSSL_NO_VENDOR=1

main() {
  echo "| target | program | size | memory at start |"
  echo "|---|---|---|---|"
  on_all minimal_program
  on_all command_with "\`cli\`" cli
  on_all command_with "\`cli\`, \`rustls\`" cli,rustls
  on_all command_with "\`cli\`, \`manage\`, \`rustls\`" cli,manage,rustls
  # A static OpenSSL is a question of its own: tls-vendored.
  on_all without_musl command_with "\`cli\`, \`tls\`" cli,tls
  on_all without_musl command_with "all that is default: \`cli\`, \`manage\`, \`tls\`" default
}

on_all() { # COMMAND...
  local platform
  for platform in "${targets[@]}"; do
    "$@"
  done
}

without_musl() { # COMMAND...
  [[ $platform == *musl* ]] || "$@"
}

# examples/echo.rs, as a program of somebody else who has it as README says.
minimal_program() {
  local package=$target/minimal
  mkdir -p "$package"
  cat >"$package/Cargo.toml" <<END
[package]
name = "minimal"
version = "0.0.0"
edition = "2024"

[[bin]]
name = "minimal"
path = "$PWD/examples/echo.rs"

[dependencies]
switchboard = { path = "$PWD", default-features = false }

[profile.small]
inherits = "release"
opt-level = "s"
lto = true
codegen-units = 1
panic = "abort"
strip = true

[workspace]
END
  cp Cargo.lock "$package"
  cargo build -q --profile small --target "$platform" --manifest-path "$package/Cargo.toml"
  row "[\`echo\`](examples/echo.rs) alone, no features" minimal 127.0.0.1:0
}

command_with() { # TEXT FEATURES
  cargo build -q --profile small --target "$platform" --no-default-features --features "$2" --bin switchboard
  row "the command: $1" switchboard --listen 127.0.0.1:0
}

row() { # TEXT PROGRAM ARGUMENT...
  local text=$1 program=$target/$platform/small/$2
  shift 2
  printf '| %s | %s | %s | %s |\n' "$platform" "$text" "$(megabytes "$(stat -c %s "$program")") MB" "$(memory "$program" "$@")"
}

# All that is resident, and how much of it is the process's own, not pages of its files.
memory() { # PROGRAM ARGUMENT...
  local pid status all own log=$target/memory.log
  if [[ $platform != "$machine"-* ]]; then
    echo "not run"
    return
  fi
  "$@" >"$log" 2>&1 &
  pid=$!
  for _ in {1..100}; do
    grep -qE 'listening|is the page' "$log" && break
    sleep 0.1
  done
  sleep 1 # the last threads have started
  status=$(cat "/proc/$pid/status")
  kill "$pid"
  wait "$pid" || true
  all=$(awk '/^VmRSS/ { print $2 }' <<<"$status")
  own=$(awk '/^RssAnon/ { print $2 }' <<<"$status")
  echo "$(megabytes $((all * 1024))) MB, $(megabytes $((own * 1024))) of them its own"
}

megabytes() { # BYTES
  awk -v bytes="$1" 'BEGIN { printf "%.2f", bytes / 1e6 }'
}

main
