// Waits in the gateway's place, and becomes the gateway when its tenant comes.
//
// The gateway's modules are loaded ahead (tier `prewarmed`) or nothing is (tier `interpreter`). What a tenant brings is
// bound late, by the very program that seeds every start: it prints the gateway's whole environment. A list of modules
// that no longer fits costs speed and never truth: what is missing is passed over, and when loading anything ahead has
// failed for another reason, the gateway is started afresh in this same process, since Node remembers such failures.
// Usage: node FLAGS… prewarm.mjs GATE TIER BIND… -- NODE FLAGS… MAIN ARGUMENTS…   (the contract's prewarm and exec)

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { pathToFileURL } from 'node:url';
import v8 from 'node:v8';
import vm from 'node:vm';
import { narrow } from '/opt/claw/extensions.mjs'; // by the path that Node was given, for each builder has its own places

const LINE = '{"v":1}\n';
const CONFIG_ERROR = 78; // EX_CONFIG, as the entrypoint and the gateway have it
const contract = JSON.parse(fs.readFileSync('/etc/claw/contract.json', 'utf8'));
const words = process.argv.slice(2);
const separator = words.indexOf('--');
const [gate, tier, ...bind] = words.slice(0, separator);
const gateway = words.slice(separator + 1);
const main = gateway.findIndex((word, index) => index > 0 && word.startsWith('/'));
const given = { ...process.env };

function log(level, event, facts) {
  fs.writeSync(2, `${JSON.stringify({ ts: new Date().toISOString(), level, event, ...facts })}\n`);
}

function fail(message, hint) {
  log('error', 'park.failed', { message, hint, exit_code: CONFIG_ERROR });
  process.exit(CONFIG_ERROR);
}

// As the gateway will see it, for what is read while a module loads: its arguments, and no value of any pool.
function disguise() {
  process.argv.splice(1, process.argv.length - 1, ...gateway.slice(main));
  for (const name of Object.keys(contract.values)) {
    delete process.env[name];
    delete process.env[`${name}_FILE`];
  }
}

async function loadAhead() {
  const counts = { imported: 0, missing: 0, failed: 0 };
  if (tier !== 'prewarmed') return counts;
  let listed = '';
  try {
    listed = fs.readFileSync(contract.prewarm.modules, 'utf8');
  } catch (error) {
    log('warning', 'park.no_modules', { path: contract.prewarm.modules, reason: error.code });
  }
  v8.setFlagsFromString('--no-lazy'); // compile every function now, not when a tenant first needs it,
  v8.setFlagsFromString('--no-flush-bytecode'); // and keep what was compiled, however long the wait is
  // First of all, or Node prints warnings that the gateway keeps back.
  const filter = path.join(path.dirname(gateway[main]), 'dist/warning-filter.js');
  await import(pathToFileURL(filter).href).then((module) => module.installProcessWarningFilter?.()).catch(() => {});
  for (const url of listed.split('\n').filter(Boolean)) {
    try {
      await import(url);
      counts.imported += 1;
    } catch (error) {
      counts[error?.code === 'ERR_MODULE_NOT_FOUND' ? 'missing' : 'failed'] += 1;
    }
  }
  v8.setFlagsFromString('--lazy');
  tidy();
  return counts;
}

// What loading left behind is collected now, when nobody waits, and not in the middle of the gateway's start.
function tidy() {
  v8.setFlagsFromString('--expose-gc');
  vm.runInNewContext('gc')();
  v8.setFlagsFromString('--no-expose-gc');
}

// Opened without waiting and read through the event loop: a blocking open would hold a thread, and every exit with it.
async function opened() {
  let pipe;
  try {
    const fd = fs.openSync(gate, fs.constants.O_RDWR | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW);
    if (!fs.fstatSync(fd).isFIFO()) fail(`the start gate ${gate} is not a FIFO`, 'the runtime creates it');
    pipe = new net.Socket({ fd, readable: true, writable: false });
  } catch (error) {
    const hint = 'the runtime creates this FIFO before it starts the container';
    fail(`cannot open the start gate ${gate}: ${error.code}`, hint);
  }
  let line = '';
  for await (const piece of pipe) {
    line += piece;
    if (line.endsWith('\n') || line.length >= 4096) break; // leaving the loop closes the gate
  }
  const hint = 'use a runtime and an image of one version';
  if (line !== LINE) fail(`what came through the start gate is not the line ${LINE.trim()}`, hint);
}

// The environment that the gateway has in every start, from the program that makes it there.
function bound() {
  return new Promise((resolve) => {
    const child = spawn(bind[0], bind.slice(1), { env: given, stdio: ['ignore', 'pipe', 'inherit'] });
    const parts = [];
    child.stdout.on('data', (part) => parts.push(part));
    child.on('error', (error) => fail(`cannot run ${bind[0]}: ${error.code}`, 'build the image again'));
    child.on('close', (code) => (code === 0 ? resolve(JSON.parse(Buffer.concat(parts))) : process.exit(code ?? 1)));
  });
}

const began = performance.now();
const signals = ['SIGTERM', 'SIGINT'];
const end = () => process.exit(0); // the first process of a container has no default action for these
for (const name of signals) process.on(name, end);
disguise();
const counts = await loadAhead();
const opens = opened();
log('info', 'park.waiting', { tier, ...counts, ms: Math.round(performance.now() - began) });
await opens;
const environment = await bound();
for (const name of signals) process.off(name, end);
v8.setFlagsFromString('--flush-bytecode');
process.chdir('/');
if (counts.failed) process.execve(gateway[0], gateway, environment);
for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
Object.assign(process.env, environment);
narrow();
await import(pathToFileURL(gateway[main]).href);
