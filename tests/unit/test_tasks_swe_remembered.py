"""Remembered verdicts: the same work is judged once, other work and failures to judge are not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from trunkline.errors import ConfigError, VerifierError
from trunkline.tasks.swe.remembered import NOTE, VerdictMemory, changes_digest
from trunkline.types import FileChange, Reward, Work

pytestmark = pytest.mark.anyio


class Judge:
    """Pays work that changes a file, and counts; fails as long as it is told to."""

    def __init__(self) -> None:
        self.num_asked = self.num_failures = 0

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        self.num_asked += 1
        await asyncio.sleep(0)
        if self.num_failures:
            self.num_failures -= 1
            raise VerifierError("no verdict")
        return (Reward("outcome", float(bool(work.changes)), "because"),)


def work(content: str, answer: str = "", **changed: int) -> Work:
    return Work(answer, (FileChange("a.py", "file", changed.get("mode", 0o644), content.encode()),))


async def test_the_same_changes_are_judged_once_also_at_the_same_time_and_whatever_was_answered() -> None:
    judge = Judge()
    verifier = VerdictMemory().over(judge, "t/1")
    rewards = await asyncio.gather(*(verifier.verify(work("x", answer)) for answer in ("done", "", "ok")))
    assert judge.num_asked == 1
    assert sorted(reward.evidence for (reward,) in rewards) == [NOTE + "because", NOTE + "because", "because"]


async def test_other_changes_and_the_same_of_another_task_are_judged_anew() -> None:
    judge, memory = Judge(), VerdictMemory()
    for task_id, one in (("t/1", work("x")), ("t/1", work("y")), ("t/1", work("x", mode=0o755)), ("t/2", work("x")), ("t/1", Work(""))):
        await memory.over(judge, task_id).verify(one)
    assert judge.num_asked == 5


async def test_a_failure_to_judge_is_not_remembered() -> None:
    judge = Judge()
    judge.num_failures = 1
    verifier = VerdictMemory().over(judge, "t/1")
    with pytest.raises(VerifierError):
        await verifier.verify(work("x"))
    assert (await verifier.verify(work("x")))[0].value == 1.0


async def test_runs_that_share_a_file_judge_the_same_work_once_and_other_judges_anew(tmp_path: Path) -> None:
    judge = Judge()
    for name in ("key 1", "key 1", "key 2"):
        rewards = await VerdictMemory.open(tmp_path / "kept" / "verdicts.sqlite").over(judge, name).verify(work("x"))
        assert rewards[0].value == 1.0
    assert judge.num_asked == 2


async def test_a_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are notes, and long enough to be seen as no database" * 30)
    with pytest.raises(ConfigError, match=r"nothing can be kept in .*notes.txt: file is not a database"):
        VerdictMemory.open(tmp_path / "notes.txt")


def test_the_order_of_changes_means_nothing() -> None:
    one, other = FileChange("a", "file", 0o644, b"1"), FileChange("b", "deleted")
    assert changes_digest((one, other)) == changes_digest((other, one))
