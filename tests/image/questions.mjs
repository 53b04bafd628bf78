// Asks about many names of the image's tree before and after lookups.mjs is loaded; prints what is answered differently.
import fs from 'node:fs';

const tree = '/opt/openclaw/node_modules/openclaw';
const plugin = '/opt/openclaw/plugins/matrix';
const all = fs.readdirSync(tree, { recursive: true }).map((name) => `${tree}/${name}`);
const names = all.filter((_, index) => index % 9 === 0);
names.push(...names.map((name) => `${name}/none`), tree, `${tree}/`, `${tree}/../openclaw`, plugin, '/etc', '/none');
names.push(`${plugin}/node_modules/openclaw`, `${plugin}/node_modules/openclaw/package.json`);

const questions = [
  (name) => fs.existsSync(name),
  (name) => fs.statSync(name).size,
  (name) => fs.statSync(name, { throwIfNoEntry: false })?.mode ?? 'none',
  (name) => fs.lstatSync(name, { bigint: true }).size.toString(),
  (name) => fs.accessSync(name, fs.constants.R_OK) ?? 'readable',
  (name) => fs.realpathSync(name),
  (name) => fs.realpathSync.native(name),
  (name) => fs.readdirSync(name),
  (name) => fs.readdirSync(name, { withFileTypes: true }).map((entry) => [entry.name, entry.isDirectory()]),
  (name) => fs.readFileSync(name, 'utf8'),
  (name) => fs.readFileSync(name).length,
];

function answer(question, name) {
  try {
    return JSON.stringify(question(name));
  } catch (error) {
    return JSON.stringify([error.code, error.syscall, error.path, error.message]);
  }
}

const answers = () => names.flatMap((name) => questions.map((question) => [`${question}`, name, answer(question, name)]));

const before = answers();
await import('/opt/claw/lookups.mjs');
const wrong = [answers(), answers()].flatMap((now) => now.filter(([, , said], index) => said !== before[index][2]));
console.log(JSON.stringify({ asked: before.length, wrong: wrong.slice(0, 5) }));
