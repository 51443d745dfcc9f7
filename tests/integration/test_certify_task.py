"""Certifying a task for real: what is certified, what is refused and by what words, and what is left open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.software_task import write_task
from trunkline.errors import CertificateError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.certificate import Certificate
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.swe.attacks import Attack, load_corpus
from trunkline.tasks.swe.certify import calibration_of, certify_task, task_key, task_subject
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import CodeTask

pytestmark = pytest.mark.anyio

A_FEW = ("always-equal", "conftest-report-hook", "hard-coded", "git-history")
UNSTABLE = """\
import os
import pytest


@pytest.mark.parametrize("number", [os.urandom(8).hex()])
def test_other_each_time(number):
    assert number
"""
NO_ASSERTION = """\
from shop import total


def test_percent():
    if total([400, 600], 10) != 900:
        raise RuntimeError("not the percentage")
"""
TESTS = """\
cp -r /tests/tree/. /workspace
if python3 -m pytest -q >&2; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
"""
SCRIPT = '[task]\nname = "test/coupon"\n[metadata.trunkline]\nworkspace = "workspace"\nverifier = "script"\n'


@dataclass
class Steps:
    """What was told of the steps of a trial."""

    told: list[tuple[str, int, int]] = field(default_factory=list)

    def __call__(self, *step: Any) -> None:
        self.told.append(step)


def attacks(*names: str) -> tuple[Attack, ...]:
    found = tuple(attack for attack in load_corpus() if attack.name in names)
    assert len(found) == len(names)
    return found


@pytest.fixture(scope="module")
async def place(sandboxes: IsolatedSandboxes) -> AsyncIterator[VerdictPlace]:
    yield VerdictPlace(sandboxes, verdict_environment())


@pytest.fixture(scope="module")
async def certified(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Of the sound task, by a part of the corpus; tests/slow takes all of it."""
    task = write_task(tmp_path_factory.mktemp("task"))
    return await certify_task(task, place, sandboxes=sandboxes, attacks=attacks(*A_FEW))


async def refusal_of(
    task: CodeTask, place: VerdictPlace, sandboxes: IsolatedSandboxes, names: Sequence[str] = (), *, repeats: int = 1
) -> str:
    with pytest.raises(CertificateError) as refused:
        await certify_task(task, place, sandboxes=sandboxes, repeats=repeats, attacks=attacks(*names))
    return str(refused.value)


async def test_a_sound_task_is_certified(certified: Certificate) -> None:
    earned = {check.conduct: (check.earns, check.num_attempts) for check in certified.checks}
    assert earned == {"oracle": (1, 5), "no-op": (0, 2)} | dict.fromkeys(A_FEW, (0, 1))
    assert certified.passed and certified.num_tasks_by_kind == {"bug": 1} and not certified.quarantined
    assert all(check.evidence for check in certified.checks)


async def test_a_certificate_tells_how_seldom_verdicts_flake(certified: Certificate) -> None:
    (oracle,) = (check for check in certified.checks if check.conduct == "oracle")
    assert (oracle.num_disagreeing, oracle.residual_low) == (0, 0) and 0.51 < oracle.residual_high < 0.53


async def test_a_certificate_holds_what_verdicts_need(certified: Certificate) -> None:
    calibration = calibration_of(certified)
    assert calibration is not None and calibration.probes
    assert calibration.fail_to_pass == tuple(f"tests/test_coupon.py::test_percent[{one}]" for one in ("10-900", "25-750"))


async def test_a_certificate_is_kept_and_says_what_it_leaves_open(certified: Certificate, tmp_path: Path) -> None:
    store, task = CertificateStore(tmp_path / "store"), write_task(tmp_path / "task")
    store.put(certified)
    assert certified.key == task_key(task, attacks(*A_FEW))
    assert store.get(task_subject(task)) is None, "a part of the corpus is no certificate for a run"
    left_open = " ".join(certified.not_excluded)
    assert "attacks that are not in the corpus" in left_open and "hard-coded" not in left_open


@pytest.fixture(scope="module")
def steps() -> Steps:
    """Those of the certificate below."""
    return Steps()


@pytest.fixture(scope="module")
async def poor(place: VerdictPlace, sandboxes: IsolatedSandboxes, steps: Steps, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Of a task without held-out inputs, one of whose hidden tests is another each time."""
    changed = {"tests/heldout.py": "", "tests/tree/tests/test_unstable.py": UNSTABLE}
    task, chosen = write_task(tmp_path_factory.mktemp("poor"), **changed), attacks("hard-coded", "always-equal")
    return await certify_task(task, place, sandboxes=sandboxes, repeats=1, attacks=chosen, on_step=steps)


async def test_a_task_without_held_out_inputs_leaves_hard_coding_open(poor: Certificate) -> None:
    assert any("hard-coded answers" in words for words in poor.not_excluded)
    assert "no held-out inputs" in poor.not_instantiated["hard-coded"]


async def test_who_waits_is_told_every_step(poor: Certificate, steps: Steps) -> None:
    told = [step for step in steps.told if not step[0].startswith("calibration")]
    assert told == [("oracle, 1 of 1", 0, 5), ("no-op, 1 of 2", 1, 5), ("no-op, 2 of 2", 2, 5), ("always-equal", 3, 4)]


async def test_a_solution_that_fails_is_named(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task = write_task(tmp_path, **{"solution/solve.sh": "echo no such patch >&2; exit 3\n"})
    assert "solve.sh ended with status 3" in await refusal_of(task, place, sandboxes)


async def test_a_solution_that_solves_nothing_is_refused(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task = write_task(tmp_path, **{"solution/solve.sh": "echo '# solved' >> shop/__init__.py\n"})
    assert "nothing tells solved from unsolved" in await refusal_of(task, place, sandboxes)


async def test_a_task_without_a_test_that_turns_is_refused(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task = write_task(tmp_path, **{"tests/tree/tests/test_coupon.py": "def test_nothing():\n    assert 1 + 1 == 2\n"})
    assert "no test fails on the workspace and passes with the solution" in await refusal_of(task, place, sandboxes)


@pytest.mark.slow  # test_swe_sheet_readers certifies another one
async def test_a_task_whose_tests_can_be_guessed_is_certified_as_that(
    place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path
) -> None:
    task = write_task(tmp_path, **{"tests/heldout.py": "", "tests/tree/tests/test_coupon.py": NO_ASSERTION})
    certificate = await certify_task(task, place, sandboxes=sandboxes, repeats=1, attacks=())
    assert certificate.guessable
    assert any(words.startswith("a forger who guesses what its tests expect") for words in certificate.not_excluded)


async def test_an_unstable_hidden_test_is_quarantined_by_name(poor: Certificate) -> None:
    assert poor.quarantined and all("test_unstable.py::test_other_each_time[" in name for name in poor.quarantined)
    assert any("quarantined" in words for words in poor.not_excluded)


async def test_a_task_that_changes_meanwhile_is_refused(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task = write_task(tmp_path, **{"task.toml": SCRIPT, "tests/test.sh": TESTS})

    def edit(words: str, done: int, total: int) -> None:
        if words.startswith("no-op"):
            (tmp_path / "instruction.md").write_text(f"Another one. {words}\n")

    with pytest.raises(CertificateError, match="were changed while it was being certified"):
        await certify_task(task, place, sandboxes=sandboxes, repeats=1, attacks=(), on_step=edit)


async def test_a_script_that_pays_for_nothing_is_refused(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    script = {"task.toml": SCRIPT, "tests/test.sh": "echo 1 > /logs/verifier/reward.txt\n"}
    refusal = await refusal_of(write_task(tmp_path, **script), place, sandboxes)
    assert "'no-op' must earn 0, 2 of 2 verdicts: 1" in refusal and "'oracle'" not in refusal


async def test_a_script_that_changes_its_mind_is_refused(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    reward = "echo 0.$(od -An -N4 -tu4 /dev/urandom | tr -d ' ') > /logs/verifier/reward.txt\n"
    task = write_task(tmp_path, **{"task.toml": SCRIPT, "tests/test.sh": reward})
    refusal = await refusal_of(task, place, sandboxes, repeats=5)
    assert "'oracle' must earn 1, 5 of 5 verdicts" in refusal and "'no-op' must earn 0, 2 of 2 verdicts" in refusal


async def test_a_script_that_leaves_no_reward_is_refused(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    script = {"task.toml": SCRIPT, "tests/test.sh": f"{TESTS}grep -x 1 /logs/verifier/reward.txt || rm /logs/verifier/reward.txt\n"}
    assert "'no-op' must earn 0, 2 of 2 verdicts: no verdict, " in await refusal_of(write_task(tmp_path, **script), place, sandboxes)


async def test_attacks_that_a_script_pays_for_are_named(place: VerdictPlace, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task = write_task(tmp_path, **{"task.toml": SCRIPT, "tests/test.sh": TESTS})
    refusal = await refusal_of(task, place, sandboxes, ["source-exit", "conftest-exit"])
    assert "'source-exit' must earn 0, 1 of 1 verdicts: 1" in refusal and "conftest-exit" not in refusal
    assert refusal.endswith('verifier = "pytest" in [metadata.trunkline] of task.toml')


async def test_task_of_a_language_without_attacks_is_refused(place, sandboxes, tmp_path):
    task = write_task(tmp_path, **{"task.toml": SCRIPT, "environment/javascript.toml": "packages = []\n"})
    assert "our attacks are Python's" in await refusal_of(task, place, sandboxes)
