"""Cgroups that hold a sandbox's memory, processes and cores: v2, v1, or none. Owns their files; starts no process.

Which kind a host has is probed by doing it, never assumed: a hierarchy may be mounted and closed to us. A process joins by
writing its own number into the files that `join_files` names, before it becomes the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.types import SandboxLimits

_PERIOD_US = 100_000
_V1_CONTROLLERS = ("memory", "pids", "cpu")
_EMPTY_WITHIN_S = 5.0
_OF_SWAP = ("memory.memsw.limit_in_bytes", "memory.swap.max")
"""Only there where the kernel counts swap."""


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of one sandbox: one directory in v2, one a controller in v1, none where there are no cgroups."""

    folders: tuple[Path, ...]
    """Where it is."""

    @property
    def join_files(self) -> tuple[Path, ...]:
        """A process that writes its number into each of them is in."""
        return tuple(folder / "cgroup.procs" for folder in self.folders)

    def num_oom_kills(self) -> int:
        """How often the kernel killed in here because the memory was spent."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    fields = dict(line.split() for line in (folder / name).read_text().splitlines())
                    return int(fields.get("oom_kill", 0))
        return 0

    def remove(self) -> None:
        """Ends what is still in it, if anything; the kernel may take a moment. Raises OSError if it stays."""
        deadline = time.monotonic() + _EMPTY_WITHIN_S
        for folder in self.folders:
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    _kill_all(folder)
                    time.sleep(0.002)
                    continue
                break


@dataclass(frozen=True)
class CgroupTree:
    """Where sandboxes' cgroups are made."""

    version: str
    """'v2', 'v1' or 'none'."""
    roots: Mapping[str, Path]
    """Controller to the directory above ours; in v2 all three lead to one; empty without cgroups."""
    reason: str
    """Why it is none; '' otherwise."""

    @classmethod
    def probe(cls, owner: str, mounts: str | None = None) -> CgroupTree:
        """What this process may use; `owner` names its directory. `mounts` is the text of /proc/self/mounts."""
        text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
        tried = []
        for version, roots in _candidates(text):
            tree = cls(version, {controller: root / f"trunkline-{owner}" for controller, root in roots.items()}, "")
            try:
                tree._open()
                probe = tree.create("probe", SandboxLimits())
                probe.remove()
                return tree
            except OSError as error:
                tree.close()
                tried.append(f"{version}: {error.strerror} ({error.filename})")
        return cls("none", {}, "; ".join(tried) or "no cgroup file system is mounted")

    def create(self, name: str, limits: SandboxLimits) -> Cgroup:
        """An empty cgroup with these limits. Raises OSError."""
        folders = tuple(dict.fromkeys(root / name for root in self.roots.values()))
        cgroup = Cgroup(folders)
        try:
            for folder in folders:
                folder.mkdir()
            for controller, root in self.roots.items():
                for file, value in _settings(self.version, controller, limits):
                    if file not in _OF_SWAP or (root / name / file).exists():
                        (root / name / file).write_text(value)
        except OSError:
            cgroup.remove()
            raise
        return cgroup

    def close(self) -> None:
        """Removes our directories, with those of sandboxes that are left in them, once they hold no process."""
        for root in dict.fromkeys(self.roots.values()):
            with contextlib.suppress(OSError):
                for folder in root.glob("*/"):
                    Cgroup((folder,)).remove()
                root.rmdir()

    def _open(self) -> None:
        for root in dict.fromkeys(self.roots.values()):
            root.mkdir(exist_ok=True)
            if self.version == "v2":
                (root / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in self.roots))


def _kill_all(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in map(int, (folder / "cgroup.procs").read_text().split()):
            if pid > 0:  # 0 is one that our process namespace does not show
                os.kill(pid, signal.SIGKILL)


def _candidates(mounts: str) -> list[tuple[str, dict[str, Path]]]:
    """Hierarchies with memory, pids and cpu, and where we might make directories in them; v2 first."""
    found: list[tuple[str, dict[str, Path]]] = []
    by_controller: dict[str, Path] = {}
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found += [("v2", dict.fromkeys(_V1_CONTROLLERS, parent)) for parent in _v2_parents(Path(place))]
        elif kind == "cgroup":
            by_controller |= {option: Path(place) for option in options.split(",") if option in _V1_CONTROLLERS}
    if len(by_controller) == len(_V1_CONTROLLERS):
        found.append(("v1", by_controller))
    return found


def _v2_parents(mount: Path) -> Sequence[Path]:
    """Root's own is the top; a user's is beside its own cgroup, where a manager such as systemd has delegated the branch."""
    try:
        if not set(_V1_CONTROLLERS) <= set((mount / "cgroup.controllers").read_text().split()):
            return ()  # a hybrid host: these controllers are bound to v1
        (own,) = [line.partition("::")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    except (OSError, ValueError):
        return ()
    return (mount,) if os.geteuid() == 0 or own == "/" else ((mount / own.lstrip("/")).parent,)


def _settings(version: str, controller: str, limits: SandboxLimits) -> list[tuple[str, str]]:
    """Files and values of one controller."""
    quota = max(1000, int(limits.cpus * _PERIOD_US))
    memory, processes = str(limits.memory_bytes), str(limits.num_processes)
    match version, controller:
        case "v1", "memory":
            return [("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)]
        case "v1", "cpu":
            return [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]
        case "v2", "memory":
            return [("memory.max", memory), ("memory.swap.max", "0")]
        case "v2", "cpu":
            return [("cpu.max", f"{quota} {_PERIOD_US}")]
        case _:
            return [("pids.max", processes)]
