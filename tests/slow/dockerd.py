"""A Docker engine for tests, started by hand as root, and images made without a registry. Owns no test."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

IMAGE = "trunkline-test:python"
BARE_IMAGE = "trunkline-test:bare"
"""Without python3."""
_TOOLS = ("sh", "cat", "chmod", "cp", "echo", "env", "id", "ln", "ls", "mkdir", "mkfifo", "mv", "rm", "sleep", "touch", "true")
_LEFT_OUT = frozenset({"test", "tests", "site-packages", "idlelib", "ensurepip", "lib2to3", "tkinter", "turtledemo", "__pycache__"})
_START_TIMEOUT_S = 60.0


@contextmanager
def running_dockerd() -> Iterator[str]:
    """The address of an engine of our own: own socket, data, cgroups and mounts, all gone afterwards. Skips where it cannot run."""
    if shutil.which("dockerd") is None:
        pytest.skip("there is no dockerd on this host; on Debian: apt-get install docker.io")
    if os.geteuid() != 0:
        pytest.skip("dockerd is started by hand as root, and this is another user")
    folder = Path(tempfile.mkdtemp(prefix="trunkline-dockerd-"))
    group = f"trunkline-dockerd-{os.getpid()}"
    address = f"unix://{folder}/docker.sock"
    paths = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
    options = ["--host", address, *(f"{option}={folder / name}" for option, name in paths.items())]
    options += ["--cgroup-parent", f"/{group}", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    log = folder / "log"
    with log.open("wb") as output:
        command = ["unshare", "--mount", "--propagation", "private", "dockerd", *options]
        daemon = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _await_answer(address, daemon, log)
        yield address
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        shutil.rmtree(folder)
        for left in Path("/sys/fs/cgroup").glob(f"**/{group}"):
            with contextlib.suppress(OSError):
                left.rmdir()


def _await_answer(address: str, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and daemon.poll() is None:
        with contextlib.suppress(docker.errors.DockerException, OSError):
            docker.DockerClient(address).close()
            return
        time.sleep(0.2)
    pytest.skip(f"dockerd does not run on this host: {log.read_text(errors='replace')[-2000:]}")


def import_images(address: str) -> None:
    """IMAGE: this interpreter with its standard library, and a few tools, with the libraries they need; BARE_IMAGE: /bin/sh alone."""
    client = docker.DockerClient(address)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib"))
    files = {f"bin/{name}": _program(name) for name in _TOOLS} | {f"usr/local/bin/{version}": Path(sys.base_prefix) / "bin" / version}
    for path in library.rglob("*"):
        if path.is_file() and path.suffix != ".a" and not _LEFT_OUT & {*path.relative_to(library).parts}:
            files[f"usr/local/lib/{version}/{path.relative_to(library)}"] = path
    files |= _libraries([path for name, path in files.items() if name.startswith(("bin/", "usr/local/bin/")) or path.suffix == ".so"])
    shell = {"bin/sh": _program("sh")}
    with tempfile.TemporaryFile() as archive:
        for tag, chosen, links in (
            (IMAGE, files, {"usr/local/bin/python3": version}),
            (BARE_IMAGE, shell | _libraries([shell["bin/sh"]]), {}),
        ):
            archive.seek(0)
            archive.truncate()
            _write_root(archive, chosen, links)
            archive.seek(0)
            repository, _, name = tag.partition(":")
            client.api.import_image_from_data(archive, repository=repository, tag=name, changes=["ENV FROM_IMAGE=yes"])
    client.close()


def _write_root(archive: io.BufferedRandom, files: dict[str, Path], links: dict[str, str]) -> None:
    """A root directory. Real files where links were, so that the host's own layout does not matter."""
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, mode in (("tmp", 0o1777), ("home", 0o755), ("etc", 0o755), ("run", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name, path in files.items():
            member = tar.gettarinfo(path.resolve(), name)
            member.type, member.uid, member.gid = tarfile.REGTYPE, 0, 0
            member.size = path.stat().st_size  # of a second name too
            with path.open("rb") as content:
                tar.addfile(member, content)
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)


def _program(name: str) -> Path:
    found = shutil.which(name, path="/usr/bin:/bin")
    assert found is not None, f"{name} is in every Linux"
    return Path(found)


def _libraries(programs: Sequence[Path]) -> dict[str, Path]:
    """Shared libraries where the loader looks for them; ldd(1) knows them."""
    found = {}
    listing = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        for word in line.split():
            if word.startswith("/") and not word.endswith(":"):
                found[word.lstrip("/")] = Path(word)
    return found
