// Harbor's verdict on a JavaScript task: the task's own tests over what the agent left, 1 if all that must pass do. Owns no run (run.mjs).
//
//   /tests/judge.json + /tests/judged, /tests/tree laid over the workspace ─► run.mjs ─► /logs/verifier/reward.txt
//
// What is judged runs in the runner's process and can write what the runner reports: this is no better than any test script.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { runTests } from './run.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const LOGS = '/logs/verifier';
const { fail_to_pass, pass_to_pass, variables, ...options } = JSON.parse(fs.readFileSync(`${HERE}/judge.json`, 'utf8'));

for (const folder of ['judged', 'tree']) {
  if (fs.existsSync(`${HERE}/${folder}`)) fs.cpSync(`${HERE}/${folder}`, process.cwd(), { recursive: true, force: true });
}
Object.assign(process.env, variables);
const { outcomes, faults, complaint } = await runTests(options);
const wrong = [...fail_to_pass, ...pass_to_pass].filter((name) => outcomes[name] !== 'passed');
const isRight = !complaint && wrong.length === 0 && fail_to_pass.length > 0;
for (const name of wrong.slice(0, 20)) console.log(`not passed: ${name} (${outcomes[name] ?? 'not there'})`);
for (const [file, why] of Object.entries(faults)) console.log(`cannot be loaded: ${file}: ${why}`);
if (complaint) console.log(complaint);
tell(isRight ? '1\n' : '0\n');
process.exit(0);

// What the tests have left must not write after us: in a sandbox this is its first process, which alone survives its own signal.
function tell(reward) {
  if (process.pid === 1) {
    try {
      process.kill(-1, 'SIGKILL');
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
  }
  fs.mkdirSync(LOGS, { recursive: true });
  fs.chmodSync(LOGS, 0o755);
  for (const name of fs.readdirSync(LOGS)) fs.rmSync(path.join(LOGS, name), { recursive: true, force: true });
  fs.writeFileSync(path.join(LOGS, 'reward.txt'), reward, { flag: 'wx' });
}
