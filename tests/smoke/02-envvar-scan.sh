#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-1-envvar-scan.txt "the image sets the contract's environment and nothing else, and OpenClaw knows each of its own names"
need_image

must "podman image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' $IMAGE"
seen=$(grep . <<< "$OUT" | sort)
expected=$(for name in $(contract environment); do echo "$name=$(contract environment "$name")"; done | sort)
want_equal "the image's environment" "$expected" "$seen"

# A version that the recipe does not support is an upgrade being tried: what it no longer reads is told, and does no harm.
version=$(contract application version) supported=
recipe=$(CONTRACT=$REPO/images/openclaw-nix/contract.json contract application version)
if [ "$version" = "$recipe" ] || [ -e "$REPO/images/openclaw-nix/versions/$version.json" ]; then supported=1; fi
application=$(dirname "$(module)")
for name in $(contract environment | grep '^OPENCLAW_'); do
  must "podman run --rm --network=none --entrypoint sh $IMAGE -c 'rg --files-with-matches --word-regexp $name $application/dist | head -n 1'"
  if [ -z "$OUT" ] && [ -z "$supported" ]; then note "$name: not read by this version"; continue; fi
  want_line "." "a module of OpenClaw that reads $name"
done

note "names that older guides use, and that no OpenClaw reads"
attempt "grep -rnE 'OPENCLAW_(LOG_DIR|GATEWAY_BIND)' '$REPO/images' '$REPO/entrypoint' --include='*' --exclude-dir='*.egg-info' --exclude-dir=__pycache__"
want_status 1
