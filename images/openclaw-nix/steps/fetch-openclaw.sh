#!/bin/sh
# OpenClaw from npm, without running any package's scripts.
# usage: fetch-openclaw.sh VERSION
set -eu
npm install --prefix /opt/openclaw --omit=dev --no-audit --no-fund --ignore-scripts --no-save --loglevel=error "openclaw@$1"

# Releases from 2026.9 on mark an installation without scripts as unfinished, and finish it at the first start by writing
# into the package. Finish it here: the image is read-only.
package=/opt/openclaw/node_modules/openclaw
if [ -e "$package/.openclaw-lifecycle-pending" ]; then
  (cd "$package" && node scripts/postinstall-bundled-plugins.mjs)
  [ ! -e "$package/.openclaw-lifecycle-pending" ] || { echo "the package's lifecycle is still pending" >&2; exit 1; }
fi
