# A Debian that nothing was done to yet, for the scripts beside this. They run as root.

[ "$(id -u)" = 0 ] || { echo "a chroot takes root" && exit 1; }
suite=bookworm
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$target/debian

# Sets $root to a new one. It is made once, and copied. So that it is removed, nothing may be mounted in it outside of `inside`.
new_debian() { # NAME
  local base=$folder/$suite
  root=$folder/$1
  if [ ! -e "$base.complete" ]; then
    rm -rf "$base"
    mkdir -p "$folder"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$base"
    touch "$base.complete"
  fi
  rm -rf "$root"
  cp -a "$base" "$root"
  printf 'deb http://deb.debian.org/debian-security %s-security main\n' "$suite" >>"$root/etc/apt/sources.list"
  printf 'APT::Get::Assume-Yes "true";\n' >"$root/etc/apt/apt.conf.d/90assume-yes"
  # Services are not started in a chroot, and nobody is there to be asked.
  export DEBIAN_FRONTEND=noninteractive
  trap 'rm -rf "$root"' EXIT
}

# Runs a command in it, with processes and mounts of its own, which all end with it. $mounts are further ones.
inside() { # COMMAND...
  MOUNTS=${mounts-} ROOT=$root unshare --mount --pid --fork --kill-child bash -euc '
    mount -t proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    eval "$MOUNTS"
    exec chroot "$ROOT" "$@"' - "$@"
}

# Makes $folder/switchboard_VERSION.deb.
package() { # VERSION
  examples/packaging/debian/build.sh --deb-version "$1" --output "$folder/switchboard_$1.deb"
}

say() { # TEXT
  printf '\n== %s\n' "$1"
}

. tests/packaging/check.sh
