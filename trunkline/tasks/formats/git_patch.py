"""Changes of a workspace as git's patches and back, and the files of a commit. Owns no format of instances; keeps no repository.

Patches are made in a bare repository that lives for one call: nothing of a diff, which an agent made, is written to this host's file
system under its own name, and no attribute or configuration of anyone changes what is compared.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from trunkline.errors import ConfigError, TaskError
from trunkline.tasks.swe.tree import is_inside, leads_through_link
from trunkline.types import FileChange

_TIMEOUT_S = 300
_MOST_NAMES = 500
"""On one command line, which has an end."""
_LINK, _PLAIN, _EXECUTABLE = 0o120000, 0o100644, 0o100755
_File = tuple[int, bytes]
"""Mode as git knows it, and content."""
_DIFF = ("diff", "--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--unified=3")


def patch_of(changes: Sequence[FileChange], pristine: Path) -> str:
    """What `git apply` turns `pristine` into the changed workspace with; '' if nothing of it is left.

    Left out are what git does not hold: directories by themselves, devices, paths that lead out or belong to version control.
    """
    before: dict[str, _File] = {}
    after: dict[str, _File] = {}
    gone: set[str] = set()
    for change in changes:
        if not is_inside(change.path) or ".git" in PurePosixPath(change.path.casefold()).parts:
            continue
        for way in [*PurePosixPath(change.path).parents][-2::-1]:
            if _is_file_or_link(pristine, str(way)):
                gone.add(str(way))
        if change.kind != "directory" or _is_file_or_link(pristine, change.path):
            gone.add(change.path)
        if change.kind in ("file", "symlink"):
            mode = _LINK if change.kind == "symlink" else _EXECUTABLE if change.mode & stat.S_IXUSR else _PLAIN
            after[change.path] = (mode, change.content)
    for path in gone:
        before |= _files_at(pristine, path)
    return _diff(before, after)


def apply_patch(patch: str, tree: Path, *, what: str) -> None:
    """Changes `tree`, which is in no repository. Raises TaskError, saying `what` does not apply."""
    if not patch.strip():
        return
    text = patch if patch.endswith("\n") else f"{patch}\n"
    _git(["apply", "-p1", "--whitespace=nowarn", "-"], tree, stdin=_bytes(text), failure=f"{what} does not apply")


def merge_text(ours: bytes, base: bytes, theirs: bytes) -> bytes:
    """`ours` with what `theirs` changes of `base`; where both change the same lines it has theirs. `theirs` itself if one is no text."""
    if b"\0" in ours + base + theirs:
        return theirs
    with tempfile.TemporaryDirectory(prefix="trunkline-git-") as scratch:
        for name, content in (("ours", ours), ("base", base), ("theirs", theirs)):
            (Path(scratch) / name).write_bytes(content)
        return _git(["merge-file", "--stdout", "--theirs", "ours", "base", "theirs"], Path(scratch), failure="git merges no files")


def extract_commit(repository: Path, commit: str, target: Path) -> None:
    """Writes the files of a commit, without its history. Links within it become copies, for a task consists of files.

    Raises TaskError: no such commit, submodules, links that lead nowhere or out.
    """
    if not any((repository / name).exists() for name in (".git", "HEAD")):
        raise TaskError(f"{repository} is no git repository; clone the instance's repository there")
    unknown = f"{repository} has no commit {commit!r}; fetch it first"
    number = _git(["rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}"], repository, failure=unknown).decode().split()[-1]
    objects = repository / _git(["rev-parse", "--git-path", "objects"], repository, failure=unknown).decode().strip()
    with tempfile.TemporaryDirectory(prefix="trunkline-archive-") as scratch:
        bare = Path(scratch)
        _init_bare(bare)
        (bare / "objects" / "info" / "alternates").write_text(f"{objects.resolve()}\n")
        # What a project leaves out of its releases, often its tests, belongs to the task.
        (bare / "info" / "attributes").write_text("* -export-ignore -export-subst\n")
        listing = _git(["ls-tree", "-r", "-z", number], bare, failure=unknown)
        modules = [line.partition(b"\t")[2].decode(errors="replace") for line in listing.split(b"\0") if line.startswith(b"160000")]
        if modules:
            raise TaskError(f"{repository} at {commit} has submodules, which are not supported: {', '.join(modules)}")
        archive = _git(["archive", "--format=tar", number], bare, failure=unknown)
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(target, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise TaskError(f"the files of {commit} cannot be written to {target}: {error}") from error
    _copy_links(target)


def _diff(before: dict[str, _File], after: dict[str, _File]) -> str:
    """Text where both sides are UTF-8, git's binary form elsewhere."""
    paths = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if not paths:
        return ""
    as_text = [path for path in paths if all(_is_text(side[path][1]) for side in (before, after) if path in side)]
    as_binary = sorted({*paths} - {*as_text})
    with tempfile.TemporaryDirectory(prefix="trunkline-diff-") as scratch:
        bare = Path(scratch)
        _init_bare(bare)
        stream = b"".join(_import_stream(before, after, paths))
        _git(["fast-import", "--quiet"], bare, stdin=stream, failure="git takes no files")
        text = _diff_of(bare, as_text)
        (bare / "info" / "attributes").write_text("* -diff\n")
        return (text + _diff_of(bare, as_binary)).decode()


def _diff_of(bare: Path, paths: Sequence[str]) -> bytes:
    chunks = []
    for start in range(0, len(paths), _MOST_NAMES):
        names = paths[start : start + _MOST_NAMES]
        chunks.append(_git(["--literal-pathspecs", *_DIFF, "before", "after", "--", *names], bare, failure="git makes no diff"))
    return b"".join(chunks)


def _init_bare(folder: Path) -> None:
    _git(["init", "--quiet", "--bare", "--template="], folder, failure="git makes no repository")
    for name in ("info", "objects/info"):
        (folder / name).mkdir(exist_ok=True)


def _import_stream(before: dict[str, _File], after: dict[str, _File], paths: Sequence[str]) -> Iterator[bytes]:
    """Two commits in the language of git-fast-import(1)."""
    for branch, files in (("before", before), ("after", after)):
        yield b"commit refs/heads/%b\ncommitter a <a> 0 +0000\ndata 0\n" % branch.encode()
        for path, (mode, content) in ((path, files[path]) for path in paths if path in files):
            yield b"M %06o inline %b\ndata %d\n%b\n" % (mode, _quoted(path), len(content), content)
        yield b"\n"


def _quoted(path: str) -> bytes:
    return b'"' + b"".join(b"\\%03o" % byte for byte in os.fsencode(path)) + b'"'


def _files_at(tree: Path, path: str) -> dict[str, _File]:
    """The file or link at a path, or all below it."""
    place = tree / path
    if leads_through_link(tree, path) or not os.path.lexists(place):
        return {}
    mode = place.lstat().st_mode
    if stat.S_ISLNK(mode):
        return {path: (_LINK, os.fsencode(place.readlink()))}
    if stat.S_ISREG(mode):
        return {path: (_EXECUTABLE if mode & stat.S_IXUSR else _PLAIN, place.read_bytes())}
    found: dict[str, _File] = {}
    if stat.S_ISDIR(mode):
        for name in sorted(os.listdir(place)):
            if name != ".git":
                found |= _files_at(tree, f"{path}/{name}")
    return found


def _is_file_or_link(tree: Path, path: str) -> bool:
    """What a directory there, or anything below it, replaces."""
    return not leads_through_link(tree, path) and os.path.lexists(tree / path) and not stat.S_ISDIR((tree / path).lstat().st_mode)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _copy_links(tree: Path) -> None:
    top = tree.resolve()
    paths = [Path(where) / name for where, folders, files in os.walk(tree) for name in (*folders, *files)]
    for link in (path for path in paths if path.is_symlink()):
        meant = link.resolve()
        if not meant.exists() or not meant.is_relative_to(top) or link.is_relative_to(meant):
            raise TaskError(f"{link.relative_to(tree)} is a link to {link.readlink()}: nowhere, out, or into itself; it is not supported")
        link.unlink()
        if meant.is_dir():
            shutil.copytree(meant, link, symlinks=False)
        else:
            shutil.copy2(meant, link)


def _git(arguments: Sequence[str], folder: Path, *, failure: str, stdin: bytes = b"") -> bytes:
    """What git writes, run in a folder without anyone's configuration. Raises TaskError with `failure`, ConfigError without git."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(folder.absolute().parent),  # else `apply` passes over paths of a repository around it
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
    }
    settings = ["-c", "safe.directory=*", "-c", f"core.attributesFile={os.devnull}", "-c", "core.quotePath=true"]
    command = ["git", *settings, *arguments]
    try:
        done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, env=environment, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise ConfigError("git is not installed, and patches are made and applied by it; on Debian: apt-get install git") from None
    except subprocess.TimeoutExpired as error:
        raise TaskError(f"{failure}: git {arguments[0]} took longer than {_TIMEOUT_S} s") from error
    if done.returncode:
        raise TaskError(f"{failure}: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout
