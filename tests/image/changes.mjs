// Asks about names of a tree, makes all of them, and asks again; prints both answers.
import fs from 'node:fs';
import { remember } from '/opt/claw/lookups.mjs';

fs.mkdirSync('/tmp/tree/inner', { recursive: true });
fs.mkdirSync('/tmp/other');
fs.symlinkSync('/tmp/other', '/tmp/tree/out');
const inside = ['/tmp/tree/inner/file', '/tmp/tree/new'];
const outside = ['/tmp/tree/out/file', '/tmp/tree/inner/../../other/second', '/tmp/other/third'];
const names = [...inside, ...outside];
remember(['/tmp/tree']);

const seen = () => names.map((name) => [fs.existsSync(name), fs.statSync(name, { throwIfNoEntry: false })?.size ?? -1]);

const before = seen();
for (const name of names) fs.writeFileSync(name, 'content');
console.log(JSON.stringify([before, seen()]));
