// Mocha's events as lines of JSON in $TRUNKLINE_REPORT: [file, [titles], ended, why, seconds]. Owns no judgement.
const fs = require('fs');

module.exports = function Report(runner) {
  const file = fs.openSync(process.env.TRUNKLINE_REPORT, 'a');
  const titlesOf = (test) => (test ? [...titlesOf(test.parent), test.title].filter(Boolean) : []);
  const fileOf = (test) => (test ? test.file || fileOf(test.parent) : '');
  const lineOf = (test, ended) => JSON.stringify([fileOf(test) || '', titlesOf(test), ended, '', (test.duration || 0) / 1000]);
  const tell = (test, ended) => fs.writeSync(file, `${lineOf(test, ended)}\n`);
  runner.on('pass', (test) => tell(test, 'passed'));
  runner.on('fail', (test) => tell(test, 'failed'));
  runner.on('pending', (test) => tell(test, 'skipped'));
};
