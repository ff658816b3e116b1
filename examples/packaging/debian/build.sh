#!/bin/sh
# Builds the program, prints its manual and its completions by it, and makes the Debian package of them all. Options are those of
# `cargo deb`, such as --install.
set -e
cd "$(dirname "$0")/../../.."
cargo build --locked --release
program=${CARGO_TARGET_DIR:-target}/release/switchboard
made=target/packaging # where Cargo.toml looks for it
rm -rf "$made"
mkdir -p "$made"
"$program" man "$made"
"$program" completions bash >"$made/switchboard"
"$program" completions zsh >"$made/_switchboard"
"$program" completions fish >"$made/switchboard.fish"
exec cargo deb --locked --no-build --strip "$@"
