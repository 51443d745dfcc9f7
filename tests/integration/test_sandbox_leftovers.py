"""What is left of isolated sandboxes: nothing, however they and their owner end."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.integration.sandbox_scene import Leftovers, created, killed_owner, live_and_die, marked, new_mark, open_folder, shell, until
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes

pytestmark = pytest.mark.anyio


async def test_nothing_is_left_of_sandboxes_that_end_at_random_moments(sandboxes):
    draw, mark = random.Random(25), new_mark()
    await live_and_die(sandboxes, draw, mark)  # what is opened once and kept
    before = Leftovers.count(sandboxes)
    for _ in range(25):
        await asyncio.wait_for(live_and_die(sandboxes, draw, mark), 60)
    assert await until(lambda: not marked(mark))
    await until(lambda: not Leftovers.count(sandboxes).since(before))
    assert Leftovers.count(sandboxes).since(before) == []


async def test_what_a_killed_owner_left_vanishes_by_itself_and_its_files_with_the_next_opening():
    mark = new_mark()
    with open_folder() as folder:
        cgroups = await killed_owner(folder, mark)
        assert await until(lambda: not marked(mark), within_s=5)
        (base,) = folder.iterdir()
        (left,) = base.iterdir()
        async with IsolatedSandboxes.open(SandboxConfig(directory=folder)) as sandboxes:
            assert not left.exists() and not any(root.exists() for root in cgroups)
            async with created(sandboxes) as box:
                assert await shell(box, "echo fine") == "fine"
        assert list(folder.iterdir()) == []
