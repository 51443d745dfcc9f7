"""That what an agent gets holds nothing of the time after: no history, no solution, no newer version. Owns the checks; writes nothing.

history      version control, packs, bundles · what a merge leaves behind (.orig, .rej)
caches       compiled copies
releases     wheels, source archives and eggs of the project itself
solution     a file as it is after the change · its lines in patches · its entry in the changelog
packages     the project itself among the packages of its environment
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from trunkline.errors import TaskError
from trunkline.tasks.environments.layout import read_ini, read_toml
from trunkline.tasks.environments.lock import lock_of
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.git_source import is_changelog
from trunkline.tasks.swe.task import is_regular, walk

_HISTORIES = frozenset({".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", ".fossil", "cvs", "packed-refs", "orig_head", "fetch_head"})
_HISTORY_BEGINS = (b"PACK\x00\x00\x00", b"# v2 git bundle", b"# v3 git bundle", b"HG10", b"HG20")
_CACHES = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"})
_LEFT_BEHIND = (".orig", ".rej")
_COMPILED = (".pyc", ".pyo")
_ARCHIVES = (".whl", ".egg", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".conda")
_PATCHES = (".patch", ".diff")
_LEAST_BYTES = 200
"""Of a file that says anything; smaller ones are alike by chance."""
_LEAST_LETTERS = 20
"""Of a line that does."""
_LAID_OUT = frozenset({"review", "inverted"})
"""Variants whose workspace shows states of the source on purpose; what is hidden there is something else."""


def assert_no_future(folder: Path, draft: Draft) -> tuple[str, ...]:
    """Looks through all that a task's directory shows an agent: environment/.

    Args:
        folder: Of the task, written in full.
        draft: What it was made of.

    Returns the checks that were made, for the record. Raises Rejection (write), which says what was found and where.
    """
    environment = folder / "environment"
    files = {path.relative_to(environment).as_posix(): path for path in walk(environment) if is_regular(path)}
    names = _project_names(draft, environment / "workspace")
    for path in walk(environment):
        _check_name(path.relative_to(environment).as_posix(), names)
    for name, path in files.items():
        with path.open("rb") as file:
            if file.read(16).startswith(_HISTORY_BEGINS):
                raise _found("a history", name)
    checks = ["history", "caches", "releases"]
    if draft.variant not in _LAID_OUT:
        _check_contents(draft, {name: path.read_bytes() for name, path in files.items()})
        checks.append("solution")
    _check_packages(folder, files, names)
    return (*checks, "packages")


def _check_name(path: str, names: frozenset[str]) -> None:
    """Of a file or directory."""
    name = PurePosixPath(path).name.casefold()
    if name in _HISTORIES or name.endswith(_LEFT_BEHIND):
        raise _found("a history", path)
    if name in _CACHES or name.endswith(_COMPILED):
        raise _found("a cache", path)
    if name.endswith(_ARCHIVES) and any(re.match(rf"{known.replace('-', '[-_.]+')}-v?\d", name) for known in names):
        raise _found("a release of the project", path)


def _check_contents(draft: Draft, files: Mapping[str, bytes]) -> None:
    """That nothing of the solution is there. What it only moves, or removes elsewhere, was known before."""
    before = {name.removeprefix("workspace/"): content for name, content in files.items() if name.startswith("workspace/")}
    changed = {change.path: change.content for change in draft.solution}
    removed = {content for path, content in before.items() if path in changed}
    new = {content for path, content in changed.items() if len(content) >= _LEAST_BYTES and before.get(path) != content} - removed
    known = set().union(*(_lines(before.get(path, b"")) for path in changed))
    added = {path: _lines(content) - known for path, content in changed.items()}
    everything = set().union(*added.values())
    told = set().union(*(lines for path, lines in added.items() if is_changelog(path)))
    for name, content in files.items():
        if content in new:
            raise _found("a file of the solution", name)
        if name.endswith(_PATCHES) and everything & {line.removeprefix("+").strip() for line in _lines(content)}:
            raise _found("a patch with lines of the solution", name)
        if is_changelog(name) and told & _lines(content):
            raise _found("an entry of the changelog", name)


def _check_packages(folder: Path, files: Mapping[str, Path], names: frozenset[str]) -> None:
    """That no lock names the project."""
    try:
        lock = lock_of(folder)
    except TaskError as error:
        raise Rejection("write", "not a task", str(error)) from error
    for package in lock.files if lock is not None else ():
        if package.name in names:
            raise _found(f"the project itself, version {package.version}, among its packages", "environment/python.toml")
    for name in (name for name in files if name.endswith("package-lock.json") and not name.startswith("workspace/")):
        if {package.rpartition("node_modules/")[2] for package in _npm_packages(files[name])} & names:
            raise _found("the project itself among its packages", f"environment/{name}")


def _npm_packages(path: Path) -> Iterator[str]:
    try:
        packages = json.loads(path.read_bytes()).get("packages", {})
    except (ValueError, AttributeError):
        return
    yield from (name for name in packages if "node_modules/" in name) if isinstance(packages, dict) else ()


def _project_names(draft: Draft, workspace: Path) -> frozenset[str]:
    """What its releases are called: as its own files say, and the last part of what the source calls it."""
    said = [
        draft.candidate.project.rpartition("/")[2],
        read_toml(workspace / "pyproject.toml").get("project", {}).get("name"),
        read_ini(workspace / "setup.cfg").get("metadata", "name", fallback=""),
    ]
    try:
        said.append(json.loads((workspace / "package.json").read_text("utf-8")).get("name"))
    except (OSError, ValueError, AttributeError):
        pass
    return frozenset(re.sub(r"[-_.]+", "-", name).casefold() for name in said if isinstance(name, str) and name)


def _lines(content: bytes) -> set[str]:
    return {words for line in content.decode(errors="replace").splitlines() if len(words := line.strip()) >= _LEAST_LETTERS}


def _found(what: str, where: str) -> Rejection:
    return Rejection("write", "the workspace holds the future", f"{what}: {where}")
