"""`trunkline show` writes a run's episodes as ATIF trajectories, and shows one: files, words, exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.unit.test_evals_atif import FOREIGN, an_episode
from trunkline.errors import ConfigError
from trunkline.evals.atif import atif_to_episode
from trunkline.evals.atif_schema import read_trajectory
from trunkline.pool.journal import Journal
from trunkline.run.cli import app
from trunkline.types import CallFacts, Episode

EPISODE = an_episode(
    *[("s:rules", None), ("u:find x", 0), ("a:look", 1), ("t:3", 2), ("a:it is 3", 3), ("u:look it up", None), ("a:up", 5)],
    calls={2: CallFacts(), 6: CallFacts(lineage="fresh"), 4: CallFacts(lineage="extension")},
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.toml").write_text('name = "small"\nagent.command = ["/usr/bin/my-agent", "--key", "secret"]\n')

    async def record() -> None:
        log = Journal.open(folder / "journal.sqlite")
        for completion in EPISODE.completions:
            await log.record_completion(EPISODE.episode_id, completion, ())
        await log.record_episode(EPISODE)
        await log.close()

    asyncio.run(record())
    return folder


def show(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["show", *map(str, arguments)], catch_exceptions=True)


def episode_in(text: str) -> Episode:
    return atif_to_episode(read_trajectory(text, "what was written"))


def test_one_episode_goes_to_a_file_or_to_stdout(run_dir: Path, tmp_path: Path) -> None:
    assert show(run_dir, "e", "--atif", tmp_path / "new" / "e.json").exit_code == 0
    written = (tmp_path / "new" / "e.json").read_text()
    assert episode_in(written) == EPISODE
    assert show(run_dir, "e", "--atif", "-").stdout == written
    assert json.loads(written)["agent"] == {"name": "my-agent", "version": "unknown", "model_name": "small"}


def test_all_episodes_go_to_a_folder(run_dir: Path, tmp_path: Path) -> None:
    said = show(run_dir, "--atif", tmp_path / "all")
    assert (said.exit_code, said.stdout) == (0, f"1 episodes in {tmp_path / 'all'}\n")
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["e.json"]


def test_a_trajectory_of_ours_is_shown_as_the_episode_that_it_is(run_dir: Path, tmp_path: Path) -> None:
    show(run_dir, "e", "--atif", tmp_path / "e.json")
    text = show(tmp_path / "e.json").stdout
    assert "e · task t · finished · reward 0.5" in text
    assert '[2] assistant: ⟨look look({"at":"x"})⟩' in text
    assert "outcome 0.5: half" in text
    assert "not shown" not in text


def test_a_trajectory_of_another_program_is_shown_with_what_an_episode_has_no_place_for(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(json.dumps(FOREIGN))
    text = show(tmp_path / "f.json").stdout
    assert "run-1 · task  · failed · no reward" in text
    assert "NoVerdict at the verifier boundary: read from an ATIF trajectory, which holds no verdict" in text
    assert "not shown: timestamp of a step" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN", "nope", "--atif", "-"], "no ended episode 'nope' is on record"),
        (["RUN", "--atif", "-"], "give --atif FOLDER"),
        (["RUN", "e", "--atif", "RUN/recipe.toml/e.json"], "cannot write .*; give another place to --atif"),
        (["RUN/recipe.toml"], "recipe.toml is no ATIF trajectory"),
        (["RUN/recipe.toml", "e"], "give a run directory with an episode id or --atif"),
        (["EMPTY", "--atif", "folder"], "has no journal.sqlite, which alone has tokens"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(arguments: list[str], said: str, run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("")
    result = show(*(word.replace("RUN", str(run_dir)).replace("EMPTY", str(tmp_path)) for word in arguments))
    assert isinstance(result.exception, ConfigError)
    with pytest.raises(ConfigError, match=said):
        raise result.exception
