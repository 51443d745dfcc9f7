"""Models that transformers' code computes, described before their weights are read: the same sizes as loading observes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, Gemma3TextConfig, GPTNeoXConfig, PretrainedConfig, Qwen3MoeConfig
from typer.testing import CliRunner

from trunkline.errors import ConfigError
from trunkline.models.hf_shape import HfShape
from trunkline.models.info import describe_model
from trunkline.models.load import load_policy
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.run.cli import app

torch.set_num_threads(1)

SIZES: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
SPARSE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 8}
WINDOWED = Gemma3TextConfig(**SIZES, head_dim=8, layer_types=["sliding_attention", "full_attention"], sliding_window=100)


def save(config: PretrainedConfig, folder: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    build_tiny_tokenizer(special_tokens=["<|end|>"], pieces=[], characters="abc").save(folder)


@pytest.mark.parametrize(
    "config",
    [
        WINDOWED,
        Gemma3TextConfig(**SIZES, head_dim=8, layer_types=["full_attention"] * 2, sliding_window=100),
        GPTNeoXConfig(**{key: value for key, value in SIZES.items() if key != "num_key_value_heads"}),
        Qwen3MoeConfig(**SIZES, **SPARSE, head_dim=8, num_experts=4),
        DeepseekV3Config(**SIZES | SPARSE | LATENT, n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=1),
    ],
    ids=["gemma3 with a window", "gemma3 without", "gpt_neox", "qwen3_moe", "deepseek_v3, latent attention"],
)
def test_what_a_config_tells_is_what_loading_observes(config: PretrainedConfig, tmp_path: Path) -> None:
    save(config, tmp_path)
    described, policy = describe_model(tmp_path), load_policy(tmp_path)
    assert described.config == policy.config
    assert described.num_parameters == sum(parameter.numel() for parameter in policy.parameters())
    assert described.stored_dtypes.keys() == {"F32"}


def test_a_config_alone_is_enough(tmp_path: Path) -> None:
    save(WINDOWED, tmp_path)
    whole = describe_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    alone = describe_model(tmp_path / "config.json")
    assert (alone.config, alone.num_parameters, alone.num_embedding_parameters) == (whole.config, whole.num_parameters, 53 * 32)
    assert (alone.disk_bytes, alone.tokenizer, alone.stored_dtypes) == (0, None, {})


def test_info_says_whose_code_computes_it_and_where_its_context_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.run.model._out.width", 200)  # made at import, maybe for a narrower terminal
    save(WINDOWED, tmp_path)
    lines = CliRunner().invoke(app, ["model", "info", str(tmp_path)], catch_exceptions=False).stdout.splitlines()
    printed = dict(re.split(" {2,}", line.strip(), maxsplit=1) for line in lines)
    assert printed["architecture"] == "gemma3_text"
    assert printed["context"].startswith("100 tokens, by its sliding window")
    assert printed["trains through"].startswith("transformers' code with our attention (models/hf.py)")
    as_json = json.loads(CliRunner().invoke(app, ["model", "info", str(tmp_path), "--json"], catch_exceptions=False).stdout)
    assert HfShape(**as_json["config"]) == describe_model(tmp_path).config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma99"}, "'gemma99' is not supported; supported: llama, qwen3, .*nor has the installed transformers"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}, "code of a folder .auto_map. is never run"),
        ({"num_hidden_layers": "two"}, "(?s)transformers cannot build the gemma3_text model of .*expected int, got str"),
    ],
)
def test_what_nobody_computes_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**WINDOWED.to_dict(), **changes}))
    with pytest.raises(ConfigError, match=message):
        describe_model(tmp_path)
