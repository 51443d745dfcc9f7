"""`trunkline cache`: what is kept in $TRUNKLINE_HOME, its size, and taking it away. Owns the list of kinds; each is made elsewhere."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trunkline.errors import ConfigError, InfraError
from trunkline.home import cache_home

cache_app = typer.Typer(no_args_is_help=True, help="What is kept in $TRUNKLINE_HOME: list it, clean it.")
_out = Console()

_DAY_S = 86_400
_KINDS = {
    "models": "what `trunkline model fetch` made",
    "agents": "what `trunkline agent install` installed",
    "certificates": "proofs of verifiers and tasks; made again by certifying",
    "environments": "installed packages of tasks; made again from `packages`",
    "packages": "wheels and archives by hash; fetched again",
    "resolutions": "versions chosen for a task's requirements; chosen again",
    "resolved": "the same of npm",
    "github": "answers and archives of `tasks mine github:...`; asked for again",
    "facts": "tables of the lookup tasks; made again",
}
"""Folders of the cache; facts are files at its top."""


@dataclass(frozen=True)
class Kept:
    """All of one kind."""

    kind: str
    """A key of _KINDS."""
    num_entries: int
    """Models, environments, archives, files ..."""
    num_bytes: int
    """As the files' lengths say."""
    unused_days: float
    """Since the one was made or used that was not for the longest time."""


@cache_app.callback()
def _cache() -> None:
    """What is kept in $TRUNKLINE_HOME: list it, clean it."""


@cache_app.command("list")
def list_kinds(as_json: Annotated[bool, typer.Option("--json", help="A JSON object instead of a table.")] = False) -> None:
    """What is kept, how much it is, and since when the oldest of it was not used."""
    found = [kept for kind in _KINDS if (kept := _kept(kind, _entries(kind)))]
    if as_json:
        _print(json.dumps({"home": str(cache_home()), "kept": [asdict(kept) for kept in found]}))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "entries", "size", "unused", "what it is"):
        table.add_column(title, justify="left" if title in ("kind", "what it is") else "right", no_wrap=title != "what it is")
    for kept in found:
        unused = f"{kept.unused_days:.0f} days"
        table.add_row(kept.kind, f"{kept.num_entries:,}", _megabytes(kept.num_bytes), unused, _KINDS[kept.kind])
    _out.print(table, highlight=False, markup=False)
    _print(f"{_megabytes(sum(kept.num_bytes for kept in found))} in {cache_home()}")


@cache_app.command()
def clean(
    kinds: Annotated[list[str], typer.Argument(metavar="KIND", help="As `trunkline cache list` shows them.")],
    unused_days: Annotated[float, typer.Option(min=0, help="Only what was neither made nor used for so many days.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and stop.")] = False,
) -> None:
    """Take away what is kept. Not while a run, a verdict or a mining call is under way: it may be using it.

    Environments count as used whenever a task asks for them, everything else only when it was made.
    """
    if unknown := sorted(set(kinds) - set(_KINDS)):
        raise ConfigError(f"nothing of the kind {unknown[0]!r} is kept; known are {', '.join(_KINDS)}")
    for kind in dict.fromkeys(kinds):
        old = [path for path in _entries(kind) if _unused_days(path) >= unused_days]
        kept = _kept(kind, old)
        words = f"{kept.num_entries:,} entries, {_megabytes(kept.num_bytes)}" if kept else "nothing"
        if not dry_run:
            _remove(old)
        _print(f"{kind}: {'would take away' if dry_run else 'took away'} {words}")


def _entries(kind: str) -> list[Path]:
    home = cache_home()
    found = home.glob("facts-*") if kind == "facts" else (home / kind).iterdir() if (home / kind).is_dir() else ()
    return sorted(path for path in found if not path.name.startswith("."))  # what is being made has a dot


def _kept(kind: str, entries: list[Path]) -> Kept | None:
    if not entries:
        return None
    num_bytes = sum(size for path in entries for size in _sizes(path))
    return Kept(kind, len(entries), num_bytes, max(map(_unused_days, entries)))


def _sizes(path: Path) -> Iterator[int]:
    if not path.is_dir() or path.is_symlink():
        yield path.lstat().st_size
        return
    for folder, _, names in os.walk(path):
        yield from (os.lstat(os.path.join(folder, name)).st_size for name in names)


def _unused_days(path: Path) -> float:
    return max(0.0, (time.time() - path.lstat().st_mtime) / _DAY_S)


def _remove(entries: list[Path]) -> None:
    """Each whole or not at all, for whoever looks: it is moved aside before it goes."""
    for path in entries:
        try:
            with tempfile.TemporaryDirectory(prefix=".gone-", dir=path.parent) as aside:
                path.rename(Path(aside) / path.name)
        except OSError as error:
            raise InfraError(f"{path} cannot be taken away: {error}; see who may write there, and call again") from error


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _print(line: str) -> None:
    _out.print(line, markup=False, highlight=False, soft_wrap=True)
