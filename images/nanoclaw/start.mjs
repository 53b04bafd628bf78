// Starts NanoClaw where it keeps its state, and answers the probes that it has no port of its own for.
//
// NanoClaw keeps all it knows below its working directory, and reads its settings from `.env` there. The directory is
// the tenant's; `.env` is a link to a file beside the rendered configuration, so that no key is ever stored with the
// state. What the image brings (`container/`) is linked, what a tenant may change (`groups/`) is copied once.
// Usage: node start.mjs [CONTRACT]

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const here = fs.realpathSync(import.meta.dirname);
const contract = JSON.parse(fs.readFileSync(process.argv[2] ?? '/etc/claw/contract.json', 'utf8'));
const settings = contract.template.target;
const { directory, environment } = JSON.parse(fs.readFileSync(settings, 'utf8'));

function renewLink(target, link) {
  fs.rmSync(link, { force: true });
  fs.symlinkSync(target, link);
}

// NanoClaw takes a line as it is: a line break would be a second setting.
function line([name, value]) {
  if (/[\r\n]/.test(value)) throw new Error(`${name} has a line break`);
  return `${name}=${value}\n`;
}

// Modes are given anew: in the store nothing can be written to.
function copyOnce(source, target) {
  if (fs.statSync(source).isDirectory()) {
    fs.mkdirSync(target, { recursive: true, mode: 0o755 });
    for (const name of fs.readdirSync(source)) copyOnce(path.join(source, name), path.join(target, name));
  } else if (!fs.existsSync(target)) {
    fs.writeFileSync(target, fs.readFileSync(source), { mode: 0o644 });
  }
}

const envFile = path.join(path.dirname(settings), 'nanoclaw.env');
fs.writeFileSync(envFile, Object.entries(environment ?? {}).map(line).join(''), { mode: 0o600 });
fs.mkdirSync(directory, { recursive: true });
process.chdir(directory);
renewLink(envFile, '.env');
renewLink(path.join(here, 'container'), 'container');
copyOnce(path.join(here, 'groups'), 'groups');

// Alive: this process answers. Ready: NanoClaw found its container socket and opened its database.
const answers = {
  [contract.probes.live.path]: () => true,
  [contract.probes.ready.path]: () => fs.existsSync('store/messages.db'),
};
http
  .createServer((request, response) => {
    const answer = answers[request.url];
    response.writeHead(answer ? (answer() ? 200 : 503) : 404).end();
  })
  .listen(contract.ports.gateway);

// NanoClaw runs only when it takes itself for the program that was started.
process.argv[1] = path.join(here, 'dist', 'index.js');
await import(pathToFileURL(process.argv[1]));
