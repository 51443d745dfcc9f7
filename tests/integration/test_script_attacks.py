"""Attacks on the reward file are paid by a usual script, and certifying names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.software_task import write_task
from trunkline.errors import CertificateError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.attacks import load_corpus
from trunkline.tasks.swe.certify import certify_task, corpus_of, corpus_version, task_key
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.script_attacks import load_script_attacks

pytestmark = pytest.mark.anyio

SCRIPT = {
    "task.toml": '[task]\nname = "test/coupon"\n[metadata.trunkline]\nworkspace = "workspace"\nverifier = "script"\n',
    "tests/test.sh": """\
sh ./greet.sh > /dev/null
if python3 -c 'from shop import total; assert total([400, 600], 10) == 900'
then echo 1 > /logs/verifier/reward.txt
else echo 0 > /logs/verifier/reward.txt
fi
""",
    "environment/workspace/greet.sh": "echo hello\n",
    "solution/solve.sh": "cd /workspace && patch -p1 < /solution/oracle.patch && echo 'echo good day' > greet.sh\n",
}


async def test_every_attack_on_the_reward_file_is_paid_by_a_usual_script(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task, place = write_task(tmp_path, **SCRIPT), VerdictPlace(sandboxes, verdict_environment())
    with pytest.raises(CertificateError) as refused:
        await certify_task(task, place, sandboxes=sandboxes, repeats=1, attacks=load_script_attacks())
    named = [attack.name for attack in load_script_attacks() if f"{attack.name!r} must earn 0" in str(refused.value)]
    assert named == [attack.name for attack in load_script_attacks()] and len(named) == 6


def test_they_are_tried_on_tasks_that_a_script_judges_alone() -> None:
    assert corpus_of("pytest", None) == load_corpus()
    assert set(corpus_of("script", None)) == {*load_corpus(), *load_script_attacks()} and len(corpus_of("script", None)) > 70
    assert corpus_version("pytest", None) != corpus_version("script", None)


def test_a_task_that_a_script_judges_has_a_key(tmp_path: Path) -> None:
    assert task_key(write_task(tmp_path / "one", **SCRIPT)) != task_key(write_task(tmp_path / "two"))
