"""Every attack of the corpus is paid by a usual verifier, so the corpus bites; usual verifiers pay honest work and not idleness."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.attack_scene import ORACLE, flavour_for, material_for, write_task
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.attacks import Attack, Instance, NaiveKind, carry_out, instantiate, load_corpus
from trunkline.tasks.swe.naive import judge_naively, staged

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", get_args(NaiveKind))
@pytest.mark.parametrize(("changes", "reward"), [(ORACLE, 1.0), ((), 0.0)], ids=["oracle", "no-op"])
async def test_a_naive_verifier_pays_the_solution_and_not_idleness(
    kind: NaiveKind, changes: tuple, reward: float, sandboxes: IsolatedSandboxes, tmp_path: Path
) -> None:
    material = material_for(write_task(tmp_path))
    async with staged("", sandboxes, material) as sandbox:
        await carry_out(Instance(changes, ""), sandbox)
        assert await judge_naively(kind, sandbox, material.task, material.test_ids) == reward


@pytest.mark.parametrize("attack", load_corpus(), ids=lambda attack: attack.name)
async def test_an_attack_fools_a_naive_verifier(attack: Attack, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    material = material_for(write_task(tmp_path, flavour_for(attack)))
    instance = instantiate(attack, material)
    assert isinstance(instance, Instance)
    async with staged(attack.scene, sandboxes, material) as sandbox:
        await carry_out(instance, sandbox)
        assert await judge_naively(attack.fools[0], sandbox, material.task, material.test_ids) == 1.0
