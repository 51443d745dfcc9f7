"""Sandboxes as isolated host processes: no daemon, no root, nothing inside but a toolchain and a workspace. Owns their lives.

    prepare ─► workspace (read-only) ──┬─► create ─► attempt: overlay, home, tmp ─► bwrap ─► server inside ─► commands
                                       ├─► create ...                 │ snapshot, fork: stand still, copy layers, go on
                                       └─► create ...                 ▼
                                                               destroy: kill process 1, wait, remove cgroup and files

Process 1 dies with the socket to us, and with it the kernel kills whatever runs in its process namespace; so nothing survives
us either. What a killed owner left on disk, the next one removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import SandboxError, SandboxUnavailable
from trunkline.protocols import Snapshot, Surroundings, Workspace
from trunkline.sandbox import layers
from trunkline.sandbox.cgroups import Cgroup, CgroupTree
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.host import DOORS, HOME, WORKSPACE, Host, Mount, Overlay, Walls, default_toolchain, is_open_to_all, without_covered
from trunkline.sandbox.owner import has_ended, own_name
from trunkline.sandbox.sealed import make_cgroup, run_sealed
from trunkline.sandbox.served import ServedSandbox
from trunkline.sandbox.watchdog import Watchdog
from trunkline.sandbox.wire import Refused, ServerLink
from trunkline.types import Command, Door, FileChange, SandboxLimits, SealedResult, SealedRun

_READY_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 10.0
_NAME_BYTES = 4096
"""Of a file's place in an archive, at most, unless a path is very long."""
_REMEDIES = """Most often user namespaces are closed to us. Remedies, by whoever has root on this host:
  sysctl -w user.max_user_namespaces=15000                          where it is 0
  sysctl -w kernel.unprivileged_userns_clone=1                      on older Debian kernels
  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0          on Ubuntu 23.10 and later, or an AppArmor profile for bwrap
  docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ...      within a container
  sandbox.directory=PATH on ext4, xfs, btrfs or tmpfs              where overlayfs cannot write, as on a container's own root
Alternatives: sandbox.kind="container" with a Docker engine, or sandbox.kind="unsafe" for commands that you trust as yourself."""


@dataclass
class IsolatedSandboxes:
    """Implements `trunkline.protocols.Sandboxes` with bubblewrap."""

    host: Host
    """Command lines, and the folder of all files."""
    cgroups: CgroupTree
    """What holds memory, processes and cores."""
    limits: SandboxLimits
    """Of a sandbox that is created without its own."""
    alive: set[IsolatedSandbox] = field(default_factory=set)
    """Those not destroyed yet."""
    _num_made: int = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, config: SandboxConfig, *, toolchain: Sequence[Path] = ()) -> AsyncIterator[IsolatedSandboxes]:
        """Ready for the length of the block; afterwards every sandbox and file is gone.

        Raises SandboxUnavailable if this host cannot make one, with the remedy.
        """
        state = await asyncio.to_thread(_make_state, config)
        paths = without_covered([*default_toolchain(), *config.toolchain, *toolchain])
        sandboxes = cls(Host(state, paths), await asyncio.to_thread(CgroupTree.probe, state.name), config.limits)
        try:
            await asyncio.to_thread(sandboxes.host.furnish)
            await sandboxes._prove()
            await remove_leftovers(sandboxes.host)
            yield sandboxes
        finally:
            await asyncio.shield(sandboxes._close())

    @property
    def kind(self) -> str:
        """Such as 'isolated (cgroups v1)'."""
        if self.cgroups.version == "none":
            return f"isolated (no cgroups: {self.cgroups.reason}; memory by watchdog, processes by rlimit, cores not held)"
        return f"isolated (cgroups {self.cgroups.version})"

    async def prepare(self, source: Path | None) -> Workspace:
        """See `Sandboxes`: a copy, which later changes of `source` do not reach."""
        target = self.host.state / "workspaces" / self._next_name()
        async with self._whole(target):
            await layers.copy_workspace(self.host, source, target)
        return Workspace(str(target))

    async def create(
        self,
        start: Workspace | Snapshot,
        *,
        doors: Sequence[Door] = (),
        limits: SandboxLimits | None = None,
        surroundings: Surroundings | None = None,
    ) -> IsolatedSandbox:
        """See `Sandboxes`."""
        sandbox = await self._new(start.workspace if isinstance(start, Snapshot) else start, limits or self.limits, surroundings)
        try:
            if isinstance(start, Snapshot):
                await layers.copy_layers(self.host, Path(start.location), sandbox.folder)
            await sandbox.begin(doors)
        except BaseException:
            await asyncio.shield(sandbox.destroy())
            raise
        return sandbox

    async def run_sealed(self, run: SealedRun) -> SealedResult:
        """See `SealedSandboxes`."""
        folder = self.host.state / "attempts" / self._next_name()
        async with self._whole(folder):
            layers.make_layers(self.host, folder)
            try:
                return await run_sealed(self.host, self.cgroups, folder, run, run.limits or self.limits)
            finally:
                await asyncio.shield(layers.remove(self.host, folder))

    async def fork(self, sandbox: IsolatedSandbox, *, doors: Sequence[Door] = ()) -> IsolatedSandbox:
        """Another sandbox with a copy of this one's files, taken while its processes stand still. Processes are not copied."""
        other = await self._new(sandbox.workspace, sandbox.limits, sandbox.surroundings)
        try:
            await sandbox.copy_to(other.folder)
            await other.begin(doors)
        except BaseException:
            await asyncio.shield(other.destroy())
            raise
        return other

    async def take(self, sandbox: IsolatedSandbox) -> Snapshot:
        """The files of a sandbox, for `Sandbox.snapshot`."""
        folder = self.host.state / "snapshots" / self._next_name()
        async with self._whole(folder):
            layers.make_layers(self.host, folder)
            await sandbox.copy_to(folder)
        return Snapshot(str(folder), sandbox.workspace)

    async def discard(self, start: Workspace | Snapshot) -> None:
        """See `Sandboxes`."""
        await layers.remove(self.host, Path(start.location))

    async def _new(self, workspace: Workspace, limits: SandboxLimits, surroundings: Surroundings | None) -> IsolatedSandbox:
        name = self._next_name()
        folder = self.host.state / "attempts" / name
        async with self._whole(folder):
            layers.make_layers(self.host, folder)
            cgroup = await make_cgroup(self.cgroups, name, limits)
        sandbox = IsolatedSandbox(self, folder, workspace, limits, cgroup, surroundings or Surroundings())
        self.alive.add(sandbox)
        return sandbox

    @asynccontextmanager
    async def _whole(self, folder: Path) -> AsyncIterator[None]:
        """Removes the folder if what makes it fails or is cancelled."""
        try:
            yield
        except BaseException:
            await asyncio.shield(layers.remove(self.host, folder))
            raise

    def _next_name(self) -> str:
        self._num_made += 1
        return str(self._num_made)

    async def _prove(self) -> None:
        """Makes one sandbox and runs a command in it: whatever is refused here is refused before any work is lost."""
        try:
            workspace = await self.prepare(None)
            sandbox = await self.create(workspace)
            try:
                result = await sandbox.run(Command(("/bin/sh", "-c", "echo ready"), timeout_s=_READY_TIMEOUT_S))
            finally:
                await sandbox.destroy()
                await self.discard(workspace)
        except (SandboxError, OSError) as error:
            raise SandboxUnavailable(f"this host makes no isolated sandbox: {error}\n{_REMEDIES}") from error
        if result.stdout != b"ready\n":
            raise SandboxUnavailable(f"a command in an isolated sandbox does not work on this host: {result}")

    async def _close(self) -> None:
        await asyncio.gather(*(sandbox.destroy() for sandbox in tuple(self.alive)), return_exceptions=True)
        self.cgroups.close()
        await _remove_state(self.host, self.host.state)
        with contextlib.suppress(OSError):
            self.host.state.parent.rmdir()  # unless another process has sandboxes there


class IsolatedSandbox(ServedSandbox):
    """Implements `trunkline.protocols.Sandbox`: one process namespace with a server in it."""

    def __init__(
        self,
        owner: IsolatedSandboxes,
        folder: Path,
        workspace: Workspace,
        limits: SandboxLimits,
        cgroup: Cgroup,
        surroundings: Surroundings,
    ) -> None:
        super().__init__(limits)
        self.folder = folder
        self.workspace = workspace
        self.surroundings = surroundings
        self._owner = owner
        self._cgroup = cgroup
        self._process: asyncio.subprocess.Process | None = None
        self._first: int | None = None
        """A descriptor of process 1 (pidfd)."""
        self._watchdog: Watchdog | None = None

    async def begin(self, doors: Sequence[Door]) -> None:
        """Starts process 1. Raises SandboxError with what bubblewrap says."""
        with self.log.timed("create", f"{self._owner.kind}; doors: {', '.join(door.name for door in doors) or 'none'}"):
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    await self._launch(theirs.fileno(), doors)
                link = self._link = await ServerLink.over(ours)
            except TimeoutError:
                ours.close()
                raise SandboxError(f"the sandbox did not start within {_READY_TIMEOUT_S:g} s") from None
            except BaseException:
                ours.close()
                raise
            settings: dict[str, Any] = {
                "workspace": WORKSPACE,
                "environment": self._environment(),
                "limits": self._rlimits(),
                "doors": [(door.port, f"{DOORS}/{index}") for index, door in enumerate(doors)],
            }
            try:
                async with asyncio.timeout(_READY_TIMEOUT_S):
                    await link.request("hello", **settings)
            except (SandboxError, Refused, TimeoutError) as error:
                raise SandboxError(f"the sandbox did not start: {await self._complaint() or error!r}") from error
            self._watchdog = Watchdog(self._measure, self.limits, link, holds_memory=not self._cgroup.folders)
            self._watchdog.start(self._spend)

    async def snapshot(self) -> Snapshot:
        """See `Sandbox`."""
        with self.log.timed("snapshot", ""):
            return await self._owner.take(self)

    async def diff(self, *, max_bytes: int | None = None) -> tuple[FileChange, ...]:
        """See `SandboxFiles`."""
        with self.log.timed("diff", "") as act:
            async with self._still_or_dead():
                most = self.limits.disk_bytes + self.limits.num_files * _NAME_BYTES
                base, upper = Path(self.workspace.location), self.folder / "upper"
                changes = await layers.read_changes(self._owner.host, base, upper, max_bytes=most if max_bytes is None else max_bytes)
            act.num_bytes = sum(len(change.content) for change in changes)
            return changes

    @asynccontextmanager
    async def _still_or_dead(self) -> AsyncIterator[None]:
        """After a spent limit its files lie there until `destroy`, and once process 1 is gone nobody writes them any more."""
        if not (self._spent and self._destroying is None and self._process is not None):
            async with self._still():
                yield
            return
        try:
            await asyncio.wait_for(self._process.wait(), _END_TIMEOUT_S)
        except TimeoutError:
            raise SandboxError("the sandbox spent a limit and was killed, but does not end") from None
        yield

    async def copy_to(self, folder: Path) -> None:
        """Copies its layers into the empty layers of another, while its processes stand still."""
        async with self._still():
            await layers.copy_layers(self._owner.host, self.folder, folder)

    async def _launch(self, control: int, doors: Sequence[Door]) -> None:
        host = self._owner.host
        mounts = [Mount(self.folder / "home", HOME, is_writable=True), Mount(self.folder / "tmp", "/tmp", is_writable=True)]
        mounts += [Mount(door.socket, f"{DOORS}/{index}") for index, door in enumerate(doors)]
        mounts += [Mount(source, target) for source, target in self.surroundings.shown]
        try:
            layers.clear_way(self.folder, host.toolchain)
        except OSError as error:
            raise SandboxError(f"the toolchain cannot be mounted over what is in {error.filename}: {error.strerror}") from error
        info_read, info_write = os.pipe2(os.O_CLOEXEC)
        with host.opened("seccomp.bpf") as (filter_fd,), _appending(self.folder / "log") as log:
            walls = Walls(
                mounts,
                toolchain=host.toolchain,
                overlay=Overlay((Path(self.workspace.location),), self.folder / "upper", self.folder / "work"),
                join_files=self._cgroup.join_files,
                fds={"--seccomp": filter_fd, "--info-fd": info_write},
            )
            starting = asyncio.create_task(
                asyncio.create_subprocess_exec(
                    *host.command(walls, host.server_command(control)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                    pass_fds=(control, filter_fd, info_write),
                    start_new_session=True,
                )
            )
            try:
                await asyncio.wait([starting])  # not cut short: what was started is known and can be ended
                self._process = starting.result()
            except OSError as error:
                os.close(info_read)
                raise SandboxError(f"cannot start a sandbox: {error}") from error
            except asyncio.CancelledError:
                os.close(info_read)
                self._process = await starting
                raise
            finally:
                os.close(info_write)
        reading = asyncio.create_task(asyncio.to_thread(_read_to_end, info_read))  # goes on if we are cancelled, and closes the pipe
        async with asyncio.timeout(_READY_TIMEOUT_S):
            self._first = _pidfd(await asyncio.shield(reading))

    async def _measure(self) -> layers.Usage:
        usage = await asyncio.to_thread(layers.measure, self.folder)
        return await layers.measure_inside(self._owner.host, self.folder) if usage.is_hidden else usage

    async def _num_oom_kills(self) -> int:
        return self._cgroup.num_oom_kills()

    def _kill(self) -> None:
        if self._first is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        elif self._process is not None:
            with contextlib.suppress(OSError):  # with its child, which waits for ever if bubblewrap dies before it has set it up
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _destroy(self) -> None:
        if self._watchdog is not None:
            await self._watchdog.stop()
        kills = self._cgroup.num_oom_kills()
        if kills:
            self.log.add("limit", f"the kernel killed {kills} of its processes for memory")
        self._kill()
        if self._link is not None:
            await self._link.close()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _END_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._first is not None:
            os.close(self._first)
            self._first = None
        await asyncio.to_thread(self._cgroup.remove)
        await layers.remove(self._owner.host, self.folder)
        self._owner.alive.discard(self)
        self.log.add("destroy", "")

    async def _complaint(self) -> str:
        self._kill()
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 1.0)
        return await asyncio.to_thread((self.folder / "log").read_text, errors="replace")

    def _environment(self) -> dict[str, str]:
        own = {"PATH": self._owner.host.search_path, "HOME": HOME, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "agent", "TERM": "dumb"}
        return {**own, **self.surroundings.variables}

    def _rlimits(self) -> list[tuple[int, int, int]]:
        """Of each command's processes; counted in the sandbox's own user namespace."""
        limits = self.limits
        values = {
            resource.RLIMIT_NPROC: limits.num_processes,
            resource.RLIMIT_NOFILE: limits.num_open_files,
            resource.RLIMIT_FSIZE: limits.disk_bytes,
            resource.RLIMIT_CORE: 0,
        }
        if not self._cgroup.folders:
            values[resource.RLIMIT_DATA] = limits.memory_bytes
        return [(kind, value, value) for kind, value in values.items()]


async def remove_leftovers(host: Host) -> None:
    """What owners that were killed have left: their sandboxes died with them, folders and cgroups did not. Raises SandboxError."""
    for folder in host.state.parent.glob("*-*"):
        if has_ended(folder.name):
            tree = await asyncio.to_thread(CgroupTree.probe, folder.name)
            await asyncio.to_thread(tree.close)
            await _remove_state(host, folder)


async def _remove_state(host: Host, state: Path) -> None:
    """A folder of sandboxes, first what agents made in it: that belongs to their user, the rest to us. Raises SandboxError."""
    for folder in [path for name in ("attempts", "snapshots", "workspaces") for path in (state / name).glob("*")]:
        await layers.remove(host, folder)
    await layers.remove(host, state)


def _base(config: SandboxConfig) -> Path:
    parent = config.directory or Path(os.environ.get("TMPDIR") or "/var/tmp")
    return parent / f"trunkline-sandboxes-{os.geteuid()}"


def _make_state(config: SandboxConfig) -> Path:
    base = _base(config)
    try:
        base.mkdir(mode=0o711, parents=True, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.geteuid():
            raise SandboxUnavailable(f"{base} is a link or belongs to another user; set sandbox.directory to a folder of your own")
        base.chmod(0o711)
        if os.geteuid() == 0 and not is_open_to_all(base):
            raise SandboxUnavailable(f"root's sandboxes run as nobody, who cannot reach {base}; set sandbox.directory to an open one")
        return Path(tempfile.mkdtemp(prefix=f"{own_name()}-", dir=base))  # its name is also the cgroups', so no other set may have it
    except OSError as error:
        raise SandboxUnavailable(f"cannot keep sandboxes in {base}: {error.strerror}; set sandbox.directory") from error


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[int]:
    """A descriptor for the complaints of bubblewrap and of the server, which no command of an agent has."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _read_to_end(fd: int) -> bytes:
    """What bubblewrap says of its child: the pipe ends when it has made one, or died."""
    with open(fd, "rb") as info:
        return info.read()


def _pidfd(info: bytes) -> int | None:
    """A descriptor of bubblewrap's child, from what --info-fd says."""
    digits = info.partition(b'"child-pid":')[2].strip().partition(b",")[0].strip(b" \n}")
    if not digits.isdigit():
        return None
    try:
        return os.pidfd_open(int(digits))
    except OSError:
        return None
