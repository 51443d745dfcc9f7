// Node's test runner as lines of JSON: [file, [titles], ended, why, seconds]; an empty list of titles is the file itself. Owns no judgement.

const ENDED = (passed, data) => {
  if (data.skip !== undefined) return 'skipped';
  if (data.todo !== undefined) return passed ? 'xpassed' : 'xfailed';
  return passed ? 'passed' : 'failed';
};

export default async function* report(events) {
  const titles = [];
  const said = new Map();
  for await (const { type, data } of events) {
    if (type === 'test:stderr') said.set(data.file, ((said.get(data.file) ?? '') + data.message).slice(-20_000));
    // Starts come in the order of the report, each before what it holds, so that the titles above are known at its end.
    if (type === 'test:start') titles.splice(data.nesting, titles.length, data.name);
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.details?.type === 'suite') continue;
    const isFile = data.nesting === 0 && data.name === data.file;
    const above = isFile ? [] : [...titles.slice(0, data.nesting), data.name];
    const why = type === 'test:fail' && isFile ? (said.get(data.file) ?? String(data.details?.error?.cause ?? '')) : '';
    const seconds = (data.details?.duration_ms ?? 0) / 1000;
    yield `${JSON.stringify([data.file ?? '', above, ENDED(type === 'test:pass', data), why, seconds])}\n`;
  }
}
