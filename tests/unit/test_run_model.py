"""The `trunkline model` commands: what they print and how they fail. What they describe is tested with models/."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.test_models_config import RELEASED_M2
from tests.unit.test_models_gguf import PIECES, UNUSED, write_gguf
from trunkline.run.cli import app


def test_info_of_a_gguf_file_prints_its_shape_its_memory_and_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.run.model._out.width", 200)  # made at import, maybe for a narrower terminal
    path = write_gguf(tmp_path / "model.gguf", architecture="qwen3", tied=True)
    lines = CliRunner().invoke(app, ["model", "info", str(path)], catch_exceptions=False).stdout.splitlines()
    printed = dict(re.split(" {2,}", line.strip(), maxsplit=1) for line in lines)
    assert printed["architecture"] == "qwen3, tied embeddings"
    assert printed["layers"] == "2 of width 64, feed-forward 96"
    assert printed["heads"] == "4 query, 2 key/value, 32 wide"
    assert printed["vocabulary"] == f"{len(PIECES)} ({len(UNUSED)} rows without a token)"
    assert printed["stored as"].startswith("Q8_0, F32, ")
    assert printed["tokenizer"] == f"{len(PIECES) - len(UNUSED)} ids, 2 special: <|im_start|> <|im_end|>"
    assert printed["chat template"] == "reads tools"
    assert printed["KV cache"] == "1.0 kB a token in fp32, 512 B in bf16"
    assert printed["trains here"].startswith("yes: ")


def test_info_of_a_bare_config_of_minimax_m2_prints_its_experts_and_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.run.model._out.width", 200)  # made at import, maybe for a narrower terminal
    path = tmp_path / "config.json"
    path.write_text(json.dumps(RELEASED_M2))
    lines = CliRunner().invoke(app, ["model", "info", str(path)], catch_exceptions=False).stdout.splitlines()
    printed = dict(re.split(" {2,}", line.strip(), maxsplit=1) for line in lines)
    assert printed["architecture"] == "minimax_m2"
    assert printed["parameters"] == "228,689,748,992 (228.69B)"
    assert printed["experts"] == "256 of width 1536 a layer, 8 a token"
    assert printed["active"] == "9,801,344,000 (9.80B) a token, 11,030,537,216 (11.03B) with embedding and head"
    assert printed["stored as"] == "no weights here, only the config, quantised as fp8: not loaded, convert it to bf16 first"
    assert printed["KV cache"] == "507.9 kB a token in fp32, 253,952 B in bf16"
    assert printed["tokenizer"] == "not here"


def test_info_as_json_has_the_same_and_says_whether_it_fits(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    described = json.loads(CliRunner().invoke(app, ["model", "info", str(tmp_path), "--json"], catch_exceptions=False).stdout)
    assert described["path"] == str(path)
    assert described["config"]["num_layers"] == 2
    assert described["training_bytes"] == 4 * described["weight_bytes"] == 16 * described["num_parameters"]
    assert described["engine_bytes"] > described["weight_bytes"]
    assert described["fits"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "absent"], "'absent' is neither a known model nor a path"),
        (["info", "smollm2"], "run: trunkline model fetch smollm2"),
        (["fetch", "gpt-5"], "no model 'gpt-5' to fetch; known: smollm2"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trunkline.run.cli", "model", *arguments]
    result = subprocess.run(command, env={"TRUNKLINE_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
