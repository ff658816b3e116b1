#!/usr/bin/env bash
# What starts the server at boot: the units of systemd, by its own tools; the scripts of OpenWrt and OpenRC with stand-ins for
# what reads them there.
#
#     tests/packaging/units.sh      needs systemd-analyze and shellcheck
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
units=$PWD/examples/packaging
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

. tests/packaging/check.sh

# In tenths: what is left is what a server does, listen for everybody on the network.
most_exposed=16

systemd() {
  # It has to find the program.
  cp "$units"/*.service "$units"/sockets/*.socket "$work"
  sed -i "s|^ExecStart=/usr/bin/switchboard|ExecStart=$(command -v true)|" "$work/switchboard.service"
  # Of a wrong setting it says only that it is ignored.
  systemd-analyze verify --man=no "$work"/switchboard* 2>&1 | tee "$work/told"
  check "the units have no mistake" test ! -s "$work/told"
  check "the service may do little" systemd-analyze security --offline=true --threshold=$most_exposed "$work/switchboard.service"
  local socket
  for socket in "$units"/sockets/*.socket; do
    check "a socket is for what its name says: $socket" \
      grep -qx "FileDescriptorName=$(basename "$socket" .socket | sed 's/^switchboard-//')" "$socket"
    check "and for the service" grep -qx Service=switchboard.service "$socket"
  done
}

scripts() {
  local without=SC2034,SC2154,SC3043 # variables that another script reads or sets; `local`, which all of these shells have
  check "the scripts are sound" shellcheck -s sh -e $without "$units"/{openwrt/switchboard.init,openrc/switchboard.{initd,confd}} \
    "$units"/debian/{postinst,prerm,postrm,default}
  check "and those of the tests" shellcheck -S warning -e SC1091,SC2154,SC2034 -s bash tests/packaging/*.sh
}

# procd's functions, as the script sees them: they print what they are told. The configuration is that of the example.
openwrt() {
  cat >"$work/stub" <<'STUB'
procd_open_instance() { echo "instance $1"; }
procd_close_instance() { echo end; }
procd_set_param() { echo "set $*"; }
procd_append_param() { echo "append $*"; }
procd_add_reload_trigger() { echo "trigger $*"; }
procd_send_signal() { echo "signal $*"; }
config_load() { CONFIG=$1; }
config_foreach() { "$1" main; }
value() { sed -n "s/^[[:space:]]*option $1 '\(.*\)'/\1/p" "$CONFIG_FILE"; }
config_get() { eval "$1=\$(value $3)"; eval "[ -n \"\$$1\" ] || $1=\${4-}"; }
config_get_bool() { config_get "$@"; }
config_list_foreach() {
	local function=$3 all=$2
	shift 3
	sed -n "s/^[[:space:]]*list $all '\(.*\)'/\1/p" "$CONFIG_FILE" >"$CONFIG_FILE.list"
	while read -r item; do "$function" "$item" "$@"; done <"$CONFIG_FILE.list"
}
start() { start_service; }
. "$1"
shift
"$@"
STUB
  cp "$units/openwrt/switchboard.config" "$work/config"
  export CONFIG_FILE=$work/config
  check "off by default" test -z "$(sh "$work/stub" "$units/openwrt/switchboard.init" start_service)"
  # All that the example has, and on.
  sed -i "s/enabled '0'/enabled '1'/; s/^#//" "$work/config"
  sh "$work/stub" "$units/openwrt/switchboard.init" start_service | tee "$work/told"
  check "an instance" grep -qx 'instance main' "$work/told"
  check "that listens" grep -qx 'append command --listen 0.0.0.0:8080' "$work/told"
  check "with TLS" grep -qx 'append command --cert /etc/switchboard/box.pem --key /etc/switchboard/box.key' "$work/told"
  check "and is not root" grep -qx 'set user nobody' "$work/told"
  sh "$work/stub" "$units/openwrt/switchboard.init" reload_service | tee "$work/told"
  check "a reload loads certificates again" grep -qx 'signal switchboard \* HUP' "$work/told"
  check "a change of its options reloads it" test "$(sh "$work/stub" "$units/openwrt/switchboard.init" service_triggers)" = "trigger switchboard"
  command_line "$(sed -n 's/^\(set\|append\) command //p' <(sh "$work/stub" "$units/openwrt/switchboard.init" start_service) | tr '\n' ' ')"
}

openrc() {
  cat >"$work/stub" <<'STUB'
RC_SVCNAME=switchboard
checkpath() { echo "checkpath $*"; }
ebegin() { :; }
eend() { return "$1"; }
need() { :; }
use() { :; }
after() { :; }
supervise-daemon() { echo "supervise-daemon $*"; }
. "$1"
. "$2"
depend
start_pre
reload
echo "$command $command_args"
STUB
  # A function of that name is no POSIX: bash in its place.
  bash "$work/stub" "$units/openrc/switchboard.confd" "$units/openrc/switchboard.initd" | tee "$work/told"
  check "its folder is made" grep -q '^checkpath --directory .* /run/switchboard$' "$work/told"
  check "a reload loads certificates again" grep -q '^supervise-daemon switchboard --signal HUP' "$work/told"
  command_line "$(tail -n 1 "$work/told")"
}

# The program takes the options, if it is built: with what it would start it only prints its help.
command_line() { # LINE
  local program=${CARGO_TARGET_DIR:-target}/debug/switchboard
  check "the line starts the server: $1" grep -q '^/usr/bin/switchboard serve' <<<"$1"
  [ ! -x "$program" ] || check "and has options that there are" "$program" ${1#/usr/bin/switchboard} --help >/dev/null
}

systemd
scripts
openwrt
openrc
echo "$checked checks passed"
