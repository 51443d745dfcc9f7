"""Files that appear whole or not at all. Owns the temporary name, the sync and the rename; not what is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target` to write; on success it is synced and takes the target's name.

    A reader sees the old file or the new one, never a part. If the block raises, the temporary file is removed and the
    old file stays. Raises OSError if the folder cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
