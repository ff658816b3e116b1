#!/usr/bin/env bash
# The Debian package under systemd itself, which starts in a container: the service is ready, reloads, takes sockets, is allowed
# what it needs, is upgraded, and is started anew when it hangs.
#
#     tests/packaging/boot.sh      needs root, debootstrap, systemd-nspawn, dpkg-dev and cargo-deb
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/packaging/debian.sh

say "packages"
new_debian boot
package 0.1.0-1
package 0.1.1-1
cp "$folder/switchboard_0.1.0-1.deb" "$root/tmp"
cp "$folder/switchboard_0.1.1-1.deb" "$root/newer.deb"
mkdir "$root/etc/switchboard"
cp certs/{server.pem,server.key,ca.pem} "$root/etc/switchboard"
inside apt-get -q update
inside apt-get -q install --no-install-recommends systemd systemd-sysv dbus procps curl
inside apt-get -q install /tmp/switchboard_0.1.0-1.deb
# `systemctl edit`: it is missed soon, and may read the key.
mkdir "$root/etc/systemd/system/switchboard.service.d"
printf '[Service]\nWatchdogSec=2s\n' >"$root/etc/systemd/system/switchboard.service.d/test.conf"
inside chgrp switchboard /etc/switchboard/server.key
chmod 640 "$root/etc/switchboard/server.key"
cp tests/packaging/booted.sh "$root/booted.sh"
cat >"$root/etc/systemd/system/booted.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /booted.sh
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=file:/booted.log
StandardError=inherit
TimeoutStartSec=200s
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../booted.service "$root/etc/systemd/system/multi-user.target.wants/booted.service"

say "boot"
# Names of hosts are not needed, and the network is its own.
timeout -k 10 300 systemd-nspawn --directory "$root" --private-network --register=no --keep-unit --boot </dev/null |
  tee "$folder/console" | grep -a -v '^$' | tail -n 20 || true
cat "$root/booted.log"
tail -n 1 "$root/booted.log" | grep -q ' checks passed$'
