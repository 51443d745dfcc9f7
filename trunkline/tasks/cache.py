"""Where tasksets keep what is slow to make again: the folder, and files that appear whole. Owns no content."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_home() -> Path:
    """$TRUNKLINE_HOME, else ~/.cache/trunkline; it may not exist yet."""
    configured = os.environ.get("TRUNKLINE_HOME")
    return Path(configured) if configured else Path.home() / ".cache" / "trunkline"


def write_whole(path: Path, text: str) -> None:
    """Writes `text` so that a reader sees the old file or the new one, never a part, even beside another writer.

    Raises OSError if the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
