#!/bin/sh
# The OpenClaw image as localhost/openclaw-nix:dev, built with Nix where that costs downloads only, else with Podman from
# the Containerfile (docs/adr/0007-which-builder.md). Says on one line which of them, and why; safe to run again at once.
#
#   CLAW_BUILDER=nix|containerfile   do not ask, use this one
#   CLAW_OPENCLAW=2026.9.6           this version, as localhost/openclaw-nix:2026.9.6 (make image OPENCLAW=2026.9.6); from
#                                    the Containerfile, since Nix builds what flake.lock pins
#   CLAW_NIX_WAIT=4                  seconds that each of at most three substituters has for its answer
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
claw_runtime=${CLAW_RUNTIME:-$top/.venv/bin/claw-runtime}
wait=${CLAW_NIX_WAIT:-4}
store=${NIX_STORE_DIR:-/nix/store}
# Where its installer puts nix; host/run gives an ordinary PATH.
PATH=$PATH:${HOME:-}/.nix-profile/bin:${store%/store}/var/nix/profiles/default/bin
built=localhost/openclaw-nix:nix
image=localhost/openclaw-nix:dev
loaded=$top/.venv/.nix-image # the archive that was loaded last, and the image's id
scratch=
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "error: $1"; say "hint: $2"; exit 1; }

nix_() { nix --extra-experimental-features 'nix-command flakes' "$@"; }

# A question to nix that ends: whatever it started ends with it.
ask() { timeout -k 1 "$wait" nix --extra-experimental-features 'nix-command flakes' "$@" 2>/dev/null </dev/null; }

substituters() { # three at most; older releases of nix know the first verb only, newer ones the second
  { ask show-config || ask config show; } | sed -n 's/^substituters = //p' | tr -s ' ' '\n' | sed '/^$/d; 3q'
}

# Why nix can or cannot build here without compiling the world: sets $why, and its status is the answer.
nix_can() {
  command -v nix >/dev/null || { why="nix is not installed"; return 1; }
  [ -d "$store" ] || { why="nix is installed, but $store does not exist"; return 1; }
  asked=$(substituters)
  [ -n "$asked" ] || { why="nix is installed, but no substituter is configured"; return 1; }
  scratch=${scratch:-$(mktemp -d)}
  for url in $asked; do
    # In a cache of its own: nix remembers for a week that a substituter was there.
    if XDG_CACHE_HOME=$scratch ask store ping --store "$url" --option connect-timeout "$wait" --option download-attempts 1 >/dev/null; then
      why="$url answers"
      return 0
    fi
  done
  # shellcheck disable=SC2086,SC2116 # one line of all
  why="no substituter of nix answers within $wait s: $(echo $asked)"
  return 1
}

# A folder that is no checkout would go into the store whole, with virtual environment and evidence.
flake() {
  if [ -e "$top/.git" ]; then echo "$top"; return; fi
  (cd "$top" && tar -c --exclude=__pycache__ --exclude='*.egg-info' \
    flake.nix flake.lock pyproject.toml nix images entrypoint runtime tests) | tar -x -C "$scratch"
  echo "path:$scratch"
}

with_nix() {
  scratch=${scratch:-$(mktemp -d)}
  nix_ build "$(flake)#openclaw-nix-image" --out-link "$top/result" >&2 ||
    die "nix could not build the image" "its output is above; to build without Nix: CLAW_BUILDER=containerfile make image"
  archive=$(readlink "$top/result")
  if [ "$(cat "$loaded" 2>/dev/null)" = "$archive $(id_of "$image")" ]; then
    say "$image is up to date ($archive)"
    return
  fi
  "$claw_runtime" image load "$top/result"
  podman tag "$built" "$image"
  echo "$archive $(id_of "$image")" > "$loaded"
}

id_of() { podman image inspect --format '{{.Id}}' "$1" 2>/dev/null || echo none; }

why="CLAW_BUILDER selects it"
case ${CLAW_BUILDER:-}:${CLAW_OPENCLAW:-} in
  nix:?*) die "Nix cannot build OpenClaw $CLAW_OPENCLAW: flake.lock pins the version" "docs/NIX.md says how to raise the pin; or CLAW_BUILDER=containerfile" ;;
esac
case ${CLAW_BUILDER:-} in
  nix) builder=nix ;;
  containerfile) builder=containerfile ;;
  '') if [ -n "${CLAW_OPENCLAW:-}" ]; then
      builder=containerfile why="OpenClaw $CLAW_OPENCLAW is asked for by its version"
    elif nix_can; then builder=nix; else builder=containerfile; fi ;;
  *) die "unknown builder: $CLAW_BUILDER" "set CLAW_BUILDER=nix or CLAW_BUILDER=containerfile" ;;
esac
if [ "$builder" = nix ]; then
  say "built with Nix: $why"
  with_nix
else
  say "built with Podman from the Containerfile: $why"
  [ -z "$scratch" ] || rm -rf "$scratch"
  cd "$top" && exec "$claw_runtime" image build openclaw-nix ${CLAW_OPENCLAW:+--version "$CLAW_OPENCLAW"}
fi
