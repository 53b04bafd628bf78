// Remembers what the file system answered about the program's own tree, which cannot change while the container runs.
//
// A start asks about each name of its package ten times (docs/IMAGE.md). An answer is remembered if the tree is read-only
// with nothing mounted in it, and if the name is reached without a link, which could lead elsewhere. Every other question
// is asked each time. Loaded by `node --import` before the program (the contract's exec), and before extensions.mjs,
// which shortens what one of these functions answers.

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';

const CONTRACT = '/etc/claw/contract.json';
const ANSWERS = 50_000; // at most, of each function
const CHARACTERS = 32 * 1024 * 1024; // of files, in all
const ABSENT = new Set(['ENOENT', 'ENOTDIR']);
const PLAIN = new Set(['string', 'boolean', 'undefined']);

// Whether nothing can change below a directory: its file system is read-only, and no other one is mounted in it.
export function isFixed(top, mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8')) {
  let nearest = { place: '', options: 'rw' };
  for (const line of mounts.split('\n').filter(Boolean)) {
    const [, , , , written, options] = line.split(' ');
    const place = written.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (place.startsWith(`${top}/`)) return false;
    const holds = place === '/' || place === top || top.startsWith(`${place}/`);
    if (holds && place.length >= nearest.place.length) nearest = { place, options }; // the last one covers the others
  }
  return nearest.options.split(',').includes('ro');
}

// Whether a name below one of the directories is reached without a link. `list` is the file system's own readdirSync.
function steadiness(tops, list) {
  const links = new Map();
  const inside = new Map(tops.map((top) => [top, true]));

  const linked = (directory) => {
    if (!links.has(directory)) {
      const found = new Set();
      try {
        for (const entry of list(directory, { withFileTypes: true })) if (entry.isSymbolicLink()) found.add(entry.name);
      } catch (error) {
        if (!ABSENT.has(error.code)) return null; // unknown, so nothing in it is remembered
      }
      links.set(directory, found);
    }
    return links.get(directory);
  };

  const isSteady = (name) => {
    const known = inside.get(name);
    if (known !== undefined) return known;
    const directory = path.dirname(name);
    const steady = directory !== name && isSteady(directory) && linked(directory)?.has(path.basename(name)) === false;
    if (inside.size < ANSWERS) inside.set(name, steady);
    return steady;
  };
  return isSteady;
}

function again({ message, errno, code, syscall, path: name }) {
  return Object.assign(new Error(message), { errno, code, syscall, path: name });
}

// From now on, answer each question about names below these directories once. They must be fixed, and be no links.
export function remember(tops) {
  const isSteady = steadiness(tops, fs.readdirSync);
  let room = CHARACTERS;

  const isOurs = (name) =>
    tops.some((top) => name === top || name.startsWith(`${top}/`)) &&
    path.normalize(name) === name &&
    !name.endsWith('/') &&
    isSteady(name);

  // One text for a name and what is asked about it; null if it cannot be one.
  const questionOf = ([name, options], count) => {
    if (typeof name !== 'string' || count > 2) return null;
    if (options === undefined) return name;
    if (typeof options === 'string' || typeof options === 'number') return `${name}\0${typeof options} ${options}`;
    if (options === null || typeof options !== 'object') return null;
    const entries = Object.entries(options);
    return entries.every(([, value]) => PLAIN.has(typeof value)) ? `${name}\0${JSON.stringify(entries)}` : null;
  };

  const wrap = (holder, name, { keeps = () => true, copy = (value) => value } = {}) => {
    const real = holder[name];
    const known = new Map();
    const asked = function (...words) {
      const question = questionOf(words, words.length);
      let answer = question === null ? undefined : known.get(question);
      if (answer === undefined) {
        if (question === null || known.size >= ANSWERS || !isOurs(words[0])) return Reflect.apply(real, this, words);
        try {
          answer = { value: Reflect.apply(real, this, words) };
          if (!keeps(answer.value)) return answer.value;
        } catch (error) {
          if (!ABSENT.has(error.code)) throw error;
          answer = { error };
        }
        known.set(question, answer);
      }
      if (answer.error) throw again(answer.error);
      return copy(answer.value);
    };
    Object.defineProperty(asked, 'name', { value: name });
    return Object.assign(asked, real);
  };

  const fits = (text) => {
    if (typeof text !== 'string' || text.length > room) return false;
    room -= text.length;
    return true;
  };

  const realpath = wrap(fs, 'realpathSync');
  realpath.native = wrap(fs.realpathSync, 'native');
  Object.assign(fs, {
    lstatSync: wrap(fs, 'lstatSync'),
    statSync: wrap(fs, 'statSync'),
    existsSync: wrap(fs, 'existsSync'),
    accessSync: wrap(fs, 'accessSync'),
    readFileSync: wrap(fs, 'readFileSync', { keeps: fits }),
    readdirSync: wrap(fs, 'readdirSync', { copy: (entries) => entries.slice() }),
    realpathSync: realpath,
  });
  syncBuiltinESMExports();
}

// The directory that the program and its plugins are installed in, by the name that people use and by its own; none
// outside an image.
function ownTree() {
  if (!fs.existsSync(CONTRACT)) return [];
  const { discovery } = JSON.parse(fs.readFileSync(CONTRACT, 'utf8'));
  const own = (place) => place.split('/node_modules/')[0];
  return [...new Set([fs.realpathSync(own(discovery.source)), own(fs.realpathSync(discovery.source))])];
}

const trees = ownTree();
if (trees.length && trees.every((tree) => isFixed(tree))) remember(trees);
