"""A task that asks for tests is put to the proof as any other: its own tests earn 1, nothing and every attack on it 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inversion_task import ORACLE, write_inversion
from trunkline.errors import CertificateError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.certificate import Certificate
from trunkline.tasks.swe.certify import certify_task
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.inversion.certifying import load_inversion_attacks
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import CodeTask

pytestmark = pytest.mark.anyio


async def certify(task: CodeTask, sandboxes: IsolatedSandboxes) -> Certificate:
    return await certify_task(task, VerdictPlace(sandboxes, verdict_environment()), sandboxes=sandboxes, repeats=1)


async def test_a_sound_task_is_certified_and_no_attack_is_paid(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    found = await certify(write_inversion(tmp_path), sandboxes)
    assert found.passed and not found.not_instantiated and found.calibration is None
    assert len(found.checks) == 2 + len(load_inversion_attacks()) >= 30
    assert any("in 128 times" in words for words in found.not_excluded)


@pytest.mark.slow
async def test_a_solution_that_does_not_notice_the_wrong_versions_is_refused(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    weak = "from shop import total\n\n\ndef test_percent():\n    assert total([400, 600], 10) != 990\n"
    with pytest.raises(CertificateError, match="'oracle' must earn 1, .* only 0 of 2 wrong versions of the change are noticed"):
        await certify(write_inversion(tmp_path, **{"solution/test_coupon.py": weak}), sandboxes)


@pytest.mark.parametrize(
    "script, tests, complaint",
    [
        ("touch /workspace/shop/other.py\n", ORACLE, "has to write tests and nothing else; no test_"),
        ("cp /solution/test_coupon.py tests/ && echo >> shop/__init__.py", ORACLE, "and nothing else; it changes shop/__init__.py"),
        (None, f"import os\n{ORACLE}", "what the solution's tests use is refused: tests/test_coupon.py:1 imports os"),
    ],
)
async def test_a_solution_that_is_no_test_is_refused(
    sandboxes: IsolatedSandboxes, tmp_path: Path, script: str | None, tests: str, complaint: str
) -> None:
    files = {"solution/test_coupon.py": tests} | ({"solution/solve.sh": script} if script else {})
    with pytest.raises(CertificateError, match=complaint):
        await certify(write_inversion(tmp_path, **files), sandboxes)
