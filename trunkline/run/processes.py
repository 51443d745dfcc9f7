"""Child processes of a run: start, watch, stop. Owns their lifetime; what they serve is their rooms' business."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import TrunklineError

_GRACE_S = 5.0
_LOG_TAIL_LINES = 12
_LARGE_MODEL_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Child:
    """A running part."""

    name: str
    """Such as 'engine'."""
    process: asyncio.subprocess.Process
    """The process; leader of its own session, so that Ctrl-C reaches the conductor alone."""
    log_path: Path
    """Where its output goes."""
    failure: Callable[[str], TrunklineError]
    """The error that its unexpected end is."""

    async def watch(self) -> None:
        """Waits for the process to end, and raises: a part that dies ends the run with its cause."""
        status = await self.process.wait()
        raise self.failure(f"the {self.name} process ended with status {status}; the end of {self.log_path}:\n{self._log_tail()}")

    async def wait_ready(self, ready: Callable[[], asyncio.Future[None] | asyncio.Task[None]]) -> None:
        """Runs `ready` until it is done, or raises as soon as the process ends."""
        waiting, watching = asyncio.ensure_future(ready()), asyncio.create_task(self.watch())
        try:
            await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await waiting
        finally:
            for task in (waiting, watching):
                task.cancel()
            await asyncio.gather(waiting, watching, return_exceptions=True)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after a grace period; returns when the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), _GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    def _log_tail(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(empty)"


@asynccontextmanager
async def child_process(
    name: str, module: str, arguments: Sequence[str], *, model: Path, log_path: Path, failure: Callable[[str], TrunklineError]
) -> AsyncIterator[Child]:
    """Runs `python -m module arguments`, which holds `model`, for the length of the block."""
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(model),
            start_new_session=True,
        )
    child = Child(name, process, log_path, failure)
    try:
        yield child
    finally:
        await asyncio.shield(child.stop())


def child_environment(model: Path) -> dict[str, str]:
    """The parent's environment, with one thread a process and a malloc that suits the model's size.

    Two torch threads collapse when cores are contended. A small model keeps its freed blocks: returning them to the system
    after each step cost 28% of a rollout's time in page faults, in one measurement of a prototype. A large one returns them,
    else its heap is torn to pieces and grows by a third (docs/log.md).
    """
    trim, mmap = (256 * 2**20, 4 * 2**20) if is_large(model) else (2**30, 2**30)
    defaults = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(trim), "MALLOC_MMAP_THRESHOLD_": str(mmap)}
    return {**defaults, **os.environ, "TOKENIZERS_PARALLELISM": "false"}


def is_large(model: Path) -> bool:
    """Whether a step of this folder or .gguf file takes seconds rather than milliseconds, and gigabytes rather than megabytes."""
    files = [model] if model.is_file() else [file for file in model.glob("*") if file.suffix in (".safetensors", ".gguf")]
    return sum(file.stat().st_size for file in files) > _LARGE_MODEL_BYTES


@contextmanager
def socket_directory() -> Iterator[Path]:
    """A private folder with a short path: Unix socket paths end at 108 bytes, run directories may not."""
    with tempfile.TemporaryDirectory(prefix="trunkline-") as folder:
        yield Path(folder)
