"""Whether a task's folder is still what it was when it was loaded. Owns no digest's definition (task.py)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import TaskError
from trunkline.tasks.swe.task import task_digest

_Touched = tuple[tuple[str, int, int, int, int, int], ...]


@dataclass
class FolderSeal:
    """A folder with its digest. Files are read again only where the file system says that something was touched."""

    folder: Path
    """The task."""
    digest: str
    """When it was loaded."""
    _last: tuple[_Touched, str]

    @classmethod
    def of(cls, folder: Path) -> FolderSeal:
        """Reads all files. Raises TaskError for links and for what is no file."""
        touched, digest = _touched(folder), task_digest(folder)
        return cls(folder, digest, (touched, digest))

    def require_whole(self, given_out: object = None) -> None:
        """Raises TaskError if the folder differs from what was loaded, or from the digest of a task that was given out."""
        touched = _touched(self.folder)  # first: what is touched while files are read is seen the next time
        if touched != self._last[0]:
            self._last = (touched, task_digest(self.folder))
        expected = self.digest if given_out is None else given_out
        if self._last[1] != expected:
            raise TaskError(
                f"{self.folder} was changed since this run was given the task (digest {self._last[1]:.12}, not {expected!s:.12}); "
                "restore its files, or certify the task again and start a new run"
            )


def _touched(folder: Path) -> _Touched:
    """What the file system knows of each file; a change of content moves the change time, which no program can set."""
    found = []
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            at = os.lstat(path)
            found.append((path, at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
    return tuple(sorted(found))
