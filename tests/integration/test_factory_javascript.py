"""JavaScript projects in the factory: packages of a registry on this host, installed and run in real sandboxes by the real npm and Node."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.npm_scene import DATE, Registry, draft_of, lay, open_registry
from trunkline.errors import TaskError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.environments.javascript.environment import JavaScriptEnvironment, environment_of
from trunkline.tasks.environments.javascript.node import find_node
from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.draft import Tested as Outcomes
from trunkline.tasks.factory.javascript.judge_files import judged
from trunkline.tasks.factory.javascript.language import JavaScriptLanguage
from trunkline.tasks.factory.language import Results
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.script_verifier import ScriptVerifier
from trunkline.types import FileChange, Work

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm")]
NODE_TEST = {"name": "sums", "version": "1.0.0", "type": "module", "scripts": {"test": "node --test"}}
WRONG, RIGHT = "export const add = (a, b) => a - b;\n", "export const add = (a, b) => a + b;\n"
TESTS = """
    import { describe, it } from 'node:test';
    import assert from 'node:assert';
    import { add } from '../src/add.js';
    describe('add', () => {
      it('adds', () => assert.equal(add(2, 3), 5));
      it('keeps zero', () => assert.equal(add(2, 0), 2));
    });
"""
LOCKED = """
import { spawn } from 'node:child_process';
import fs from 'node:fs';
const again = "for (;;) { try { require('fs').writeFileSync('/logs/verifier/reward.txt', '1') } catch {} }";
spawn(process.execPath, ['-e', again], { detached: true, stdio: 'ignore' }).unref();
fs.writeFileSync('/logs/verifier/reward.txt', '1');
fs.chmodSync('/logs/verifier/reward.txt', 0o444);
fs.chmodSync('/logs/verifier', 0o555);
"""
ADDS, KEEPS = "test/add.test.js > add > adds", "test/add.test.js > add > keeps zero"
WITH_PACKAGE = {**NODE_TEST, "dependencies": {"answer": "^1.0.0"}}
ASKS = """
    import test from 'node:test';
    import fs from 'node:fs';
    import assert from 'node:assert';
    import net from 'node:net';
    import answer from 'answer';
    test(`the answer is ${answer}`, () => {});
    test('packages cannot be changed', () => assert.throws(() => fs.writeFileSync('/node_modules/answer/index.js', '')));
    test('there is no network', (t, done) => {
      net.connect(PORT, '127.0.0.1').on('error', () => done()).on('connect', () => done(new Error('connected')));
    });
"""


@pytest.fixture
async def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Registry]:
    """Knows `answer`: 1.0.0 of 2022, 1.1.0 of June 2023, 1.2.0 of 2026."""
    async with open_registry() as opened:
        for version, date in (("1.0.0", "2022-01-01"), ("1.1.0", "2023-06-01"), ("1.2.0", "2026-01-01")):
            text = f"require('fs'); module.exports = '{version}';\n"
            opened.publish("answer", version, date, {"index.js": text}, scripts={"install": "echo ran > installed.txt"})
        monkeypatch.setenv("npm_config_registry", opened.url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
        monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
        yield opened


@pytest.fixture
def javascript(sandboxes: IsolatedSandboxes) -> JavaScriptLanguage:
    return JavaScriptLanguage(sandboxes)


def asking(folder: Path, registry: Registry, manifest: dict[str, Any] = WITH_PACKAGE) -> Path:
    """A project whose test says what the package answers."""
    return lay(folder, manifest, {"test/answer.test.js": ASKS.replace("PORT", registry.url.rpartition(":")[2])})


async def ran(javascript: JavaScriptLanguage, tree: Path, recipe: JavaScriptRecipe) -> Results:
    """The project's tests under a recipe."""
    return await javascript.run(await javascript.build(recipe, tree), (tree,), (), timeout_s=60)


async def test_tests_of_node_run_over_trees_that_lie_over_each_other(javascript: JavaScriptLanguage, tmp_path: Path) -> None:
    before = lay(tmp_path / "before", NODE_TEST, {"src/add.js": WRONG, "test/add.test.js": TESTS})
    after = lay(tmp_path / "after", NODE_TEST, {"src/add.js": RIGHT})
    (recipe,) = javascript.recipes(before, DATE)
    environment = await javascript.build(recipe, before)

    first = await javascript.run(environment, (before,), ["test/add.test.js"], timeout_s=60)
    second = await javascript.run(environment, (before, after), [], timeout_s=60)

    assert (first.outcomes, first.complaint) == ({ADDS: "failed", KEEPS: "passed"}, "")
    assert second.passed == {ADDS, KEEPS}


async def test_a_file_that_cannot_be_loaded_is_a_fault_and_others_run(javascript: JavaScriptLanguage, tmp_path: Path) -> None:
    files = {"src/add.js": RIGHT, "test/add.test.js": TESTS, "test/b.test.js": "import './missing.js';\n"}
    tree = lay(tmp_path / "tree", NODE_TEST, files)

    results = await ran(javascript, tree, JavaScriptRecipe())

    assert results.passed == {ADDS, KEEPS}
    assert "Cannot find module '/workspace/test/missing.js'" in results.faults["test/b.test.js"]


async def test_a_file_that_runs_its_own_tests_is_one_test(javascript: JavaScriptLanguage, tmp_path: Path) -> None:
    text = "import assert from 'node:assert';\nimport { add } from '../src/add.js';\nassert.equal(add(2, 3), 5);\n"
    manifest = {**NODE_TEST, "scripts": {"test": "node test/index.js"}}
    tree = lay(tmp_path / "tree", manifest, {"src/add.js": WRONG, "test/index.js": text})
    solved = lay(tmp_path / "solved", manifest, {"src/add.js": RIGHT})
    (recipe,) = javascript.recipes(tree, DATE)
    environment = await javascript.build(recipe, tree)

    ended = [(await javascript.run(environment, trees, (), timeout_s=60)).outcomes for trees in ((tree,), (tree, solved))]

    assert ended == [{"test/index.js > (the file)": "failed"}, {"test/index.js > (the file)": "passed"}]


async def test_what_takes_too_long_says_nothing(javascript: JavaScriptLanguage, tmp_path: Path) -> None:
    tree = lay(tmp_path / "tree", NODE_TEST, {"test/a.test.js": "setInterval(() => {}, 1000);\n"})
    environment = await javascript.build(JavaScriptRecipe(), tree)

    results = await javascript.run(environment, (tree,), (), timeout_s=3)

    assert results.complaint == "out of time: more than 3 s"


@pytest.mark.slow
async def test_packages_are_those_of_the_time_and_cannot_be_changed(
    javascript: JavaScriptLanguage, registry: Registry, tmp_path: Path
) -> None:
    tree = asking(tmp_path / "tree", registry)

    answers = [(await ran(javascript, tree, recipe)).passed for recipe in javascript.recipes(tree, DATE)]

    assert [name[-5:] for names in answers for name in names if "the answer is" in name] == ["1.0.0", "1.1.0", "1.2.0"]
    assert all(len(names) == 3 for names in answers), "nothing is written to packages, and there is no network"


async def test_a_committed_lock_decides(javascript: JavaScriptLanguage, registry: Registry, tmp_path: Path) -> None:
    tree = asking(tmp_path / "tree", registry)
    other = await javascript.build(JavaScriptRecipe(cutoff=dt.date(2023, 7, 1)), tree)
    (tree / "package-lock.json").write_text(other.lock)

    recipe = javascript.recipes(tree, DATE)[0]

    assert recipe.words == "npm packages of the committed lock; node"
    assert "test/answer.test.js > the answer is 1.1.0" in (await ran(javascript, tree, recipe)).passed


async def test_the_same_environment_is_made_once(javascript: JavaScriptLanguage, registry: Registry, tmp_path: Path) -> None:
    tree = asking(tmp_path / "tree", registry)

    made = [(await javascript.build(JavaScriptRecipe(), tree)).packages for _ in range(2)]

    assert made[0] == made[1]
    assert registry.asked == ["answer-1.2.0.tgz"]


async def test_install_scripts_run_only_if_the_recipe_says_so(javascript: JavaScriptLanguage, registry: Registry, tmp_path: Path) -> None:
    tree = asking(tmp_path / "tree", registry)

    plain = await javascript.build(JavaScriptRecipe(), tree)
    scripted = await javascript.build(JavaScriptRecipe(scripts=True), tree)

    assert plain.packages is not None and scripted.packages is not None
    assert not (plain.packages / "answer/installed.txt").exists()
    assert (scripted.packages / "answer/installed.txt").read_text() == "ran\n"


async def test_an_archive_that_is_not_what_was_locked_is_refused(
    javascript: JavaScriptLanguage, registry: Registry, tmp_path: Path
) -> None:
    tree = asking(tmp_path / "tree", registry)
    lock = (await javascript.build(JavaScriptRecipe(), tree)).lock
    registry.publish("answer", "1.2.0", "2026-01-01", {"index.js": "module.exports = 'forged';\n"})
    shutil.rmtree(tmp_path / "home")
    (tree / "package-lock.json").write_text(lock)

    with pytest.raises(Rejection, match=r"packages cannot be installed.*it is not what was locked"):
        await javascript.build(JavaScriptRecipe(lock="committed"), tree)


async def test_versions_that_were_not_there_yet_are_a_rejection(javascript: JavaScriptLanguage, registry: Registry, tmp_path: Path) -> None:
    tree = asking(tmp_path / "tree", registry)

    with pytest.raises(Rejection, match=r"packages cannot be chosen"):
        await javascript.build(JavaScriptRecipe(cutoff=dt.date(2020, 1, 1)), tree)


@pytest.mark.parametrize(
    ("manifest", "cause"),
    [
        ({**NODE_TEST, "dependencies": {"answer": "github:x/y"}}, "packages from outside the registry"),
        ({**NODE_TEST, "workspaces": ["packages/*"]}, "several packages in one project"),
        ({**WITH_PACKAGE, "name": "answer"}, "the project is among its own packages"),
    ],
)
async def test_projects_that_cannot_be_built_are_rejected_by_cause(
    javascript: JavaScriptLanguage, registry: Registry, tmp_path: Path, manifest: dict[str, Any], cause: str
) -> None:
    with pytest.raises(Rejection) as caught:
        await javascript.build(JavaScriptRecipe(), asking(tmp_path / "tree", registry, manifest))

    assert (caught.value.stage, caught.value.cause) == ("environment", cause)


def mended(tree: Path, environment: JavaScriptEnvironment) -> Draft:
    """A bug fix of `add`."""
    tests = {"test/add.test.js": TESTS.replace("add(2, 3)", "add(3, 2)")}
    return draft_of(tree, environment, Outcomes((ADDS,), (KEEPS,)), source={"src/add.js": RIGHT}, tests=tests)


async def test_a_written_task_pays_its_solution_and_nothing_else(
    javascript: JavaScriptLanguage, sandboxes: IsolatedSandboxes, tmp_path: Path
) -> None:
    tree = lay(tmp_path / "tree", NODE_TEST, {"src/add.js": WRONG, "test/add.test.js": TESTS})
    draft = mended(tree, await javascript.build(JavaScriptRecipe(), tree))
    folder = write_task(judged(draft), tmp_path / "tasks")
    verifier = ScriptVerifier.load(folder, sandboxes, oracle_paths=frozenset({"src/add.js"}))
    no_tests = FileChange("test/add.test.js", "file", 0o644, b"import test from 'node:test'; test('x', () => {});\n")
    paid_already = FileChange("src/add.js", "file", 0o644, f"{WRONG}{LOCKED}".encode())

    values = [(await verifier.verify(Work("", changes)))[0].value for changes in (draft.solution, (), (no_tests,), (paid_already,))]

    assert values == [1.0, 0.0, 0.0, 0.0]


async def test_a_task_brings_its_environment_to_another_host(
    javascript: JavaScriptLanguage, sandboxes: IsolatedSandboxes, registry: Registry, tmp_path: Path
) -> None:
    tree = asking(tmp_path / "tree", registry)
    made = await javascript.build(JavaScriptRecipe(cutoff=dt.date(2023, 7, 1)), tree)
    for path, text in made.files().items():
        (tmp_path / "task" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "task" / path).write_text(text)
    shutil.rmtree(tmp_path / "home")

    found = await environment_of(tmp_path / "task", sandboxes)

    assert found == replace(made, allow=())
    assert found is not None and found.packages is not None
    assert (found.packages / "answer/index.js").read_text().endswith("'1.1.0';\n")


async def test_a_task_for_another_node_is_refused_by_name(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment/javascript.toml").write_text('node = "4"\n[recipe]\nrunner = "node"\n')

    with pytest.raises(TaskError, match="Node 4"):
        await environment_of(tmp_path, sandboxes)


def test_a_project_is_spoken_if_its_runner_can_be_read(javascript: JavaScriptLanguage, tmp_path: Path) -> None:
    assert javascript.speaks(lay(tmp_path / "a", NODE_TEST, {}))
    assert not javascript.speaks(lay(tmp_path / "b", {"scripts": {"test": "ava"}}, {}))
    assert not javascript.speaks(tmp_path / "none")


def test_judges_are_written_only_for_what_turns(tmp_path: Path) -> None:
    tree = lay(tmp_path / "tree", NODE_TEST, {"test/add.test.js": TESTS})
    draft = mended(tree, JavaScriptEnvironment(JavaScriptRecipe(), find_node(), None))

    with pytest.raises(TaskError, match="no test turns"):
        judged(replace(draft, tested=Outcomes((), (KEEPS,))))
    told = json.loads(judged(draft).environment.files()["tests/judge.json"])
    assert (told["runner"], told["fail_to_pass"]) == ("node", [ADDS])
