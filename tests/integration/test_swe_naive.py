"""Attacks of the corpus are paid by usual verifiers, so the corpus bites; usual verifiers pay honest work and not idleness.

Here one attack of each sort; each attack on each verifier is in tests/slow/test_swe_corpus_matrix.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.attack_scene import ORACLE, flavour_for, material_for, write_task
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.attacks import Attack, Instance, NaiveKind, carry_out, instantiate, load_corpus
from trunkline.tasks.swe.naive import judge_naively, staged

pytestmark = pytest.mark.anyio


def one_of_each_sort() -> list[Attack]:
    """By what it must find, and whom it fools."""
    return list({(attack.scene, frozenset(attack.fools)): attack for attack in load_corpus()}.values())


@pytest.mark.parametrize("kind", get_args(NaiveKind))
@pytest.mark.parametrize(("changes", "reward"), [(ORACLE, 1.0), ((), 0.0)], ids=["oracle", "no-op"])
async def test_a_naive_verifier_pays_the_solution_and_not_idleness(
    kind: NaiveKind, changes: tuple, reward: float, sandboxes: IsolatedSandboxes, tmp_path: Path
) -> None:
    material = material_for(write_task(tmp_path))
    async with staged("", sandboxes, material) as sandbox:
        await carry_out(Instance(changes, ""), sandbox)
        assert await judge_naively(kind, sandbox, material.task, material.test_ids) == reward


@pytest.mark.parametrize("attack", one_of_each_sort(), ids=lambda attack: attack.name)
async def test_an_attack_fools_a_naive_verifier(attack: Attack, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    material = material_for(write_task(tmp_path, flavour_for(attack)))
    instance = instantiate(attack, material)
    assert isinstance(instance, Instance)
    async with staged(attack.scene, sandboxes, material) as sandbox:
        await carry_out(instance, sandbox)
        assert await judge_naively(attack.fools[0], sandbox, material.task, material.test_ids) == 1.0
