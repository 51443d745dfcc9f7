"""Hugging Face's config.json, read into a decoder's fields and written from them. Owns what is refused, by name; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trunkline.errors import ConfigError

if TYPE_CHECKING:
    from trunkline.models.config import DecoderConfig

SUPPORTED_MODEL_TYPES = ("llama", "qwen3", "minimax_m2")

# What transformers assumes where a config.json is silent.
_DEFAULT_ROPE_THETA = {"llama": 10000.0, "qwen3": 10000.0, "minimax_m2": 5e6}
_DEFAULT_RMS_NORM_EPS = 1e-6
_DEFAULT_MAX_POSITIONS = {"llama": 2048, "qwen3": 32768, "minimax_m2": 196608}
_DEFAULT_HEAD_DIM = {"qwen3": 128, "minimax_m2": 128}
_QK_NORM = {"llama": "none", "qwen3": "head", "minimax_m2": "full"}
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "minimax_m2": "MiniMaxM2ForCausalLM"}
_FULL_ATTENTION = 1  # in attn_type_list
# The released MiniMax-M2 name their own file for the very architecture that transformers has under the same name.
_RELEASED_CLASSES = ("modeling_minimax_m2.MiniMaxM2ForCausalLM", "modeling_minimax_m2.MiniMaxM2Model")
# The only routing that is computed, as the released MiniMax-M2 configs say it; transformers' saved ones leave these out.
_SPARSE_FACTS: dict[str, Any] = {
    "scoring_func": "sigmoid",
    "use_routing_bias": True,
    "shared_intermediate_size": 0,
    "use_qk_norm": True,
    "qk_norm_type": "per_layer",
}


def fields_from_hf(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """DecoderConfig's fields from the content of a config.json of transformers 4 or 5, or of a released MiniMax-M2.

    The multi-token-prediction keys of MiniMax-M2 (use_mtp, num_mtp_modules, mtp_transformer_layers) are passed over: the
    released checkpoints hold no weights for such modules. So is a quantization_config: it speaks of the files, which say
    for themselves how they store each tensor (source.py).

    Raises:
        ConfigError: another model_type, a missing key, or a feature that the decoder does not compute.
    """
    model_type = mapping.get("model_type")
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise ConfigError(f"model_type {model_type!r} is not supported; supported: {', '.join(SUPPORTED_MODEL_TYPES)}")
    if unsupported := [*_unsupported_features(mapping)]:
        raise ConfigError(f"this {model_type} config asks for what the decoder does not compute: {'; '.join(unsupported)}")
    num_heads, hidden_size = _required(mapping, "num_attention_heads"), _required(mapping, "hidden_size")
    head_dim = _given(mapping, "head_dim", _DEFAULT_HEAD_DIM.get(model_type, hidden_size // num_heads))
    eos = mapping.get("eos_token_id")
    fields = {
        "vocab_size": _required(mapping, "vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": _required(mapping, "intermediate_size"),
        "num_layers": _required(mapping, "num_hidden_layers"),
        "num_heads": num_heads,
        "num_kv_heads": _given(mapping, "num_key_value_heads", num_heads),
        "head_dim": head_dim,
        "rope_theta": float(_rope(mapping).get("rope_theta", _given(mapping, "rope_theta", _DEFAULT_ROPE_THETA[model_type]))),
        "rms_norm_eps": float(_given(mapping, "rms_norm_eps", _DEFAULT_RMS_NORM_EPS)),
        "qk_norm": _QK_NORM[model_type],
        "tie_embeddings": bool(mapping.get("tie_word_embeddings", False)),
        "max_positions": _given(mapping, "max_position_embeddings", _DEFAULT_MAX_POSITIONS[model_type]),
        "bos_token_id": mapping.get("bos_token_id"),
        "eos_token_id": tuple(eos) if isinstance(eos, list | tuple) else eos,
        "pad_token_id": mapping.get("pad_token_id"),
    }
    if model_type == "minimax_m2":
        fields["rotary_dim"] = _rotary_dim(mapping, head_dim)
        fields["num_experts"] = _required(mapping, "num_local_experts")
        fields["experts_per_token"] = _required(mapping, "num_experts_per_tok")
    return fields


def hf_from_config(config: DecoderConfig) -> dict[str, Any]:
    """The content of a config.json that transformers 4 and 5, vLLM and fields_from_hf read."""
    return {
        "model_type": config.family,
        "architectures": [_ARCHITECTURES[config.family]],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_positions,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_id) if isinstance(config.eos_token_id, tuple) else config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        **(_sparse_keys(config) if config.is_sparse else {}),
    }


def _sparse_keys(config: DecoderConfig) -> dict[str, Any]:
    rotary_dim = config.rotary_dim or config.head_dim
    share = rotary_dim / config.head_dim
    return {
        "rotary_dim": rotary_dim,  # for vLLM; transformers reads the share
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta, "partial_rotary_factor": share},
        **_SPARSE_FACTS,
        "attn_type_list": [_FULL_ATTENTION] * config.num_layers,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "use_mtp": False,
        "num_mtp_modules": 0,
    }


def _required(mapping: Mapping[str, Any], key: str) -> int:
    value = mapping.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"config.json needs a positive integer {key!r}, got {value!r}")
    return value


def _given(mapping: Mapping[str, Any], key: str, default: Any) -> Any:
    value = mapping.get(key)  # Hugging Face writes null for "the default"
    return default if value is None else value


def _rope(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping.get("rope_parameters") or mapping.get("rope_scaling") or {}


def _rotary_dim(mapping: Mapping[str, Any], head_dim: int) -> int | None:
    """The released configs give a width, transformers a share of the head; None where the whole head is rotated."""
    factor = _given(_rope(mapping), "partial_rotary_factor", mapping.get("partial_rotary_factor"))
    by_factor = None if factor is None else round(factor * head_dim)
    rotary_dim = _given(mapping, "rotary_dim", head_dim if by_factor is None else by_factor)
    if by_factor not in (None, rotary_dim):
        raise ConfigError(f"rotary_dim {rotary_dim} and partial_rotary_factor {factor} of head_dim {head_dim} disagree; remove one of them")
    return None if rotary_dim == head_dim else rotary_dim


def _unsupported_features(mapping: Mapping[str, Any]) -> Iterator[str]:
    # A family's name over code of its own may compute anything; a tokenizer's code is no matter, tokenizer.json is data.
    known = _RELEASED_CLASSES if mapping["model_type"] == "minimax_m2" else ()
    classes = {name: where for name, where in (mapping.get("auto_map") or {}).items() if name.startswith("AutoModel")}
    if code := {name: where for name, where in classes.items() if where not in known}:
        yield f"code of the folder, which is never run (auto_map {code}); if the weights need none, remove auto_map from config.json"
    rope = _rope(mapping)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        yield f"rope scaling {rope_type!r} (supported: 'default')"
    if nested := [key for key, value in rope.items() if isinstance(value, Mapping)]:
        yield f"rope parameters per layer type {nested}"
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if mapping.get(key):
            yield f"{key} {mapping[key]}"
    if (activation := _given(mapping, "hidden_act", "silu")) not in ("silu", "swish"):
        yield f"hidden_act {activation!r} (supported: 'silu')"
    if others := sorted(set(_given(mapping, "layer_types", ())) - {"full_attention"}):
        yield f"layer_types {others} (supported: 'full_attention')"
    yield from _unsupported_in_sparse(mapping) if mapping["model_type"] == "minimax_m2" else _unsupported_in_dense(mapping)


def _unsupported_in_dense(mapping: Mapping[str, Any]) -> Iterator[str]:
    if (factor := _given(_rope(mapping), "partial_rotary_factor", 1.0)) != 1.0:
        yield f"partial_rotary_factor {factor}"
    if mapping["model_type"] == "llama" and mapping.get("sliding_window"):
        yield f"sliding_window {mapping['sliding_window']}"


def _unsupported_in_sparse(mapping: Mapping[str, Any]) -> Iterator[str]:
    for key, computed in _SPARSE_FACTS.items():
        if (value := _given(mapping, key, computed)) != computed:
            yield f"{key} {value!r} (supported: {computed!r})"
    if others := sorted(set(_given(mapping, "attn_type_list", ())) - {_FULL_ATTENTION}):
        yield f"attn_type_list with {others} (supported: {_FULL_ATTENTION}, full attention)"
    if mapping.get("sliding_window"):
        yield f"sliding_window {mapping['sliding_window']}"
