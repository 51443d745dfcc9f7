"""`trunkline bench trainer`: our side trains on its material, the comparison says what it lacks."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from trunkline.bench.trainer import ours
from trunkline.bench.trainer.bench import TrainerBenchPlan, bench_trainer
from trunkline.bench.trainer.material import SHAPES, save_model
from trunkline.errors import ConfigError


def test_our_side_computes_each_context_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = SHAPES[0]
    save_model(tmp_path / "model")
    ours.main(shape.name, str(tmp_path / "model"), "1", str(tmp_path / "gradient.pt"))
    found = json.loads(capsys.readouterr().out)
    assert len(found["seconds"]) == 1 and math.isfinite(found["loss"])
    assert shape.prompt < found["tokens"] <= shape.prompt + shape.num_samples * shape.completion
    assert all(gradient.abs().sum() > 0 for gradient in torch.load(tmp_path / "gradient.pt").values())


def test_without_trl_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else find_spec(name, *rest))
    with pytest.raises(ConfigError, match=r"pip install 'trunkline\[bench\]'"):
        bench_trainer(TrainerBenchPlan(), tmp_path, lambda *_: None)
