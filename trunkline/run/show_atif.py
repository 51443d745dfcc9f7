"""`trunkline show` and ATIF: episodes as trajectory files, a trajectory file as an episode. Owns files and words; converts nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console

from trunkline import __version__
from trunkline.errors import ConfigError
from trunkline.evals.atif import episode_to_atif, import_trajectory
from trunkline.evals.atif_schema import Agent, read_trajectory, write_trajectory
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.credit import Credit
from trunkline.run.show import RunFiles, print_what_can_be_encoded, read_episode
from trunkline.run.show_episode import legend, plain, print_episode
from trunkline.types import Episode

STDOUT = "-"
"""As a target."""


def export_episode(run_dir: Path, episode_id: str, target: str) -> None:
    """Writes one episode to the file `target`, or to stdout. Raises ConfigError if it is not on record, or the file cannot be written."""
    run = RunFiles.read(run_dir)
    with _journal(run_dir) as journal:
        text = _document(read_episode(journal, episode_id, run_dir), run.recipe)
    if target == STDOUT:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    else:
        _write(Path(target), text)


def export_run(run_dir: Path, target: str, out: Console) -> None:
    """Writes every ended episode to its own file EPISODE.json in the folder `target`. Raises ConfigError if that cannot be."""
    if target == STDOUT:
        raise ConfigError("a run's episodes go to a folder, a file each; give --atif FOLDER, or one episode's id before --atif -")
    folder = Path(target)
    run = RunFiles.read(run_dir)
    num_written = 0
    with _journal(run_dir) as journal:
        for episode in journal.episodes():
            # an id may hold what a file name may not
            _write(folder / f"{quote(episode.episode_id, safe='.-_')}.json", _document(episode, run.recipe))
            num_written += 1
    if not num_written:
        raise ConfigError(f"{run_dir} has no ended episode yet, so nothing was written")
    out.print(f"{num_written} episodes in {folder}", markup=False, highlight=False, soft_wrap=True)


def show_trajectory(path: Path, out: Console) -> None:
    """Prints an ATIF trajectory as an episode, and what of it an episode has no place for. Raises ConfigError if it is none."""
    print_what_can_be_encoded(out)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give a run directory, or an ATIF trajectory (JSON)") from None
    imported = import_trajectory(read_trajectory(text, str(path)))
    out.print(legend(out), soft_wrap=True)
    print_episode(imported.episode, Credit(None, (), "unknown: a trajectory holds no credit"), None, out)
    for what in imported.left_out:
        out.print(plain(f"  not shown: {what}", out), highlight=False, soft_wrap=True)


def _document(episode: Episode, recipe: Mapping[str, Any]) -> str:
    command = recipe.get("agent", {}).get("command")
    name, version = (Path(command[0]).name, "unknown") if command else ("trunkline", __version__)
    return write_trajectory(episode_to_atif(episode, agent=Agent(name=name, version=version, model_name=recipe.get("name"))))


def _journal(run_dir: Path) -> JournalReader:
    path = run_dir / "journal.sqlite"
    if not path.exists():
        raise ConfigError(f"{run_dir} has no journal.sqlite, which alone has tokens and log-probabilities; restore it to export episodes")
    return JournalReader.open(path)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; give another place to --atif") from None
