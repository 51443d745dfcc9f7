"""The shape of a decoder, dense or sparse, and of everything it stores. Owns no weights; config.json is hf_config.py's; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trunkline.errors import ConfigError
from trunkline.models.hf_config import fields_from_hf, hf_from_config

MAX_EXPERTS = 2**16
"""Routes are recorded as uint16."""

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "max_positions")


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder of the Llama, Qwen3 or MiniMax-M2 family: RMSNorm, rotary embedding, grouped-query attention, gated SiLU.

    >>> DecoderConfig(vocab_size=100, hidden_size=64, intermediate_size=192, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16)
    """

    vocab_size: int
    """Rows of the embedding, one past the largest token id."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the gated feed-forward layer; of one expert in a sparse model."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key/value heads; divides num_heads."""
    head_dim: int
    """Width of a head; even; need not be hidden_size / num_heads."""
    rope_theta: float = 10000.0
    """Base of the rotary embedding."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square before the root."""
    qk_norm: Literal["none", "head", "full"] = "none"
    """RMSNorm of queries and keys before rotation: of each head (Qwen3), or of all heads' width at once (MiniMax-M2)."""
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
    rotary_dim: int | None = None
    """The first so many dimensions of each head are rotated, the others pass; None: all. Only in the sparse family."""
    num_experts: int = 0
    """Experts of each layer; 0: dense."""
    experts_per_token: int = 0
    """Experts that each token goes to."""

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_kv_heads must divide num_heads, got {self.num_kv_heads} and {self.num_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even, for the rotary embedding turns pairs; got {self.head_dim}")
        if self.rotary_dim is not None and (self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim):
            raise ConfigError(f"rotary_dim must be even and 2..head_dim ({self.head_dim}), got {self.rotary_dim}")
        if not 0 <= self.num_experts <= MAX_EXPERTS:
            raise ConfigError(f"num_experts must be 0..{MAX_EXPERTS}, got {self.num_experts}")
        if not min(1, self.num_experts) <= self.experts_per_token <= self.num_experts:
            raise ConfigError(f"experts_per_token must be 1..num_experts ({self.num_experts}), got {self.experts_per_token}")
        if self.is_sparse != (self.qk_norm == "full") or (self.rotary_dim not in (None, self.head_dim) and not self.is_sparse):
            raise ConfigError(
                f"no family has {self.num_experts} experts, qk_norm {self.qk_norm!r} and rotary_dim {self.rotary_dim}; "
                "experts go with qk_norm 'full', a partial rotary_dim with experts"
            )

    @property
    def is_sparse(self) -> bool:
        """Its feed-forward layers are experts behind a router."""
        return self.num_experts > 0

    @property
    def family(self) -> Literal["llama", "qwen3", "minimax_m2"]:
        """Hugging Face's model_type."""
        return "minimax_m2" if self.is_sparse else "qwen3" if self.qk_norm == "head" else "llama"

    @classmethod
    def from_hf(cls, mapping: Mapping[str, Any]) -> DecoderConfig:
        """Reads the content of a Hugging Face config.json: see hf_config.fields_from_hf, also for the errors."""
        return cls(**fields_from_hf(mapping))

    def to_hf(self) -> dict[str, Any]:
        """The content of a config.json that transformers 4 and 5, vLLM and from_hf read."""
        return hf_from_config(self)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of everything that a checkpoint stores, in the layout of the released files; a tied head has none.

        The decoder's own names are these, but for experts: it holds all of a layer in two stacks (checkpoint.py).
        """
        hidden, queries, keys = self.hidden_size, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        query_norm, key_norm = (self.head_dim, self.head_dim) if self.qk_norm == "head" else (queries, keys)
        layer: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (queries, hidden),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.o_proj.weight": (hidden, queries),
            **({} if self.qk_norm == "none" else {"self_attn.q_norm.weight": (query_norm,), "self_attn.k_norm.weight": (key_norm,)}),
            **(self._expert_shapes() if self.is_sparse else self._feed_forward_shapes("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")),
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
        }
        return {
            "model.embed_tokens.weight": (self.vocab_size, hidden),
            **{f"model.layers.{index}.{name}": shape for index in range(self.num_layers) for name, shape in layer.items()},
            "model.norm.weight": (hidden,),
            **({} if self.tie_embeddings else {"lm_head.weight": (self.vocab_size, hidden)}),
        }

    def _feed_forward_shapes(self, gate: str, up: str, down: str) -> dict[str, tuple[int, ...]]:
        inward = (self.intermediate_size, self.hidden_size)
        return {f"{gate}.weight": inward, f"{up}.weight": inward, f"{down}.weight": inward[::-1]}

    def _expert_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {
            "block_sparse_moe.gate.weight": (self.num_experts, self.hidden_size),
            "block_sparse_moe.e_score_correction_bias": (self.num_experts,),
        }
        for expert in range(self.num_experts):
            stem = f"block_sparse_moe.experts.{expert}"
            shapes |= self._feed_forward_shapes(f"{stem}.w1", f"{stem}.w3", f"{stem}.w2")
        return shapes
