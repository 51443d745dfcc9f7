"""What tests of sandboxes run in: one event loop a module, real isolated sandboxes of this host, an empty one a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandbox, IsolatedSandboxes


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """anyio's plugin runs a module's async tests and fixtures on one loop, the program's own, as long as one of the fixtures lives."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def sandboxes(anyio_backend: object) -> AsyncIterator[IsolatedSandboxes]:
    async with IsolatedSandboxes.open(SandboxConfig()) as opened:
        yield opened


@pytest.fixture
async def box(sandboxes: IsolatedSandboxes) -> AsyncIterator[IsolatedSandbox]:
    created = await sandboxes.create(await sandboxes.prepare(None))
    yield created
    await created.destroy()
