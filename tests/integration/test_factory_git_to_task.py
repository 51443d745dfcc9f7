"""From a commit of a clone to a task whose lists a verdict bears out."""

from __future__ import annotations

import pytest

from tests.git_project import GitProject
from tests.plain_python import PlainPython
from trunkline.sandbox.isolated import IsolatedSandboxes, SandboxConfig
from trunkline.tasks.factory import draft as drafts
from trunkline.tasks.factory.candidate import Candidate
from trunkline.tasks.factory.git_source import GitSource
from trunkline.tasks.factory.running import find_tests
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.calibration import calibrate
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import load_code_task

SHOP = 'def total(prices):\n    """The sum, never below 0."""\n    return sum(prices)\n'
TEST = "from shop import total\n\ndef test_total():\n    assert total([1, 2]) == 3\n"
MORE = TEST + "\ndef test_returns():\n    assert total([2, -7]) == 0\n    assert total([9, -2]) == 7\n"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_commit_becomes_a_task_whose_lists_hold(anyio_backend, tmp_path):
    project = GitProject(tmp_path / "shop")
    project.commit(
        "Begin", {"shop.py": SHOP, "tests/test_shop.py": TEST, "tests/test_other.py": "def test_holds():\n    assert 2 + 2 == 4\n"}
    )
    project.commit("Fix returns", {"shop.py": SHOP.replace("sum(prices)", "max(0, sum(prices))"), "tests/test_shop.py": MORE})
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        python = PlainPython(sandboxes)
        source = GitSource(project.folder, (python,))
        (candidate,) = [found async for found in source.candidates() if isinstance(found, Candidate)]
        await source.lay(candidate, "before", tmp_path / "before")
        await source.lay(candidate, "after", tmp_path / "after")
        found = await find_tests(python, candidate, tmp_path / "before", tmp_path / "after", timeout_s=30, cap_s=30)
        draft = drafts.Draft(
            name=candidate.candidate_id,
            kind=found.kind,
            candidate=candidate,
            workspace=tmp_path / "before",
            solution=found.change.solution,
            hidden_tests=found.change.hidden_tests,
            test_files=found.test_files,
            tested=found.tested,
            environment=found.environment,
            instruction="`shop.total` is never negative.",
        )
        task = load_code_task(write_task(draft, tmp_path / "tasks"))
        calibration = await calibrate(task, VerdictPlace(sandboxes, verdict_environment()), repeats=2)
    assert calibration.fail_to_pass == task.settings.fail_to_pass == ("tests/test_shop.py::test_returns",)
    assert set(calibration.pass_to_pass) == {"tests/test_shop.py::test_total", "tests/test_other.py::test_holds"}
