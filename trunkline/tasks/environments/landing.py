"""How a folder of the cache appears, whole or not at all, and is known to be used. Owns nothing of what is in it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trunkline.errors import InfraError


@contextlib.contextmanager
def landing(folder: Path) -> Iterator[Path]:
    """A new directory to be filled, which becomes `folder` at the end, with files that nobody changes and anyone reads.

    Another process may make the same at the same time: the first one to finish wins. If the block raises, nothing appears. Raises
    InfraError: nothing can be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as scratch:
            new = Path(scratch) / folder.name
            new.mkdir()
            yield new
            for path in (new, *(path for path in new.rglob("*") if not path.is_symlink())):
                is_program = path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if path.is_dir() else 0o555 if is_program else 0o444)
            try:
                os.rename(new, folder)
            except OSError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise InfraError(f"cannot write {folder.parent}: {error}; set TRUNKLINE_HOME to a writable directory") from error


def mark_used(*folders: Path) -> None:
    """`trunkline cache clean --unused-days` goes by this; a cache that cannot be written is no fault."""
    for folder in folders:
        with contextlib.suppress(OSError):
            os.utime(folder)
