"""Held-out calls in sealed sandboxes: faults of a task's own heldout.py are said, and differences have words without answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.software_task import BUG, CURE, rewrite, write_task
from trunkline.errors import TaskError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.heldout import compare_work, heldout_mismatches, observe_solution
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(sandboxes: IsolatedSandboxes) -> VerdictPlace:
    return VerdictPlace(sandboxes, verdict_environment())


def lay(folder: Path, workspace: Path, *changes: FileChange) -> Path:
    lay_tree(folder, pristine=workspace, changes=changes)
    return folder


async def test_differences_are_told_by_their_kind(tmp_path: Path, place: VerdictPlace) -> None:
    heldout = """
        def calls(rng):
            return [[[number], 0] for number in range(8)]

        def observe(call):
            from shop import total
            return total(*call)
        """
    task = write_task(tmp_path / "task", **{"tests/heldout.py": heldout})
    body = "return [lambda: 1, lambda: 1.0, lambda: {}['x'], lambda: object(), lambda: sum(prices), lambda: sum(prices)][sum(prices) % 6]()"
    work = lay(tmp_path / "work", task.workspace, rewrite(BUG, body))
    solution = lay(tmp_path / "solution", task.workspace, rewrite(BUG, CURE))
    words = await heldout_mismatches(place, task, oracle_tree=solution, work_tree=work, seed=1)
    kinds = {word.partition(": ")[2] for word in words}
    assert kinds == {"another value", "KeyError instead of a value", "no plain data instead of a value"}
    assert await heldout_mismatches(place, task, oracle_tree=solution, work_tree=solution, seed=1) == []


@pytest.mark.parametrize(
    "heldout, complaint",
    [
        ("def calls(rng): return []\ndef observe(call): return 0\n", "gave no call"),
        ("def calls(rng): return [object()]\ndef observe(call): return 0\n", "NotPlain: not plain data: object"),
        ("def calls(rng): return range(9999)\ndef observe(call): return 0\n", "more than 2000 calls"),
        ("def calls(rng): return [1]\ndef observe(call): return object()\n", "it returned not plain data: object"),
        ("def calls(rng): return [1]\ndef observe(call): import shopp\n", "raises on all 1 calls, first builtins.ModuleNotFoundError"),
        ("import shopp\n", "ModuleNotFoundError: No module named 'shopp'"),
    ],
)
async def test_a_module_that_says_nothing_firm_is_refused(tmp_path: Path, place: VerdictPlace, heldout: str, complaint: str) -> None:
    task = write_task(tmp_path / "task", **{"tests/heldout.py": heldout})
    with pytest.raises(TaskError, match=complaint):
        await observe_solution(place, task, tree=lay(tmp_path / "tree", task.workspace), seed=1)


async def test_the_clock_of_the_second_half_is_a_year_or_more_ahead(tmp_path: Path, place: VerdictPlace) -> None:
    heldout = """
        import datetime

        def calls(rng):
            return range(10)

        def observe(call):
            return datetime.date.today().toordinal()
        """
    task = write_task(tmp_path / "task", **{"tests/heldout.py": heldout})
    tree = lay(tmp_path / "tree", task.workspace)
    observed = await observe_solution(place, task, tree=tree, seed=1)
    days = [int(outcome.partition("0x")[2].partition('"')[0], 16) for outcome in observed.outcomes]
    assert set(days[:5]) <= {days[0], days[0] + 1}
    assert all(364 <= day - days[0] <= 1097 for day in days[5:])
    assert await compare_work(place, task, observed, tree=tree) == []
