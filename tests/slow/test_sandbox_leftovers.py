"""Nothing is left of isolated sandboxes, at length: hundreds of random ends, several at once, and trees of 5,000 levels."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.integration.sandbox_scene import Leftovers, created, live_and_die, marked, new_mark, printed, shell, until
from tests.integration.test_sandbox_tricks import DEEP
from trunkline.errors import SandboxError

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(1800)]


async def test_nothing_is_left_of_two_hundred_sandboxes_that_end_at_random_moments(sandboxes):
    draw, mark = random.Random(200), new_mark()
    await live_and_die(sandboxes, draw, mark)
    before = Leftovers.count(sandboxes)
    for _ in range(50):
        await asyncio.wait_for(asyncio.gather(*(live_and_die(sandboxes, draw, mark) for _ in range(4))), 120)
    assert await until(lambda: not marked(mark))
    await until(lambda: not Leftovers.count(sandboxes).since(before))
    assert Leftovers.count(sandboxes).since(before) == []


async def test_a_tree_deeper_than_a_path_may_be_long_is_refused_by_a_fork_and_removed(sandboxes):
    async with created(sandboxes) as box:
        await printed(box, DEEP, 1200)
        assert len(await asyncio.wait_for(box.files.diff(), 60)) == 1201
        with pytest.raises(SandboxError, match="File name too long"):
            await asyncio.wait_for(sandboxes.fork(box), 60)
        assert await shell(box, "echo fine") == "fine"
    assert list(sandboxes.host.state.glob("attempts/*")) == []


async def test_a_tree_of_five_thousand_levels_is_compared_and_removed(sandboxes):
    async with created(sandboxes) as box:
        await printed(box, DEEP, 5000)
        assert len(await box.files.diff()) == 5001
    assert not box.folder.exists()
