"""What `resume=RUN_DIR` asks for: which run goes on, and under which recipe. Owns the reading of it; conductor.py does it.

The recipe in RUN_DIR is what counts. A given one must say the same, but for what changes no training: how it is evaluated, served,
watched and checkpointed. `stage.steps` may grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import ConfigError
from trunkline.run.directory import RunDirectory
from trunkline.run.recipe import Recipe, load_recipe

_RESUME = "resume="
_FREE_SECTIONS = ("evaluation.", "engine.", "metrics.")
_FREE_KEYS = frozenset({"gateway.port", "stage.checkpoint_every"})


@dataclass(frozen=True)
class TrainArguments:
    """The arguments of `trunkline train`, told apart."""

    resume: Path | None
    """The run directory to go on with; None begins a run."""
    recipe: Path | None
    """The recipe's file; it may be left out when a run is resumed."""
    overrides: tuple[str, ...]
    """Dotted overrides."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> TrainArguments:
        """Raises ConfigError if there is neither a recipe nor a run to resume."""
        resumed = [argument.removeprefix(_RESUME) for argument in arguments if argument.startswith(_RESUME)]
        rest = [argument for argument in arguments if not argument.startswith(_RESUME)]
        recipe = Path(rest.pop(0)) if rest and "=" not in rest[0] else None
        if len(resumed) > 1 or (not resumed and recipe is None):
            raise ConfigError(f"give a recipe, or one resume=RUN_DIR, got {' '.join(arguments)!r}")
        return cls(Path(resumed[0]) if resumed else None, recipe, tuple(rest))


@dataclass(frozen=True)
class Resumption:
    """A run that is to go on."""

    directory: RunDirectory
    """Where it is."""
    recipe: Recipe
    """By which it goes on."""
    changed: Mapping[str, tuple[Any, Any]]
    """Knobs that differ from before: (old, new)."""

    @property
    def has_more_steps(self) -> bool:
        """True if the run is to become longer than it was to be."""
        return "stage.steps" in self.changed


def load_resumption(run_dir: Path, recipe: Path | None, overrides: Sequence[str]) -> Resumption:
    """The run in `run_dir` with a recipe that may be given again, or in part as overrides.

    Raises ConfigError if there is no run, or if the recipe differs where it must not, with the keys.
    """
    directory = RunDirectory.open(run_dir)
    written = run_dir / "recipe.toml"
    before, after = load_recipe(written), load_recipe(recipe or written, overrides)
    if after.run_dir in (None, run_dir):
        after = after.model_copy(update={"run_dir": before.run_dir})
    old, new = dict(_knobs(before)), dict(_knobs(after))
    changed = {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)}
    refused = [f"{key} (was {was!r}, now {now!r})" for key, (was, now) in changed.items() if not _may_change(key, was, now)]
    if refused:
        raise ConfigError(
            f"the run in {run_dir} cannot go on under another recipe: {'; '.join(refused)}. Only stage.steps may grow, and evaluation.*, "
            "engine.*, metrics.*, gateway.port and stage.checkpoint_every may change; leave the recipe out to go on as before"
        )
    return Resumption(directory, after, changed)


def _may_change(key: str, was: Any, now: Any) -> bool:
    if key == "stage.steps":
        return bool(now > was)
    return key in _FREE_KEYS or key.startswith(_FREE_SECTIONS)


def _knobs(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    return _leaves(recipe.model_dump(mode="json"), "")


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
