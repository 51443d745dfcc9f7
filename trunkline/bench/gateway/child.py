"""The benchmark's processes: start one, wait until it serves, end it with its parent. Owns no measurement."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trunkline.errors import InfraError

_READY_S = 60.0
_GRACE_S = 10.0


async def until_parent_is_gone() -> None:
    """In a child: returns when its stdin ends, which its parent holds open as long as it lives."""
    await asyncio.to_thread(sys.stdin.buffer.read)


@asynccontextmanager
async def child(module: str, *arguments: str, serves: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m module arguments` for the length of the block, once it accepts on the socket `serves`.

    Raises InfraError if it ends or is not ready in time.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=asyncio.subprocess.PIPE, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    )
    try:
        async with asyncio.timeout(_READY_S):
            while not await _accepts(serves):
                if process.returncode is not None:
                    raise InfraError(f"{module} ended with status {process.returncode} before it served; its message is above")
                await asyncio.sleep(0.02)
        yield process
    except TimeoutError as error:
        raise InfraError(f"{module} does not serve after {_READY_S:g} s; the machine may be too busy") from error
    finally:
        await _end(process)


async def _accepts(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    writer.close()
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _GRACE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
