"""Software tasks whose tests are JavaScript's: judged, and worked on, with the packages that they were mined with."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.npm_scene import draft_of, lay, open_registry
from trunkline.agents.prepared import PreparedWorkspaces
from trunkline.agents.workspace_config import WorkspaceConfig
from trunkline.agents.workspace_place import WorkspacePlace
from trunkline.agents.workspace_tools import WorkspaceTools
from trunkline.errors import TaskError
from trunkline.protocols import Assignment, Attempt, Surroundings
from trunkline.run.certifying import certify_all
from trunkline.run.judging_work import WorkSource, verify_work
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.factory.draft import Tested as Outcomes
from trunkline.tasks.factory.javascript.judge_files import judged
from trunkline.tasks.factory.javascript.language import JavaScriptLanguage
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.types import Command, FileChange, Message, Work

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm")]
PROJECT = {
    "name": "sums",
    "version": "1.0.0",
    "type": "module",
    "scripts": {"test": "node --test"},
    "dependencies": {"number-of": "^1.0.0"},
}
WRONG = "import of from 'number-of';\nexport const add = (a, b) => of(a) - of(b);\n"
RIGHT = WRONG.replace("-", "+").replace("number+of", "number-of")
TESTS = """
    import test from 'node:test';
    import assert from 'node:assert';
    import { add } from '../src/add.js';
    test('adds', () => assert.equal(add('2', 3), 5));
    test('keeps zero', () => assert.equal(add('2', 0), 2));
"""
ADDS, KEEPS = "test/add.test.js > adds", "test/add.test.js > keeps zero"
MENDED = (FileChange("src/add.js", "file", 0o644, RIGHT.encode()),)


@dataclass
class Written:
    """A task whose source needs a package."""

    folder: Path
    """Of the task."""
    asked: list[str]
    """Archives that the registry was asked for."""


@pytest.fixture(scope="module")
async def written(sandboxes: IsolatedSandboxes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Written]:
    """Mined on another host: this one has none of its packages, and the registry."""
    folder = tmp_path_factory.mktemp("javascript")
    with pytest.MonkeyPatch.context() as patch:
        async with open_registry() as registry:
            files = {"index.js": "module.exports = Number;\n", "cli.js": "#!/usr/bin/env node\nconsole.log('a number');\n"}
            registry.publish("number-of", "1.0.0", "2022-01-01", files, bin={"say-number": "cli.js"})
            patch.setenv("npm_config_registry", registry.url)
            patch.setenv("npm_config_cache", str(folder / "npm-cache"))
            patch.setenv("TRUNKLINE_HOME", str(folder / "other-home"))
            tree = lay(folder / "tree", PROJECT, {"src/add.js": WRONG, "test/add.test.js": TESTS})
            environment = await JavaScriptLanguage(sandboxes).build(JavaScriptRecipe(), tree)
            tests = {"test/add.test.js": TESTS.replace("('2', 3)", "(3, '2')")}
            draft = draft_of(tree, environment, Outcomes((ADDS,), (KEEPS,)), source={"src/add.js": RIGHT}, tests=tests)
            patch.setenv("TRUNKLINE_HOME", str(folder / "home"))
            registry.asked.clear()
            yield Written(write_task(judged(draft), folder / "tasks"), registry.asked)


@pytest.fixture
def attempt(written: Written, sandboxes: IsolatedSandboxes) -> Attempt:
    taskset = SweTaskset.from_options({"paths": [written.folder], "heldout_share": 0}).using(sandboxes)
    return taskset.open(taskset.task("train", 0))


async def surrounding(attempt: Attempt) -> Surroundings:
    assert attempt.surroundings is not None
    return await attempt.surroundings()


async def test_the_command_judges_a_task_with_packages_which_it_installs_once(written: Written) -> None:
    verdicts = [(await verify_work(written.folder, source)).verdict for source in (WorkSource(is_oracle=True), WorkSource())]

    assert [verdict.value for verdict in verdicts] == [1.0, 0.0], verdicts
    assert written.asked == ["number-of-1.0.0.tgz"]


async def test_attempts_of_a_run_are_judged_alike_and_the_evidence_names_what_did_not_pass(attempt: Attempt) -> None:
    mended, nothing = [(await attempt.verifier.verify(Work("", changes)))[0] for changes in (MENDED, ())]

    assert (mended.value, nothing.value) == (1.0, 0.0)
    assert f"not passed: {ADDS}" in nothing.evidence and "said" not in mended.evidence


async def test_an_attempts_sandbox_has_packages_and_runner_at_hand(attempt: Attempt, sandboxes: IsolatedSandboxes) -> None:
    assert attempt.workspace is not None
    box = await sandboxes.create(await sandboxes.prepare(attempt.workspace), surroundings=await surrounding(attempt))
    tries = "node --test; npx --no-install say-number; echo x > /node_modules/number-of/index.js; ls; eval $TRUNKLINE_TEST_COMMAND"
    try:
        ran = await box.run(Command.shell(tries, timeout_s=60))
    finally:
        await box.destroy()

    said = ran.stdout.decode()
    assert "# fail 1" in said and "a number\npackage.json\nsrc\ntest\n" in said, (said, ran.stderr)
    assert "✖ adds" in said and "✔ keeps zero" in said and ran.status == 1
    assert "Read-only file system" in ran.stderr.decode()


async def test_our_own_loop_runs_the_visible_tests(attempt: Attempt, sandboxes: IsolatedSandboxes) -> None:
    surroundings = await surrounding(attempt)
    given = Assignment((Message("user", "Mend it"),), attempt.tools, "", "", "", workspace=attempt.workspace, surroundings=surroundings)
    prepared = PreparedWorkspaces(sandboxes)
    place = WorkspacePlace(sandboxes, prepared, given)
    config = WorkspaceConfig(tools=("replace", "write", "run_tests", "run_test_file"), edit_by="text")
    tools = WorkspaceTools(config, place, test_command=surroundings.test_command, others=attempt.tools)
    try:
        before = [await tools.call("run_tests", "") for _ in range(2)]
        await tools.call("replace", '{"path": "src/add.js", "old": ") - of", "new": ") + of"}')
        after = await tools.call("run_tests", "")
        await tools.call("write", '{"path": "test/more.test.js", "text": "throw new Error();"}')
        more = [await tools.call("run_tests", ""), await tools.call("run_test_file", '{"path": "test/add.test.js"}')]
    finally:
        if place.made is not None:
            await place.made.destroy()
        await prepared.discard()

    assert before[0] == before[1] and "✖ adds" in before[0] and before[0].endswith("\nfailed")
    assert "ℹ pass 2" in after and after.endswith("\npassed")
    assert [said.rpartition("\n")[2] for said in more] == ["failed", "passed"]


async def test_a_task_of_another_node_is_not_judged_nor_is_one_certified(written: Written, tmp_path: Path) -> None:
    shutil.copytree(written.folder, tmp_path / "task")
    record = tmp_path / "task/environment/javascript.toml"
    record.write_text(record.read_text().replace('node = "', 'node = "4'))

    with pytest.raises(TaskError, match=r"was made with Node 4\d+, here is"):
        await verify_work(tmp_path / "task", WorkSource())
    (outcome,) = await certify_all(
        [tmp_path / "task"], jobs=1, repeats=1, force=False, on_step=lambda *words: None, on_end=lambda *words: None
    )
    assert "our attacks are Python's" in outcome.refusal
