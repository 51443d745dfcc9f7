"""Who judges the attempts of a run: a verifier a task, made once, out of its certificate if there is one; none for a task that changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.software_task import FILES, rewrite, write_task
from trunkline.errors import VerifierError
from trunkline.protocols import SealedSandboxes
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.certificate import NO_OP, ORACLE, Certificate, Check
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.swe.calibration import Calibration
from trunkline.tasks.swe.certify import task_subject
from trunkline.tasks.swe.judging import Judges
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.tasks.swe.verifier import CodeVerifier
from trunkline.types import SealedResult, SealedRun, Work

pytestmark = pytest.mark.anyio
BY_SCRIPT = FILES["task.toml"] + '        verifier = "script"\n'
SCRIPT = """\
    #!/bin/sh
    cp -r /tests/tree/. /workspace
    if python3 -m pytest -q >&2; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
    """


class Counting:
    """Real sealed sandboxes whose runs are counted."""

    def __init__(self, sandboxes: SealedSandboxes) -> None:
        self.sandboxes = sandboxes
        self.num_runs = 0

    async def run_sealed(self, run: SealedRun) -> SealedResult:
        self.num_runs += 1
        return await self.sandboxes.run_sealed(run)


@pytest.fixture
def sealed(sandboxes: IsolatedSandboxes) -> Counting:
    return Counting(sandboxes)


def load(folder: Path, **changed: str) -> SweTaskset:
    write_task(folder / "coupon", **changed)
    return SweTaskset.from_options({"paths": [folder], "heldout_share": 0})


async def test_all_who_ask_at_once_get_one_verifier_that_was_made_once(tmp_path: Path, sealed: Counting) -> None:
    (task,) = load(tmp_path, **{"task.toml": BY_SCRIPT, "tests/test.sh": SCRIPT}).tasks.values()
    judges = Judges.over(sealed)
    verifiers = await asyncio.gather(*(judges.of(task) for _ in range(4)))
    assert all(verifier is verifiers[0] for verifier in verifiers) and sealed.num_runs == 1, "the solution was asked for once"


async def test_a_task_that_is_judged_by_its_script_is_judged_by_its_script(tmp_path: Path, sealed: Counting) -> None:
    taskset = load(tmp_path, **{"task.toml": BY_SCRIPT, "tests/test.sh": SCRIPT}).using(sealed)
    attempt = taskset.open(taskset.task("train", 0))
    cured = rewrite("return sum(prices) - coupon", "return max(0, sum(prices) * (100 - coupon) // 100)")
    values = [(await attempt.verifier.verify(Work("", changes)))[0].value for changes in ((), (cured,))]
    assert values == [0.0, 1.0]


async def test_a_task_whose_files_change_before_the_verdict_is_there_gets_none(tmp_path: Path, sealed: Counting) -> None:
    taskset = load(tmp_path, **{"task.toml": BY_SCRIPT, "tests/test.sh": SCRIPT}).using(sealed)
    attempt = taskset.open(taskset.task("train", 0))
    (tmp_path / "coupon" / "tests" / "test.sh").write_text("echo 1 > /logs/verifier/reward.txt")
    with pytest.raises(VerifierError, match=r"no verdict on test/coupon: .*coupon was changed since"):
        await attempt.verifier.verify(Work(""))


async def test_a_certified_task_is_judged_by_what_its_trial_found_and_not_calibrated_again(
    tmp_path: Path, sealed: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = load(tmp_path / "tasks").tasks.values()
    judges = Judges.over(sealed)
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
    found = Calibration(
        fail_to_pass=("tests/test_coupon.py::test_rounds_down",), pass_to_pass=(), quarantined={}, probes=(), unprobed=(), num_candidates=7
    )
    checks = tuple(Check.count(name, earns, num_attempts=5, num_wrong=0, num_disagreeing=0) for name, earns in ((ORACLE, 1), (NO_OP, 0)))
    subject = task_subject(task)
    certificate = Certificate(
        kind="task",
        subject=subject.name,
        key=subject.key,
        attack_corpus_version="1",
        checks=checks,
        num_tasks_by_kind={"bug": 1},
        not_excluded=(),
        calibration=found.model_dump(mode="json"),
    )
    CertificateStore.default().put(certificate.sealed())
    verifier = await judges.of(task)
    assert isinstance(verifier, CodeVerifier) and verifier.calibration == found and sealed.num_runs == 0
