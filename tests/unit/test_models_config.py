"""The config's translation from and to Hugging Face. Owns what is refused and what round-trips; no weights."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 1000.0,
}


def test_the_head_width_of_llama_defaults_to_a_share_of_the_hidden_size() -> None:
    assert DecoderConfig.from_hf(LLAMA).head_dim == 16
    assert DecoderConfig.from_hf({**LLAMA, "head_dim": None}).head_dim == 16
    assert DecoderConfig.from_hf({**LLAMA, "head_dim": 32}).head_dim == 32


def test_qwen3_norms_its_heads_and_has_its_own_default_head_width() -> None:
    config = DecoderConfig.from_hf({**LLAMA, "model_type": "qwen3"})
    assert config.qk_norm
    assert config.head_dim == 128


def test_key_value_heads_default_to_the_query_heads() -> None:
    assert DecoderConfig.from_hf({key: LLAMA[key] for key in LLAMA if key != "num_key_value_heads"}).num_kv_heads == 4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": None},
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_theta": 500.0, "rope_scaling": {"type": "default"}},
    ],
)
def test_the_rotary_base_is_read_from_every_place_it_is_written(rope: dict[str, Any]) -> None:
    assert DecoderConfig.from_hf({**LLAMA, **rope}).rope_theta == 500.0


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
@pytest.mark.parametrize("eos", [None, 2, [2, 3]])
def test_a_config_survives_the_way_to_hugging_face_and_back(model_type: str, eos: Any) -> None:
    config = DecoderConfig.from_hf({**LLAMA, "model_type": model_type, "tie_word_embeddings": True, "eos_token_id": eos, "pad_token_id": 0})
    assert DecoderConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "supported: llama, qwen3"),
        ({"model_type": None}, "supported: llama, qwen3"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope scaling 'llama3'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope scaling 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "rope scaling 'yarn'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "per layer type"),
        ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window"),
        ({"sliding_window": 128}, "sliding_window 128"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": None}, "'hidden_size'"),
        ({"vocab_size": "100"}, "'vocab_size'"),
        ({"num_key_value_heads": 0}, "num_kv_heads must be at least 1, got 0"),
        ({"num_key_value_heads": 3}, "num_kv_heads must divide num_heads"),
        ({"head_dim": 15}, "head_dim must be even"),
        ({"num_hidden_layers": 0}, "positive integer 'num_hidden_layers', got 0"),
        ({"num_attention_heads": 0}, "positive integer 'num_attention_heads', got 0"),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        DecoderConfig.from_hf({**LLAMA, **change})


def test_a_sliding_window_that_qwen3_switches_off_is_no_obstacle() -> None:
    DecoderConfig.from_hf({**LLAMA, "model_type": "qwen3", "sliding_window": 4096, "use_sliding_window": False})


def test_config_and_tokenizer_import_neither_torch_nor_transformers() -> None:
    program = (
        "import sys; import trunkline.models.config, trunkline.models.tokenizer; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
