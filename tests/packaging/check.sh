# For the scripts beside this: what they have seen to be so, and how much that is.

checked=0
check() { # WHAT COMMAND...
  local what=$1
  shift
  "$@" || { echo "FAILED: $what" && exit 1; }
  checked=$((checked + 1))
  echo "ok: $what"
}
