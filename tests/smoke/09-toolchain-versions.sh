#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-5-toolchain-versions.txt "every tool of the contract answers, without a network and without volumes"
need_image

cat > "$SMOKE_TMP/versions.sh" <<'VERSIONS'
tool() {
  name=$1; shift
  if said=$("$@" 2>&1); then echo "$name: $(echo "$said" | head -n 1)"; else echo "$name: FAILED $? $said"; fi
}
VERSIONS
python3 -I -c '
import json, shlex, sys
for tool, argv in json.load(open(sys.argv[1], encoding="utf-8"))["tools"].items():
    print("tool", tool, shlex.join(argv))' "$CONTRACT" >> "$SMOKE_TMP/versions.sh"
must "podman run --rm --network=none --userns=keep-id --user \$(id -u):\$(id -g) -v $SMOKE_TMP/versions.sh:/mnt/versions.sh:ro $IMAGE sh /mnt/versions.sh"
want_no_line ': FAILED' "no tool that fails"
for tool in $(contract tools); do want_line "^$tool: .*[0-9]" "a version of $tool"; done

note "the plan's own list"
must "podman run --rm --userns=keep-id --user \$(id -u):\$(id -g) $IMAGE sh -c '
  set -e
  curl --version
  jq --version
  git --version
  python3 --version
  pip --version
  uv --version
  ffmpeg -version | head -1
  gh --version
  gemini --version || true
  node --version
  npm --version
'"
