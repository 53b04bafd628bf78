#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-1-openclaw-bin.txt "the program that the contract starts is in the image, in the contract's version"
need_image

for program in "$(contract exec argv 0)" "$(module)"; do
  must "podman run --rm --network=none --entrypoint sh $IMAGE -c 'ls -la $program && test -r $program'"
done
must "podman run --rm --network=none --entrypoint $(contract exec argv 0) $IMAGE --version"
want_equal "Node's version" "v$(contract node)" "$OUT"
must "podman run --rm --network=none --userns=keep-id --user \$(id -u):\$(id -g) --entrypoint sh $IMAGE -c 'command -v openclaw && openclaw --version'"
want_line "(^|[^0-9])$(contract application version | sed 's/\./\\./g')([^0-9]|\$)" "OpenClaw $(contract application version)"
