#!/bin/sh
# Channel plugins, installed by OpenClaw itself into a throw-away state directory, then moved to where the contract says.
# usage: fetch-plugins.sh VERSION ID=PACKAGE…
set -eu
version=$1
shift
openclaw=/opt/openclaw/node_modules/openclaw
export HOME=/tmp/plugins OPENCLAW_STATE_DIR=/tmp/plugins/state NPM_CONFIG_IGNORE_SCRIPTS=true OPENCLAW_NO_RESPAWN=1
for entry in "$@"; do
  node "$openclaw/openclaw.mjs" plugins install "${entry#*=}@$version"
done
for entry in "$@"; do
  package=${entry#*=} target=/opt/openclaw/plugins/${entry%%=*}
  modules=$(find "$OPENCLAW_STATE_DIR/npm/projects" -path "*/node_modules/$package" -prune | sed "s|/$package\$||")
  mkdir -p "$target"
  mv "$modules" "$target/node_modules"
  # The plugin's peer is the gateway that loads it, never a copy of it; releases differ in where they look for the link.
  for place in "$target/node_modules" "$target/node_modules/$package/node_modules"; do
    mkdir -p "$place"
    rm -rf "$place/openclaw"
    ln -s "$openclaw" "$place/openclaw"
  done
done
rm -rf /tmp/plugins
