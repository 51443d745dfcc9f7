"""The Node and npm of this host, and how a sandbox sees them. Owns no package."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import ConfigError

_OLDEST = 20
_TIMEOUT_S = 30.0
_SYSTEM = Path("/usr")
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64", "i686": "ia32"}


@dataclass(frozen=True)
class Node:
    """An installation."""

    version: str
    """Such as '20.20.2'."""
    prefix: Path
    """Holds bin/node and bin/npm."""
    registry: str
    """Where npm finds packages, without a slash at its end."""

    @property
    def major(self) -> str:
        """Such as '20'."""
        return self.version.partition(".")[0]

    @property
    def shown(self) -> tuple[tuple[Path, str], ...]:
        """What a sealed run has to show, beside /usr."""
        return () if self.prefix == _SYSTEM else ((self.prefix, str(self.prefix)),)

    @property
    def search_path(self) -> str:
        """PATH inside."""
        return ":".join(dict.fromkeys([f"{self.prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"]))


def find_node() -> Node:
    """That on this process's PATH. Raises ConfigError if there is none, or it is too old to report on tests."""
    of_npm = tuple(sorted(item for item in os.environ.items() if item[0].lower().startswith("npm_config_")))
    return _find(os.environ.get("PATH", ""), of_npm)


@functools.lru_cache(maxsize=4)
def _find(path: str, of_npm: tuple[tuple[str, str], ...]) -> Node:
    """Asked of npm once for the same PATH and the same variables of npm: half a second."""
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        raise ConfigError(f"JavaScript needs Node {_OLDEST} or newer with npm, and there is no {'node' if node is None else 'npm'} on PATH")
    version = _said([node, "--version"]).removeprefix("v")
    if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < _OLDEST:
        raise ConfigError(f"JavaScript needs Node {_OLDEST} or newer, {node} is {version}; install a newer one")
    registry = _said([npm, "config", "get", "registry"])
    return Node(version, Path(node).resolve().parent.parent, registry.rstrip("/"))


def this_platform() -> dict[str, str]:
    """This host in the words of package.json: {'os': 'linux', 'cpu': 'x64', 'libc': 'glibc'}."""
    machine = platform.machine().lower()
    libc = "glibc" if platform.libc_ver()[0] == "glibc" else "musl"
    return {"os": platform.system().lower(), "cpu": _MACHINES.get(machine, machine), "libc": libc}


def npm_environment() -> dict[str, str]:
    """Variables for npm on this host: the user's own, and no colours."""
    return {**os.environ, "NO_COLOR": "1", "npm_config_audit": "false", "npm_config_fund": "false", "npm_config_update_notifier": "false"}


def _said(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S, env=npm_environment()).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{' '.join(argv)} failed: {error}; install Node {_OLDEST} or newer with npm") from error
