#!/bin/sh
# Drop what no running program reads: source maps and type declarations (the TypeScript compiler reads its own),
# npm's bookkeeping that differs between two equal installations, tool links, and binaries for another C library.
# The documents stay: the gateway reads docs/reference/templates, and fails every chat without them.
set -eu
find /opt -name '*.map' -type f -delete
find /opt -type f \( -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) ! -path '*/typescript/lib/*' -delete
find /opt -path '*/node_modules/.package-lock.json' -delete
find /opt/openclaw -path '*/node_modules/.bin' -prune -exec rm -rf {} +
find /opt -type d -path '*/node_modules/*linuxmusl*' -prune -exec rm -rf {} +
