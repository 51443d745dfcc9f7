"""The doctor's check of contexts made again, which needs the recipe's parts. Owns the choice of attempts; rebuild.py compares."""

from __future__ import annotations

from pathlib import Path

from trunkline.episodes.rebuild import Rebuilt, rebuild
from trunkline.errors import ConfigError, TrunklineError
from trunkline.evals.doctor_rollouts import rebuilt_contexts
from trunkline.evals.finding import Finding
from trunkline.models.tokenizer import TOKENIZER_FILE, Tokenizer
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.agent_side import loop_settings
from trunkline.run.recipe import Recipe, load_recipe
from trunkline.run.wiring import make_renderer
from trunkline.tasks.catalog import load_taskset
from trunkline.types import Group


def check_rebuilt(run_dir: Path) -> Finding:
    """Makes the contexts of the newest consumed group's attempts again; says why where that is not possible."""
    try:
        recipe = load_recipe(run_dir / "recipe.toml")
        group = _newest_group(run_dir / "journal.sqlite")
        if recipe.agent.command or recipe.agent.adapter:
            return rebuilt_contexts((), why_not="another agent than our own loop made its contexts")
        if group is None:
            return rebuilt_contexts((), why_not="no group was trained yet")
        return rebuilt_contexts(_rebuilt(recipe, run_dir, group))
    except TrunklineError as error:
        return rebuilt_contexts((), why_not=str(error))


def _newest_group(journal: Path) -> Group | None:
    if not journal.exists():
        raise ConfigError("there is no journal.sqlite")
    with JournalReader.open(journal) as reader:
        newest = next(reversed(reader.consumed()), None)
        return None if newest is None else reader.read_group(newest[0])


def _rebuilt(recipe: Recipe, run_dir: Path, group: Group) -> list[Rebuilt]:
    folders = [*sorted((run_dir / "checkpoints").glob("*")), *([recipe.model.folder] if recipe.model.folder else [])]
    folder = next((folder for folder in folders if (folder / TOKENIZER_FILE).exists()), None)
    if folder is None:
        raise ConfigError("the run kept no tokenizer")
    renderer = make_renderer(recipe, Tokenizer.load(folder), folder)
    tools = load_taskset(recipe.taskset.name, recipe.taskset.options).open(group.task).tools.specs
    return [rebuild(episode, loop_settings(recipe), tools, renderer) for episode in group.episodes]
