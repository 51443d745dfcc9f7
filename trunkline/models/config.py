"""The shape of a dense decoder and its translation from and to Hugging Face configs. Owns no weights; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trunkline.errors import ConfigError

SUPPORTED_MODEL_TYPES = ("llama", "qwen3")

# What transformers assumes where a config.json is silent.
_DEFAULT_ROPE_THETA = 10000.0
_DEFAULT_RMS_NORM_EPS = 1e-6
_DEFAULT_MAX_POSITIONS = {"llama": 2048, "qwen3": 32768}
_DEFAULT_QWEN3_HEAD_DIM = 128


@dataclass(frozen=True)
class DecoderConfig:
    """A dense decoder of the Llama or Qwen3 family: RMSNorm, rotary embedding, grouped-query attention, gated SiLU.

    >>> DecoderConfig(vocab_size=100, hidden_size=64, intermediate_size=192, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16)
    """

    vocab_size: int
    """Rows of the embedding, one past the largest token id."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the gated feed-forward layer."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key/value heads; divides num_heads."""
    head_dim: int
    """Width of a head; even; need not be hidden_size / num_heads."""
    rope_theta: float = _DEFAULT_ROPE_THETA
    """Base of the rotary embedding."""
    rms_norm_eps: float = _DEFAULT_RMS_NORM_EPS
    """Added to the mean square before the root."""
    qk_norm: bool = False
    """RMSNorm of each query and key head before rotation (Qwen3)."""
    tie_embeddings: bool = False
    """The output head is the embedding matrix."""
    max_positions: int = 2048
    """Longest context in tokens."""
    bos_token_id: int | None = None
    """First token of a text, if the family has one."""
    eos_token_id: int | tuple[int, ...] | None = None
    """Token or tokens that end a completion."""
    pad_token_id: int | None = None
    """Kept for the saved config; flat tokens need no padding."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "max_positions")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_kv_heads must divide num_heads, got {self.num_kv_heads} and {self.num_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even, for the rotary embedding turns pairs; got {self.head_dim}")

    @classmethod
    def from_hf(cls, mapping: Mapping[str, Any]) -> DecoderConfig:
        """Reads the content of a Hugging Face config.json, of transformers 4 or 5.

        Raises:
            ConfigError: another model_type, a missing key, or a feature that this decoder does not compute.
        """
        model_type = mapping.get("model_type")
        if model_type not in SUPPORTED_MODEL_TYPES:
            raise ConfigError(f"model_type {model_type!r} is not supported; supported: {', '.join(SUPPORTED_MODEL_TYPES)}")
        if unsupported := [*_unsupported_features(mapping)]:
            raise ConfigError(f"this {model_type} config asks for what the decoder does not compute: {'; '.join(unsupported)}")
        num_heads, hidden_size = _required(mapping, "num_attention_heads"), _required(mapping, "hidden_size")
        head_dim = _DEFAULT_QWEN3_HEAD_DIM if model_type == "qwen3" else hidden_size // num_heads
        eos = mapping.get("eos_token_id")
        return cls(
            vocab_size=_required(mapping, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=_required(mapping, "intermediate_size"),
            num_layers=_required(mapping, "num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=_given(mapping, "num_key_value_heads", num_heads),
            head_dim=_given(mapping, "head_dim", head_dim),
            rope_theta=float(_rope(mapping).get("rope_theta", _given(mapping, "rope_theta", _DEFAULT_ROPE_THETA))),
            rms_norm_eps=float(_given(mapping, "rms_norm_eps", _DEFAULT_RMS_NORM_EPS)),
            qk_norm=model_type == "qwen3",
            tie_embeddings=bool(mapping.get("tie_word_embeddings", False)),
            max_positions=_given(mapping, "max_position_embeddings", _DEFAULT_MAX_POSITIONS[model_type]),
            bos_token_id=mapping.get("bos_token_id"),
            eos_token_id=tuple(eos) if isinstance(eos, list | tuple) else eos,
            pad_token_id=mapping.get("pad_token_id"),
        )

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the decoder, in its order; a tied head has none."""
        hidden, queries, keys = self.hidden_size, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        layer: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            **({"self_attn.q_norm": (self.head_dim,), "self_attn.k_norm": (self.head_dim,)} if self.qk_norm else {}),
            "mlp.gate_proj": (self.intermediate_size, hidden),
            "mlp.up_proj": (self.intermediate_size, hidden),
            "mlp.down_proj": (hidden, self.intermediate_size),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        return {
            "model.embed_tokens.weight": (self.vocab_size, hidden),
            **{f"model.layers.{index}.{name}.weight": shape for index in range(self.num_layers) for name, shape in layer.items()},
            "model.norm.weight": (hidden,),
            **({} if self.tie_embeddings else {"lm_head.weight": (self.vocab_size, hidden)}),
        }

    def to_hf(self) -> dict[str, Any]:
        """The content of a config.json that transformers 4 and 5, vLLM and from_hf read."""
        return {
            "model_type": "qwen3" if self.qk_norm else "llama",
            "architectures": ["Qwen3ForCausalLM" if self.qk_norm else "LlamaForCausalLM"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "max_position_embeddings": self.max_positions,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(self.eos_token_id) if isinstance(self.eos_token_id, tuple) else self.eos_token_id,
            "pad_token_id": self.pad_token_id,
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


def _unsupported_features(mapping: Mapping[str, Any]) -> Iterator[str]:
    # A family's name over code of its own may compute anything; a tokenizer's code is no matter, tokenizer.json is data.
    if code := {name: where for name, where in (mapping.get("auto_map") or {}).items() if name.startswith("AutoModel")}:
        yield f"code of the folder, which is never run (auto_map {code}); if the weights need none, remove auto_map from config.json"
    rope = _rope(mapping)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        yield f"rope scaling {rope_type!r} (supported: 'default')"
    if nested := [key for key, value in rope.items() if isinstance(value, Mapping)]:
        yield f"rope parameters per layer type {nested}"
    if (factor := _given(rope, "partial_rotary_factor", 1.0)) != 1.0:
        yield f"partial_rotary_factor {factor}"
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if mapping.get(key):
            yield f"{key} {mapping[key]}"
    if (activation := _given(mapping, "hidden_act", "silu")) not in ("silu", "swish"):
        yield f"hidden_act {activation!r} (supported: 'silu')"
    if others := sorted(set(_given(mapping, "layer_types", ())) - {"full_attention"}):
        yield f"layer_types {others} (supported: 'full_attention')"
    if mapping.get("model_type") == "llama" and mapping.get("sliding_window"):
        yield f"sliding_window {mapping['sliding_window']}"
    if mapping.get("quantization_config"):
        yield "quantization_config (save the weights unquantised)"
