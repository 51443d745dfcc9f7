"""Images built from a task's Dockerfile, and what an agent is to work on taken out of them. Owns no container that runs.

    folder with a Dockerfile ─► build ─► image ──► its working directory's files, on this host
    (or an image that exists)              └─────► the same image, with a link to /workspace in their place

Both images carry a tag made of a digest of the folder, and stay in the engine: building them again would take minutes.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import shlex
import stat
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import SandboxError
from trunkline.sandbox.docker_engine import Engine, NotInEngine
from trunkline.sandbox.host import HOME, WORKSPACE

REPOSITORY = "trunkline-task"
"""Of the tags."""
_DIGITS = 32
_WORDS = 2000
_SYSTEM = frozenset({HOME,
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp",
    "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/var",
})  # fmt: skip
"""Directories that an image, or a sandbox, cannot do without."""


@dataclass(frozen=True)
class ImageSource:
    """Where an image comes from."""

    context: Path | None
    """A folder with a Dockerfile; None: the image exists."""
    image: str | None = None
    """The image that exists; it is never fetched."""
    workdir: str | None = None
    """Directory in it that the agent works on; None: the image's own."""
    timeout_s: float = 600.0
    """Of the build."""


async def detached_image(engine: Engine, source: ImageSource, workspace: Path) -> str:
    """Builds an image unless it is there, writes what an agent works on into `workspace` (new), and returns the tag of the image without.

    That is the image's working directory, or all of /workspace if it lies there. A history (.git) is not written: the solution may lie
    in it. Raises SandboxError.
    """
    built = source.image or await _built(engine, source)
    try:
        config = (await engine.ask("find an image", engine.api.inspect_image, built))["Config"]
    except NotInEngine:
        remedy = f"images are never fetched unasked; run: {engine.name} pull {built}"
        raise SandboxError(f"{engine.name} has no image {built!r}, and {remedy}") from None
    workdir = posixpath.normpath(source.workdir or config.get("WorkingDir") or "/")
    if workdir.startswith(f"{WORKSPACE}/"):
        workdir = WORKSPACE
    if workdir in _SYSTEM:
        raise SandboxError(f"the agent would work on {workdir} of {built}; name another directory by WORKDIR in its Dockerfile")
    await _take_out(engine, built, workdir, workspace)
    tag = f"{REPOSITORY}:{hashlib.sha256(f'{built} {workdir}'.encode()).hexdigest()[:_DIGITS]}-empty"
    await _build(engine, tag, source.timeout_s, fileobj=io.BytesIO(_emptied(built, workdir).encode()), network_mode="none")
    return tag


async def _built(engine: Engine, source: ImageSource) -> str:
    assert source.context is not None, "an image comes from somewhere"
    tag = f"{REPOSITORY}:{_digest(source.context)}"
    try:
        await engine.ask("find an image", engine.api.inspect_image, tag)
    except NotInEngine:
        await _build(engine, tag, source.timeout_s, path=str(source.context.absolute()))
    return tag


async def _build(engine: Engine, tag: str, timeout_s: float, **options: Any) -> None:
    """Raises SandboxError with the end of what the build said."""

    def build() -> None:
        deadline = time.monotonic() + timeout_s
        words = ""
        for line in engine.api.build(tag=tag, rm=True, forcerm=True, pull=False, decode=True, timeout=timeout_s, **options):
            words = (words + str(line.get("stream") or ""))[-_WORDS:]
            if "error" in line:
                raise SandboxError(f"{engine.name} cannot build {tag}: {line['error'].strip()}; it said:\n{words.strip()}")
            if time.monotonic() > deadline:
                raise SandboxError(f"building {tag} took longer than {timeout_s:g} s; raise environment.build_timeout_sec")

    await engine.ask(f"build {tag}", build)


async def _take_out(engine: Engine, image: str, workdir: str, workspace: Path) -> None:
    made = await engine.ask("make a container", engine.api.create_container, image, ["none"], labels=dict(engine.labels))
    try:
        with tempfile.TemporaryFile() as packed:
            await engine.copy_out(made["Id"], workdir, packed)
            await engine.ask("write a workspace", _unpack, packed, workspace)
    finally:
        await engine.remove_container(made["Id"])


def _unpack(packed: Any, workspace: Path) -> None:
    """The directory's files as this user's; `tar` of the standard library lets none out of the folder, whatever links say."""
    workspace.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=packed) as tar:
            for member in tar:
                parts = posixpath.normpath(member.name).split("/")[1:]
                if not parts or ".git" in parts or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                    continue
                member.name = "/".join(parts)
                if member.islnk():
                    member.linkname = posixpath.normpath(member.linkname).partition("/")[2]
                member.mode |= stat.S_IRUSR | stat.S_IWUSR | (stat.S_IXUSR if member.isdir() else 0)
                member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
                tar.extract(member, workspace, filter="tar")
    except (tarfile.TarError, OSError, KeyError) as error:
        raise SandboxError(f"the files of an image cannot be written to {workspace}: {error}") from error


def _emptied(image: str, workdir: str) -> str:
    """A Dockerfile: what lay at `workdir` is where every workspace lies, and a link leads there."""
    commands = [f"rm -rf {WORKSPACE}", f"mkdir {WORKSPACE}"]
    if workdir != WORKSPACE:
        commands = [f"rm -rf {shlex.quote(workdir)} {WORKSPACE}", f"mkdir {WORKSPACE}", f"ln -s {WORKSPACE} {shlex.quote(workdir)}"]
    return f"FROM {image}\nUSER 0\nWORKDIR /\nRUN {' && '.join(commands)}\n"


def _digest(context: Path) -> str:
    """Over path, x-bit and content of all files, and links."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(context):
        folders.sort()
        for path in sorted(Path(folder) / name for name in (*files, *(name for name in folders if (Path(folder) / name).is_symlink()))):
            mode = path.lstat().st_mode
            content = os.fsencode(path.readlink()) if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else b""
            name = os.fsencode(path.relative_to(context))
            digest.update(b"%d %b %d %d %d\n" % (len(name), name, stat.S_IFMT(mode), bool(mode & stat.S_IXUSR), len(content)))
            digest.update(content)
    return digest.hexdigest()[:_DIGITS]
