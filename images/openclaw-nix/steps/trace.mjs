// Writes down which module asked for which, for list_modules.py: `node --import trace.mjs MAIN…` with CLAW_TRACE=FILE.
// One line each: `load FORMAT URL`, and `static PARENT URL` where a module brings another along. One that asks while it
// runs does not; that it runs is what the statement says which is put before its first one.

import fs from 'node:fs';
import { registerHooks } from 'node:module';
import { isMainThread } from 'node:worker_threads';

const begun = new Set();
const file = isMainThread ? fs.openSync(process.env.CLAW_TRACE, 'a') : undefined;
const say = (...words) => fs.writeSync(file, `${words.join(' ')}\n`);
globalThis.clawTraceBegun = (url) => begun.add(url);

function resolve(specifier, context, next) {
  const found = next(specifier, context);
  const parent = context.parentURL;
  if (parent?.startsWith('file:') && found.url.startsWith('file:') && !begun.has(parent)) say('static', parent, found.url);
  return found;
}

function load(url, context, next) {
  const loaded = next(url, context);
  if (!url.startsWith('file:')) return loaded;
  // What is required has a format only when a hook has given it one.
  say('load', loaded.format ?? (/\.c?js$/.test(url) ? 'commonjs' : 'other'), url);
  if (loaded.format !== 'module') {
    begun.add(url); // what CommonJS requires, it requires while it runs
    return loaded;
  }
  const source = Buffer.from(loaded.source).toString();
  if (source.startsWith('#!')) return loaded;
  return { ...loaded, source: `globalThis.clawTraceBegun(${JSON.stringify(url)});${source}` };
}

if (isMainThread) registerHooks({ resolve, load });
