"""Archives of a project's files, made by anyone: unpacked within bounds, no file and no link outside the target. Owns no download."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.tasks.factory.candidate import Rejection

MOST_BYTES = 128 * 2**20
"""Unpacked."""
MOST_FILES = 10_000


def unpack(archive: Path, target: Path) -> None:
    """Writes what lies in the one top folder of a tar archive into `target`, which does not exist yet.

    Raises Rejection (select): 'broken archive', 'archive too large', 'odd files'; ConfigError if the target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            _extract(archive, Path(scratch))
            top = _only_folder(Path(scratch), archive.name)
            _check_links(top, archive.name)
            top.rename(target)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error}; check space and permissions") from error


def _extract(archive: Path, scratch: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            members, num_bytes = [], 0
            for member in tar:
                num_bytes += member.size
                members.append(member)
                if num_bytes > MOST_BYTES or len(members) > MOST_FILES:
                    raise Rejection("select", "archive too large", f"{archive.name}: more than {MOST_BYTES} bytes or {MOST_FILES} files")
            tar.extractall(scratch, members=members, filter="data")
    except tarfile.FilterError as error:
        raise Rejection("select", "odd files", f"{archive.name}: {error}") from error
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise Rejection("select", "broken archive", f"{archive.name}: {error}") from error


def _only_folder(scratch: Path, name: str) -> Path:
    found = sorted(scratch.iterdir())
    if len(found) != 1 or found[0].is_symlink() or not found[0].is_dir():
        raise Rejection(
            "select", "odd files", f"{name}: its files do not lie in one top folder, but in {', '.join(p.name for p in found[:5])}"
        )
    return found[0]


def _check_links(top: Path, name: str) -> None:
    """The archive's own filter lets links lead to anywhere in the archive, so also out of the one folder, by '..' and its name."""
    for folder, folders, files in os.walk(top):
        for path in (Path(folder) / entry for entry in (*folders, *files)):
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(top.resolve())):
                raise Rejection("select", "odd files", f"{name}: {path.relative_to(top)} is a link to {path.readlink()}")
