#!/bin/sh
# One small package.json beside the gateway's modules. Node looks upwards for the package.json that tells a module's type;
# the package's own is 113 KB with 325 exports, and Node reads it again for every module. Worth a third of the start and
# of the memory (docs/IMAGE.md has the figures); nothing else may change, which the smoke checks guard with a chat.
# usage: boot-tuning.sh PATH JSON   (the contract's boot_tuning)
set -eu
[ -d "$(dirname "$1")" ] || { echo "boot tuning: there is no $(dirname "$1")" >&2; exit 1; }
[ ! -e "$1" ] || { echo "boot tuning: $1 exists already; this release has its own" >&2; exit 1; }
printf '%s\n' "$2" > "$1"
