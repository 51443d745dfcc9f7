"""A family of tiny tasks made of one function: what is held out is not practised, and every task can be loaded and is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.family import Sizes, Subject, find_faults, write_tasks
from trunkline.tasks.factory.single_function import cut_function
from trunkline.tasks.swe.judging import Judges
from trunkline.tasks.swe.practice import load_practice
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.tasks.swe.verifier import CodeVerifier
from trunkline.types import FileChange

pytestmark = pytest.mark.anyio
MODULE = '''\
def spread(numbers, least=0):
    """How far numbers lie apart.

    >>> spread([4, 1, 9])
    8
    >>> spread([4, 4], 2)
    2
    """
    low = min(numbers)
    high = max(numbers)
    return max(high - low, least)
'''
DRAW = "([rng.randrange(50) for _ in range(rng.randint(1, 5))], rng.randrange(30))"


def subject(module: str = MODULE) -> Subject:
    return Subject(cut_function(module, "spread"), DRAW, "{}", "made up")


@pytest.mark.slow
async def test_a_family_holds_out_faults_that_are_not_practised_and_its_tasks_are_judged(
    sandboxes: IsolatedSandboxes, tmp_path: Path
) -> None:
    sizes = Sizes(train=2, heldout=1)
    faults = await find_faults(subject(), sandboxes, sizes=sizes)
    assert faults.heldout and not set(faults.train) & set(faults.heldout)
    write_tasks(subject(), faults, {"train": tmp_path / "train", "heldout": tmp_path / "heldout"}, sizes=sizes)
    options = {"paths": [tmp_path / "train"], "heldout_paths": [tmp_path / "heldout"]}
    taskset = SweTaskset.from_options(options)
    assert [len(taskset.splits[split]) for split in ("train", "heldout")] == [2, 1]
    (heldout,) = (taskset.tasks[task_id] for task_id in taskset.splits["heldout"])
    assert load_practice(heldout.solution) is None
    shown = {load_practice(taskset.tasks[task_id].solution) for task_id in taskset.splits["train"]}
    assert all((heldout.workspace / "spread.py").read_text() != one.with_fault(fault) for one in shown if one for fault in one.faults)
    verifier = await Judges.over(sandboxes).of(heldout)
    assert isinstance(verifier, CodeVerifier)
    right = FileChange("spread.py", "file", 0o644, (heldout.solution / "files" / "spread.py").read_bytes())
    assert [(await verifier.judge(changes)).value for changes in ((), (right,))] == [0.0, 1.0]


async def test_a_function_with_too_few_faults_is_rejected(sandboxes: IsolatedSandboxes) -> None:
    with pytest.raises(Rejection, match="no test turns"):
        await find_faults(subject("def spread(numbers, least=0):\n    return least\n"), sandboxes, sizes=Sizes())


async def test_a_fault_that_drawn_calls_seldom_notice_is_left_out(sandboxes: IsolatedSandboxes) -> None:
    rare = MODULE.replace("    low = ", "    if numbers == [7, 7]:\n        return 100\n    low = ")
    shown_by = rare.replace(">>> spread([4, 4], 2)", ">>> spread([7, 7])\n    100\n    >>> spread([4, 4], 2)")
    faults = await find_faults(subject(shown_by), sandboxes, sizes=Sizes())
    assert any("spread([7, 7])" in test.call for test in faults.tests)
    lines = {fault.right.strip() for fault in (*faults.train, *faults.heldout)}
    assert "return max(high - low, least)" in lines
    assert "return 100" not in lines


async def test_a_function_that_never_ends_is_rejected(sandboxes: IsolatedSandboxes) -> None:
    with pytest.raises(Rejection, match="out of time"):
        await find_faults(subject("def spread(numbers, least=0):\n    while True: pass\n"), sandboxes, sizes=Sizes())
