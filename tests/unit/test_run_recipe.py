"""Recipes: every shipped one loads, overrides apply, mistakes are named with a remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.run.recipe import dump_recipe, load_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    copy = tmp_path / "resolved.toml"
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy) == recipe


def write(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_override_is_parsed_as_toml_and_bare_words_are_strings(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "seed = 1"), ["seed=7", "stage.optimizer.lr=1e-4", "run_dir=somewhere/else", "name=x"])
    assert (recipe.seed, recipe.stage.optimizer.lr, recipe.run_dir, recipe.name) == (7, 1e-4, Path("somewhere/else"), "x")


def test_base_is_merged_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "seed = 3\n[stage]\nsteps = 5\n[stage.optimizer]\nlr = 1e-3", "below.toml")
    recipe = load_recipe(write(tmp_path, 'base = "below.toml"\n[stage.optimizer]\nlr = 2e-3'))
    assert (recipe.seed, recipe.stage.steps, recipe.stage.optimizer.lr) == (3, 5, 2e-3)


def test_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 'base = "b.toml"', "a.toml")
    write(tmp_path, 'base = "a.toml"', "b.toml")
    with pytest.raises(ConfigError, match="leads back to itself"):
        load_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("sede = 1", "seed"),
        ("[stage]\nstepz = 3", "stage.steps"),
        ("[stage.optimizer]\nlearning_rat = 3", "stage.optimizer"),
        ("groups_per_step = 3", "pool.window.groups_per_step"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path, text: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load_recipe(write(tmp_path, text))
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = -1", "seed"),
        ("seed = [", "not valid TOML"),
        ('[model]\nrenderer = "qwen3"', "model.path"),
        ("[agent]\nmax_tokens = 500", "max_context"),
        ("[cold_start]\ndecision_noise = 1.5", "decision_noise"),
        ("[rewards]\nspeed = -1", "rewards.speed"),
        ('[rewards]\nspeed = 1\n[stage]\nmethod = "supervision"', "trains on no rewards"),
        ('[stage]\nmethod = "rejection_sampling"\n[stage.optimizer]\nlr_end_fraction = 0.5', "total_steps"),
    ],
)
def test_bad_value_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, text))


def test_missing_recipe_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        load_recipe(tmp_path / "absent.toml")


@pytest.mark.parametrize("override", ["seed", "=3", "seed.x=1"])
def test_malformed_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="override|a value, not a section"):
        load_recipe(write(tmp_path, "seed = 1"), [override])


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "trunkline.run.cli", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def test_command_line_reports_a_bad_recipe_in_one_line_and_exits_2(tmp_path: Path) -> None:
    result = run_cli("train", str(write(tmp_path, "sede = 1")))
    assert result.returncode == 2
    assert "did you mean 'seed'" in result.stderr and "Traceback" not in result.stderr


def test_dry_run_prints_the_resolved_recipe_without_torch_or_files(tmp_path: Path) -> None:
    result = run_cli("train", "recipes/quickstart.toml", "--dry-run", f"run_dir={tmp_path / 'r'}")
    assert result.returncode == 0 and "[stage.optimizer]" in result.stdout
    assert not (tmp_path / "r").exists()


def test_help_names_the_commands() -> None:
    result = run_cli("--help")
    assert result.returncode == 0 and "train" in result.stdout and "show" in result.stdout
