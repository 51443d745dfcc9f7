"""Installed agents in the user's cache folder. Owns how they come there and what counts as installed; no adapter's schema.

    $TRUNKLINE_HOME/agents/codex-0.169.0-1f0c/                 the installation, with its receipt once it is whole
    $TRUNKLINE_HOME/agents/codex-0.169.0-1f0c/installed.json   the receipt: what was asked, what was installed
    $TRUNKLINE_HOME/agents/.codex-0.169.0-1f0c.lock

Scripts of a virtual environment name their own path, so an installation is made where it stays. It counts as installed by its
receipt alone, which is written last: what a killed installer left has none, and the next one begins anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trunkline.agents.adapter import SHIPPED, Adapter, InstallSection
from trunkline.errors import ConfigError, InfraError
from trunkline.home import cache_home

RECEIPT = "installed.json"
OnStep = Callable[[str, Path], None]
"""Told again and again what is being done, and the file that what does it writes to."""

UNREACHED = "the registry was not reached"
"""In the message of an InfraError that a network, not an adapter, is to blame for."""

_LOG = "install.log"
_POLL_S = 0.2
_SHOWN_LINES = 12
_NO_NETWORK = re.compile(
    "ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH"
    "|NewConnectionError|NameResolutionError|ConnectTimeout|from versions: none"
)


def installation_folder(adapter: Adapter) -> Path | None:
    """Where it is, or would be; None for an adapter without [install]. Adapters that ask for the same share it."""
    section = adapter.file.install
    if section is None:
        return None
    asked = json.dumps([section.installer, section.requirements, section.after, sys.version_info[:2] if section.installer == "pip" else ()])
    name = re.sub(r"[^a-z0-9]+", "-", section.package.partition("[")[0].lower()).strip("-")
    return cache_home() / "agents" / f"{name}-{section.version}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def is_installed(adapter: Adapter) -> bool:
    """Whether it can be used now; true of an adapter without [install]."""
    folder = installation_folder(adapter)
    return folder is None or (folder / RECEIPT).is_file()


def installed_folder(adapter: Adapter) -> Path | None:
    """The installation; None for an adapter without [install]. Raises ConfigError if it is not there yet."""
    if not is_installed(adapter):
        named = adapter.file.name if adapter.path.parent == SHIPPED else adapter.path
        raise ConfigError(f"the agent {adapter.file.name!r} is not installed; run: trunkline agent install {named}")
    return installation_folder(adapter)


def host_toolchain(adapter: Adapter) -> tuple[Path, ...]:
    """What a sandbox must show of this host for the adapter, beside /usr and this Python. Raises ConfigError if it is not installed."""
    folder = installed_folder(adapter)
    shown = [*adapter.own_files(), *([folder] if folder else [])]
    if adapter.file.install is not None and adapter.file.install.installer == "npm":
        shown.append(Path(_program("node")).resolve().parents[1])
    return tuple(path for path in shown if path != Path("/usr"))


def install(adapter: Adapter, on_step: OnStep, *, replace: bool = False) -> Path | None:
    """Installs what is not there yet, or anew if `replace`. Two at once: the second waits for the first.

    Raises:
        ConfigError: no pip or npm here, a folder that cannot be written.
        InfraError: the installer failed, or what it installed does not work.
    """
    section, folder = adapter.file.install, installation_folder(adapter)
    if section is None or folder is None or (is_installed(adapter) and not replace):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock"), on_step) as waited:
            if not (is_installed(adapter) and (waited or not replace)):
                _make(adapter, section, folder, on_step)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error}; check space and permissions, or set TRUNKLINE_HOME") from error
    return folder


def _make(adapter: Adapter, section: InstallSection, folder: Path, on_step: OnStep) -> None:
    (folder / RECEIPT).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o755)
    try:
        for title, command in _steps(adapter, section, folder):
            _run(title, command, folder, on_step)
        receipt = {"requirements": section.requirements, "installed": _installed(section, folder)}
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            json.dump(receipt, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.rename(file.name, folder / RECEIPT)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _steps(adapter: Adapter, section: InstallSection, folder: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """What is run, one after another."""
    if section.installer == "pip":
        # Our own pip fills the environment: one less thing that may be missing, and half the time.
        yield "making a virtual environment", (sys.executable, "-m", "venv", "--without-pip", str(folder))
        pip = (sys.executable, "-m", "pip", "--python", str(folder), "install", "--no-input", "--progress-bar=off")
        yield f"pip install {' '.join(section.requirements)}", (*pip, "--disable-pip-version-check", *section.requirements)
    else:
        options = ("--ignore-scripts", "--save-exact", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress")
        npm = (_program("npm"), "install", "--prefix", str(folder), *options)
        yield f"npm install {' '.join(section.requirements)}", (*npm, *section.requirements)
    for command in section.after:
        yield " ".join(command), adapter.for_host(command, folder)
    if section.check:
        yield "checking " + " ".join(section.check), adapter.for_host(section.check, folder)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"there is no {name!r} on PATH, which this agent needs; install Node.js (https://nodejs.org), 20 or newer")
    return found


def _run(title: str, command: Sequence[str], folder: Path, on_step: OnStep) -> None:
    log = folder / _LOG
    with log.open("ab") as output, tempfile.TemporaryDirectory(prefix="trunkline-install-") as home:
        # What an agent writes when it is first run goes to that home; the installers keep the user's, with its settings and caches.
        is_agents = command[0] not in (sys.executable, shutil.which("npm"))
        environment = {**os.environ, **({"HOME": home} if is_agents else {}), "npm_config_update_notifier": "false"}
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,  # sandboxes of root read it as another user
            )
        except OSError as error:
            raise InfraError(f"cannot start {command[0]!r}: {error.strerror}") from error
        try:
            while process.poll() is None:
                on_step(title, log)
                time.sleep(_POLL_S)
        except BaseException:  # interrupted: nothing goes on behind the user's back
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode:
        raise _failure(title, process.returncode, log.read_text(encoding="utf-8", errors="replace"))


def _failure(title: str, status: int, output: str) -> Exception:
    tail = "\n".join(output.strip().splitlines()[-_SHOWN_LINES:])
    if "No module named pip" in output:
        return ConfigError(f"{sys.executable} has no pip; run: {sys.executable} -m ensurepip")
    remedy = f"; {UNREACHED}: pip's index and npm's registry are the user's own settings" if _NO_NETWORK.search(output) else ""
    return InfraError(f"{title!r} ended with status {status}{remedy}. It said:\n{tail or '(nothing)'}")


def _installed(section: InstallSection, folder: Path) -> list[str]:
    """Every distribution that is there now, with its version."""
    if section.installer == "npm":
        packages = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
        is_there = {path: (folder / path).is_dir() for path in packages if path}
        return sorted(f"{path.rpartition('node_modules/')[2]}@{packages[path]['version']}" for path, found in is_there.items() if found)
    metadata = folder.glob("lib/python*/site-packages/*.dist-info")
    return sorted("==".join(path.name.removesuffix(".dist-info").rsplit("-", 1)) for path in metadata)


@contextmanager
def _locked(path: Path, on_step: OnStep) -> Iterator[bool]:
    """Holds the lock file; yields whether another process had it first. The system frees it however a process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except BlockingIOError:
            on_step("waiting for another installation", path)
            fcntl.flock(file, fcntl.LOCK_EX)
            waited = True
        yield waited
