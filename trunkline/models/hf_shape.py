"""The sizes of a transformers model, read from one forward pass of it rather than from config keys that every architecture names anew.

Owns what follows from sizes: which models are refused for theirs, and how long a context is computed exactly.
"""

# T flat tokens, C hidden_size, H query heads, K key/value heads, D head_dim, V vocabulary

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trunkline.attention.base import CausalAttend
from trunkline.errors import ConfigError
from trunkline.models.hf_attention import SUPPORTED, Call
from trunkline.models.hf_forward import head_logits, hidden_states


@dataclass(frozen=True)
class HfShape:
    """A PolicyShape, as the model showed it in a first forward pass.

    Sparse architectures route by their own code. Their choices of experts are neither recorded nor replayed, so num_experts
    is 0: trainer and engine may choose differently where two experts are close.
    """

    family: str
    """transformers' model_type, such as 'gemma3_text'."""
    vocab_size: int
    """Width of the logits."""
    hidden_size: int
    """Width of the hidden states after the final norm."""
    num_layers: int
    """Decoder layers; each attends once."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key/value heads as they reach attention; with latent attention as many as query heads."""
    head_dim: int
    """Width of a query or key; narrower values are padded to it."""
    max_positions: int
    """Longest context in tokens that is computed exactly."""
    bound: str
    """What sets max_positions: the config, a sliding window or chunk, or the length at which rotary scaling changes."""
    num_experts: int = 0
    """No routes to replay."""
    experts_per_token: int = 0
    """No routes to replay."""

    @property
    def is_sparse(self) -> bool:
        """Whether experts are chosen through a Route: never."""
        return False


@torch.no_grad()
def observe(theirs: PreTrainedModel) -> HfShape:
    """The shape, from a forward pass over two tokens."""
    kind, text_config = theirs.config.model_type, theirs.config.get_text_config()
    seen, ids_T = _Seen(), torch.arange(2, device=theirs.device)
    call = Call(seen)
    try:
        hidden_TC = hidden_states(theirs, ids_T, ids_T, call)
        _check_layers(kind, text_config.num_hidden_layers, seen)
        logits_TV = head_logits(theirs, hidden_TC)
        max_positions, bound = min(bounds(text_config, call.windows))
    except (TypeError, ValueError, RuntimeError, AttributeError, ImportError) as error:  # their code, on what it did not expect
        raise ConfigError(f"{kind} cannot be called as a decoder over flat tokens ({error}); {SUPPORTED}") from error
    num_heads, num_kv_heads, head_dim = seen.heads[0]
    return HfShape(
        family=kind,
        vocab_size=logits_TV.shape[-1],
        hidden_size=hidden_TC.shape[-1],
        num_layers=len(seen.layers),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        max_positions=max_positions,
        bound=bound,
    )


def _check_layers(kind: str, num_layers: int, seen: _Seen) -> None:
    if sorted(seen.layers) != list(range(num_layers)):  # a layer that attends twice would overwrite its own cached keys
        found = f"in {len(set(seen.layers))} of its {num_layers} layers, {len(seen.layers)} times in all"
        raise ConfigError(f"{kind} attends {found}, not once in each layer, through the AttentionInterface; {SUPPORTED}")
    if len(set(seen.heads)) > 1:
        shapes = ", ".join(f"{heads}/{kv_heads} of width {width}" for heads, kv_heads, width in sorted(set(seen.heads)))
        raise ConfigError(f"the layers of {kind} have different heads ({shapes}); caches and kernels here take one shape")


def bounds(text_config: Any, windows: list[int]) -> Iterator[tuple[int, str]]:
    """Lengths up to which every token sees all of its past and is rotated alike in every batch, with what sets them."""
    yield text_config.max_position_embeddings, "the config's max_position_embeddings"
    for window in set(windows):
        yield window, "its sliding window or chunk, which attention over branches does not cut"
    rope = getattr(text_config, "rope_parameters", None) or {}
    for scaling in (rope, *rope.values()):
        if isinstance(scaling, Mapping) and scaling.get("rope_type") == "longrope":
            yield scaling["original_max_position_embeddings"], "where its rotary scaling changes with the longest context of a batch"


class _Seen:
    """An Attend that notes layer and heads of each call."""

    def __init__(self) -> None:
        self.layers: list[int] = []
        self.heads: list[tuple[int, int, int]] = []

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        self.layers.append(layer)
        self.heads.append((q_THD.shape[1], k_TKD.shape[1], k_TKD.shape[2]))
        return CausalAttend()(layer, q_THD, k_TKD, v_TKD)
