// Lets a gateway whose workload names the extensions that it uses find only these, when it lists the bundled ones.
//
// OpenClaw looks through all of them several times at each start, and has no setting for it. Here the list alone is
// shorter: each extension stays at its place, and what is reached for by its name is found. Without the variable that
// the entrypoint sets, nothing is changed at all. Loaded by `node --import`, before the program (the contract's exec).

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

let done = false;

// Called again by a waiter, whose environment comes late.
export function narrow() {
  if (done || !process.env.CLAW_SHOWN_EXTENSIONS) return;
  done = true;
  const { discovery } = JSON.parse(fs.readFileSync('/etc/claw/contract.json', 'utf8'));
  const places = new Set([discovery.source, fs.realpathSync(discovery.source)]);
  const shown = new Set(process.env.CLAW_SHOWN_EXTENSIONS.split(','));
  const list = fs.readdirSync;
  fs.readdirSync = function readdirSync(place, options) {
    const entries = list(place, options);
    return places.has(place) ? entries.filter((entry) => shown.has(entry.name ?? entry)) : entries;
  };
  syncBuiltinESMExports();
}

narrow();
