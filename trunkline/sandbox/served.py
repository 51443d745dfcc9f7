"""A sandbox with our server inside: commands and files over its socket. Owns the verbs; how it starts and ends is the backend's."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from trunkline.errors import CommandNotStarted, FileAccessError, LimitExceeded, SandboxError
from trunkline.sandbox.record import ActLog
from trunkline.sandbox.wire import Refused, ServerLink
from trunkline.types import Command, CommandResult, FileEntry, SandboxAct, SandboxLimits


class ServedSandbox(ABC):
    """Implements the verbs of `trunkline.protocols.Sandbox` and `SandboxFiles` that the server answers."""

    def __init__(self, limits: SandboxLimits) -> None:
        self.limits = limits
        self.log = ActLog()
        self._link: ServerLink | None = None
        self._spent = ""
        self._standing_still = asyncio.Lock()
        self._destroying: asyncio.Task[None] | None = None

    @abstractmethod
    def _kill(self) -> None:
        """Kills everything inside at once."""

    @abstractmethod
    async def _destroy(self) -> None:
        """Ends it and removes what is left."""

    @abstractmethod
    async def _num_oom_kills(self) -> int:
        """How often the kernel killed in it for memory."""

    @property
    def files(self) -> Self:
        """See `Sandbox`."""
        return self

    @property
    def acts(self) -> tuple[SandboxAct, ...]:
        """See `Sandbox`."""
        return self.log.acts

    async def run(self, command: Command) -> CommandResult:
        """See `Sandbox`."""
        with self.log.timed("run", " ".join(command.argv)) as act:
            number, answer = await self._send("run", command.stdin, **_wire_command(command))
            try:
                head, body = await answer
            except Refused as error:
                raise CommandNotStarted(f"cannot start {command.argv[0]!r} in the sandbox: {error}") from None
            except SandboxError as error:
                raise (await self._explained(error)) from None
            except asyncio.CancelledError:
                with contextlib.suppress(SandboxError):
                    self._server().ask("stop", process=number)
                raise
            result = _result(head, body)
            act.status, act.num_bytes = result.status, result.num_stdout + result.num_stderr
            return result

    async def start(self, command: Command) -> ServedService:
        """See `Sandbox`."""
        with self.log.timed("start", " ".join(command.argv)):
            number, answer = await self._send("start", command.stdin, **_wire_command(command))
            try:
                await answer
            except Refused as error:
                raise CommandNotStarted(f"cannot start {command.argv[0]!r} in the sandbox: {error}") from None
            except SandboxError as error:
                raise (await self._explained(error)) from None
            return ServedService(self, number, command.argv[0])

    async def read(self, path: str, *, max_bytes: int = 2**24) -> bytes:
        """See `SandboxFiles`."""
        with self.log.timed("read", path) as act:
            _, content = await self._ask_for_file("read", path, max_bytes=max_bytes)
            act.num_bytes = len(content)
            return content

    async def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """See `SandboxFiles`."""
        with self.log.timed("write", path) as act:
            act.num_bytes = len(content)
            await self._ask_for_file("write", path, content, mode=mode)

    async def list(self, path: str = ".") -> tuple[FileEntry, ...]:
        """See `SandboxFiles`."""
        with self.log.timed("list", path):
            head, _ = await self._ask_for_file("list", path)
            try:
                return tuple(sorted((_entry(*entry) for entry in head["entries"]), key=lambda entry: entry.name))
            except (KeyError, TypeError, ValueError) as error:
                raise SandboxError(f"the server inside the sandbox sent no list of files: {error}") from error

    async def request(self, op: str, **head: Any) -> tuple[dict[str, Any], bytes]:
        """What services ask of the server. Raises SandboxError, LimitExceeded."""
        try:
            return await self._server().request(op, **head)
        except Refused as error:
            raise SandboxError(f"{op}: {error}") from None
        except SandboxError as error:
            raise (await self._explained(error)) from None

    async def destroy(self) -> None:
        """See `Sandbox`."""
        if self._destroying is None:
            self._destroying = asyncio.create_task(self._destroy())
        await asyncio.shield(self._destroying)

    async def _send(self, op: str, body: bytes, **head: Any) -> tuple[int, asyncio.Future[tuple[dict[str, Any], bytes]]]:
        """`ServerLink.ask`, once no copy is being taken: what starts or is written meanwhile would not stand still."""
        async with self._standing_still:
            return self._server().ask(op, body, **head)

    async def _ask_for_file(self, op: str, path: str, content: bytes = b"", **head: int) -> tuple[dict[str, Any], bytes]:
        try:
            _, answer = await self._send(op, content, path=path, **head)
            return await answer
        except Refused as error:
            raise FileAccessError(f"cannot {op} {path!r} in the sandbox: {error}") from None
        except SandboxError as error:
            raise (await self._explained(error)) from None

    @asynccontextmanager
    async def _still(self) -> AsyncIterator[None]:
        """All processes inside but the server stand still for the length of the block."""
        async with self._standing_still:
            await self.request("freeze")
            try:
                yield
            finally:
                with contextlib.suppress(SandboxError):
                    await self.request("thaw")

    def _server(self) -> ServerLink:
        if self._spent:
            raise LimitExceeded(self._spent)
        if self._link is None or self._destroying is not None:
            raise SandboxError("the sandbox was destroyed; create another")
        return self._link

    async def _explained(self, error: SandboxError) -> Exception:
        """Why it is gone, if we know it."""
        if not self._spent and await self._num_oom_kills():
            self._spent = f"the sandbox spent its memory of {self.limits.memory_bytes:,} bytes, and the kernel killed its first process"
        return LimitExceeded(self._spent) if self._spent else error

    def _spend(self, cause: str) -> None:
        """A limit that we hold ourselves is spent: everything inside is killed at once; files stay until `destroy`."""
        if not self._spent:
            self._spent = cause
            self.log.add("limit", cause)
            self._kill()


class ServedService:
    """Implements `trunkline.protocols.Service`."""

    def __init__(self, sandbox: ServedSandbox, number: int, name: str) -> None:
        self._sandbox = sandbox
        self._number = number
        self._name = name
        self._ended: CommandResult | None = None

    async def peek(self) -> tuple[int | None, bytes]:
        """See `Service`."""
        if self._ended is not None:
            return self._ended.status, self._ended.stdout
        head, output = await self._sandbox.request("peek", process=self._number)
        status = head.get("status")
        return status if isinstance(status, int) else None, output

    async def stop(self) -> CommandResult:
        """See `Service`."""
        if self._ended is None:
            with self._sandbox.log.timed("stop", self._name) as act:
                self._ended = _result(*await self._sandbox.request("stop", process=self._number))
                act.status = self._ended.status
        return self._ended


def _wire_command(command: Command) -> dict[str, Any]:
    if not command.argv:
        raise CommandNotStarted("a command has at least the name of its program, argv is empty")
    return {
        "argv": list(command.argv),
        "cwd": command.cwd or "",
        "environment": dict(command.environment),
        "timeout": command.timeout_s,
        "max_output": command.max_output_bytes,
    }


def _entry(name: object, kind: object, num_bytes: object) -> FileEntry:
    """A name as the server wrote it, checked. Raises TypeError."""
    if isinstance(name, str) and isinstance(num_bytes, int) and kind in ("file", "directory", "symlink", "other"):
        return FileEntry(name, kind, num_bytes)
    raise TypeError(f"{(name, kind, num_bytes)!r:.80}")


def _result(head: dict[str, Any], body: bytes) -> CommandResult:
    """A command's end as the server tells it, checked. Raises SandboxError."""
    match head:
        case {"status": int(status), "is_timeout": bool(late), "seconds": float(seconds), "num_bytes": [*counts], "sizes": [int(cut), *_]}:
            outs = (body[:cut], body[cut:])
            numbers = [count for count in counts if isinstance(count, int)]
            if numbers:
                return CommandResult(status, *outs, numbers[0], sum(numbers[1:]), late, seconds)
    raise SandboxError("the server inside the sandbox sent no command's end")
