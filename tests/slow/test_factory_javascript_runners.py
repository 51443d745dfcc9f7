"""Runners of the npm registry on small projects: packages chosen and downloaded as a user would, tests and tasks run in real sandboxes."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest

from tests.npm_scene import draft_of, lay
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.factory.draft import Tested as Outcomes
from trunkline.tasks.factory.javascript.judge_files import judged
from trunkline.tasks.factory.javascript.language import JavaScriptLanguage
from trunkline.tasks.factory.javascript.manifest import read_manifest
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.types import Command, Work

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm"),
]
TYPED = """
    import { describe, expect, it } from 'vitest';
    import { next } from '../src/next.ts';
    describe('next', () => {
      it('is one more', () => expect(next(1)).toBe(2));
      it('is two more', () => expect(next(1)).toBe(3));
      it.skip('is later', () => {});
    });
"""
PLAIN = """
    const assert = require('assert');
    const next = require('../src/next');
    describe('next', () => {
      it('is one more', () => assert.equal(next(1), 2));
      it('is two more', () => assert.equal(next(1), 3));
      it.skip('is later', () => {});
    });
"""


@pytest.mark.parametrize(
    ("script", "package", "version", "files"),
    [
        ("vitest run", "vitest", "^2.0.0", {"test/a.test.ts": TYPED, "src/next.ts": "export const next = (n: number): number => n + 1;\n"}),
        ("jest --coverage", "jest", "^29.0.0", {"test/a.test.js": PLAIN, "src/next.js": "module.exports = (n) => n + 1;\n"}),
        ("nyc mocha -t 5000", "mocha", "^10.0.0", {"test/a.test.js": PLAIN, "src/next.js": "module.exports = (n) => n + 1;\n"}),
    ],
)
async def test_a_runner_of_the_registry_says_how_each_test_ended(
    sandboxes: IsolatedSandboxes, tmp_path: Path, script: str, package: str, version: str, files: dict[str, str]
) -> None:
    manifest = {"name": "following", "version": "1.0.0", "scripts": {"test": script}, "devDependencies": {package: version}}
    broken = {"test/broken.test.js": "require('./missing.js');\n"}
    tree = lay(tmp_path / "tree", manifest, {**files, **broken})
    javascript, found = JavaScriptLanguage(sandboxes), read_manifest(tree)
    started = found.started() if found is not None else None
    assert started is not None

    environment = await javascript.build(JavaScriptRecipe(runner=started.runner, runner_args=started.args), tree)
    results = await javascript.run(environment, (tree,), (), timeout_s=120)

    name = next(iter(sorted(files, reverse=True)))
    expected = {"is one more": "passed", "is two more": "failed", "is later": "skipped"}
    assert results.outcomes == {f"{name} > next > {title}": ended for title, ended in expected.items()}
    assert "missing.js" in results.faults["test/broken.test.js"], results


OF_VITEST = "import { expect, it } from 'vitest';\nimport { next } from '../src/next.ts';\nit('counts', () => expect(next(2)).toBe(3));\n"
OF_GLOBALS = "const next = require('../src/next');\nit('counts', () => require('assert').equal(next(2), 3));\n"
OF_TAPE = "const next = require('../src/next');\nrequire('tape')('counts', (t) => { t.equal(next(2), 3); t.end(); });\n"
TYPED_SOURCE, PLAIN_SOURCE = "export const next = (n: number): number => 2;\n", "module.exports = (n) => 2;\n"


@pytest.mark.parametrize(
    ("script", "package", "version", "source", "text"),
    [
        ("vitest run", "vitest", "^2.0.0", {"src/next.ts": TYPED_SOURCE}, OF_VITEST),
        ("jest", "jest", "^29.0.0", {"src/next.js": PLAIN_SOURCE}, OF_GLOBALS),
        ("mocha", "mocha", "^10.0.0", {"src/next.js": PLAIN_SOURCE}, OF_GLOBALS),
        ("tape test/*.js", "tape", "^5.0.0", {"src/next.js": PLAIN_SOURCE}, OF_TAPE),
    ],
    ids=["vitest", "jest", "mocha", "tape"],
)
async def test_a_task_is_judged_and_worked_on_with_the_runner_that_it_was_mined_with(
    sandboxes: IsolatedSandboxes, tmp_path: Path, script: str, package: str, version: str, source: dict[str, str], text: str
) -> None:
    manifest = {"name": "following", "version": "1.0.0", "scripts": {"test": script}, "devDependencies": {package: version}}
    javascript = JavaScriptLanguage(sandboxes)
    tree = lay(tmp_path / "tree", manifest, {**source, "test/a.test.js": text})
    mended = {path: text.replace("=> 2", "=> n + 1") for path, text in source.items()}
    solved = lay(tmp_path / "solved", manifest, mended)
    (recipe, *_) = javascript.recipes(tree, dt.datetime.now(dt.UTC))
    environment = await javascript.build(recipe, tree)
    turned = await javascript.run(environment, (tree, solved), (), timeout_s=120)
    outcomes = Outcomes(tuple(turned.passed), ())
    draft = draft_of(tree, environment, outcomes, source=mended, tests={"test/a.test.js": text.replace("3", "4").replace("2", "3")})

    taskset = SweTaskset.from_options({"paths": [write_task(judged(draft), tmp_path / "tasks")], "heldout_share": 0}).using(sandboxes)
    attempt = taskset.open(taskset.task("train", 0))
    values = [(await attempt.verifier.verify(Work("", changes)))[0].value for changes in (draft.solution, ())]
    assert attempt.surroundings is not None and attempt.workspace is not None
    box = await sandboxes.create(await sandboxes.prepare(attempt.workspace), surroundings=await attempt.surroundings())
    try:
        found = await box.run(Command.shell(f"npx --no-install {package} --version || test {package} = tape", timeout_s=120))
        before = await box.run(Command.shell("eval $TRUNKLINE_TEST_COMMAND", timeout_s=120))
        for path, content in mended.items():
            await box.files.write(path, content.encode())
        after = await box.run(Command.shell("eval $TRUNKLINE_TEST_COMMAND", timeout_s=120))
    finally:
        await box.destroy()

    assert (len(turned.passed), values) == (1, [1.0, 0.0]), turned
    assert (found.status, before.status, after.status) == (0, 1, 0), (found, before, after)
