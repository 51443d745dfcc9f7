"""What tests of sandboxes share: Python run inside, doors with a server behind, what is left on the host. Checks nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sys
import tempfile
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from trunkline.errors import LimitExceeded, SandboxError
from trunkline.sandbox.isolated import IsolatedSandbox, IsolatedSandboxes
from trunkline.types import Command, CommandResult, Door, SandboxLimits

IS_ROOT = os.geteuid() == 0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def python_command(code: str, *arguments: object, **options: Any) -> Command:
    """A command that runs this code."""
    return Command(("python3", "-I", "-S", "-c", textwrap.dedent(code), *map(str, arguments)), **{"timeout_s": 60.0, **options})


async def python(box: IsolatedSandbox, code: str, *arguments: object, **options: Any) -> CommandResult:
    """Runs this code inside."""
    return await box.run(python_command(code, *arguments, **options))


async def printed(box: IsolatedSandbox, code: str, *arguments: object, **options: Any) -> str:
    """What this code prints; it must end well."""
    result = await python(box, code, *arguments, **options)
    assert (result.status, result.stderr) == (0, b""), result
    return result.stdout.decode().strip()


async def shell(box: IsolatedSandbox, text: str, **options: Any) -> str:
    """What this shell script prints; it must end well."""
    result = await box.run(Command.shell(text, **{"timeout_s": 60.0, **options}))
    assert result.status == 0, result
    return result.stdout.decode().strip()


@asynccontextmanager
async def created(sandboxes: IsolatedSandboxes, source: Path | None = None, **limits: Any) -> AsyncIterator[IsolatedSandbox]:
    """A sandbox with limits of its own for the length of the block."""
    box = await sandboxes.create(await sandboxes.prepare(source), limits=SandboxLimits(**limits))
    try:
        yield box
    finally:
        await box.destroy()


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A short path that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sb-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def door_to(serve: Serve, *, port: int = 8700) -> AsyncIterator[Door]:
    """A door with this server behind it."""
    with open_folder() as folder:
        server = await asyncio.start_unix_server(serve, folder / "door")
        (folder / "door").chmod(0o666)
        try:
            yield Door("test", port, folder / "door")
        finally:
            server.close()


def new_mark() -> str:
    """A word to put into a command line, by which `marked` finds the process."""
    return f"mark-{uuid.uuid4().hex}"


def marked(mark: str) -> list[int]:
    """Processes of this host with this word in their command lines."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or ())]


def outer_process(box: IsolatedSandbox) -> psutil.Process:
    """bubblewrap's own process, which is not in the sandbox."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # another one's, that ends just now
            if any(str(box.folder / "home") in word for word in child.cmdline()):
                found.append(child)
    (outer,) = found
    return outer


async def until(is_so: Callable[[], object], *, within_s: float = 20.0) -> bool:
    """Whether it becomes so."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not is_so():
                await asyncio.sleep(0.02)
    return bool(is_so())


@dataclass(frozen=True)
class Leftovers:
    """What sandboxes could leave on this host, counted."""

    mounts: frozenset[str]
    """Lines of /proc/self/mountinfo."""
    cgroups: frozenset[str]
    """Directories of ours in any hierarchy."""
    descriptors: int
    """Open in this process."""
    files: frozenset[str]
    """Below the sandboxes' folder, but for what serves them all."""

    @classmethod
    def count(cls, sandboxes: IsolatedSandboxes) -> Leftovers:
        """Now."""
        roots = dict.fromkeys(sandboxes.cgroups.roots.values())
        files = (str(path) for name in ("attempts", "workspaces", "snapshots") for path in (sandboxes.host.state / name).rglob("*"))
        return cls(
            frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
            frozenset(str(path) for root in roots for path in root.glob("*/")),
            len(os.listdir("/proc/self/fd")),
            frozenset(files),
        )

    def since(self, before: Leftovers) -> list[str]:
        """What was not there before."""
        more = [f"{self.descriptors - before.descriptors} descriptors"] if self.descriptors > before.descriptors else []
        return [*more, *sorted(self.mounts - before.mounts), *sorted(self.cgroups - before.cgroups), *sorted(self.files - before.files)]


async def live_and_die(sandboxes: IsolatedSandboxes, draw: random.Random, mark: str) -> None:
    """One sandbox that is created, at work, and ended at a random moment in a random way."""
    workspace = await sandboxes.prepare(None)
    way = draw.choice(("destroy", "kill outer", "kill inner", "cancel creation", "cancel command"))
    creating = asyncio.create_task(sandboxes.create(workspace))
    if way == "cancel creation":
        await asyncio.sleep(draw.uniform(0, 0.08))
        creating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await creating).destroy()  # it may have been ready
        await sandboxes.discard(workspace)
        return
    box = await creating
    outer = outer_process(box)
    inner = outer.children()
    work = "mkdir -p a/b; echo x > a/b/c; chmod 000 a/b; (setsid sleep 600 &); sleep 600"
    running = asyncio.create_task(box.run(Command(("/bin/sh", "-c", work, mark))))
    await asyncio.sleep(draw.uniform(0, 0.1))
    if way == "kill outer":
        outer.kill()
    elif way == "kill inner":
        inner[0].kill()
    elif way == "cancel command":
        running.cancel()
    await asyncio.sleep(draw.uniform(0, 0.05))
    await box.destroy()
    with contextlib.suppress(SandboxError, LimitExceeded, asyncio.CancelledError):
        await running
    await sandboxes.discard(workspace)


OWNER = """
import asyncio, sys
from pathlib import Path
from trunkline.sandbox.config import SandboxConfig
from trunkline.errors import LimitExceeded, SandboxError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.types import Command

async def main():
    async with IsolatedSandboxes.open(SandboxConfig(directory=Path(sys.argv[1]))) as sandboxes:
        workspace = await sandboxes.prepare(None)
        for _ in range(2):
            box = await sandboxes.create(workspace)
            await box.run(Command.shell("mkdir -p shut/deep; echo x > shut/deep/x; chmod 000 shut"))
            deep = "import os\\nfor _ in range(1100): os.mkdir('deep'); os.chdir('deep')"
            await box.run(Command(("python3", "-c", deep), cwd="/tmp"))
            twice = "import os, time; os.setsid() if os.fork() == 0 else 0; time.sleep(600)"
            await box.start(Command(("python3", "-c", twice, sys.argv[2])))
        print("ready", *sandboxes.cgroups.roots.values(), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
"""A process that owns two sandboxes; arguments: where, and a word for the command lines inside."""


async def killed_owner(folder: Path, mark: str) -> list[Path]:
    """Runs OWNER until its sandboxes are at work, kills it, and tells where its cgroups are."""
    command = [sys.executable, "-c", OWNER, str(folder), mark]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    assert process.stdout is not None
    words = (await asyncio.wait_for(process.stdout.readline(), 120)).decode().split()
    assert words[:1] == ["ready"]
    assert await until(lambda: len(marked(mark)) >= 5)  # the owner, and two in each sandbox
    process.kill()
    await process.wait()
    return [Path(word) for word in words[1:]]
