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
    assert config.qk_norm == "head"
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


# What the released MiniMax-M2 say, but for auto_map's configuration class and the length of attn_type_list.
RELEASED_M2: dict[str, Any] = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "auto_map": {"AutoModelForCausalLM": "modeling_minimax_m2.MiniMaxM2ForCausalLM"},
    "attn_type_list": [1] * 62,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "max_position_embeddings": 196608,
    "mtp_transformer_layers": 1,
    "num_attention_heads": 48,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 62,
    "num_key_value_heads": 8,
    "num_local_experts": 256,
    "num_mtp_modules": 3,
    "qk_norm_type": "per_layer",
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8", "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000,
    "rotary_dim": 64,
    "scoring_func": "sigmoid",
    "shared_intermediate_size": 0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_mtp": True,
    "use_qk_norm": True,
    "use_routing_bias": True,
    "vocab_size": 200064,
}
ROUTING = ("scoring_func", "use_routing_bias", "shared_intermediate_size")
RELEASED_ALONE = ("rotary_dim", "use_qk_norm", "qk_norm_type", "attn_type_list", *ROUTING)


def test_the_released_minimax_m2_is_read() -> None:
    config = DecoderConfig.from_hf(RELEASED_M2)
    assert (config.family, config.qk_norm, config.num_experts, config.experts_per_token) == ("minimax_m2", "full", 256, 8)
    assert (config.head_dim, config.rotary_dim, config.intermediate_size, config.rope_theta) == (128, 64, 1536, 5e6)


def test_a_config_of_transformers_that_leaves_out_the_released_keys_means_the_same() -> None:
    saved = {key: value for key, value in RELEASED_M2.items() if key not in RELEASED_ALONE}
    rope = {"rope_type": "default", "rope_theta": 5000000, "partial_rotary_factor": 0.5}
    assert DecoderConfig.from_hf({**saved, "rope_parameters": rope}) == DecoderConfig.from_hf(RELEASED_M2)
    assert DecoderConfig.from_hf({**saved, "partial_rotary_factor": 0.5}) == DecoderConfig.from_hf(RELEASED_M2)
    assert DecoderConfig.from_hf(saved).rotary_dim is None  # as transformers takes it


@pytest.mark.parametrize("rotary_dim", [64, 128])
def test_a_sparse_config_survives_the_way_to_hugging_face_and_back_with_the_keys_that_other_engines_want(rotary_dim: int) -> None:
    config = DecoderConfig.from_hf({**RELEASED_M2, "rotary_dim": rotary_dim})
    written = config.to_hf()
    assert DecoderConfig.from_hf(written) == config
    assert {key: written[key] for key in RELEASED_ALONE} == {**{key: RELEASED_M2[key] for key in RELEASED_ALONE}, "rotary_dim": rotary_dim}
    assert written["rope_parameters"]["partial_rotary_factor"] == rotary_dim / 128


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scoring_func": "softmax"}, r"scoring_func 'softmax' \(supported: 'sigmoid'\)"),
        ({"shared_intermediate_size": 1536}, r"shared_intermediate_size 1536 \(supported: 0\)"),
        ({"qk_norm_type": "per_head"}, r"qk_norm_type 'per_head' \(supported: 'per_layer'\)"),
        ({"use_qk_norm": False}, r"use_qk_norm False \(supported: True\)"),
        ({"use_routing_bias": False}, r"use_routing_bias False \(supported: True\)"),
        ({"attn_type_list": [1, 0, 1]}, r"attn_type_list with \[0\] \(supported: 1, full attention\)"),
        ({"sliding_window": 128}, "sliding_window 128"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "rotary_dim 64 and partial_rotary_factor 0.25 of head_dim 128 disagree"),
        ({"rotary_dim": 63}, "rotary_dim must be even and 2..head_dim"),
        ({"rotary_dim": 256}, "rotary_dim must be even and 2..head_dim"),
        ({"num_local_experts": None}, "positive integer 'num_local_experts'"),
        ({"num_local_experts": 2**17}, "num_experts must be 0..65536, got 131072"),
        ({"num_experts_per_tok": 257}, r"experts_per_token must be 1..num_experts \(256\), got 257"),
        ({"auto_map": {"AutoModelForCausalLM": "elsewhere.Model"}}, "code of the folder"),
    ],
)
def test_routing_that_the_sparse_decoder_does_not_compute_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        DecoderConfig.from_hf({**RELEASED_M2, **change})


@pytest.mark.parametrize(
    "changes",
    [
        {"qk_norm": "full"},
        {"rotary_dim": 8},
        {"num_experts": 4, "experts_per_token": 2},
        {"num_experts": 4, "experts_per_token": 2, "qk_norm": "head"},
    ],
)
def test_a_mixture_that_no_family_has_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no family has"):
        DecoderConfig(100, 64, 192, 3, 4, 2, 16, **changes)


def test_a_quantised_checkpoint_has_a_readable_config() -> None:
    assert DecoderConfig.from_hf({**LLAMA, "quantization_config": {"bits": 4}}) == DecoderConfig.from_hf(LLAMA)


def test_a_sliding_window_that_qwen3_switches_off_is_no_obstacle() -> None:
    DecoderConfig.from_hf({**LLAMA, "model_type": "qwen3", "sliding_window": 4096, "use_sliding_window": False})


def test_config_tokenizer_and_description_import_neither_torch_nor_transformers() -> None:
    program = "import sys; import trunkline.models.config, trunkline.models.info; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
