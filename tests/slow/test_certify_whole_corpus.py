"""Certifying by the whole corpus of attacks: a tiny task, and every task that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.software_task import write_task
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.requirement import require
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.swe.attacks import load_corpus
from trunkline.tasks.swe.certify import certify_task
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import load_code_task
from trunkline.tasks.swe.taskset import SweTaskset

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
SHIPPED = sorted(path.parent for path in (Path(__file__).parents[2] / "tasks" / "software").glob("*/task.toml"))


async def test_a_run_takes_a_task_that_the_whole_corpus_was_tried_on(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task, store = write_task(tmp_path / "task"), CertificateStore(tmp_path / "store")
    certificate = await certify_task(task, VerdictPlace(sandboxes, verdict_environment()), sandboxes=sandboxes)
    store.put(certificate)
    taskset = SweTaskset.from_options({"paths": [tmp_path / "task"], "heldout_share": 0})
    assert require(taskset, store) == {"test/coupon": certificate.key}
    tried = {check.conduct for check in certificate.checks} | set(certificate.not_instantiated)
    assert tried == {"oracle", "no-op"} | {attack.name for attack in load_corpus()}


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
async def test_a_shipped_task_is_certified(sandboxes: IsolatedSandboxes, folder: Path) -> None:
    place = VerdictPlace(sandboxes, verdict_environment())
    certificate = await certify_task(load_code_task(folder), place, sandboxes=sandboxes)
    assert certificate.passed and not certificate.quarantined
