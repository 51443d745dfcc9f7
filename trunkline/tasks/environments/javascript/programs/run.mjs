// Starts a project's own test runner on some of its test files and tells how each test ended. Owns no reward.
//
//   node run.mjs '{"runner": "vitest", "args": [], "files": ["test/a.test.js"]}'
//     ─► the runner, in the current directory ─► its report ─► {outcomes, faults, durations, complaint} to $TRUNKLINE_REPORT_FD

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const MODULES = '/node_modules';
const MAX_WHY = 300;
const MAX_SAID = 20_000;
const WHOLE = '(the file)';
const NOT_LOADED = /^(SyntaxError|Error: Cannot find module|Error \[ERR_MODULE_NOT_FOUND\])/m;
const NOTHING = { outcomes: {}, faults: {}, durations: {} };

function program(name) {
  const { bin } = JSON.parse(fs.readFileSync(`${MODULES}/${name}/package.json`, 'utf8'));
  return path.join(MODULES, name, typeof bin === 'string' ? bin : bin[name]);
}

// Each with the arguments of the project, and without what would cost time or write elsewhere: coverage, watching, other reports.
export const COMMANDS = {
  files: (args, files, reporting) => COMMANDS.node(args, files, reporting),
  node: (args, files, reporting) => [...args, '--test', ...reporting, ...files],
  mocha: (args, files, reporting) => [program('mocha'), ...args, '--exit', ...reporting, ...files],
  vitest: (args, files, reporting) => [program('vitest'), 'run', ...args, '--coverage.enabled=false', ...reporting, ...files],
  jest: (args, files, reporting) => [
    program('jest'), ...args, '--ci', '--coverage=false', '--watchman=false', '--runInBand', ...reporting,
    ...(files.length ? ['--runTestsByPath', ...files] : []),
  ],
};
const REPORTING = {
  files: (report) => REPORTING.node(report),
  node: (report) => [`--test-reporter=${HERE}/node_reporter.mjs`, `--test-reporter-destination=${report}`],
  mocha: () => ['--reporter', `${HERE}/mocha_reporter.cjs`],
  vitest: (report) => ['--reporter=json', `--outputFile=${report}`],
  jest: (report) => ['--json', `--outputFile=${report}`, `--cacheDirectory=${path.dirname(report)}/cache`],
};

function lineOf(text) {
  const lines = text.replace(/\x1b\[[0-9;]*m/g, '').split('\n').map((line) => line.trim()).filter(Boolean);
  const named = lines.find((line) => /^(\w+: )?\w*(Error|Exception)\b.*:|^(Cannot|Failed to|Could not) /.test(line));
  const words = lines.filter((line) => !/^(at |Node\.js v|[●❯|>])/.test(line));
  return (named ?? words.at(-1) ?? lines.at(-1) ?? 'it said nothing').slice(0, MAX_WHY);
}

function* entriesOfLines(text) {
  for (const line of text.split('\n')) if (line) yield JSON.parse(line);
}

const ENDED_IN_JSON = { passed: 'passed', failed: 'failed', pending: 'skipped', skipped: 'skipped', disabled: 'skipped', todo: 'skipped' };

// Jest's form, which Vitest writes too.
function* entriesOfJson(text) {
  for (const { name, assertionResults, status, message } of JSON.parse(text).testResults) {
    if (status === 'failed' && assertionResults.length === 0) yield [name, [], 'failed', message ?? '', 0];
    for (const { ancestorTitles, title, status: ended, duration } of assertionResults) {
      if (!(ended in ENDED_IN_JSON)) continue;
      yield [name, [...ancestorTitles.filter(Boolean), title], ENDED_IN_JSON[ended], '', (duration ?? 0) / 1000];
    }
  }
}

// Names as 'test/a.test.js > group > name'; of tests that are called the same the second one ends in ' #2'.
export function readReport(runner, text, files) {
  const entries = ['node', 'files', 'mocha'].includes(runner) ? entriesOfLines(text) : entriesOfJson(text);
  const [outcomes, faults, durations, broken] = [{}, {}, {}, {}];
  const wanted = new Set(files);
  const loaded = new Set();
  for (const [absolute, titles, ended, why, seconds] of entries) {
    const file = path.relative(process.cwd(), absolute);
    if (wanted.size && !wanted.has(file)) continue;
    if (titles.length === 0) {
      if (ended === 'failed') broken[file] = why;
      if (runner === 'files' && (ended !== 'failed' || !NOT_LOADED.test(why))) {
        loaded.add(file);
        outcomes[`${file} > ${WHOLE}`] = ended;
        durations[`${file} > ${WHOLE}`] = seconds;
      }
      continue;
    }
    loaded.add(file);
    const name = [file, ...titles].join(' > ').replace(/\s+/g, ' ').trim();
    let free = name;
    for (let number = 2; free in outcomes; number += 1) free = `${name} #${number}`;
    outcomes[free] = ended;
    durations[free] = seconds;
  }
  for (const [file, why] of Object.entries(broken)) {
    if (loaded.has(file)) outcomes[`${file} > ${WHOLE}`] = 'failed';
    else faults[file] = lineOf(why);
  }
  return { outcomes, faults, durations };
}

function start(argv, env) {
  return new Promise((resolve) => {
    let said = '';
    const child = spawn(process.execPath, argv, { stdio: ['ignore', 'inherit', 'pipe'], env });
    child.stderr.on('data', (data) => {
      said = (said + data).slice(-MAX_SAID);
      process.stderr.write(data);
    });
    child.on('error', (error) => resolve({ ended: 'did not start', said: String(error) }));
    child.on('close', (status, signal) => resolve({ ended: signal ? `was ended by ${signal}` : `ended with status ${status}`, said }));
  });
}

async function runOnce({ runner, args, files }, folder) {
  const report = path.join(folder, 'report');
  const { TRUNKLINE_REPORT_FD: _, ...env } = process.env;
  if (runner === 'mocha') env.TRUNKLINE_REPORT = report;
  const { ended, said } = await start(COMMANDS[runner](args, files, REPORTING[runner](report)), env);
  if (!fs.existsSync(report)) return { ...NOTHING, complaint: `${runner} left no report, it ${ended}: ${lineOf(said)}` };
  try {
    return { ...readReport(runner, fs.readFileSync(report, 'utf8'), files), complaint: '' };
  } catch (error) {
    return { ...NOTHING, complaint: `${runner}'s report cannot be read: ${error.message}; it ${ended}` };
  }
}

async function runInNewFolder(options) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'report-'));
  try {
    return await runOnce(options, folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

// Mocha loads all files before it runs any, so one that cannot be loaded ends them all: then each runs by itself.
export async function runTests(options) {
  const all = await runInNewFolder(options);
  const isEmpty = Object.keys(all.outcomes).length === 0;
  if (options.runner !== 'mocha' || !isEmpty || options.files.length === 0) return all;
  const whole = { outcomes: {}, faults: {}, durations: {}, complaint: '' };
  for (const file of options.files) {
    const one = await runInNewFolder({ ...options, files: [file] });
    Object.assign(whole.outcomes, one.outcomes);
    Object.assign(whole.durations, one.durations);
    if (one.complaint) whole.faults[file] = one.complaint;
  }
  return whole;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const result = Buffer.from(JSON.stringify(await runTests(JSON.parse(process.argv[2]))));
  for (let done = 0; done < result.length; ) done += fs.writeSync(Number(process.env.TRUNKLINE_REPORT_FD), result, done);
}
