"""The verdict of the workspace's own tests: paid for right work, for nothing wrong that is honest, and for every exit with status 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.software_task import BUG, CURE, SHOP, write_task
from trunkline.errors import VerifierError
from trunkline.protocols import Verifier
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.demonstrations import EXPLOIT
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.types import FileChange, Work

pytestmark = pytest.mark.anyio
TASK = '[task]\nname = "test/coupon"\n[metadata.trunkline]\nworkspace = "workspace"\ntimeout_s = 8\n'
MENDED = SHOP.replace(BUG, CURE)


@pytest.fixture
async def verifier(tmp_path: Path, sandboxes: IsolatedSandboxes) -> Verifier:
    write_task(tmp_path / "task", **{"task.toml": TASK})
    taskset = SweTaskset.from_options({"paths": [tmp_path], "heldout_share": 0, "judged_by": "own_tests"}).using(sandboxes)
    return taskset.open(taskset.task("train", 0)).verifier


def wrote(text: str, path: str = "shop/__init__.py") -> Work:
    return Work("done", (FileChange(path, "file", 0o644, text.encode()),))


async def test_right_work_is_paid_and_nothing_is_not(verifier: Verifier) -> None:
    (right,), (nothing,) = await verifier.verify(wrote(MENDED)), await verifier.verify(Work("done"))
    assert (right.value, right.evidence) == (1.0, "own tests ended with status 0")
    assert (nothing.value, nothing.evidence) == (0.0, "own tests ended with status 1")


async def test_it_is_fooled_by_an_exit_and_by_tests_written_over(verifier: Verifier) -> None:
    for work in (wrote(f"{EXPLOIT}\n{SHOP}"), wrote("def test_nothing():\n    pass\n", "tests/test_coupon.py")):
        assert (await verifier.verify(work))[0].value == 1.0


async def test_tests_that_never_end_give_no_verdict(verifier: Verifier) -> None:
    with pytest.raises(VerifierError, match="did not end within 8 s"):
        await verifier.verify(wrote("while True:\n    pass\n"))
