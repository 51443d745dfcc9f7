"""The attention function that transformers calls, handing each layer's heads to the caller's Attend. Owns what it refuses; no model.

A call travels through the model as a keyword argument, not as a global: layers that are computed again in the backward pass,
on whichever thread, find the Attend that they were computed with.
"""

# T flat tokens, H query heads, K key/value heads, D head_dim, W width of a value (D, or less with latent attention)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from trunkline.attention.base import Attend
from trunkline.errors import ConfigError

NAME = "trunkline"
KEYWORD = "trunkline_call"
SUPPORTED = (
    "supported are decoders of transformers whose layers all attend causally through the AttentionInterface, and in which "
    "nothing else looks along the tokens: no linear attention, state space, convolution, attention sinks or soft caps of scores"
)
# What else arrives at attention functions and means nothing here: bookkeeping, and a cache that is never used.
_HARMLESS = frozenset({"position_ids", "cache_position", "past_key_values", "layer_idx", "return_dict"})


@dataclass(frozen=True)
class Call:
    """One forward pass, as every attention in it sees it."""

    attend: Attend
    """The caller's."""
    windows: list[int] = field(default_factory=list)
    """Filled on the way: how many tokens an attention sees at most, where that is bounded."""


def register() -> None:
    """Makes NAME known to transformers; again is harmless."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """query_1HTD, key_1KTD and value_1KTW in; out_1THW, and no weights, out."""
    call = given.pop(KEYWORD, None)
    if not isinstance(call, Call):
        raise ConfigError(f"{type(module).__name__} does not receive its model's keyword arguments; {SUPPORTED}")
    scaling, window = given.pop("scaling", None), given.pop("sliding_window", None)
    call.windows.extend(int(bound) for bound in (window, attention_mask) if bound is not None)
    _refuse(module, query, key, given)
    q_THD, k_TKD, v_TKW = (x[0].transpose(0, 1) for x in (query, key, value))
    head_dim, width = q_THD.shape[-1], v_TKW.shape[-1]
    if scaling is not None and scaling != head_dim**-0.5:
        q_THD = q_THD * (scaling * head_dim**0.5)  # an Attend scales by D**-0.5
    out_THD = call.attend(module.layer_idx, q_THD, k_TKD, F.pad(v_TKW, (0, head_dim - width)) if width < head_dim else v_TKW)  # type: ignore[arg-type]
    return out_THD[..., :width].unsqueeze(0), None


def _mask(*_: Any, local_size: int | None = None, **__: Any) -> Tensor | None:
    """No mask, for an Attend decides; but the length of a window or chunk, where its mask is the only place that knows it."""
    return None if local_size is None else torch.full((1, 1, 1, 1), local_size)


def _refuse(module: nn.Module, query: Tensor, key: Tensor, given: dict[str, Any]) -> None:
    asked = {name: value for name, value in given.items() if name not in _HARMLESS and value is not None and value is not False}
    if asked.pop("is_causal", True) is not True or given.get("is_causal") is False:
        raise ConfigError(f"{type(module).__name__} is not causal; {SUPPORTED}")
    if asked.pop("dropout", 0.0):
        raise ConfigError(f"{type(module).__name__} asks for dropout {given['dropout']}, which would differ between sampling and training")
    if asked:
        raise ConfigError(f"{type(module).__name__} asks its attention for {', '.join(sorted(asked))}, which is not computed; {SUPPORTED}")
    if query.shape[2] != key.shape[2]:
        raise ConfigError(f"{type(module).__name__} attends to {key.shape[2]} keys from {query.shape[2]} tokens; {SUPPORTED}")
