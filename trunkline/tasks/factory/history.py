"""A local clone read by plumbing: its first-parent commits with the files they change. Checks nothing out and owns no choice of commits.

One call of git lists the whole history; the contents of a commit are read only where they are asked for. What merges bring is told
against their first parent, so that a merged branch is one change.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import ConfigError, TaskError

_TIMEOUT_S = 300
_GIT_LINK = "160000"
_MOST_MESSAGES = 20
_ENTRY = re.compile(r":(\d{6}) (\d{6}) ([0-9a-f]+) ([0-9a-f]+) [A-Z]\d*\Z")


@dataclass(frozen=True)
class ChangedFile:
    """A file of a commit that is not as it was before."""

    path: str
    """In the repository."""
    before: str
    """Its content's name in the repository; '' if it was not there."""
    after: str
    """Likewise; '' if it is gone."""
    is_submodule: bool = False
    """It is another repository's commit, not a file."""


@dataclass(frozen=True)
class Commit:
    """A first-parent commit."""

    commit: str
    """Its name, 40 hexadecimal digits."""
    parents: tuple[str, ...]
    """Likewise, the first one is the state before; none of the first commit."""
    date: dt.datetime
    """When it became part of this history, UTC."""
    message: str
    """Subject and body."""
    files: tuple[ChangedFile, ...]
    """What differs from the first parent."""

    @property
    def subject(self) -> str:
        """The first line of its message."""
        return self.message.partition("\n")[0].strip()

    @property
    def is_merge(self) -> bool:
        """Whether a branch was merged by it."""
        return len(self.parents) > 1


@dataclass(frozen=True)
class History:
    """A clone on this host, bare or not; nothing is written in it."""

    repository: Path
    """Its directory."""

    def check(self) -> None:
        """Raises ConfigError if there is no repository here."""
        if not any((self.repository / name).exists() for name in (".git", "HEAD")):
            raise ConfigError(f"{self.repository} is no git repository; clone the project there (git clone URL {self.repository})")

    def head(self) -> str:
        """The newest commit. Raises ConfigError: no repository, no commit."""
        self.check()
        try:
            return self._git(["rev-parse", "--verify", "HEAD^{commit}"]).decode().strip()
        except TaskError as error:
            raise ConfigError(f"{self.repository} has no commit at HEAD: {error}; clone the project again") from None

    def origin(self) -> str:
        """The address that it was cloned from; '' if it does not say."""
        try:
            return self._git(["config", "--get", "remote.origin.url"]).decode().strip()
        except TaskError:
            return ""

    def commits(self, head: str) -> tuple[Commit, ...]:
        """The first-parent commits up to `head`, newest first. Raises TaskError."""
        mark = secrets.token_hex(16)  # no message has it
        form = "".join(f"{mark}{field}" for field in ("%H", "%P", "%ct", "%B", ""))
        walk = ["log", "--first-parent", "--diff-merges=first-parent", "--raw", "--no-abbrev", "--no-renames", "-z", f"--format={form}"]
        told = self._git([*walk, "--end-of-options", head]).decode(errors="replace").split(mark)
        # Each commit is five pieces: name, parents, date, message, and its files up to the next mark.
        return tuple(_commit(told[place : place + 5]) for place in range(1, len(told), 5))

    def num_lines(self, commit: Commit) -> Mapping[str, int | None]:
        """Lines added and removed by file; None of what is no text. Raises TaskError."""
        assert commit.parents, "the first commit has no state before it"
        pair = ["--end-of-options", commit.parents[0], commit.commit]
        told = self._git(["diff-tree", "-r", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv", "-z", *pair])
        rows = (line.split("\t", 2) for line in told.decode(errors="replace").split("\0") if line)
        return {path: None if added == "-" else int(added) + int(removed) for added, removed, path in rows}

    def content(self, name: str) -> bytes:
        """Of a file, by the name that `ChangedFile` has; b'' for ''. Raises TaskError, also if the clone has not got it."""
        return self._git(["cat-file", "blob", name]) if name else b""

    def merged_messages(self, commit: Commit) -> tuple[str, ...]:
        """Of the commits that a merge brings, oldest first, at most 20. Raises TaskError."""
        if not commit.is_merge:
            return ()
        span = ["--end-of-options", *commit.parents[1:], f"^{commit.parents[0]}"]
        told = self._git(["log", "-z", "--no-merges", "--reverse", "--format=%B", *span]).decode(errors="replace")
        return tuple(message.strip() for message in told.split("\0") if message.strip())[:_MOST_MESSAGES]

    def _git(self, arguments: Sequence[str]) -> bytes:
        """What git writes, without anyone's configuration but the clone's. Raises TaskError, ConfigError without git."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C.UTF-8",
        }
        # A clone's own settings could name programs to run; safe.directory is asked for since clones often belong to somebody else.
        settings = (
            "safe.directory=*",
            f"core.hooksPath={os.devnull}",
            "core.fsmonitor=false",
            "log.showSignature=false",
            "protocol.allow=never",
        )
        if not self.repository.is_dir():
            raise ConfigError(f"{self.repository} is no directory; give a local clone, bare or not")
        command = ["git", "--no-pager", *(word for setting in settings for word in ("-c", setting)), *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=self.repository,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            raise ConfigError("git is not installed, and histories are read by it; on Debian: apt-get install git") from None
        except subprocess.TimeoutExpired as error:
            raise TaskError(f"git {arguments[0]} in {self.repository} took longer than {_TIMEOUT_S} s") from error
        if done.returncode:
            raise TaskError(f"git {arguments[0]} in {self.repository}: {done.stderr.decode(errors='replace').strip()[-500:]}")
        return done.stdout


def _commit(pieces: Sequence[str]) -> Commit:
    name, parents, seconds, message, rest = pieces
    date = dt.datetime.fromtimestamp(int(seconds), dt.UTC)
    return Commit(name, tuple(parents.split()), date, message.strip(), tuple(_files(rest)))


def _files(told: str) -> Iterator[ChangedFile]:
    words = [word.lstrip("\n") for word in told.split("\0")]
    for place, word in enumerate(words[:-1]):
        if entry := _ENTRY.match(word):
            mode_before, mode_after, before, after = entry.groups()
            is_submodule = _GIT_LINK in (mode_before, mode_after)
            yield ChangedFile(words[place + 1], before.strip("0") and before, after.strip("0") and after, is_submodule)
