// Runs the tests of a workspace for whoever works on it: by the project's runner, in that runner's words. Owns no verdict and no report.
//
//   node visible_tests.mjs RUNNER [ARGUMENT...] -- [FILE...]      in the workspace; without a FILE all that are given to a runner
//     ─► the runner ─► its words without times, so that the same work is told the same ─► status 0: passed, 1: not, 2: nothing ran

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { COMMANDS } from './run.mjs';

// The names are those of factory/javascript/roles.py, and a test holds them together.
const NEVER = /(^|\/)(node_modules|\.git)\//;
const ASIDE = /^(docs?|examples?|benchmarks?|bench|dist|build|coverage|scripts|website)\//;
const IN_TESTS = /(^|\/)(tests?|__tests__|specs?|__mocks__|__snapshots__|__fixtures__)\//;
const OF_TESTS = /(^|\/)_*(fixtures?|helpers?|support|mocks?|snapshots|data|utils?|(mocks|snapshots|fixtures)__)\//;
const NAMED = /(^|\/)((|[^/]+[.\-_])(test|tests|spec)|test[\-_][^/]+)\.[cm]?[jt]sx?$/;
const CODE = /\.([cm]?[jt]s|[jt]sx)$/;
const TYPES = /\.d\.[cm]?ts$|\.test-d\.ts$/;
const CONFIGURATION = /(^|\/)(\.[^/]*rc(\.[^/]*)?|[^/]*\.(config|conf|setup)\.[^./]+|(gulpfile|gruntfile|jakefile|karma|rollup|webpack)\b[^/]*)$/i;

export function isRun(file) {
  if (NEVER.test(file) || ASIDE.test(file) || TYPES.test(file) || CONFIGURATION.test(file) || !CODE.test(file)) return false;
  return NAMED.test(file) || (IN_TESTS.test(file) && !OF_TESTS.test(file));
}

function* filesBelow(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.posix.join(folder, entry.name);
    if (entry.isDirectory() && !NEVER.test(`${file}/`)) yield* filesBelow(file);
    if (entry.isFile()) yield file;
  }
}

const TIMES = [/ \(\d[\d.]* ?m?s\)$/, / \d+m?s$/];
const ABOUT_TIME = /^\W*(duration_ms|Duration|Start at|Time:) /;

async function tell(stream, target) {
  for await (const line of readline.createInterface({ input: stream })) {
    if (!ABOUT_TIME.test(line)) target.write(`${TIMES.reduce((words, time) => words.replace(time, ''), line)}\n`);
  }
}

async function run(runner, args, files) {
  const argv = COMMANDS[runner](args, files, ['node', 'files'].includes(runner) ? ['--test-reporter=spec'] : []);
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.on('close', (status) => resolve(status)));
  await Promise.all([tell(child.stdout, process.stdout), tell(child.stderr, process.stderr)]);
  const status = await ended;
  return status === null ? 2 : Math.min(status, 1);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [runner, ...words] = process.argv.slice(2);
  const end = words.indexOf('--');
  const named = words.slice(end + 1);
  const files = named.length ? named : [...filesBelow('.')].filter(isRun);
  if (!files.length) console.log('no file here is a test');
  process.exitCode = files.length ? await run(runner, words.slice(0, end), files) : 2;
}
