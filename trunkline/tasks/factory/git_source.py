"""A local clone as a source of changes: first-parent commits of both source and tests. Owns their choice; reads by history.py.

commits ─► size, words, formatting ─► Candidate, or Rejected with one of few causes
"""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import TaskError
from trunkline.tasks.factory.candidate import Candidate, Rejected, Rejection, Side, SourceText
from trunkline.tasks.factory.history import Commit, History
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.selection import Size, check_change
from trunkline.tasks.formats.git_patch import extract_commit
from trunkline.tasks.swe.syntax import parse

_NUM_DIGITS = 10
_FIX = re.compile(
    r"\b((bug ?)?fix(e[sd]|ing)?|hotfix|bugs?|issues?|close[sd]?|resolve[sd]?|regressions?|crash(es|ed)?|wrong(ly)?|incorrect(ly)?|broken"
    r"|repair|correct(s|ed|ly)?|errors?|exceptions?|fail(s|ed|ures?)?|raises?|reject(s|ed)?"
    r"|handle[sd]?|avoids?|prevents?|don't|do not|missing)\b",
    re.IGNORECASE,
)
_CLOSES = re.compile(r"\b(fix(e[sd])?|close[sd]?|resolve[sd]?):?\s+(issue\s+)?([\w./-]*#|gh-)\d+", re.IGNORECASE)
_RELEASE = re.compile(
    r"((prepar(e|ing)|releas(e|ing)|bump version|version)\b.{0,30}\d+\.\d+.{0,15}|v?\d+\.\d+(\.\d+)*([ab]|rc|\.dev|\.post)?\d*\.?)$",
    re.IGNORECASE,
)
_PULL_REQUEST = re.compile(r"Merge pull request #(\d+)|.*\(#(\d+)\)$")
_CHANGELOG = re.compile(
    r"(changes|changelog|history|news|whatsnew|release[-_ ]?notes|versions?)\b[^/]*$|.*(^|/)(changelog|newsfragments|changes)(\.d)?/",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class GitSource:
    """Implements `trunkline.tasks.factory.candidate.Source`. `GitSource(Path("clones/toolz"), (PythonLanguage(sandboxes),))`."""

    path: Path
    """A clone with its history, bare or not. Nothing is checked out or written in it."""
    languages: Sequence[Language]
    """Say which files are source and tests."""
    project: str = ""
    """Such as 'pytoolz/toolz'; '': as the address that it was cloned from says, else its directory."""
    since: dt.datetime | None = None
    """Older commits are left out, and not counted."""
    only_fixes: bool = False
    """Whether changes that do not say that they mend something are rejected."""
    limit: int | None = None
    """Most candidates; None: all."""
    size: Size = field(default_factory=Size)
    """Of the largest change that is still one task."""

    @property
    def name(self) -> str:
        """Of the project."""
        return self.project or _project_of(History(self.path).origin(), self.path)

    def identity(self) -> Mapping[str, Any]:
        """See `Source`."""
        return {
            "source": "git",
            "project": self.name,
            "head": History(self.path).head(),
            "since": self.since.isoformat() if self.since else None,
            "only_fixes": self.only_fixes,
            "limit": self.limit,
            "most_files": self.size.most_files,
            "most_lines": self.size.most_lines,
        }

    async def candidates(self) -> AsyncIterator[Candidate | Rejected]:
        """See `Source`. Every first-parent commit that changes a file is told of."""
        history, num_found = History(self.path), 0
        head = await asyncio.to_thread(history.head)
        for commit in await asyncio.to_thread(history.commits, head):
            if self.since is not None and commit.date < self.since:
                continue
            if num_found == self.limit:
                return
            found = await asyncio.to_thread(self._judge, history, commit)
            num_found += isinstance(found, Candidate)
            yield found

    async def lay(self, candidate: Candidate, side: Side, target: Path) -> None:
        """See `Source`."""
        commit = candidate.before if side == "before" else candidate.after
        try:
            await asyncio.to_thread(extract_commit, self.path, commit, target)
        except TaskError as error:
            raise Rejection("select", "files cannot be laid", str(error)[:300]) from error

    def _judge(self, history: History, commit: Commit) -> Candidate | Rejected:
        name = f"{self.name.rpartition('/')[2]}-{commit.commit[:_NUM_DIGITS]}"
        try:
            return self._candidate(history, commit, name)
        except Rejection as rejection:
            return Rejected(name, rejection.stage, rejection.cause, rejection.detail or commit.subject)
        except TaskError as error:
            return Rejected(name, "select", "cannot be read", str(error)[:300])

    def _candidate(self, history: History, commit: Commit, name: str) -> Candidate:
        """Raises Rejection, cheap reasons first; TaskError if the clone lacks something."""
        if not commit.parents:
            raise Rejection("select", "no state before", commit.subject)
        if not commit.files:
            raise Rejection("select", "a merge that brings nothing" if commit.is_merge else "an empty commit", commit.subject)
        check_change(dict.fromkeys((file.path for file in commit.files), 0), self.languages, Size(len(commit.files), 0))
        title = _title(commit)
        if _RELEASE.match(title):
            raise Rejection("select", "a release", title)
        is_fix = is_fix_like(title, "\n".join((commit.message, *history.merged_messages(commit))))
        if self.only_fixes and not is_fix:
            raise Rejection("select", "does not say that it mends something", title)
        if any(file.is_submodule for file in commit.files):
            raise Rejection("select", "changes a submodule", title)
        lines = history.num_lines(commit)
        binary = [path for path, count in lines.items() if count is None and self._is_source(path)]
        if binary:
            raise Rejection("select", "binary files", binary[0])
        check_change({path: count or 0 for path, count in lines.items()}, self.languages, self.size)
        self._check_meaning(history, commit)
        return Candidate(
            candidate_id=name,
            project=self.name,
            before=commit.parents[0],
            after=commit.commit,
            date=commit.date,
            texts=tuple(_texts(history, commit)),
            facts=_facts(history, commit, title) | {"fix_like": "yes" if is_fix else "no"},
        )

    def _is_source(self, path: str) -> bool:
        return any(language.role_of(path) == "source" for language in self.languages)

    def _check_meaning(self, history: History, commit: Commit) -> None:
        """Raises Rejection if nothing of the source but its looks is changed."""
        source = [file for file in commit.files if self._is_source(file.path)]
        for file in source:
            before, after = history.content(file.before), history.content(file.after)
            if _meaning(file.path, before) != _meaning(file.path, after):
                return
        raise Rejection("select", "only formatting", f"{source[0].path}: {commit.subject}")


def is_fix_like(title: str, message: str = "") -> bool:
    """Whether a change says that it mends something: by a word of its title (fix, bug, raise, wrong ...), or 'closes #1' anywhere."""
    return bool(_FIX.search(title) or _CLOSES.search(message))


def is_changelog(path: str) -> bool:
    """Whether a file tells what changed between versions, by its name or its directory."""
    return bool(_CHANGELOG.match(path.rpartition("/")[2]) or _CHANGELOG.match(path)) and not path.endswith(".py")


def _title(commit: Commit) -> str:
    """What it is called by people: of a merged pull request its title, which is the body's first line."""
    body = commit.message.partition("\n")[2].strip()
    if commit.is_merge and commit.subject.startswith("Merge ") and body:
        return body.partition("\n")[0].strip()
    return commit.subject


def _texts(history: History, commit: Commit) -> list[SourceText]:
    """Of the commit, of those that it merges, and of the changelog."""
    title = _title(commit)
    _, _, body = commit.message.partition(title)
    is_request = _PULL_REQUEST.match(commit.subject) is not None
    found = [SourceText("pull request" if is_request else "commit", title, body.strip())]
    for message in history.merged_messages(commit):
        first, _, rest = message.partition("\n")
        if not first.startswith("Merge "):
            found.append(SourceText("commit", first.strip(), rest.strip()))
    for file in commit.files:
        added = _added(history.content(file.before), history.content(file.after)) if is_changelog(file.path) else ""
        if added:
            found.append(SourceText("changelog", file.path, added))
    return found


def _added(before: bytes, after: bytes) -> str:
    """Lines of a text that are only in its newer version."""
    known = set(before.decode(errors="replace").splitlines())
    return "\n".join(line for line in after.decode(errors="replace").splitlines() if line not in known).strip()


def _facts(history: History, commit: Commit, title: str) -> dict[str, str]:
    origin = history.origin()
    web = re.sub(r"^git@([^:]+):", r"https://\1/", origin).removesuffix(".git")
    facts = {"commit": commit.commit, "parent": commit.parents[0], "title": title[:200]}
    if web.startswith("https://") and "@" not in web:
        facts["url"] = f"{web}/commit/{commit.commit}"
    return facts


def _meaning(path: str, content: bytes) -> object:
    """What two versions of a file have in common if they differ in looks only: of Python its tree, of others the text without spaces."""
    if path.endswith((".py", ".pyi")):
        try:
            return ast.dump(parse(content.decode()))
        except (SyntaxError, ValueError, RecursionError):
            return content
    return b"".join(content.split())


def _project_of(origin: str, path: Path) -> str:
    """'owner/name' of an address, else the directory's name."""
    parts = [part for part in re.split(r"[/:]", origin.removesuffix(".git").rstrip("/")) if part]
    if origin and len(parts) >= 2 and not Path(origin).is_absolute():
        return "/".join(parts[-2:])
    place = path.absolute()
    name = (place.parent if place.name == ".git" else place).name.removesuffix(".git")
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).strip("-.") or "project"
