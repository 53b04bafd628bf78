#!/usr/bin/env bash
# The Nix image without nixpkgs, a binary cache, or root: the same flake and the same images/openclaw-nix/default.nix,
# with test doubles for its two inputs (nixpkgs/, openclaw/) that are made of Debian's and npm's own programs.
#
#   build.sh                     image, rebuild, claims, load, map, verify, smoke: in this order, each timed
#   build.sh STEP…               these steps
#   build.sh nix build .#NAME…   nix itself, with the inputs overridden; any verb that takes a flake
#   build.sh own COMMAND…        a command that sees this user's store at /nix
#
# Needs nix-bin, mmdebstrap, zstd, a rootless Podman, and the project's .venv.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../../.." && pwd)
python=${CLAW_PYTHON:-$repo/.venv/bin/python}
export CLAW_NIX=${CLAW_NIX:-${XDG_DATA_HOME:-$HOME/.local/share}/claw-nix}
export PYTHONPATH=$repo/runtime:$repo/entrypoint PYTHONDONTWRITEBYTECODE=1
image=localhost/openclaw-nix:nix

say() { printf 'standin: %s\n' "$*" >&2; }
die() { say "error: $1"; [ -z "${2:-}" ] || say "hint: $2"; exit 1; }
own() { "$here/own-nix" "$@"; }

for program in nix mmdebstrap zstd; do
  command -v $program >/dev/null || die "there is no $program" "apt install nix-bin mmdebstrap zstd"
done

timed() { # WHAT COMMAND… : run it, and keep its seconds where the figures are read
  local what=$1 began=${EPOCHREALTIME/./} hundredths
  shift
  "$@"
  hundredths=$(((${EPOCHREALTIME/./} - began) / 10000))
  say "$what: $((hundredths / 100)).$(printf %02d $((hundredths % 100))) s"
}

# add NAME FOLDER : a folder into the store under the name that a flake input has there, so that no later evaluation
# copies or hashes it again
add() { own nix store add-path --name source "$1"; }

# What the doubles are made of, once for each set of versions: prints the store paths of Debian's part and OpenClaw's.
machine() {
  local key record
  key=$(cat "$here/machine.py" "$repo"/constraints.txt "$repo"/images/openclaw-nix/steps/*.sh <("$python" -I -c '
import json, sys
contract = json.load(open(sys.argv[1], encoding="utf-8"))
print(json.dumps([contract[key] for key in ("application", "node", "build", "plugins")], sort_keys=True))' \
    "$repo/images/openclaw-nix/contract.json") | sha256sum | cut -c 1-16)
  record=$CLAW_NIX/machine-$key
  mkdir -p "$CLAW_NIX"
  exec 9> "$CLAW_NIX/fetching.lock" # two of these at once would fetch into one folder
  flock 9
  # shellcheck disable=SC2046
  if [ ! -e "$record" ] || ! own nix path-info $(cat "$record") >/dev/null 2>&1; then
    say "fetching Debian's, npm's and PyPI's programs: once for each set of versions, some minutes"
    rm -rf "$CLAW_NIX/fetched"
    timed fetch "$python" "$here/machine.py" "$CLAW_NIX/fetched" >&2
    { add "$CLAW_NIX/fetched/debian"; add "$CLAW_NIX/fetched/openclaw"; } > "$record.new"
    rm -rf "$CLAW_NIX/fetched"
    mv "$record.new" "$record"
  fi
  exec 9>&-
  cat "$record"
}

# The flake as a store path: only what it is made of, so that neither evidence nor a virtual environment is hashed.
source_of() {
  local copy
  copy=$(mktemp -d)
  (cd "$repo" && tar -c --exclude=__pycache__ --exclude='*.egg-info' \
    flake.nix flake.lock pyproject.toml nix images entrypoint runtime tests) | tar -x -C "$copy"
  add "$copy"
  rm -rf "$copy"
}

# Only a tree without changes has the name of its commit.
revision() {
  [ -z "$(git -C "$repo" status --porcelain -- flake.nix flake.lock nix images entrypoint runtime 2>&1)" ] || return 0
  printf '?rev=%s&lastModified=%s' "$(git -C "$repo" rev-parse HEAD)" "$(git -C "$repo" log -1 --format=%ct)"
}

flake_nix() { # VERB ARGUMENT… : `.#NAME` means this repository's flake
  local verb=$1 debian openclaw flake words=() word
  shift
  { read -r debian; read -r openclaw; } < <(machine)
  [ -n "${openclaw:-}" ] || die "the doubles have nothing to be made of" "the lines above say why"
  flake="path:$(source_of)$(revision)"
  for word; do
    case $word in
      . | .\#*) words+=("$flake${word#.}") ;;
      *) words+=("$word") ;;
    esac
  done
  own nix "$verb" "${words[@]}" --no-write-lock-file \
    --override-input nix-openclaw "path:$(add "$here/openclaw")" \
    --override-input nix-openclaw/packages "path:$openclaw" \
    --override-input nix-openclaw/nixpkgs "path:$(add "$here/nixpkgs")" \
    --override-input nix-openclaw/nixpkgs/machine "path:$debian"
}

archive() { echo "$CLAW_NIX/${1#/nix/}"; } # the same file for a program that sees the host's root

step_image() {
  flake_nix build .#openclaw-nix-image --out-link "$CLAW_NIX/result" --print-build-logs
  say "$(stat -L -c '%s bytes' "$(archive "$(readlink "$CLAW_NIX/result")")") $(readlink "$CLAW_NIX/result")"
}
step_rebuild() { # a second build of what is built must be the same, bit for bit; nix compares
  flake_nix build .#openclaw-nix-image --no-link --rebuild
  say "bit-identical: $(sha256sum < "$(archive "$(readlink "$CLAW_NIX/result")")" | cut -c 1-64)"
}
step_claims() { # each of nix/checks, by its name
  local names
  names=$(flake_nix eval --raw .#checks.x86_64-linux --apply 'checks: toString (builtins.attrNames checks)' 2>/dev/null)
  for name in $names; do
    flake_nix build ".#checks.x86_64-linux.$name" --no-link 2> "$CLAW_NIX/claim.log" || { cat "$CLAW_NIX/claim.log" >&2; die "$name does not hold"; }
    say "holds: $name"
  done
}
step_load() {
  podman load --quiet < "$(archive "$(readlink "$CLAW_NIX/result")")"
}
step_map() { # the first start copies every layer's owners; a tenant should not wait for it
  podman run --rm --network=none --user "$(id -u):$(id -g)" \
    --uidmap=0:1:1 --uidmap="$(id -u):0:1" --gidmap=0:1:1 --gidmap="$(id -g):0:1" \
    ${CLAW_CGROUP_PARENT:+--cgroup-parent "$CLAW_CGROUP_PARENT"} --entrypoint /bin/true "$image"
}
step_verify() { "$(dirname "$python")/claw-runtime" image verify "$image"; }
step_smoke() {
  podman image inspect --format '{{index .Config.Labels "io.claw.contract"}}' "$image" > "$CLAW_NIX/contract.json"
  IMAGE=$image CONTRACT=$CLAW_NIX/contract.json "$repo/tests/smoke/run"
}

case ${1:-} in
  nix) shift; flake_nix "$@" ;;
  own) shift; own "$@" ;;
  *)
    [ $# -gt 0 ] || set -- image rebuild claims load map verify smoke
    for step; do
      declare -F "step_$step" >/dev/null || die "there is no step $step" "image rebuild claims load map verify smoke"
    done
    for step; do timed "$step" "step_$step"; done
    ;;
esac
