"""`trunkline bench engine --quick`: every engine runs on a dense and a sparse model, and the numbers have a form. No speed is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import trunkline
from trunkline.bench.engine.bench import QUICK
from trunkline.bench.engine.contenders import ContinuousBatching, Ours, StaticBatch
from trunkline.errors import TrunklineError

CONTENDERS = (Ours.name, StaticBatch.name, ContinuousBatching.name)
MODELS = ("tiny", "tiny MiniMax-M2")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the files of one run."""
    folder = tmp_path_factory.mktemp("bench")
    trunkline("bench", "engine", "--quick", "--json", str(folder / "r.json"), "--plot", str(folder / "r.png"))
    return folder


@pytest.fixture(scope="module")
def values(folder: Path) -> dict[tuple[str, str], float]:
    rows: list[dict[str, Any]] = json.loads((folder / "r.json").read_text())["rows"]
    assert all(row["holds"] is None for row in rows), "a quick run judges nothing"
    return {(row["row"], row["metric"]): row["value"] for row in rows}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("contender", CONTENDERS)
def test_every_engine_decodes_every_batch(values: dict[tuple[str, str], float], model: str, contender: str) -> None:
    for batch in QUICK.batches:
        assert values[f"{model}, {batch} rows: {contender}", "decoded"] > 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("contender", CONTENDERS)
def test_what_is_recorded_agrees_with_a_full_forward(values: dict[tuple[str, str], float], model: str, contender: str) -> None:
    """Of transformers' model, within 5e-5."""
    assert values[f"{model}: {contender}", "largest logprob error"] <= 5e-5


def test_the_rates_of_the_runs_are_drawn(folder: Path, values: dict[tuple[str, str], float]) -> None:
    assert values and (folder / "r.png").read_bytes().startswith(PNG)


def test_a_model_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(TrunklineError, match="no-such-model"):
        trunkline("bench", "engine", "--model", "no-such-model", "--rounds", "1")
