# What boot.sh has run in its container, by systemd.
set -euo pipefail

checked=0
check() { # WHAT COMMAND...
  local what=$1
  shift
  if ! "$@"; then
    echo "FAILED: $what"
    systemctl --no-pager status switchboard || true
    journalctl --no-pager -n 40 -u switchboard || true
    exit 1
  fi
  checked=$((checked + 1))
  echo "ok: $what"
}

property() { # NAME
  systemctl show --property "$1" --value switchboard
}

status() { # PATTERN
  property StatusText | grep "$1" >/dev/null
}

page() { # OPTION... URL
  curl --silent --show-error --fail --max-time 10 "$@" | grep '<title>Switchboard</title>' >/dev/null
}

refused() { # URL
  ! curl --silent --max-time 5 "$1"
}

soon() { # COMMAND...
  for _ in {1..100}; do
    if "$@"; then return; fi
    sleep 0.2
  done
  return 1
}

is_another() { # PID
  [ "$(property ActiveState)" = active ] && [ "$(property MainPID)" != "$1" ]
}

# Installed, it runs.
check "it is active" soon systemctl is-active --quiet switchboard
check "its status says where it listens" status '^[0-9]* connections*; listening on 127.0.0.1:8080$'
check "it serves" page http://127.0.0.1:8080/
pid=$(property MainPID)
check "its user is its own" test "$(stat -c %U "/proc/$pid")" = switchboard
check "it may bind low ports, and nothing else" grep -q '^CapEff:\s*0000000000000400$' "/proc/$pid/status"
check "its system calls are filtered" grep -q '^Seccomp:\s*2$' "/proc/$pid/status"

# It reloads.
systemctl reload switchboard
check "it is the same after a reload" test "$(property MainPID),$(property ActiveState)" = "$pid,active"

# It has ports of its own, a certificate and a key for sessions.
options='--listen 0.0.0.0:80 --cert /etc/switchboard/server.pem --key /etc/switchboard/server.key'
echo "SWITCHBOARD_OPTIONS='$options --tls-listen [::]:443 --session-key-file /var/lib/switchboard/session.key'" >/etc/default/switchboard
systemctl restart switchboard
check "it serves at low ports" page http://127.0.0.1/
check "and by TLS" page --cacert /etc/switchboard/ca.pem https://localhost/
check "its status knows TLS" status ':443 (TLS)$'
check "it keeps its state" test "$(stat -c %U:%a /var/lib/switchboard/session.key)" = switchboard:600
systemctl reload switchboard
check "the certificate was looked at" soon sh -c "journalctl -u switchboard | grep 'certificates have not changed' >/dev/null"

# It takes sockets.
systemctl stop switchboard
echo "SWITCHBOARD_OPTIONS='${options#--listen 0.0.0.0:80 }'" >/etc/default/switchboard
systemctl enable --quiet --now switchboard-{ws,wss,manage}.socket
check "nothing runs until somebody comes" test "$(property ActiveState)" = inactive
check "a client starts it" page http://127.0.0.1/
check "it serves TLS" page --cacert /etc/switchboard/ca.pem https://localhost/
check "it is managed" switchboard list --manage unix:/run/switchboard-manage.socket
check "only the group may do that" test "$(stat -c %U:%G:%a /run/switchboard-manage.socket)" = switchboard:switchboard:660
check "it listens nowhere else" refused http://127.0.0.1:8080/
systemctl restart --no-block switchboard
for _ in {1..20}; do
  page http://127.0.0.1/ || { echo "FAILED: nobody is refused while it restarts" && exit 1; }
done
check "nobody is refused while it restarts" true

# It is upgraded, and its sockets stay: so nobody is refused, and it has them when it is back.
pid=$(property MainPID)
dpkg --install /newer.deb >/dev/null
check "the new one runs" soon is_another "$pid"
for socket in ws wss manage; do
  check "its socket is still there: $socket" systemctl is-active --quiet "switchboard-$socket.socket"
done
check "it serves what comes by them" page http://127.0.0.1/
check "and listens nowhere else" refused http://127.0.0.1:8080/

# It hangs.
check "it runs" soon systemctl is-active --quiet switchboard
sleep 3
check "it is fed" test "$(property NRestarts)" = 0
pid=$(property MainPID)
kill -STOP "$pid"
check "who hangs is started anew" soon is_another "$pid"
check "because of the watchdog" sh -c "journalctl -u switchboard | grep -i 'watchdog timeout' >/dev/null"
check "it serves again" page http://127.0.0.1/

# It ends in order.
systemctl stop switchboard-{ws,wss,manage}.socket switchboard
check "it has ended in order" test "$(property Result),$(property ExecMainStatus)" = success,0
echo "$checked checks passed"
