"""What an attempt did to its workspace, as a diff that a record can hold. Owns its bound and what is left out; git makes the diff.

A patch ends with a line of ours where something is left out: `NOTE` and the reason. What stands before it applies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trunkline.errors import TrunklineError
from trunkline.tasks.formats.git_patch import patch_of
from trunkline.types import FileChange

MAX_PATCH_BYTES = 2**20
NOTE = "trunkline: "

_CACHES = frozenset({"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"})
_MOST_NAMED = 5
_FILES = re.compile(r"^(?=diff --git )", re.MULTILINE)


def bounded_patch(workspace: Path, changes: Sequence[FileChange]) -> str:
    """The changes of `workspace`, without caches, as `git apply` takes them: whole files, up to MAX_PATCH_BYTES.

    Where no diff can be made, a note that says why.
    """
    try:
        patch = patch_of([change for change in changes if not _CACHES.intersection(PurePosixPath(change.path).parts)], workspace)
    except (TrunklineError, OSError) as error:
        return f"{NOTE}no diff can be made: {error}".replace("\n", " ") + "\n"
    kept, left_out, room = [], [], MAX_PATCH_BYTES
    for part in filter(None, _FILES.split(patch)):
        size = len(part.encode())
        if size <= room:
            kept.append(part)
            room -= size
        else:
            names = part.partition("\n")[0].removeprefix("diff --git ")
            left_out.append(f"{names[:200]} ({size:,} bytes)")
    if left_out:
        more = f" and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
        kept.append(f"{NOTE}left out, for a record holds {MAX_PATCH_BYTES:,} bytes: {', '.join(left_out[:_MOST_NAMED])}{more}\n")
    return "".join(kept)


def applicable(patch: str) -> str:
    """A recorded patch without our note."""
    before, newline, last = patch.removesuffix("\n").rpartition("\n")
    return before + newline if last.startswith(NOTE) else patch
