"""Runners of the npm registry on small projects: packages chosen and downloaded as a user would, tests run in real sandboxes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.npm_scene import lay
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.javascript.language import JavaScriptLanguage
from trunkline.tasks.factory.javascript.manifest import read_manifest
from trunkline.tasks.factory.javascript.recipe import JavaScriptRecipe

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
