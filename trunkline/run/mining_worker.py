"""A worker of `trunkline tasks mine`: reads an order a line, answers with what became of it. Owns its process and no stage.

stdin:  Setup, then Orders      stdout: "ready" or why not, then Entries, before each any words for people      one JSON line each

The work is tasks/factory/work.py's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from trunkline.errors import TrunklineError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.candidate import Order
from trunkline.tasks.factory.languages import languages
from trunkline.tasks.factory.sources import SourceWords
from trunkline.tasks.factory.work import Options, Workshop


@dataclass(frozen=True)
class Setup:
    """What every worker is told first."""

    source: SourceWords
    """Where candidates come from; a worker lays their files."""
    tasks: str
    """Where task directories go."""
    options: Options
    """Of the work."""


@asynccontextmanager
async def opened(setup: Setup, told: Callable[[str], None]) -> AsyncIterator[Workshop]:
    """A workshop with its sandboxes. Raises ConfigError, SandboxError: nothing can be worked on here."""
    async with AsyncExitStack() as stack:
        sandboxes = await stack.enter_async_context(IsolatedSandboxes.open(SandboxConfig()))
        spoken = languages(sandboxes)
        source = setup.source.open(spoken, told=told)
        yield await stack.enter_async_context(
            Workshop.open(source, spoken, sandboxes=sandboxes, tasks=Path(setup.tasks), options=setup.options)
        )


async def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    def answer(line: object) -> None:
        answers.write(msgspec.json.encode(line) + b"\n")
        answers.flush()

    setup = msgspec.json.decode(await asyncio.to_thread(requests.readline), type=Setup)
    async with AsyncExitStack() as stack:
        try:
            workshop = await stack.enter_async_context(opened(setup, answer))
        except TrunklineError as error:
            answer(str(error))
            return
        answer("ready")
        while line := await asyncio.to_thread(requests.readline):
            answer(await workshop.work_on(msgspec.json.decode(line, type=Order)))


def main() -> None:
    """Serves until stdin ends. What libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asyncio.run(_serve(sys.stdin.buffer, answers))


if __name__ == "__main__":
    main()
