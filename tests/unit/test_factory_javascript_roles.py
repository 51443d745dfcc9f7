"""Source, tests and the rest of JavaScript projects, by their paths."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from trunkline.tasks.environments.javascript.environment import PROGRAMS_HERE
from trunkline.tasks.factory.javascript.roles import files_to_run, is_run, role_of, source_patterns


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("index.js", "source"),
        ("src/deep/a.ts", "source"),
        ("lib/build/a.cjs", "source"),
        ("test.js", "test"),
        ("src/a.test.tsx", "test"),
        ("src/a_spec.js", "test"),
        ("src/__tests__/a.js", "test"),
        ("test/fixtures/data.json", "test"),
        ("packages/a/test/b.js", "test"),
        ("index.d.ts", "other"),
        ("test-d/index.test-d.ts", "other"),
        ("vitest.config.ts", "other"),
        (".eslintrc.cjs", "other"),
        ("examples/a.js", "other"),
        ("dist/a.js", "other"),
        ("node_modules/a/index.js", "other"),
        ("package.json", "other"),
        ("README.md", "other"),
    ],
)
def test_role_of_a_path(path, role):
    assert role_of(path) == role


GIVEN = {
    "test/a.js": True,
    "test/unit/a.test.mjs": True,
    "test/fixtures/a.test.js": True,
    "test/fixtures/a.js": False,
    "test/helpers/a.js": False,
    "test/_helpers/a.js": False,
    "src/__mocks__/a.js": False,
    "test/__snapshots__/a.js.snap": False,
    "test/data.json": False,
    "test/.eslintrc.js": False,
    "test/rollup.js": False,
    "test/types.d.ts": False,
    "src/a.js": False,
    "src/contest.js": False,
    "src/test-a.ts": True,
    "src/a_spec.tsx": True,
    "src/__tests__/a.cts": True,
    "test.js": True,
    "vitest.config.ts": False,
    "examples/a.test.js": False,
    "test/node_modules/a/test.js": False,
}


@pytest.mark.parametrize(("path", "is_given"), GIVEN.items())
def test_runners_are_given_tests_and_not_what_tests_use(path, is_given):
    assert is_run(path) is is_given


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_agents_run_the_same_files():
    code = f"""
        import {{ isRun }} from '{PROGRAMS_HERE}/visible_tests.mjs';
        console.log(JSON.stringify(JSON.parse(process.argv[1]).map(isRun)));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code, json.dumps([*GIVEN])], capture_output=True, text=True, check=True, timeout=60
    )
    assert dict(zip(GIVEN, json.loads(done.stdout), strict=True)) == GIVEN


def test_test_files_of_trees_over_each_other_are_found_once(tmp_path):
    for path in ("one/test/a.js", "one/node_modules/x/test.js", "two/test/a.js", "two/src/b.test.js"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    assert files_to_run((tmp_path / "one", tmp_path / "two")) == ["src/b.test.js", "test/a.js"]


def test_solutions_may_add_files_beside_source(tmp_path):
    for path in ("index.js", "lib/deep/a.ts", "lib/b.js", "test/a.js", "docs/c.js"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    assert source_patterns(tmp_path) == ("lib/*.js", "lib/*.ts")
