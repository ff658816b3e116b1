#!/usr/bin/env bash
# Tests a running WebSocket server with the Autobahn testsuite. Usage: README.md, or run.sh --help
#
# This file only makes the environment, once; run.py beside it does the rest.
# wstest exists only as Python 2 code, so it gets a Python 2.7 virtualenv of its own.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # meant for another Python than this one
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# By path: the pyenv shim in PATH refuses to run a version that is not selected.
python27() {
  local p
  for p in "${PYTHON27:-}" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7 /usr/bin/python2.7; do
    if [ -x "$p" ] && "$p" -c 'import ssl, pip' 2>/dev/null; then
      echo "$p"
      return
    fi
  done
  cat >&2 <<'END'
autobahn: FAILED: there is no Python 2.7 with ssl and pip, and the testsuite exists for no other.
  Install one with pyenv (pyenv install 2.7.18), where it is found by itself, or name one
  that you have: PYTHON27=/path/to/python2.7
END
  return 2
}
py=$(python27) || exit 2

# Another requirements.txt or another Python makes another environment.
key=$( (echo "$py"; cat "$here/requirements.txt") | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/autobahn-testsuite
env=$cache/$key

# Python 2.7 has no venv module. virtualenv 16 is one wheel without dependencies,
# and it carries the pip and setuptools that it installs inside.
# (Joined by &&, because set -e means nothing in the if that calls this.)
setup() {
  "$py" -m pip install --no-deps --target "$env.boot" virtualenv==16.7.10 &&
    PYTHONPATH=$env.boot "$py" -m virtualenv --no-download "$env" &&
    "$env/bin/pip" install -r "$here/requirements.txt" &&
    "$env/bin/pip" check &&
    "$env/bin/wstest" --autobahnversion
}

mkdir -p "$cache"
exec 9>"$env.lock"
flock 9 # two runs at once must not build the same environment
if [ ! -e "$env/complete" ]; then
  echo "autobahn: making $env (once, about half a minute)" >&2
  rm -rf "$env" "$env.boot" # what an interrupted try left
  if ! setup >"$env.log" 2>&1; then
    tail -n 30 "$env.log" >&2
    echo "autobahn: could not make the environment; all of it: $env.log" >&2
    exit 2
  fi
  rm -rf "$env.boot"
  touch "$env/complete"
fi
exec 9>&-

if [ "${1:-}" = --setup ]; then exit 0; fi
exec "$env/bin/python" "$here/run.py" "$@"
