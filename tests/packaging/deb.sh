#!/usr/bin/env bash
# The Debian package in a Debian that has never seen it: it is installed, runs, is upgraded with the configuration kept, removed
# and purged, and nothing is left.
#
#     tests/packaging/deb.sh      needs root, debootstrap, dpkg-dev and cargo-deb
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/packaging/debian.sh

# What there is in the chroot, but for what the package manager and adduser themselves remember.
files() {
  (cd "$root" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/log \
    -o -path ./var/cache -o -path ./var/lib/apt -o -path ./run -o -path './etc/*shadow-' -o -path './etc/passwd-' \
    -o -path './etc/group-' \) -prune -o -print | sort)
}

accounts() {
  cat "$root"/etc/{passwd,group,shadow,gshadow}
}

say "packages"
new_debian deb
package 0.1.0-1
package 0.1.1-1
dpkg-deb --info "$folder/switchboard_0.1.0-1.deb"
dpkg-deb --contents "$folder/switchboard_0.1.0-1.deb"
described=$(sed -n 's/^description = "\(.*\)".*/\1/p' Cargo.toml)
check "one line says what it is" \
  test "$(dpkg-deb --field "$folder/switchboard_0.1.0-1.deb" Description | sed -n 1p)" = "$described"
cp "$folder"/switchboard_*.deb "$root/tmp"
inside apt-get -q update
# What it needs, so that the rest is what it brings.
depends=$(dpkg-deb --field "$folder/switchboard_0.1.0-1.deb" Depends | tr ',' '\n' | sed 's/(.*//; s/|.*//')
# shellcheck disable=SC2086 # a word each
inside apt-get -q install --no-install-recommends $depends procps
files >"$folder/before"
accounts >"$folder/accounts-before"

say "install"
inside apt-get -q install /tmp/switchboard_0.1.0-1.deb
check "it runs" inside switchboard --version
check "it has a user" inside getent passwd switchboard
check "a user without a shell" test "$(inside getent passwd switchboard | cut -d: -f7)" = /usr/sbin/nologin
check "it is started at boot" test -L "$root/etc/systemd/system/multi-user.target.wants/switchboard.service"
for socket in ws wss manage; do
  check "its sockets are there" test -f "$root/lib/systemd/system/switchboard-$socket.socket"
  check "and are not in use until somebody wants them" \
    test ! -e "$root/etc/systemd/system/sockets.target.wants/switchboard-$socket.socket"
done
# One service, and what listens for it.
(cd "$root/usr/lib/systemd/system" && ls switchboard*) >"$folder/units"
check "it has no other units" diff - "$folder/units" <<UNITS
switchboard-manage.socket
switchboard-ws.socket
switchboard-wss.socket
switchboard.service
UNITS
check "its options are kept when it is upgraded" test "$(inside dpkg-query -W -f '${Conffiles}' switchboard | awk '{ print $1 }')" = /etc/default/switchboard
check "it has a manual" test -s "$root/usr/share/man/man1/switchboard-serve.1.gz"
completed=$(inside bash -euc '. /usr/share/bash-completion/completions/switchboard
  COMP_WORDS=(switchboard serve --tls-l) COMP_CWORD=2 && _switchboard switchboard --tls-l serve && echo "${COMPREPLY[@]}"')
check "bash completes it" test "$completed" = --tls-listen
check "zsh does" grep -qx '#compdef switchboard' "$root/usr/share/zsh/vendor-completions/_switchboard"
check "fish does" grep -q '^complete -c switchboard ' "$root/usr/share/fish/vendor_completions.d/switchboard.fish"
inside sh -c 'test -s /usr/share/doc/switchboard/copyright && zcat /usr/share/doc/switchboard/changelog.Debian.gz | head -n 1'
# As the unit starts it: the same command line, the same user.
inside setpriv --reuid switchboard --regid switchboard --clear-groups sh -c '
  . /etc/default/switchboard
  switchboard serve $SWITCHBOARD_OPTIONS --listen unix:/tmp/ws.socket 2>/tmp/log & server=$!
  for n in $(seq 100); do [ ! -S /tmp/ws.socket ] || break; sleep 0.1; done
  switchboard connect --one unix:/tmp/ws.socket:/echo </etc/hostname && kill $server && wait $server' >"$folder/echoed"
check "the user serves with it" cmp "$folder/echoed" "$root/etc/hostname"

say "upgrade"
echo 'SWITCHBOARD_OPTIONS="--listen 0.0.0.0:80"' >"$root/etc/default/switchboard"
mkdir -p "$root/var/lib/switchboard" && echo key >"$root/var/lib/switchboard/session.key"
inside apt-get -q install /tmp/switchboard_0.1.1-1.deb
check "it is the new one" test "$(inside dpkg-query -W -f '${Version}' switchboard)" = 0.1.1-1
check "the configuration is kept" grep -qx 'SWITCHBOARD_OPTIONS="--listen 0.0.0.0:80"' "$root/etc/default/switchboard"
check "nobody was asked" test ! -e "$root/etc/default/switchboard.dpkg-dist"
check "its state is kept" test -s "$root/var/lib/switchboard/session.key"
check "it is still started at boot" test -L "$root/etc/systemd/system/multi-user.target.wants/switchboard.service"
check "its sockets still wait for who wants them" test ! -e "$root/etc/systemd/system/sockets.target.wants"

say "remove"
inside apt-get -q remove switchboard
check "the program is gone" test ! -e "$root/usr/bin/switchboard"
check "the configuration is kept" test -s "$root/etc/default/switchboard"
check "its state is kept" test -s "$root/var/lib/switchboard/session.key"
inside apt-get -q install /tmp/switchboard_0.1.1-1.deb
check "and is there again" grep -q 0.0.0.0:80 "$root/etc/default/switchboard"

say "purge"
inside apt-get -q purge switchboard
files >"$folder/after"
accounts >"$folder/accounts-after"
check "nothing is left" diff "$folder/before" "$folder/after"
check "nobody is left" diff "$folder/accounts-before" "$folder/accounts-after"

echo "$checked checks passed"
