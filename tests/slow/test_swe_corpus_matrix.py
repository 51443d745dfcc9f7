"""Which usual verifier pays for which attack is exactly what the corpus says of each."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.attack_scene import flavour_for, material_for, write_task
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.attacks import Attack, Instance, NaiveKind, carry_out, instantiate, load_corpus
from trunkline.tasks.swe.naive import judge_naively, staged

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


@pytest.mark.parametrize("attack", load_corpus(), ids=lambda attack: attack.name)
async def test_an_attack_fools_those_that_it_names_and_no_other(attack: Attack, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    material = material_for(write_task(tmp_path, flavour_for(attack)))
    instance = instantiate(attack, material)
    assert isinstance(instance, Instance)
    fooled = []
    for kind in get_args(NaiveKind):
        async with staged(attack.scene, sandboxes, material) as sandbox:
            await carry_out(instance, sandbox)
            if await judge_naively(kind, sandbox, material.task, material.test_ids):
                fooled.append(kind)
    assert sorted(fooled) == sorted(attack.fools)
