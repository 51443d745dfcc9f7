"""Sandboxes as containers of an engine with Docker's API. Owns their lives; docker_engine.py talks to the engine.

    image ─► prepare ─► workspace: an image ──┬─► create ─► container: python3 inside.py ─► control socket ─► commands
                        with the directory    ├─► create ...        │ snapshot, fork: stand still, commit, go on
                                              └─► create ...        ▼
                                                                 destroy: hang up, remove

A container is another way to start the server of a sandbox, by the image's own python3; it connects to a socket of ours, and all the
rest goes as in every other sandbox. The root of a container stays writable, for it is what snapshots hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import ConfigError, FileAccessError, LimitExceeded, SandboxError, SandboxUnavailable
from trunkline.protocols import Snapshot, Surroundings, Workspace
from trunkline.sandbox import archive, inside
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.docker_engine import Engine
from trunkline.sandbox.host import DOORS, HOME, SHARED_MEMORY_BYTES, USER_ID, WORKSPACE
from trunkline.sandbox.layers import Usage
from trunkline.sandbox.owner import has_ended, own_name
from trunkline.sandbox.sealed_container import SealedContainer
from trunkline.sandbox.served import ServedSandbox
from trunkline.sandbox.watchdog import Watchdog
from trunkline.sandbox.wire import Refused, ServerLink
from trunkline.types import Command, Door, FileChange, SandboxLimits, SealedResult, SealedRun

_CONTROL = "/run/control"
_SERVER = "/run/inside.py"
_SERVE = ("python3", "-I", "-S", _SERVER, _CONTROL)
_USER = f"{USER_ID}:{USER_ID}"
_READY_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.5
"""At a container that has not yet connected: it may have died."""
_END_TIMEOUT_S = 10.0
_SERVER_OPEN_FILES = 4096
"""The server's own, for its doors' connections; a command has the sandbox's limit."""
_REMEDIES = """Remedies: the image needs /bin/sh, and python3, 3.9 or newer, on its PATH (Dockerfile: RUN apt-get install -y python3);
the engine must run on this host, reach sandbox.directory, and be able to hold memory and processes (a rootless one: by cgroups v2).
Alternatives: sandbox.kind="isolated", which needs no engine, or sandbox.kind="unsafe" for commands that you trust as yourself."""


@dataclass
class ContainerSandboxes:
    """Implements `trunkline.protocols.Sandboxes` and `SealedSandboxes` with Docker's API."""

    engine: Engine
    """Where containers run."""
    image: Mapping[str, Any]
    """What the engine says of the image that workspaces build on."""
    folder: Path
    """Ours alone: the server's source, and the sockets that its copies connect to."""
    limits: SandboxLimits
    """Of a sandbox that is created without its own."""
    alive: set[ContainerSandbox] = field(default_factory=set)
    """Those not destroyed yet."""
    _trees: dict[str, archive.Tree] = field(default_factory=dict)
    """Of workspaces that something was compared with."""
    _discarded: list[str] = field(default_factory=list)
    """Images that nothing will be created from, but something still builds on."""
    _num_made: int = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, config: SandboxConfig) -> AsyncIterator[ContainerSandboxes]:
        """Ready for the length of the block; afterwards every container, image and file of ours is gone.

        Raises SandboxUnavailable if there is no engine or no image, or they make no sandbox, with the remedy; ConfigError.
        """
        if config.toolchain:
            raise ConfigError(f"a container sees its image, no directory of this host, got sandbox.toolchain {config.toolchain}; remove it")
        async with _own_folder(config) as folder, Engine.connected(folder.name) as engine:
            sandboxes = cls(engine, await engine.find_image(config.image), folder, config.limits)
            try:
                await engine.remove_leftovers()
                await sandboxes._prove()
                yield sandboxes
            finally:
                await asyncio.shield(sandboxes._close())

    @property
    def kind(self) -> str:
        """Such as 'container (docker 20.10.24; memory, processes, cores: cgroups v1; disk, wall time: watchdog; ...)'."""
        holds = ["memory", "processes"] + ["cores"] * self._holds_cores
        lacks = ["number of files"] + ["cores"] * (not self._holds_cores)
        cgroups = f"{', '.join(holds)}: cgroups v{self.engine.info.get('CgroupVersion', '1')}"
        return f"container ({self.engine.name} {self.engine.version}; {cgroups}; disk, wall time: watchdog; {', '.join(lacks)}: not held)"

    async def prepare(self, source: Path | None) -> Workspace:
        """See `Sandboxes`: an image, which later changes of `source` do not reach."""
        name = self._next_name()
        try:
            with tempfile.TemporaryFile() as packed:
                try:
                    await asyncio.to_thread(archive.pack, {HOME.lstrip("/"): None, WORKSPACE.lstrip("/"): source}, USER_ID, packed)
                except OSError as error:
                    raise SandboxError(f"cannot make a workspace of {source}: {error}; it takes a directory that we may read") from error
                packed.seek(0)
                await self.make_container(name, self.image["Id"])
                await self.engine.ask("copy a workspace into a container", self.engine.api.put_archive, name, "/", packed)
            return Workspace(await self.engine.commit(name))
        finally:
            await asyncio.shield(self.engine.remove_container(name))

    async def create(
        self,
        start: Workspace | Snapshot,
        *,
        doors: Sequence[Door] = (),
        limits: SandboxLimits | None = None,
        surroundings: Surroundings | None = None,
    ) -> ContainerSandbox:
        """See `Sandboxes`. What is shown lies beside the image's own files: an interpreter that they need is the image's."""
        workspace = start.workspace if isinstance(start, Snapshot) else start
        sandbox = ContainerSandbox(self, self._next_name(), workspace, limits or self.limits, surroundings or Surroundings())
        self.alive.add(sandbox)
        try:
            await sandbox.begin(start.location, doors)
        except BaseException:
            await asyncio.shield(sandbox.destroy())
            raise
        return sandbox

    async def fork(self, sandbox: ContainerSandbox, *, doors: Sequence[Door] = ()) -> ContainerSandbox:
        """Another sandbox with a copy of this one's files, taken while its processes stand still. Processes are not copied."""
        snapshot = await sandbox.snapshot()
        try:
            return await self.create(snapshot, doors=doors, limits=sandbox.limits, surroundings=sandbox.surroundings)
        finally:
            await asyncio.shield(self.discard(snapshot))

    async def discard(self, start: Workspace | Snapshot) -> None:
        """See `Sandboxes`: the engine keeps an image for as long as something builds on it."""
        self._trees.pop(start.location, None)
        self._discarded.append(start.location)
        await self.remove_discarded()

    async def remove_discarded(self) -> None:
        """Removes what was discarded and is no longer needed."""
        images, self._discarded = self._discarded, []
        self._discarded += await self.engine.remove_images(images)

    async def tree(self, workspace: Workspace) -> archive.Tree:
        """What a workspace holds."""
        found = self._trees.get(workspace.location)
        if found is None:
            name = self._next_name()
            try:
                with tempfile.TemporaryFile() as packed:
                    await self.make_container(name, workspace.location)
                    await self.engine.copy_out(name, WORKSPACE, packed)
                    found = self._trees[workspace.location] = await asyncio.to_thread(archive.read_tree, packed)
            finally:
                await asyncio.shield(self.engine.remove_container(name))
        return found

    async def run_sealed(self, run: SealedRun) -> SealedResult:
        """See `SealedSandboxes`. Programs are the image's; what lies at /workspace in it is refused, since the trees lie there."""
        name, limits = self._next_name(), run.limits or self.limits
        container = SealedContainer(self.engine, name, run, limits)

        async def make() -> None:
            variables = container.environment(self.environment)
            await self.make_container(name, self.image["Id"], limits=limits, argv=container.argv, environment=variables)

        try:
            return await container.to_its_end(make)
        finally:
            await asyncio.shield(self.engine.remove_container(name))

    async def make_container(
        self,
        name: str,
        image: str,
        *,
        limits: SandboxLimits | None = None,
        mounts: Mapping[Path, str] | None = None,
        argv: Sequence[str] = _SERVE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Makes a container that does not run yet. `mounts` are read-only; what runs as process 1 is `argv`, by default the server."""
        from docker.types import Mount, Ulimit

        api, limits = self.engine.api, limits or self.limits
        open_files = limits.num_open_files if argv is not _SERVE else max(_SERVER_OPEN_FILES, limits.num_open_files)
        rlimits = {"nofile": open_files, "fsize": limits.disk_bytes, "core": 0}
        cores = {"nano_cpus": int(1e9 * max(0.01, min(limits.cpus, self.engine.info["NCPU"])))} if self._holds_cores else {}
        host_config = api.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            pids_limit=limits.num_processes,
            shm_size=SHARED_MEMORY_BYTES,
            ulimits=[Ulimit(name=kind, soft=most, hard=most) for kind, most in rlimits.items()],
            mounts=[Mount(target, str(source), type="bind", read_only=True) for source, target in (mounts or {}).items()],
            **cores,
        )
        await self.engine.ask(
            "make a container",
            api.create_container,
            image,
            entrypoint=list(argv),
            environment=dict(environment or {}),
            name=name,
            user=_USER,
            hostname="sandbox",
            working_dir=WORKSPACE,
            labels=dict(self.engine.labels),
            healthcheck={"test": ["NONE"]},
            use_config_proxy=False,
            host_config=host_config,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Of commands: the image's variables, and ours."""
        own = dict(line.partition("=")[::2] for line in self.image["Config"].get("Env") or ())
        path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return path | own | {"HOME": HOME, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "agent", "TERM": "dumb"}

    @property
    def _holds_cores(self) -> bool:
        return bool(self.engine.info.get("CpuCfsQuota"))

    def _next_name(self) -> str:
        self._num_made += 1
        return f"trunkline-{self.folder.name}-{self._num_made}"

    async def _prove(self) -> None:
        """Makes one sandbox and runs a command in it: whatever is refused here is refused before any work is lost."""
        lacks = [name for name in ("MemoryLimit", "PidsLimit") if not self.engine.info.get(name)]
        if lacks:
            raise SandboxUnavailable(f"{self.engine.name} cannot hold a sandbox's limits here, it lacks {' and '.join(lacks)}\n{_REMEDIES}")
        try:
            workspace = await self.prepare(None)
            sandbox = await self.create(workspace)
            try:
                result = await sandbox.run(Command.shell("touch proof ~/proof && echo ready", timeout_s=_READY_TIMEOUT_S))
            finally:
                await sandbox.destroy()
                await self.discard(workspace)
        except (SandboxError, OSError) as error:
            raise SandboxUnavailable(f"{self.engine.name} makes no sandbox of this image: {error}\n{_REMEDIES}") from error
        if result.stdout != b"ready\n":
            raise SandboxUnavailable(f"a command in a container of this image does not work: {result}\n{_REMEDIES}")

    async def _close(self) -> None:
        await asyncio.gather(*(sandbox.destroy() for sandbox in tuple(self.alive)), return_exceptions=True)
        await self.engine.remove_own()


class ContainerSandbox(ServedSandbox):
    """Implements `trunkline.protocols.Sandbox`: one container with a server in it."""

    def __init__(
        self, owner: ContainerSandboxes, name: str, workspace: Workspace, limits: SandboxLimits, surroundings: Surroundings
    ) -> None:
        super().__init__(limits)
        self.surroundings = surroundings
        self.name = name
        """Of the container."""
        self.workspace = workspace
        self._owner = owner
        self._engine = owner.engine
        self._control = owner.folder / name.rpartition("-")[2]
        """Nobody listens there once the server has called; it stays, for an engine that copies looks for the source of every mount."""
        self._watchdog: Watchdog | None = None
        self._killing: asyncio.Task[None] | None = None

    async def begin(self, image: str, doors: Sequence[Door]) -> None:
        """Starts process 1. Raises SandboxError with what the engine says, or the container's own last words."""
        with self.log.timed("create", f"{self._owner.kind}; doors: {', '.join(door.name for door in doors) or 'none'}"):
            with socket.socket(socket.AF_UNIX) as listener:
                _listen(listener, self._control)
                mounts = {self._owner.folder / "inside.py": _SERVER, self._control: _CONTROL}
                mounts |= {door.socket.absolute(): f"{DOORS}/{index}" for index, door in enumerate(doors)}
                mounts |= {source.absolute(): target for source, target in self.surroundings.shown}
                await self._owner.make_container(self.name, image, limits=self.limits, mounts=mounts)
                await self._engine.ask("start a container", self._engine.api.start, self.name)
                link = self._link = await ServerLink.over(await self._first_caller(listener))
            try:
                async with asyncio.timeout(_READY_TIMEOUT_S):
                    await link.request("hello", **self._settings(doors))
            except (SandboxError, Refused, TimeoutError) as error:
                raise SandboxError(f"the sandbox did not start: {await self._last_words() or error!r}") from error
            self._watchdog = Watchdog(self._measure, self.limits, link, holds_memory=False)
            self._watchdog.start(self._spend)

    async def snapshot(self) -> Snapshot:
        """See `Sandbox`."""
        with self.log.timed("snapshot", ""):
            async with self._still():
                return Snapshot(await self._engine.commit(self.name), self.workspace)

    async def diff(self, *, max_bytes: int | None = None) -> tuple[FileChange, ...]:
        """See `SandboxFiles`."""
        with self.log.timed("diff", "") as act:
            base = await self._owner.tree(self.workspace)
            with tempfile.TemporaryFile() as packed:
                async with self._still():
                    await self._engine.copy_out(self.name, WORKSPACE, packed)
                changes = await asyncio.to_thread(archive.read_changes, base, packed)
            act.num_bytes = sum(len(change.content) for change in changes)
            if max_bytes is not None and act.num_bytes > max_bytes:
                raise FileAccessError(f"there is more than {max_bytes:,} bytes to read of what the sandbox left")
            return changes

    @asynccontextmanager
    async def _still(self) -> AsyncIterator[None]:
        """Nothing is copied of a sandbox that holds more than it may: holes in its files become bytes of ours."""
        async with super()._still():
            usage = await self._measure()
            if usage.num_bytes > self.limits.disk_bytes:
                self._spend(f"the sandbox's files have {usage.num_bytes:,} bytes, they may have {self.limits.disk_bytes:,}")
                raise LimitExceeded(self._spent)
            yield

    async def _first_caller(self, listener: socket.socket) -> socket.socket:
        """The server's connection. Nothing else runs in the container before it has said hello."""
        loop = asyncio.get_running_loop()
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        try:
            deadline = loop.time() + _READY_TIMEOUT_S
            while loop.time() < deadline:
                await asyncio.wait([accepting], timeout=_LOOK_EVERY_S)
                if accepting.done():
                    return accepting.result()[0]
                state = (await self._engine.ask("look at a container", self._engine.api.inspect_container, self.name))["State"]
                if not state["Running"]:
                    raise SandboxError(f"python3 ended with status {state['ExitCode']}: {await self._last_words()}")
            raise SandboxError(f"the container did not connect within {_READY_TIMEOUT_S:g} s; {await self._last_words()}")
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)  # it lets go of the listener

    def _settings(self, doors: Sequence[Door]) -> dict[str, Any]:
        rlimits = {resource.RLIMIT_NOFILE: self.limits.num_open_files, resource.RLIMIT_FSIZE: self.limits.disk_bytes}
        return {
            "workspace": WORKSPACE,
            "environment": {**self._owner.environment, **self.surroundings.variables},
            "limits": [(kind, value, value) for kind, value in rlimits.items()],
            "doors": [(door.port, f"{DOORS}/{index}") for index, door in enumerate(doors)],
        }

    async def _measure(self) -> Usage:
        return Usage(await self._engine.num_bytes_written(self.name), num_files=0, is_hidden=False)

    async def _num_oom_kills(self) -> int:
        """The engine says only whether the kernel killed, and only once the container has ended."""
        try:
            await self._engine.ask("wait for a container", self._engine.api.wait, self.name, timeout=_END_TIMEOUT_S)
            state = (await self._engine.ask("look at a container", self._engine.api.inspect_container, self.name))["State"]
        except SandboxError:
            return 0
        return int(state["OOMKilled"])

    def _kill(self) -> None:
        self._killing = asyncio.create_task(self._engine.kill(self.name))

    async def _destroy(self) -> None:
        if self._watchdog is not None:
            await self._watchdog.stop()
        if self._killing is not None:
            await self._killing
        if self._link is not None:
            await self._link.close()
            if await self._num_oom_kills():
                self.log.add("limit", "the kernel killed processes of it for memory")
        await self._engine.remove_container(self.name)
        self._control.unlink(missing_ok=True)
        await self._owner.remove_discarded()
        self._owner.alive.discard(self)
        self.log.add("destroy", "")

    async def _last_words(self) -> str:
        try:
            words: bytes = await self._engine.ask("read a container's log", self._engine.api.logs, self.name, tail=20)
        except SandboxError:
            return ""
        return words.decode(errors="replace").strip()[-1000:]


def _listen(listener: socket.socket, path: Path) -> None:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # an address has 108 bytes; the folder's name may be longer. unix(7)
    finally:
        os.close(folder)
    path.chmod(0o666)  # who runs inside is another user; the folder is ours alone
    listener.listen(1)
    listener.setblocking(False)


def _make_folder(config: SandboxConfig) -> Path:
    """A new folder with the server's source; those of killed owners are removed."""
    base = (config.directory or Path(os.environ.get("TMPDIR") or "/var/tmp")) / f"trunkline-containers-{os.geteuid()}"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.geteuid():
            raise SandboxUnavailable(f"{base} is a link or belongs to another user; set sandbox.directory to a folder of your own")
        for left in base.iterdir():
            if has_ended(left.name):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{own_name()}-", dir=base.absolute()))
        source = folder / "inside.py"
        shutil.copyfile(inside.__file__, source)
        source.chmod(0o644)
    except OSError as error:
        raise SandboxUnavailable(f"cannot keep sandboxes' sockets in {base}: {error.strerror}; set sandbox.directory") from error
    return folder


@asynccontextmanager
async def _own_folder(config: SandboxConfig) -> AsyncIterator[Path]:
    folder = await asyncio.to_thread(_make_folder, config)
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # unless another process has sandboxes there
