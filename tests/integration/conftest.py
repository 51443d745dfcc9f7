"""What tests of sandboxes run in: one event loop a module, real isolated sandboxes of this host, an empty one a test. And a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.made_once import made_once
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


@pytest.fixture(scope="session")
def healthy_run(trunkline_home: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training that went well, for all who look at one and leave it as it is; its cold start earns about .5."""
    from tests.integration.seen_runs import HEALTHY, train  # seconds of imports that tests of sandboxes do without

    pytest.importorskip("tensorboardX")
    return made_once(tmp_path_factory, "healthy-run", lambda folder: train(folder, *HEALTHY))
